"""The nuclear norm: it recovers low rank from i.i.d. measurements, and nothing from a core."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.recovery import RecoveryProblem, System, recover
from cosa_theory.recovery.solvers.nuclear import nuclear
from tests.recovery.convex import assert_gap_is_proven, explicit_of, gaussian, noisy


def spectral(shape):
    return lambda v: float(np.linalg.norm(v.reshape(shape), 2))


def low_rank(m, n, rank, seed):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((m, rank)) @ rng.standard_normal((rank, n))


def test_low_rank_is_recovered_from_unstructured_measurements():
    X = low_rank(12, 10, 2, 1)
    Phi, _ = gaussian(90, 120, seed=1)
    result = recover(RecoveryProblem(Phi, Phi @ X.ravel(), shape=(12, 10)), "nuclear")
    assert result.status == "optimal"
    assert result.relative_error(X) < 1e-5
    assert_gap_is_proven(Phi, Phi @ X.ravel(), 0.0, result, spectral((12, 10)))
    assert result.estimate.shape == (12, 10)


def test_rank_one_is_not_recovered_from_a_core_with_a_proof_that_nothing_is_smaller():
    basis = CosaBasis.sample(12, 10, 9, 10, seed=2, scale="analysis")  # 90 measurements again
    X = low_rank(12, 10, 1, 2)
    y = basis.encode(X)
    result = recover(RecoveryProblem(basis.sensing(), y), "nuclear")
    assert result.status == "optimal"
    assert result.iterations == 0
    assert result.certificate.relative < 1e-12
    assert_gap_is_proven(explicit_of(basis.sensing()), y, 0.0, result, spectral((12, 10)))
    assert result.objective < np.linalg.norm(X, "nuc") * (1 - 1e-2)
    assert result.relative_error(X) > 0.1
    # a rank-one matrix that the core does not see at all
    u = np.linalg.svd(basis.L.T)[2][-1]
    assert np.abs(basis.encode(np.outer(u, np.ones(10)))).max() < 1e-12


@settings(max_examples=25, deadline=None)
@given(*(st.integers(1, 7) for _ in range(4)), st.integers(0, 999))
def test_from_a_core_the_only_minimiser_is_the_least_norm_answer(m, n, a, b, seed):
    rng = np.random.default_rng(seed)
    operator = KroneckerOperator(rng.standard_normal((min(a, m), m)), rng.standard_normal((b, n)))
    X = rng.standard_normal((m, n))
    problem = RecoveryProblem(operator, operator.apply(X))
    result, least = recover(problem, "nuclear"), recover(problem, "least_norm")
    assert (result.status, result.iterations) == ("optimal", 0)
    np.testing.assert_allclose(result.estimate, least.estimate, atol=1e-9)
    # any other matrix with these measurements has a greater norm
    other = rng.standard_normal((m, n))
    other = other - recover(RecoveryProblem(operator, operator.apply(other)), "least_norm").estimate
    if np.linalg.norm(other) > 1e-6:
        greater = np.linalg.norm(least.estimate + other, "nuc")
        assert greater > result.objective * (1 + 1e-12)


@pytest.mark.parametrize("kind", ["kronecker", "plain"])
def test_with_noise_the_answer_is_proven_and_uses_the_noise_level(kind):
    X = low_rank(8, 7, 1, 3)
    if kind == "plain":
        operator, shape = gaussian(40, 56, seed=3)[0], (8, 7)
        y, sigma = noisy(operator @ X.ravel(), 0.05)
    else:
        operator, shape = CosaBasis.sample(8, 7, 6, 5, seed=3).sensing(), None
        y, sigma = noisy(operator.apply(X), 0.05)
    result = recover(RecoveryProblem(operator, y, noise_level=sigma, shape=shape), "nuclear")
    assert result.status == "optimal"
    assert result.iterations > 0
    assert_gap_is_proven(explicit_of(operator), y, sigma, result, spectral((8, 7)))
    assert result.residual == pytest.approx(sigma / np.linalg.norm(y), rel=1e-6)


def test_scaling_and_rotations_carry_over():
    rng = np.random.default_rng(4)
    Phi, _ = gaussian(40, 56, seed=4)
    X = low_rank(8, 7, 1, 4)
    y = Phi @ X.ravel()
    base = recover(RecoveryProblem(Phi, y, shape=(8, 7)), "nuclear").estimate
    for factor in (1e-6, 1e6):
        scaled = recover(RecoveryProblem(Phi, factor * y, shape=(8, 7)), "nuclear").estimate
        np.testing.assert_allclose(scaled / factor, base, atol=1e-5)
    Q = np.linalg.qr(rng.standard_normal((8, 8)))[0]
    turned = (Phi.reshape(-1, 8, 7).transpose(0, 2, 1) @ Q.T).transpose(0, 2, 1)
    rotated = recover(RecoveryProblem(turned.reshape(40, 56), y, shape=(8, 7)), "nuclear").estimate
    np.testing.assert_allclose(rotated, Q @ base, atol=1e-5)


def test_batches_single_precision_warm_starts_and_histories():
    X = np.stack([low_rank(8, 7, rank, rank) for rank in (1, 2)])
    Phi, _ = gaussian(50, 56, seed=5)
    y = X.reshape(2, -1) @ Phi.T
    together = recover(RecoveryProblem(Phi, y, shape=(8, 7)), "nuclear")
    for i in range(2):
        alone = recover(RecoveryProblem(Phi, y[i], shape=(8, 7)), "nuclear")
        np.testing.assert_allclose(together.estimate[i], alone.estimate, atol=1e-12)
    assert together.history["certificate"].shape == (len(together.history["iteration"]), 2)
    lower = together.history["objective"] * (1 - together.history["certificate"])
    assert (lower <= together.objective * (1 + 1e-6)).all()
    single = recover(RecoveryProblem(Phi, y.astype(np.float32), shape=(8, 7)), "nuclear")
    assert single.estimate.dtype == np.float32
    np.testing.assert_allclose(single.estimate, together.estimate, atol=1e-4)
    seen = []
    warm = recover(
        RecoveryProblem(Phi, y, shape=(8, 7)),
        "nuclear",
        start=together.estimate,
        monitor=lambda iteration, gap, X: seen.append((iteration, X.shape)),
    )
    assert (warm.iterations <= together.iterations).all()
    assert seen[0] == (0, (8, 7))


def test_what_cannot_be_explained_or_finished_says_so():
    basis = CosaBasis.sample(8, 7, 3, 3, seed=6)
    off = np.random.default_rng(6).standard_normal((8, 7))
    system = System(basis.dictionary(), (3, 3))
    solution = nuclear(system, off[None])
    assert solution.status == ("infeasible",)
    assert "away from the range" in solution.message
    assert not solution.certificate.holds.any()
    Phi, _ = gaussian(40, 56, seed=6)
    problem = RecoveryProblem(Phi, Phi @ low_rank(8, 7, 3, 6).ravel(), shape=(8, 7))
    short = recover(problem, "nuclear", max_iterations=3)
    assert short.status == "iteration limit"
    assert short.residual < 1e-10
    y, sigma = noisy(problem.Y[0], 0.1)
    problem = RecoveryProblem(Phi, y.ravel(), noise_level=sigma, shape=(8, 7))
    long = recover(problem, "nuclear", tolerance=0.0, max_iterations=20000)
    assert long.status == "stalled"
    assert long.certificate.relative < 1e-9
