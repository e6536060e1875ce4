"""Simplex steps for basis pursuit: optimal vertices of dense and of sparse answers."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import KroneckerOperator
from cosa_theory.recovery import RecoveryProblem, System, recover
from cosa_theory.recovery.constraint import constraint_of
from cosa_theory.recovery.pursuit_polish import Polisher
from cosa_theory.recovery.vertex import optimal_vertex
from tests.recovery.convex import (
    assert_gap_is_proven,
    cvxpy_answer,
    gaussian,
    kronecker,
    sparse_updates,
)


def vertex_of(operator, X, steps, scores=None):
    system = System(operator, X.shape[1:])
    constraint = constraint_of(system, operator.apply(X), 0.0)
    space, centre = constraint.space, constraint.centre[0]
    if scores is None:
        scores = np.abs(space.coefficients(centre[None])).ravel()
    return optimal_vertex(system, space, centre, scores, steps), space, centre


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 40))
def test_it_reaches_an_optimal_vertex_from_the_least_norm_answer(seed, sparsity):
    rng = np.random.default_rng(seed)
    operator = KroneckerOperator(rng.standard_normal((4, 7)), rng.standard_normal((5, 6)))
    X = sparse_updates(1, 7, 6, sparsity, seed)
    found, space, centre = vertex_of(operator, X, steps=500)
    assert found is not None
    x = np.zeros(42)
    x[found.support] = found.values
    coordinates = space.coordinates(x.reshape(1, 7, 6))[0]
    np.testing.assert_allclose(coordinates, centre, atol=1e-9)
    image = space.coefficients(found.dual.reshape(1, *centre.shape)).ravel()
    assert np.abs(image).max() <= 1 + 1e-8
    # strong duality: the dual value is the norm
    assert found.dual.ravel() @ centre.ravel() == pytest.approx(np.abs(x).sum(), rel=1e-7)


@pytest.mark.parametrize("seed", [1, 2, 3, 5, 7])
def test_zeros_of_a_sparse_answer_do_not_make_steps_idle(seed):
    operator, _ = kronecker(12, 10, 8, 7, seed=seed)
    assert vertex_of(operator, sparse_updates(1, 12, 10, 15, seed), steps=150)[0] is not None


def test_steps_that_do_not_suffice_give_nothing():
    operator, _ = kronecker(12, 10, 8, 7, seed=1)
    X = sparse_updates(1, 12, 10, 60, 1)
    assert vertex_of(operator, X, steps=0)[0] is None
    assert vertex_of(operator, X, steps=500)[0] is not None


def test_scores_that_know_the_basis_need_no_step():
    operator, _ = kronecker(12, 10, 8, 7, seed=2)
    X = sparse_updates(1, 12, 10, 60, 2)
    found, _, _ = vertex_of(operator, X, steps=500)
    scores = np.full(120, 1e-3)
    scores[found.support] = 1.0
    again, _, _ = vertex_of(operator, X, steps=0, scores=scores)
    assert set(again.support) == set(found.support)


@pytest.mark.parametrize("plain", [False, True])
def test_basis_pursuit_proves_answers_that_are_not_sparse(plain):
    if plain:
        operator, explicit = gaussian(60, 200, seed=3)
        y = operator @ np.random.default_rng(3).standard_normal(200)
    else:
        operator, explicit = kronecker(16, 12, 9, 7, seed=3)
        y = operator.apply(np.random.default_rng(3).standard_normal((16, 12)))
    result = recover(RecoveryProblem(operator, y), "basis_pursuit")
    assert result.status == "optimal"
    assert np.count_nonzero(result.coefficients) == y.size
    assert_gap_is_proven(explicit, y, 0.0, result, lambda v: float(np.abs(v).max()))
    expected = cvxpy_answer(explicit, y.ravel())
    assert np.abs(result.coefficients.ravel() - expected).max() < 1e-6 * np.abs(expected).max()
    slow = recover(RecoveryProblem(operator, y), "basis_pursuit", polish=False)
    assert slow.iterations > 2 * result.iterations


def test_large_ranks_are_left_to_the_iteration():
    operator, _ = kronecker(40, 36, 34, 33, seed=4)  # rank 1,122
    system = System(operator, (40, 36))
    y = operator.apply(sparse_updates(1, 40, 36, 5, 4))
    polisher = Polisher(system, constraint_of(system, y, 0.0))
    assert polisher.vertex_work(100) == np.inf
    small, _ = kronecker(seed=4)
    system = System(small, (9, 8))
    y = small.apply(sparse_updates(1, 9, 8, 5, 4))
    assert Polisher(system, constraint_of(system, y, 0.0)).vertex_work(100) < np.inf


def test_a_singular_basis_is_left_without_a_word():
    # Two independent columns among seven, so the first basis from the scores may be singular.
    operator = np.zeros((2, 7))
    operator[:, [2, 5]] = [[1.0, 0.0], [0.0, 2.0]]
    system = System(KroneckerOperator(np.ones((1, 1)), operator), (1, 7), plain=True)
    y = np.array([[[3.0, 4.0]]])
    constraint = constraint_of(system, y, 0.0)
    scores = np.array([9.0, 8.0, 1e-9, 7.0, 6.0, 1e-9, 5.0])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert optimal_vertex(system, constraint.space, constraint.centre[0], scores, 5) is None
        result = recover(RecoveryProblem(operator, y[0, 0]), "basis_pursuit")
    assert result.status == "optimal"
    assert result.objective == pytest.approx(5.0)
