"""The exact finish of the lasso on a support."""

import numpy as np
import pytest

from cosa_theory import KroneckerOperator
from cosa_theory.projections import stream
from cosa_theory.recovery import System
from cosa_theory.recovery.lasso_polish import (
    LARGEST_SUPPORT,
    _most_violated,
    polish_cost,
    polish_lasso,
)
from cosa_theory.recovery.solvers.fista import fista

LAM = 0.15


@pytest.fixture
def problem():
    draw = stream(1, "polish")
    A, B = draw.standard_normal((20, 30)) / 20**0.5, draw.standard_normal((14, 25)) / 14**0.5
    system = System(KroneckerOperator(A, B), (30, 25))
    X = np.zeros((1, 30 * 25))
    X[0, draw.choice(750, 20, replace=False)] = draw.standard_normal(20)
    X = X.reshape(1, 30, 25)
    return system, X, system.apply(X) + 0.05 * draw.standard_normal((1, 20, 14))


def dense(system, polished):
    X = np.zeros(system.size)
    X[polished.support] = polished.values
    return X.reshape(1, *system.coefficient_shape)


def test_from_a_near_solution_it_reaches_twelve_digits(problem):
    system, _, Y = problem
    near = fista(system, Y, lam=LAM, tolerance=1e-2).coefficients
    polished = polish_lasso(system, Y, near, LAM, tolerance=1e-10)
    X = dense(system, polished)
    correlations = system.apply_adjoint(Y - system.apply(X))
    on = X != 0
    assert on.sum() > 10
    np.testing.assert_allclose(correlations[on], LAM * np.sign(X[on]), rtol=1e-12)
    assert np.abs(correlations[~on]).max() < LAM
    assert polished.relative < 1e-12


def test_wrong_entries_are_dropped_and_missing_ones_added(problem):
    system, _, Y = problem
    right = dense(
        system,
        polish_lasso(system, Y, fista(system, Y, lam=LAM).coefficients, LAM, tolerance=1e-10),
    )
    draw = stream(2, "polish")
    guess = right.copy()
    on = np.flatnonzero(right)
    guess.ravel()[draw.choice(on, 4, replace=False)] = 0.0
    guess.ravel()[draw.choice(on, 2, replace=False)] *= -1.0
    guess.ravel()[draw.choice(system.size, 9, replace=False)] = 0.3
    found = polish_lasso(system, Y, guess, LAM, tolerance=1e-10)
    np.testing.assert_allclose(dense(system, found), right, atol=1e-10)


def test_what_it_claims_can_be_recomputed(problem):
    system, _, Y = problem
    near = fista(system, Y, lam=LAM, tolerance=1e-2).coefficients
    polished = polish_lasso(system, Y, near, LAM, tolerance=1e-10)
    X, theta = dense(system, polished), polished.dual
    assert np.abs(system.apply_adjoint(theta[None])).max() <= LAM * (1 + 1e-12)
    primal = 0.5 * np.sum((system.apply(X) - Y) ** 2) + LAM * np.abs(X).sum()
    dual = 0.5 * np.sum(Y**2) - 0.5 * np.sum((theta - Y) ** 2)
    assert polished.objective == pytest.approx(primal, rel=1e-13)
    assert polished.gap == pytest.approx(primal - dual, abs=1e-12 * primal)


def test_the_dual_point_is_feasible_even_where_the_support_is_not_yet_right(problem, monkeypatch):
    system, X, Y = problem
    monkeypatch.setattr("cosa_theory.recovery.lasso_polish._ROUNDS", 1)
    guess = X * (np.abs(X) > np.median(np.abs(X[X != 0])))
    rough = polish_lasso(system, Y, guess, LAM, tolerance=np.inf)
    assert rough.relative > 1e-3
    assert np.abs(system.apply_adjoint(rough.dual[None])).max() <= LAM * (1 + 1e-12)
    primal = 0.5 * np.sum((system.apply(dense(system, rough)) - Y) ** 2)
    primal += LAM * np.abs(rough.values).sum()
    dual = 0.5 * np.sum(Y**2) - 0.5 * np.sum((rough.dual - Y) ** 2)
    assert rough.gap == pytest.approx(primal - dual, rel=1e-10)


