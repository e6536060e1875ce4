"""Analysis form of ℓ1: proven gaps, cvxpy, and agreement with synthesis for orthonormal Ω."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import CosaBasis
from cosa_theory.linear.transforms import DCT, Coordinate, Wavelet
from cosa_theory.recovery import RecoveryProblem, System, recover
from cosa_theory.recovery.analysis_operators import Differences, Orthonormal, Stacked, analysis_of
from cosa_theory.recovery.solvers.analysis import AnalysisDual, analysis
from tests.recovery.convex import (
    OPERATORS,
    cvxpy_answer,
    gaussian,
    kronecker,
    noisy,
    sparse_updates,
)

OMEGAS = {
    "differences": Differences,
    "dct+identity": lambda shape: Stacked(DCT(), shape),
    "dct": lambda shape: Orthonormal(DCT(), shape),
}


def matrix_of(operator, shape):
    units = np.eye(shape[0] * shape[1]).reshape(-1, *shape)
    return np.stack([operator.apply(unit).ravel() for unit in units], axis=1)


def blocks(m, n, seed=0):
    """A piecewise constant matrix."""
    X = np.zeros((m, n))
    X[: m // 2, n // 3 :] = 1.0
    X[m // 3 :, : n // 2] -= 0.5 + seed
    return X


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(OMEGAS)), st.integers(1, 6), st.integers(1, 6), st.integers(0, 99))
def test_each_operator_is_what_it_says(name, m, n, seed):
    rng = np.random.default_rng(seed)
    omega = OMEGAS[name]((m, n))
    X, G = rng.standard_normal((2, m, n))
    U = rng.standard_normal(omega.apply(X).shape)
    assert np.vdot(omega.apply(X), U) == pytest.approx(np.vdot(X, omega.adjoint(U)), abs=1e-10)
    explicit = matrix_of(omega, (m, n))
    norm = np.linalg.norm(explicit, 2)
    if norm > 0:
        assert norm * (1 - 1e-14) <= omega.norm <= norm * (1 + 1e-12)
    expected = np.linalg.pinv(explicit.T @ explicit) @ G.ravel()
    np.testing.assert_allclose(omega.solve(G).ravel(), expected, atol=1e-9)
    kernel = omega.kernel.reshape(len(omega.kernel), m * n)
    assert len(kernel) == m * n - np.linalg.matrix_rank(explicit)
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(len(kernel)), atol=1e-12)
    np.testing.assert_allclose(explicit @ kernel.T, 0.0, atol=1e-12)


def test_the_default_problem_is_recovered():
    basis = CosaBasis.sample(128, 128, 64, 64, seed=1, scale="analysis")
    X = sparse_updates(1, 128, 128, 60, 1)[0]
    result = recover(RecoveryProblem(basis.sensing(), basis.encode(X)), "analysis")
    assert result.status == "optimal"
    assert result.relative_error(X) < 1e-6


def test_piecewise_constant_updates_are_recovered_by_differences_alone():
    operator, _ = kronecker(16, 14, 11, 10, seed=2)
    X = blocks(16, 14)
    problem = RecoveryProblem(operator, operator.apply(X))
    assert recover(problem, "analysis").relative_error(X) < 1e-5
    assert recover(problem, "basis_pursuit").relative_error(X) > 0.1


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("omega", sorted(OMEGAS))
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_answers_agree_with_cvxpy_and_their_gaps_hold(kind, omega, share):
    operator, explicit = OPERATORS[kind](seed=3)
    X = blocks(9, 8) if omega == "differences" else DCT().inverse(sparse_updates(1, 9, 8, 3, 3)[0])
    y, sigma = noisy((explicit @ X.ravel()).reshape(-1), share)
    shape = (9, 8) if kind == "plain" else None
    problem = RecoveryProblem(operator, y, noise_level=sigma, shape=shape)
    chosen = DCT() if omega == "dct" else omega
    result = recover(problem, "analysis", omega=chosen, max_iterations=60000)
    Omega = matrix_of(OMEGAS[omega]((9, 8)), (9, 8))
    expected = cvxpy_answer(explicit, y, sigma, Omega)
    assert result.status == "optimal"
    assert result.objective == pytest.approx(np.abs(Omega @ expected).sum(), rel=1e-6)
    # on a ball an error of the minimiser is the square root of one of the objective, cvxpy's too
    allowed = 1e-6 if share == 0 else 1e-5
    assert np.linalg.norm(result.estimate.ravel() - expected) < allowed * np.linalg.norm(expected)
    # the gap again, from the dual point alone: Φᵀν must be Ωᵀu for some u of modulus at most one
    nu = result.certificate.dual.ravel()
    u = smallest_multiplier(Omega, explicit.T @ nu)
    assert u <= 1 + 1e-7
    gap = result.objective - nu @ y + sigma * np.linalg.norm(nu)
    assert gap == pytest.approx(result.certificate.value, abs=1e-10 * result.objective)
    assert abs(gap) <= 1e-8 * result.objective
    assert result.objective == pytest.approx(np.abs(Omega @ result.estimate.ravel()).sum())


def smallest_multiplier(Omega, g):
    """The least ‖u‖_∞ with Ωᵀu = g, by linear programming."""
    from scipy.optimize import linprog

    rows, columns = Omega.shape
    cost = np.r_[np.zeros(rows), 1.0]
    equal = np.hstack([Omega.T, np.zeros((columns, 1))])
    box = np.block([[np.eye(rows), -np.ones((rows, 1))], [-np.eye(rows), -np.ones((rows, 1))]])
    # a redundant equation may miss by rounding, which least squares takes out
    projected = Omega.T @ np.linalg.lstsq(Omega.T, g, rcond=None)[0]
    assert np.linalg.norm(projected - g) <= 1e-9 * np.linalg.norm(g)
    bounds = [(None, None)] * rows + [(0, None)]
    found = linprog(cost, box, np.zeros(2 * rows), equal, projected, bounds, method="highs")
    assert found.success
    return found.fun


@pytest.mark.parametrize("omega", sorted(OMEGAS))
def test_any_multiplier_gives_a_feasible_dual_point(omega):
    operator, explicit = kronecker(seed=11)
    system = System(operator, (9, 8))
    space = system.row_space(np.zeros(1))
    chosen = OMEGAS[omega]((9, 8))
    Omega = matrix_of(chosen, (9, 8))
    u = np.random.default_rng(11).uniform(-1, 1, chosen.apply(np.zeros((9, 8))).shape)
    D, size = AnalysisDual(system, space, chosen).feasible(u)
    g = space.coefficients(D).ravel()
    nu = space.measurements(D / space.values).ravel()
    np.testing.assert_allclose(explicit.T @ nu, g, atol=1e-10)
    assert smallest_multiplier(Omega, g) <= size * (1 + 1e-9)
    # without a part that Ωᵀ does not see, u' is the least-squares multiplier of g
    w = np.random.default_rng(12).standard_normal((9, 8))
    D, size = AnalysisDual(system, space, chosen).feasible(chosen.apply(w))
    least = np.linalg.pinv(Omega.T) @ space.coefficients(D).ravel()
    assert size == pytest.approx(np.abs(least).max(), rel=1e-9)


@pytest.mark.parametrize("transform", [DCT(), Wavelet("haar")], ids=["dct", "wavelet"])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_for_an_orthonormal_operator_analysis_is_synthesis(transform, share):
    operator, _ = kronecker(16, 8, 11, 6, seed=4)
    X = transform.inverse(sparse_updates(1, 16, 8, 5, 4)[0])
    y, sigma = noisy(operator.apply(X), share)
    synthesis = recover(
        RecoveryProblem(operator, y, noise_level=sigma, basis=transform.name)
        if transform.name == "dct"
        else RecoveryProblem(operator, y, noise_level=sigma, basis=transform),
        "bpdn",
    )
    problem = RecoveryProblem(operator, y, noise_level=sigma)
    found = recover(problem, "analysis", omega=transform, max_iterations=60000, tolerance=1e-10)
    assert found.status == synthesis.status == "optimal"
    assert found.objective == pytest.approx(synthesis.objective, rel=1e-8)
    distance = np.linalg.norm(found.estimate - synthesis.estimate)
    assert distance < 1e-6 * np.linalg.norm(synthesis.estimate)


@pytest.mark.parametrize("factor", [1e-7, 1e7])
def test_scaling_carries_over(factor):
    operator, _ = kronecker(9, 8, 7, 6, seed=5)
    y = operator.apply(blocks(9, 8))
    base = recover(RecoveryProblem(operator, y), "analysis")
    scaled = recover(RecoveryProblem(operator, factor * y), "analysis")
    np.testing.assert_allclose(scaled.estimate / factor, base.estimate, atol=1e-6)
    assert scaled.iterations == base.iterations


def test_flips_of_the_update_carry_over():
    rng = np.random.default_rng(6)
    Phi = rng.standard_normal((50, 72))
    y = Phi @ blocks(9, 8).ravel()
    base = recover(RecoveryProblem(Phi, y, shape=(9, 8)), "analysis").estimate
    flipped = Phi.reshape(-1, 9, 8)[:, ::-1].reshape(50, 72)
    other = recover(RecoveryProblem(flipped, y, shape=(9, 8)), "analysis").estimate
    np.testing.assert_allclose(other, base[::-1], atol=1e-6)


def test_constants_cost_nothing_and_are_found():
    operator, _ = kronecker(9, 8, 3, 3, seed=7)
    X = np.full((9, 8), 2.5)
    result = recover(RecoveryProblem(operator, operator.apply(X)), "analysis")
    np.testing.assert_allclose(result.estimate, X, atol=1e-5)
    assert result.objective < 1e-4


def test_batches_single_precision_warm_starts_and_monitors():
    operator, _ = kronecker(9, 8, 7, 6, seed=8)
    X = np.stack([blocks(9, 8), blocks(9, 8, 1)])
    y = operator.apply(X)
    together = recover(RecoveryProblem(operator, y), "analysis")
    for i in range(2):
        alone = recover(RecoveryProblem(operator, y[i]), "analysis")
        np.testing.assert_allclose(together.estimate[i], alone.estimate, atol=1e-10)
    single = recover(RecoveryProblem(operator, y.astype(np.float32)), "analysis")
    assert single.estimate.dtype == np.float32
    np.testing.assert_allclose(single.estimate, together.estimate, atol=1e-4)
    seen = []
    warm = recover(
        RecoveryProblem(operator, y[0]),
        "analysis",
        start=together.estimate[0],
        monitor=lambda iteration, gap, X: seen.append(gap),
    )
    assert warm.iterations <= together.iterations[0]
    np.testing.assert_allclose(seen, warm.history["certificate"][:, 0])


def test_what_cannot_be_explained_or_finished_says_so():
    basis = CosaBasis.sample(8, 7, 3, 3, seed=9)
    system = System(basis.dictionary(), (3, 3))
    off = np.random.default_rng(9).standard_normal((1, 8, 7))
    solution = analysis(system, off)
    assert solution.status == ("infeasible",)
    assert not solution.certificate.holds.any()
    assert solution.history["iteration"].size == 0
    operator, _ = kronecker(9, 8, 7, 6, seed=9)
    problem = RecoveryProblem(operator, operator.apply(blocks(9, 8)))
    short = recover(problem, "analysis", max_iterations=30)
    assert short.status == "iteration limit"
    assert short.iterations == 30
    assert short.residual < 1e-10
    best = recover(problem, "analysis").objective
    assert short.objective - short.certificate.value <= best * (1 + 1e-8)
    long = recover(problem, "analysis", tolerance=0.0, max_iterations=100000)
    assert long.status == "stalled"
    assert long.certificate.relative < 1e-9


def test_an_operator_of_ones_own_is_taken_and_anything_else_refused():
    own = Stacked(Coordinate(), (9, 8))  # twice the entries: basis pursuit again
    operator, _ = gaussian(40, 72, seed=10)
    X = sparse_updates(1, 9, 8, 4, 10)[0]
    problem = RecoveryProblem(operator, operator @ X.ravel(), shape=(9, 8))
    result = recover(problem, "analysis", omega=own)
    assert result.relative_error(X) < 1e-6
    assert result.objective == pytest.approx(2 * np.abs(X).sum(), rel=1e-6)
    for wrong in ("gradient", 3, object()):
        with pytest.raises(ValueError, match="omega is"):
            analysis_of(wrong, (9, 8))


def test_the_objective_and_the_gap_are_those_of_the_answer_that_single_precision_stores():
    basis = CosaBasis.sample(9, 8, 6, 5, seed=1, scale="analysis")
    update = np.full((9, 8), 1000.0)
    update[3:, 4:] += 1e-2
    measured = basis.encode(update).astype(np.float32)
    result = recover(RecoveryProblem(basis.sensing(), measured), "analysis", max_iterations=2000)
    stored = result.estimate.astype(np.float64)
    variation = np.abs(np.diff(stored, axis=0)).sum() + np.abs(np.diff(stored, axis=1)).sum()
    assert result.objective == pytest.approx(variation, rel=1e-12)
    dual = np.asarray(result.certificate.dual, dtype=np.float64)
    gap = variation - float(np.vdot(measured.astype(np.float64), dual))
    assert result.certificate.value == pytest.approx(gap, abs=1e-6 * variation)
    assert (result.status == "optimal") == bool(abs(gap) <= 1e-5 * variation)
