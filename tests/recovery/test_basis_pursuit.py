"""Basis pursuit and its form with noise: right against cvxpy, certified, and equivariant."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.recovery import RecoveryProblem, System, recover
from cosa_theory.recovery import constraint as constraint_module
from cosa_theory.recovery.constraint import constraint_of
from cosa_theory.recovery.pursuit_polish import Polisher
from cosa_theory.recovery.solvers.basis_pursuit import bpdn
from cosa_theory.recovery.support import GramFactor
from tests.recovery.convex import (
    OPERATORS,
    assert_gap_is_proven,
    cvxpy_answer,
    kronecker,
    noisy,
    sparse_updates,
)


def infinity(v):
    return float(np.abs(v).max())


def distance(X, Z):
    return np.linalg.norm(np.ravel(X) - np.ravel(Z)) / np.linalg.norm(Z)


def measured(operator, X):
    if isinstance(operator, KroneckerOperator):
        return operator.apply(X)
    return X.reshape(len(X), -1) @ operator.T


def test_the_default_problem_is_recovered_exactly_and_proven_optimal():
    basis = CosaBasis.sample(128, 128, 64, 64, seed=3, scale="analysis")
    X = sparse_updates(1, 128, 128, 60, 3)[0]
    for method in ("basis_pursuit", "bpdn"):
        result = recover(RecoveryProblem(basis.sensing(), basis.encode(X)), method)
        assert result.status == "optimal"
        assert result.relative_error(X) < 1e-12
        assert result.certificate.relative < 1e-12
        assert result.iterations <= 100
        assert np.count_nonzero(result.coefficients) == 60


def test_with_noise_and_few_nonzeros_a_lasso_shows_the_way():
    basis = CosaBasis.sample(128, 128, 64, 64, seed=3, scale="analysis")
    X = sparse_updates(1, 128, 128, 60, 3)[0]
    y, sigma = noisy(basis.encode(X), 0.02)
    problem = RecoveryProblem(basis.sensing(), y, noise_level=sigma)
    result = recover(problem, "bpdn")
    cold = recover(problem, "bpdn", start=np.zeros((128, 128)))
    assert result.status == cold.status == "optimal"
    assert 2 * result.iterations < cold.iterations
    assert distance(result.estimate, cold.estimate) < 1e-7


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("share", [0.0, 0.2])
@pytest.mark.parametrize("sparsity", [5, 25])
def test_answers_agree_with_cvxpy_and_their_gaps_hold(kind, share, sparsity):
    operator, explicit = OPERATORS[kind](seed=4)
    X = sparse_updates(1, 9, 8, sparsity, 4)
    y, sigma = noisy(measured(operator, X)[0], share)
    result = recover(RecoveryProblem(operator, y, noise_level=sigma), "bpdn")
    expected = cvxpy_answer(explicit, y.ravel(), sigma)
    assert result.status == "optimal"
    assert distance(result.coefficients, expected) < 1e-6
    assert_gap_is_proven(explicit, y, sigma, result, infinity)
    assert result.objective == pytest.approx(np.abs(result.coefficients).sum(), rel=1e-12)


def test_without_polish_the_iterates_alone_reach_the_same_answer():
    operator, explicit = kronecker(seed=5)
    for share in (0.0, 0.1):
        y, sigma = noisy(operator.apply(sparse_updates(1, 9, 8, 5, 5))[0], share)
        problem = RecoveryProblem(operator, y, noise_level=sigma)
        plain = recover(problem, "bpdn", polish=False)
        polished = recover(problem, "bpdn")
        assert plain.status == polished.status == "optimal"
        assert distance(plain.coefficients, polished.coefficients) < 1e-5
        assert_gap_is_proven(explicit, y, sigma, plain, infinity)
        assert plain.iterations > polished.iterations
        assert "projected on the constraint" in plain.message
        assert not polished.message


def test_without_noise_and_with_it_basis_pursuit_asks_for_equality():
    operator, _ = kronecker(seed=6)
    y, sigma = noisy(operator.apply(sparse_updates(1, 9, 8, 3, 6))[0], 0.1)
    quiet = recover(RecoveryProblem(operator, y), "basis_pursuit")
    told = recover(RecoveryProblem(operator, y, noise_level=sigma), "basis_pursuit")
    assert quiet.residual < 1e-12
    assert np.array_equal(quiet.estimate, told.estimate)
    assert "noise level is not used" in told.message
    allowed = recover(RecoveryProblem(operator, y, noise_level=sigma), "bpdn")
    assert np.linalg.norm(operator.apply(allowed.estimate) - y) == pytest.approx(sigma, rel=1e-9)
    assert allowed.objective < quiet.objective


@settings(max_examples=10, deadline=None)
@given(
    st.integers(0, 10**6),
    st.floats(-8, 8),
    st.floats(-3, 3),
    st.booleans(),
)
def test_scaling_permutation_and_signs_of_the_columns_carry_over(seed, decade, other, with_noise):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((4, 6)), rng.standard_normal((5, 7))
    X = sparse_updates(1, 6, 7, 3, seed)
    y = KroneckerOperator(A, B).apply(X)
    sigma = 0.1 * float(np.linalg.norm(y)) if with_noise else 0.0
    base = bpdn(System(KroneckerOperator(A, B), (6, 7)), y, noise_level=sigma)
    t, c = 10.0**decade, 10.0**other
    scaled = bpdn(System(KroneckerOperator(c * A, B), (6, 7)), t * y, noise_level=t * sigma)
    np.testing.assert_allclose(
        scaled.coefficients * (c / t), base.coefficients, atol=1e-6 * np.abs(X).max()
    )
    rows, columns = rng.permutation(6), rng.permutation(7)
    signs = rng.choice([-1.0, 1.0], 6)
    moved = bpdn(
        System(KroneckerOperator((A * signs)[:, rows], B[:, columns]), (6, 7)),
        y,
        noise_level=sigma,
    )
    expected = (base.coefficients * signs[:, None])[:, rows][:, :, columns]
    np.testing.assert_allclose(moved.coefficients, expected, atol=1e-6 * np.abs(X).max())


def test_a_batch_gives_what_its_items_give_alone():
    operator, _ = kronecker(12, 10, 8, 7, seed=7)
    X = np.concatenate([sparse_updates(1, 12, 10, s, s) for s in (2, 6, 30)])
    Y = operator.apply(X)
    for sigma in (0.0, 0.05 * float(np.linalg.norm(Y, axis=(1, 2)).min())):
        together = recover(RecoveryProblem(operator, Y, noise_level=sigma), "bpdn")
        alone = [recover(RecoveryProblem(operator, y, noise_level=sigma), "bpdn") for y in Y]
        assert together.statuses == tuple(one.status for one in alone)
        assert set(together.statuses) == {"optimal"}
        for i, one in enumerate(alone):
            assert distance(together.coefficients[i], one.coefficients) < 1e-8
            assert together.objective[i] == pytest.approx(one.objective, rel=1e-9)
            assert together.iterations[i] == one.iterations
        assert together.iterations.min() < together.iterations.max()


@pytest.mark.parametrize("share", [0.0, 0.1])
def test_tensors_and_arrays_give_the_same(share):
    operator, _ = kronecker(12, 10, 8, 7, seed=8)
    y, sigma = noisy(operator.apply(sparse_updates(2, 12, 10, 6, 8)), share)
    sigma = sigma / 2
    host = recover(RecoveryProblem(operator, y, noise_level=sigma), "bpdn")
    tensor = recover(RecoveryProblem(operator, torch.tensor(y), noise_level=sigma), "bpdn")
    assert isinstance(tensor.estimate, torch.Tensor)
    assert isinstance(tensor.certificate.dual, torch.Tensor)
    assert tensor.statuses == host.statuses == ("optimal", "optimal")
    np.testing.assert_allclose(tensor.estimate.numpy(), host.estimate, atol=1e-9)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_gives_the_same():
    operator, _ = kronecker(12, 10, 8, 7, seed=8)
    y = operator.apply(sparse_updates(2, 12, 10, 6, 8))
    host = recover(RecoveryProblem(operator, y), "basis_pursuit")
    device = recover(RecoveryProblem(operator, torch.tensor(y, device="cuda")), "basis_pursuit")
    assert device.estimate.is_cuda
    np.testing.assert_allclose(device.estimate.cpu().numpy(), host.estimate, atol=1e-9)


@pytest.mark.parametrize("polish", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.1])
def test_single_precision_stops_honestly(share, polish):
    operator, _ = kronecker(12, 10, 8, 7, seed=9)
    y, sigma = noisy(operator.apply(sparse_updates(1, 12, 10, 6, 9))[0], share)
    double = recover(RecoveryProblem(operator, y, noise_level=sigma), "bpdn")
    for convert in (np.asarray, torch.tensor):
        problem = RecoveryProblem(operator, convert(y.astype(np.float32)), noise_level=sigma)
        single = recover(problem, "bpdn", polish=polish)
        assert str(single.estimate.dtype).endswith("float32")
        assert single.status == "optimal"
        assert single.certificate.relative <= 1e-5
        assert distance(single.estimate, double.estimate) < 1e-3
        if polish:
            assert distance(single.estimate, double.estimate) < 1e-6
            assert np.array_equal(np.asarray(single.support), np.asarray(double.support))


def test_an_exact_answer_that_does_not_survive_rounding_is_not_called_optimal():
    operator, _ = kronecker(12, 10, 8, 7, seed=9)
    y, sigma = noisy(operator.apply(sparse_updates(1, 12, 10, 6, 9))[0], 0.1)
    problem = RecoveryProblem(operator, y.astype(np.float32), noise_level=sigma)
    result = recover(problem, "bpdn", tolerance=1e-12)
    assert result.iterations < 100  # polished, in double precision
    assert result.certificate.relative > 1e-12
    assert result.status == "stalled"


def test_a_warm_start_takes_fewer_iterations():
    operator, _ = kronecker(24, 20, 14, 12, seed=10)
    X = sparse_updates(1, 24, 20, 20, 10)[0]
    y, sigma = noisy(operator.apply(X), 0.01)
    for level, right_side in ((0.0, operator.apply(X)), (sigma, y)):
        problem = RecoveryProblem(operator, right_side, noise_level=level)
        cold = recover(problem, "bpdn")
        warm = recover(problem, "bpdn", start=cold.estimate)
        assert warm.status == cold.status == "optimal"
        assert warm.iterations < cold.iterations
        assert distance(warm.estimate, cold.estimate) < 1e-9
    elsewhere = recover(problem, "bpdn", start=np.ones_like(X), polish=False)
    assert elsewhere.status == "optimal"
    assert distance(elsewhere.estimate, cold.estimate) < 1e-5


def test_measurements_out_of_range_are_infeasible_unless_the_noise_level_reaches_them():
    rng = np.random.default_rng(11)
    basis = CosaBasis.sample(12, 10, 5, 4, seed=11)
    operator = basis.dictionary()
    core = np.zeros((5, 4))
    core[1, 2], core[3, 0] = 1.0, -2.0
    exact = basis.synthesize(core)
    off = rng.standard_normal(exact.shape)
    off -= basis.synthesize(basis.best_core(off))
    off *= 0.3 * np.linalg.norm(exact) / np.linalg.norm(off)
    y = exact + off
    away = float(np.linalg.norm(off))
    good = recover(RecoveryProblem(operator, exact), "basis_pursuit")
    assert good.status == "optimal"
    np.testing.assert_allclose(good.core, core, atol=1e-12)
    single = recover(RecoveryProblem(operator, exact.astype(np.float32)), "basis_pursuit")
    assert single.status == "optimal"
    for method, sigma in (("basis_pursuit", 0.0), ("bpdn", 0.5 * away)):
        result = recover(RecoveryProblem(operator, y, noise_level=sigma), method)
        assert result.status == "infeasible"
        assert f"{away:.3g}" in result.message
        assert not result.certificate.holds
        assert result.iterations == 0
    mixed = recover(RecoveryProblem(operator, np.stack([exact, y])), "basis_pursuit")
    assert mixed.statuses == ("optimal", "infeasible")
    sigma = 1.2 * away
    allowed = recover(RecoveryProblem(operator, y, noise_level=sigma), "bpdn")
    assert allowed.status == "optimal"
    explicit = np.kron(*(np.asarray(factor) for factor in operator.factors))
    assert_gap_is_proven(explicit, y, sigma, allowed, infinity)
    expected = cvxpy_answer(explicit, y.ravel(), sigma)
    assert distance(allowed.core, expected) < 1e-6


def test_a_rank_deficient_operator_is_solved_in_its_range():
    rng = np.random.default_rng(12)
    A, B = rng.standard_normal((5, 7)), rng.standard_normal((4, 6))
    A[4] = A[0] + A[1]
    X = sparse_updates(1, 7, 6, 2, 12)[0]
    operator = KroneckerOperator(A, B)
    y = operator.apply(X)
    result = recover(RecoveryProblem(operator, y), "basis_pursuit")
    assert result.status == "optimal"
    expected = cvxpy_answer(np.kron(A[:4], B), y[:4].ravel())
    assert distance(result.estimate, expected) < 1e-6
    y[4] += 1.0
    assert recover(RecoveryProblem(operator, y), "basis_pursuit").status == "infeasible"


def test_too_few_iterations_give_a_feasible_answer_with_a_true_gap():
    operator, explicit = kronecker(seed=13)
    for share in (0.0, 0.1):
        y, sigma = noisy(operator.apply(sparse_updates(1, 9, 8, 20, 13))[0], share)
        problem = RecoveryProblem(operator, y, noise_level=sigma)
        result = recover(problem, "bpdn", max_iterations=7)
        assert result.status == "iteration limit"
        assert result.iterations == 7
        assert_gap_is_proven(explicit, y, sigma, result, infinity)
        best = recover(problem, "bpdn").objective
        lower = result.objective - result.certificate.value
        assert lower <= best * (1 + 1e-12) <= result.objective * (1 + 1e-12)


def test_an_unreachable_tolerance_ends_as_stalled():
    operator, _ = kronecker(seed=14)
    y = operator.apply(sparse_updates(1, 9, 8, 4, 14))[0]
    result = recover(RecoveryProblem(operator, y), "basis_pursuit", tolerance=0.0, polish=False)
    assert result.status == "stalled"
    assert result.iterations < 5000
    assert result.certificate.relative < 1e-12


def test_history_and_monitor_follow_every_item():
    operator, _ = kronecker(12, 10, 8, 7, seed=15)
    X = np.concatenate([sparse_updates(1, 12, 10, s, s) for s in (2, 30)])
    seen = []
    result = recover(
        RecoveryProblem(operator, operator.apply(X)),
        "basis_pursuit",
        monitor=lambda iteration, gap, x: seen.append((iteration, gap, x.shape[0])),
    )
    history = result.history
    assert [one[0] for one in seen] == history["iteration"].tolist()
    assert history["certificate"].shape == history["objective"].shape == (len(seen), 2)
    assert (seen[0][2], seen[-1][2]) == (2, 1)
    np.testing.assert_allclose(history["objective"][-1], result.objective, rtol=1e-9)
    # every check is an upper bound of the optimum, every gap a lower bound of it
    lower = history["objective"] * (1 - history["certificate"])
    assert (lower <= result.objective * (1 + 1e-9)).all()
    assert (history["objective"] >= result.objective * (1 - 1e-9)).all()


def test_zero_measurements_and_a_noise_level_that_explains_everything_give_zero():
    operator, _ = kronecker(seed=16)
    system = System(operator, (9, 8))
    y = operator.apply(sparse_updates(1, 9, 8, 4, 16))
    for right_side, sigma in ((0 * y, 0.0), (y, 2 * float(np.linalg.norm(y)))):
        solution = bpdn(system, right_side, noise_level=sigma)
        assert not solution.coefficients.any()
        assert solution.status == ("optimal",)
        assert solution.certificate.value[0] == 0


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.floats(-2, 1), st.booleans())
def test_the_projection_on_the_constraint_is_the_nearest_point(seed, decade, warm):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((3, 4)), rng.standard_normal((6, 5))
    system = System(KroneckerOperator(A, B), (4, 5))
    Y = system.apply(rng.standard_normal((3, 4, 5))) + rng.standard_normal((3, 3, 6))
    base = constraint_of(system, Y, 100.0)
    sigma = float(base.distance.max() + 10.0**decade)
    constraint = constraint_of(system, Y, sigma)
    H = rng.standard_normal(constraint.centre.shape) * 10.0 ** rng.uniform(-3, 3)
    start = np.exp(rng.uniform(-20, 20, (3, 1, 1))) if warm else None
    C, mu = constraint.project(H, start)
    missed = np.linalg.norm(system.apply(system.row_space(Y).coefficients(C)) - Y, axis=(1, 2))
    assert (missed <= sigma * (1 + 1e-9)).all()
    # optimality: H − C is μ times the gradient of half the squared residual, and μ = 0 inside
    gradient = constraint.space.values**2 * (C - constraint.centre)
    np.testing.assert_allclose(H - C, mu * gradient, atol=1e-7 * max(1.0, np.abs(H).max()))
    assert (mu >= 0).all()
    outside = mu.ravel() > 0
    np.testing.assert_allclose(missed[outside], sigma, rtol=1e-6)
    np.testing.assert_allclose(constraint.residual(C), missed, rtol=1e-9)


def test_newton_needs_few_steps(monkeypatch):
    monkeypatch.setattr(constraint_module, "_NEWTON_STEPS", 9)
    rng = np.random.default_rng(20)
    system = System(
        KroneckerOperator(rng.standard_normal((6, 9)), rng.standard_normal((7, 8))), (9, 8)
    )
    Y = system.apply(rng.standard_normal((5, 9, 8)))
    constraint = constraint_of(system, Y, 1e-3)
    C, _ = constraint.project(0 * constraint.centre)
    np.testing.assert_allclose(constraint.residual(C), 1e-3, rtol=1e-9)


def test_dual_points_attain_the_dual_value():
    rng = np.random.default_rng(17)
    A, B = rng.standard_normal((6, 4)), rng.standard_normal((3, 5))
    system = System(KroneckerOperator(A, B), (4, 5))
    Y = rng.standard_normal((2, 6, 3))
    sigma = float(constraint_of(system, Y, 100.0).distance.max() + 0.5)
    constraint = constraint_of(system, Y, sigma)
    D = rng.standard_normal(constraint.centre.shape)
    nu = constraint.dual_point(D)
    value = np.einsum("bij,bij->b", Y, nu) - sigma * np.linalg.norm(nu, axis=(1, 2))
    np.testing.assert_allclose(value, constraint.dual_value(D), rtol=1e-9)
    np.testing.assert_allclose(
        system.apply_adjoint(nu), constraint.space.coefficients(D), atol=1e-10
    )
    for shift in (-0.1, 0.1):  # no other part outside the range does better
        other = nu + shift * constraint.outside
        worse = np.einsum("bij,bij->b", Y, other) - sigma * np.linalg.norm(other, axis=(1, 2))
        assert (worse < value).all()


def test_polishing_drops_what_is_not_there_and_gives_up_on_a_wrong_support():
    operator, _ = kronecker(seed=18)
    system = System(operator, (9, 8))
    X = sparse_updates(1, 9, 8, 4, 18)
    polisher = Polisher(system, constraint_of(system, operator.apply(X), 0.0))
    wider = X[0].copy()
    wider.ravel()[np.setdiff1d(np.arange(0, 72, 11), np.flatnonzero(X[0]))] = 1e-3
    found = polisher.polish(0, wider, None)
    assert found is not None
    assert np.array_equal(found.support, np.flatnonzero(X[0]))
    np.testing.assert_allclose(found.values, X[0].ravel()[found.support], rtol=1e-12)
    narrower = X[0].copy()
    narrower.ravel()[found.support[0]] = 0.0
    assert polisher.polish(0, narrower, None) is None
    assert polisher.polish(0, np.zeros((9, 8)), None) is None
    one_column = np.zeros((9, 8))
    one_column[:, 0] = 1.0  # nine columns of rank six: dependent
    assert polisher.polish(0, one_column, None) is None


def test_polishing_with_noise_solves_stationarity_on_the_support():
    operator, explicit = kronecker(seed=19)
    system = System(operator, (9, 8))
    X = sparse_updates(1, 9, 8, 4, 19)
    y, sigma = noisy(operator.apply(X), 0.1)
    polisher = Polisher(system, constraint_of(system, y, sigma))
    found = polisher.polish(0, X[0], None)
    assert found is not None
    x = np.zeros(72)
    x[found.support] = found.values
    residual = y.ravel() - explicit @ x
    assert np.linalg.norm(residual) == pytest.approx(sigma, rel=1e-10)
    on_support = (explicit.T @ residual)[found.support]
    ratio = on_support / np.sign(found.values)
    np.testing.assert_allclose(ratio, ratio[0], rtol=1e-9)
    wider = X[0].copy()
    wider.ravel()[np.setdiff1d(np.arange(0, 72, 11), found.support)] = 1e-3
    wide = polisher.polish(0, wider, None)
    assert (wide.values * wider.ravel()[wide.support] > 0).all()
    hopeless = np.zeros((9, 8))
    hopeless.ravel()[(found.support[0] + 1) % 72] = 1.0
    assert polisher.polish(0, hopeless, None) is None


@pytest.mark.parametrize("share", [1e-14, 1e-9, 1e-7])
def test_noise_below_rounding_is_no_trouble_in_single_precision(share):
    operator, explicit = kronecker(seed=3)
    y = operator.apply(sparse_updates(1, 9, 8, 4, 3)[0]).astype(np.float32)
    sigma = share * float(np.linalg.norm(y))
    result = recover(RecoveryProblem(operator, y, noise_level=sigma), "bpdn", polish=False)
    expected = np.abs(cvxpy_answer(explicit, y.astype(np.float64).ravel())).sum()
    assert result.status == "optimal"
    assert result.objective == pytest.approx(expected, rel=1e-4)
    assert result.residual < 1e-5


def test_a_gram_matrix_that_rounding_makes_indefinite_gives_no_candidate(monkeypatch):
    operator, _ = kronecker(seed=3)
    X = sparse_updates(1, 9, 8, 4, 3)
    y = operator.apply(X)
    system = System(operator, (9, 8))
    polisher = Polisher(system, constraint_of(system, y, 0.1 * float(np.linalg.norm(y))))
    assert polisher.polish(0, X[0], None) is not None
    solve = GramFactor.solve
    monkeypatch.setattr(GramFactor, "solve", lambda factor, wanted: -solve(factor, wanted))
    monkeypatch.setattr(polisher, "_coordinates", lambda support, values: polisher.centre)
    polisher.centre = polisher._constraint.centre[0]  # as if the fit were perfect
    assert polisher.polish(0, X[0], None) is None
