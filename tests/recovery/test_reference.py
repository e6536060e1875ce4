"""The reference: cvxpy's answers, judged by gaps that take nothing from it on trust."""

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.recovery import RecoveryProblem, recover
from cosa_theory.recovery.solvers import reference as module
from cosa_theory.recovery.solvers.reference import OBJECTIVES
from tests.recovery.convex import OPERATORS, assert_gap_is_proven, kronecker, noisy, sparse_updates

DUAL_NORMS = {
    "bpdn": lambda v: float(np.abs(v).max()),
    "nuclear": lambda v: float(np.linalg.norm(v.reshape(9, 8), 2)),
}


def problem_of(kind, share, seed=1, count=1, constant=False):
    operator, explicit = OPERATORS[kind](seed=seed)
    X = sparse_updates(count, 9, 8, 3, seed)
    if constant:  # in pieces
        X = np.zeros((1, 9, 8))
        X[0, 4:, 3:], X[0, 3:, :4] = 1.0, -0.5
    y = X.reshape(count, -1) @ explicit.T
    y, sigma = noisy(y if count > 1 else y[0], share)
    if kind == "kronecker":
        y = y.reshape(*y.shape[:-1], 6, 5)
    shape = (9, 8) if kind == "plain" else None
    return RecoveryProblem(operator, y, noise_level=sigma, shape=shape), explicit, X


@pytest.mark.parametrize("kind", OPERATORS)
@pytest.mark.parametrize("share", [0.0, 0.1])
@pytest.mark.parametrize("objective", ["bpdn", "nuclear", "analysis"])
def test_it_agrees_with_our_solver_of_the_same_objective(kind, share, objective):
    problem, explicit, _ = problem_of(kind, share, constant=objective == "analysis")
    theirs = recover(problem, "reference", objective=objective)
    more = {"max_iterations": 60000} if objective == "analysis" else {}
    ours = recover(problem, objective, **more)
    assert theirs.status == ours.status == "optimal"
    assert theirs.objective == pytest.approx(ours.objective, rel=1e-6)
    difference = np.linalg.norm(theirs.estimate - ours.estimate)
    assert difference < (1e-5 if objective == "nuclear" else 1e-6) * np.linalg.norm(ours.estimate)
    if objective in DUAL_NORMS:
        y, sigma = problem.Y[0], problem.noise_level
        assert_gap_is_proven(explicit, y, sigma, theirs, DUAL_NORMS[objective])
    assert objective != "analysis" or "differences" in theirs.formula


def test_basis_pursuit_asks_for_equality_whatever_the_noise_level():
    problem, _, _ = problem_of("kronecker", 0.1)
    equal = recover(problem, "reference", objective="basis_pursuit")
    assert equal.residual < 1e-12
    ours = recover(problem, "basis_pursuit")
    np.testing.assert_allclose(equal.estimate, ours.estimate, atol=1e-7)


@pytest.mark.parametrize("kind", OPERATORS)
def test_the_lasso_states_its_constant_and_satisfies_its_conditions(kind):
    problem, explicit, _ = problem_of(kind, 0.1)
    y = problem.Y[0].ravel()
    greatest = np.abs(explicit.T @ y).max()
    by_ratio = recover(problem, "reference", objective="lasso", lam_ratio=0.1)
    by_value = recover(problem, "reference", objective="lasso", lam=0.1 * greatest)
    np.testing.assert_allclose(by_ratio.estimate, by_value.estimate, atol=1e-8)
    assert f"{0.1 * greatest:g}" in by_value.formula
    x, lam = by_value.coefficients.ravel(), 0.1 * greatest
    residual = y - explicit @ x
    correlations = explicit.T @ residual
    assert np.abs(correlations).max() <= lam * (1 + 1e-5)
    large = np.abs(x) > 1e-4
    np.testing.assert_allclose(correlations[large], lam * np.sign(x[large]), rtol=1e-4)
    assert by_value.objective == pytest.approx(
        0.5 * residual @ residual + lam * np.abs(x).sum(), rel=1e-12
    )
    for ratio in (0.5, 0.3, 0.03, 0.003):
        other = recover(problem, "reference", objective="lasso", lam_ratio=ratio)
        point = np.asarray(other.certificate.dual).ravel()
        assert np.abs(explicit.T @ point).max() <= ratio * greatest * (1 + 1e-14)
    theta = np.asarray(by_value.certificate.dual).ravel()
    gap = by_value.objective - (0.5 * y @ y - 0.5 * (y - theta) @ (y - theta))
    assert gap == pytest.approx(by_value.certificate.value, abs=1e-12)
    assert by_value.status == "optimal"
    default = recover(problem, "reference", objective="lasso")
    assert "0.001·‖Φᵀy‖_∞" in default.formula
    zero = recover(problem, "reference", objective="lasso", lam=2 * greatest)
    assert np.abs(zero.estimate).max() < 1e-6


def test_batches_bases_and_single_precision():
    problem, _, _ = problem_of("kronecker", 0.0, seed=2, count=2)
    result = recover(problem, "reference")
    expected = recover(problem, "bpdn").estimate
    np.testing.assert_allclose(result.estimate, expected, atol=1e-6)
    assert result.statuses == ("optimal", "optimal")
    operator = problem.operator
    single = RecoveryProblem(operator, problem.Y.astype(np.float32))
    assert recover(single, "reference").estimate.dtype == np.float32
    in_dct = RecoveryProblem(operator, problem.Y[0], basis="dct")
    theirs, ours = recover(in_dct, "reference"), recover(in_dct, "bpdn")
    np.testing.assert_allclose(theirs.estimate, ours.estimate, atol=1e-6)


def test_an_answer_that_misses_the_tolerance_is_stalled():
    problem, _, _ = problem_of("kronecker", 0.1)
    assert recover(problem, "reference", tolerance=0.0).status == "stalled"


def test_infeasible_measurements_are_found_before_the_solver_starts():
    basis = CosaBasis.sample(8, 7, 3, 3, seed=3)
    off = np.random.default_rng(3).standard_normal((8, 7))
    result = recover(RecoveryProblem(basis.dictionary(), off), "reference")
    assert result.status == "infeasible"
    assert "away from the range" in result.message


def test_a_second_solver_steps_in_and_says_so(monkeypatch):
    problem, _, _ = problem_of("kronecker", 0.0)
    broken = ("CLARABEL", {"max_iter": 1})
    monkeypatch.setattr(module, "_SOLVERS", (broken, module._SOLVERS[1]))
    result = recover(problem, "reference")
    assert "SCS" in result.message
    assert result.status == "optimal"
    expected = recover(problem, "bpdn").estimate
    np.testing.assert_allclose(result.estimate, expected, atol=1e-5)
    monkeypatch.setattr(module, "_SOLVERS", (broken,))
    with pytest.raises(ValueError, match="no solver has an answer"):
        recover(problem, "reference")


def test_options_that_do_nothing_and_problems_too_large_are_refused():
    problem, _, _ = problem_of("kronecker", 0.0)
    wrong = {
        "objective": {"objective": "ridge"},
        "lam": {"lam": 1.0},
        "omega": {"omega": "differences"},
    }
    for argument, options in wrong.items():
        with pytest.raises(InputError) as refused:
            recover(problem, "reference", **options)
        assert refused.value.argument == argument
    operator, _ = kronecker(33, 32, 8, 8)
    large = RecoveryProblem(operator, operator.apply(np.ones((33, 32))))
    with pytest.raises(ValueError, match=r"1,056 unknowns .* at most 1,024"):
        recover(large, "reference")
    assert "bpdn" in OBJECTIVES