def test_it_gives_up_far_from_the_solution(problem):
    system, _, Y = problem
    draw = stream(3, "polish")
    guess = draw.standard_normal((1, 30, 25)) * (draw.random((1, 30, 25)) < 0.3)
    assert polish_lasso(system, Y, guess, 1e-6, tolerance=1e-8) is None


def test_a_support_that_is_empty_dependent_or_too_large_is_left_alone(problem, monkeypatch):
    system, _, Y = problem
    assert polish_lasso(system, Y, np.zeros((1, 30, 25)), LAM, tolerance=1e-8) is None
    packed = np.zeros((1, 30, 25))
    packed[0, :, 3] = 1.0  # 30 columns of a 20-dimensional space
    assert polish_lasso(system, Y, packed, LAM, tolerance=1e-8) is None
    near = fista(system, Y, lam=LAM).coefficients
    monkeypatch.setattr("cosa_theory.recovery.lasso_polish.LARGEST_SUPPORT", 5)
    assert polish_lasso(system, Y, near, LAM, tolerance=1e-8) is None


def test_single_precision_resolves_a_penalty_at_its_rounding_level(problem):
    system, X, _ = problem
    Y = system.apply(X)
    lam = 1e-6 * np.abs(system.apply_adjoint(Y)).max()
    # A residual of this size, computed in single precision, would be wrong by a tenth.
    polished = polish_lasso(system, Y.astype(np.float32), X.astype(np.float32), lam, tolerance=1e-4)
    exact = polish_lasso(system, Y.astype(np.float32).astype(np.float64), X, lam, tolerance=1e-9)
    np.testing.assert_allclose(dense(system, polished), dense(system, exact), atol=1e-10)


def test_the_most_violated_are_those_of_largest_modulus(monkeypatch):
    monkeypatch.setattr("cosa_theory.recovery.lasso_polish._BLOCK", 64)
    gradient = stream(4, "polish").standard_normal(1000)
    for count in (3, 50, 2000):
        found = _most_violated(gradient, 1.0, count)
        wanted = np.flatnonzero(np.abs(gradient) > 1.0)
        if count < wanted.size:
            wanted = np.argsort(-np.abs(gradient))[:count]
        assert set(found.tolist()) == set(wanted.tolist())


def test_a_larger_support_costs_more(problem):
    costs = [polish_cost(problem[0], size) for size in (10, 100, LARGEST_SUPPORT)]
    assert costs == sorted(costs)
    assert costs[0] == pytest.approx(100 * (20 + 14 + 10 / 3))


def test_the_gap_is_that_of_the_values_the_caller_can_store(problem):
    system, X, _ = problem
    Y = system.apply(X).astype(np.float32)
    lam = 1e-14 * float(np.abs(system.apply_adjoint(Y)).max())
    # Rounding the values to single precision costs more than this penalty is worth: at a
    # tolerance that any gap meets, the one reported is what the rounded values have.
    for single in (True, False):
        y = Y if single else Y.astype(np.float64)
        found = polish_lasso(system, y, X.astype(y.dtype), lam, tolerance=1e9)
        assert np.array_equal(found.values, found.values.astype(y.dtype))
        residual = system.apply(dense(system, found)) - Y
        objective = 0.5 * np.sum(residual**2) + lam * np.abs(found.values).sum()
        assert found.objective == pytest.approx(objective, rel=1e-6)
        bound = np.vdot(Y, found.dual) - 0.5 * np.sum(found.dual**2)
        assert objective - bound <= found.gap + 1e-15 * objective + 1e-22 * np.sum(Y**2.0)
