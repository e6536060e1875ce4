"""AMP follows state evolution for independent entries, and is damped elsewhere."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from cosa_theory.laws.recovery import l1_weak_threshold
from cosa_theory.projections import stream
from cosa_theory.recovery import RecoveryProblem, recover
from cosa_theory.recovery.solvers.amp import minimax_threshold
from tests.recovery.sparse_problems import dictionary, kronecker, noise_like, plain


def soft(v, t):
    return math.copysign(max(abs(v) - t, 0.0), v)


def thresholding_error(share, scale, threshold):
    """E(η(X + σZ; τσ) − X)² for X that is standard normal with probability `share`, else zero."""
    t = threshold * scale
    zero = 2 * quad(lambda z: (z - t) ** 2 * norm.pdf(z, scale=scale), t, t + 12 * scale)[0]
    spread = math.sqrt(1 + scale**2)  # of V = X + σZ; E(X | V) = V/(1 + σ²)
    bias = quad(
        lambda v: (soft(v, t) - v / spread**2) ** 2 * norm.pdf(v, scale=spread),
        -12 * spread,
        12 * spread,
        points=[-t, t],
        limit=200,
    )[0]
    return (1 - share) * zero + share * (bias + scale**2 / spread**2)


def normal_entries(rows, columns, count, seed):
    """A Gaussian matrix and a vector with so many normal entries, whose mean square is 1."""
    draw = stream(seed, "normal entries", rows, columns)
    matrix = draw.standard_normal((rows, columns)) / math.sqrt(rows)
    x = np.zeros(columns)
    entries = draw.standard_normal(count)
    x[draw.choice(columns, count, replace=False)] = entries * math.sqrt(
        count / np.vdot(entries, entries)
    )
    return matrix, x


def test_its_mean_squared_error_follows_state_evolution():
    rows, columns, count, steps, trials, threshold = 1000, 2000, 240, 5, 24, 1.4
    errors = []
    for trial in range(trials):
        matrix, x = normal_entries(rows, columns, count, trial)
        iterates = []
        recover(
            RecoveryProblem(matrix, matrix @ x),
            "amp",
            threshold=threshold,
            max_iterations=steps,
            monitor=lambda number, residual, X, seen=iterates: seen.append(X.ravel()),
        )
        errors.append([np.mean((iterate - x) ** 2) for iterate in iterates])
    means, spreads = np.mean(errors, axis=0), np.std(errors, axis=0, ddof=1) / math.sqrt(trials)
    expected = count / columns  # of x = 0
    for step in range(steps):
        scale = math.sqrt(expected * columns / rows)
        expected = thresholding_error(count / columns, scale, threshold)
        # The shift of the mean at finite sizes, O(1/N), is well below the spread here.
        assert abs(means[step] - expected) < 4 * spreads[step]
        assert spreads[step] < 0.05 * expected  # or the line above would say little


@pytest.mark.parametrize("d", [0.1, 0.25, 0.5, 0.75])
def test_the_minimax_threshold_attains_the_weak_threshold_of_l1(d):
    def bearable(z):
        g = (1 + z**2) * norm.sf(z) - z * norm.pdf(z)
        return (1 - 2 * g / d) / (1 + z**2 - 2 * g)

    z = minimax_threshold(d)
    assert bearable(z) == pytest.approx(l1_weak_threshold(d), abs=1e-10)
    assert bearable(z) > max(bearable(z - 0.01), bearable(z + 0.01))


@pytest.mark.parametrize("d", [0.25, 0.5])
def test_it_succeeds_below_the_weak_threshold_and_fails_above(d):
    columns = 1000
    rows = int(d * columns)
    for share, success in ((0.8, True), (1.25, False)):
        for seed in range(3):
            known = plain(rows, columns, int(share * l1_weak_threshold(d) * rows), seed=seed)
            result = recover(known.problem(), "amp", max_iterations=600)
            assert (result.relative_error(known.truth) < 1e-4) == success
            assert (result.status == "fitted") == success


@pytest.mark.parametrize("kind", ["gaussian", "haar", "srht", "achlioptas"])
def test_a_kronecker_problem_is_solved_damped_and_the_reason_given(kind):
    known = kronecker(64, 96, 32, 40, 20, kind=kind)
    result = recover(known.problem(), "amp")
    assert "Kronecker" in result.message
    assert "damped" in result.message
    assert result.status == "fitted"
    np.testing.assert_allclose(result.estimate, known.truth, atol=1e-5)


def test_no_damping_is_reported_for_independent_entries():
    assert recover(plain(80, 200, 8).problem(), "amp").message == ""


def test_without_damping_a_kronecker_problem_diverges_and_the_best_iterate_is_returned():
    known = kronecker(64, 64, 16, 16, 20)
    problem = known.problem()
    result = recover(problem, "amp", damping=1.0, threshold=1.0)
    assert result.status == "diverged"
    assert np.isfinite(result.estimate).all()
    assert result.certificate.value == pytest.approx(result.history["residual"].min())
    assert result.history["residual"].max() < 1e4 * np.linalg.norm(known.measurements)
    assert not result.certificate.holds


def test_columns_of_any_length_give_the_same_iterations():
    known = plain(80, 200, 8)
    lengths = 10.0 ** np.random.default_rng(1).uniform(-3, 3, 200)
    result = recover(RecoveryProblem(known.operator * lengths, known.measurements), "amp")
    plainly = recover(known.problem(), "amp")
    assert result.iterations == plainly.iterations
    np.testing.assert_allclose(result.estimate * lengths, plainly.estimate, atol=1e-9)


def test_zero_columns_stay_zero():
    known = plain(80, 200, 4)
    matrix = known.operator.copy()
    matrix[:, ::7] = 0.0
    result = recover(RecoveryProblem(matrix, matrix @ known.truth[0]), "amp")
    assert not result.estimate[0, ::7].any()
    wanted = np.where(np.arange(200) % 7 == 0, 0.0, known.truth[0])
    np.testing.assert_allclose(result.estimate[0], wanted, atol=1e-6)


def test_a_sparse_core_and_a_tall_matrix_are_solved_at_once():
    known = dictionary(24, 30, 10, 9, 12)
    result = recover(known.problem(), "amp")
    np.testing.assert_allclose(result.core, known.truth, atol=1e-7)
    np.testing.assert_array_equal(result.support, known.truth != 0)


@pytest.mark.parametrize("sides", [(1, 1, 1, 1), (2, 2, 2, 2), (3, 60, 3, 20)])
def test_sides_too_short_for_medians_are_no_obstacle(sides):
    known = kronecker(*sides, 1)
    np.testing.assert_allclose(recover(known.problem(), "amp").estimate, known.truth, atol=1e-6)


def test_a_system_that_measures_nothing_is_refused():
    with pytest.raises(ValueError, match="measures nothing"):
        recover(RecoveryProblem(np.zeros((4, 6)), np.ones(4)), "amp")


@pytest.mark.parametrize("known", [plain(80, 200, 8), kronecker(40, 48, 24, 26, 10)])
def test_noise_is_explained_by_least_squares_on_the_support_it_finds(known):
    sigma = 0.02 * float(np.linalg.norm(known.measurements))
    y = known.measurements + noise_like(known.measurements, sigma)
    result = recover(RecoveryProblem(known.operator, y, noise_level=1.001 * sigma), "amp")
    assert result.status == "fitted"
    assert result.certificate.value <= 1.001 * sigma
    assert result.relative_error(known.truth) < 0.1


def test_a_batch_single_precision_and_a_warm_start():
    known = plain(80, 200, 8)
    stack = np.stack([known.measurements, -2 * known.measurements])
    batch = recover(RecoveryProblem(known.operator, stack), "amp")
    np.testing.assert_allclose(batch.estimate[:, 0], np.outer([1, -2], known.truth[0]), atol=1e-6)
    single = recover(RecoveryProblem(known.operator, stack.astype(np.float32)), "amp")
    assert single.estimate.dtype == np.float32
    np.testing.assert_allclose(single.estimate, batch.estimate, atol=1e-3)
    warm = recover(known.problem(), "amp", start=known.truth)
    assert warm.iterations < batch.iterations[0] / 2
