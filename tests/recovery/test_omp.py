"""Orthogonal matching pursuit: the columns it chooses, one after the other, and its fits."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import orthogonal_mp

from cosa_theory import KroneckerOperator
from cosa_theory.recovery import RecoveryProblem, recover
from tests.recovery.sparse_problems import dictionary, kronecker, noise_like, plain

pytestmark = pytest.mark.filterwarnings("ignore::cosa_theory.recovery.SparsityWarning")


def reference(matrix, y, count):
    """Return scikit-learn's answer; it takes columns of unit norm."""
    lengths = np.linalg.norm(matrix, axis=0)
    return orthogonal_mp(matrix / lengths, y, n_nonzero_coefs=count) / lengths


@settings(max_examples=25, deadline=None)
@given(
    sides=st.tuples(*[st.integers(2, 9)] * 4),
    seed=st.integers(0, 10**6),
    share=st.floats(0.1, 1.0),
)
def test_each_column_chosen_is_that_of_scikit_learn(sides, seed, share):
    p, m, q, n = sides
    draw = np.random.default_rng(seed)
    A, B, Y = (draw.standard_normal(shape) for shape in ((p, m), (q, n), (p, q)))
    full = np.kron(A, B)
    count = max(1, int(share * min(p, m) * min(q, n)))
    for sparsity in range(1, count + 1):
        result = recover(RecoveryProblem(KroneckerOperator(A, B), Y), "omp", sparsity=sparsity)
        if result.certificate.holds:
            break  # scikit-learn goes on with what is rounding
        expected = reference(full, Y.ravel(), sparsity)
        np.testing.assert_array_equal(result.support.ravel(), expected != 0)
        np.testing.assert_allclose(
            result.estimate.ravel(), expected, rtol=1e-6, atol=1e-9 * np.abs(expected).max()
        )


def test_a_plain_matrix_gives_what_scikit_learn_gives():
    known = plain(40, 120, 6)
    y = known.measurements + noise_like(known.measurements, 1.0)
    result = recover(RecoveryProblem(known.operator, y), "omp", sparsity=12)
    np.testing.assert_allclose(result.estimate[0], reference(known.operator, y, 12), atol=1e-10)


def test_each_column_lowers_the_residual_to_the_least_squares_one():
    known = kronecker(20, 16, 9, 8, 10)
    result = recover(known.problem(), "omp", sparsity=30)
    residuals = result.history["residual"]
    assert (np.diff(residuals) < 0).all()
    full = np.kron(*(np.asarray(factor) for factor in known.operator.factors))
    for count in (1, 4, 8):
        answer = recover(known.problem(), "omp", sparsity=count)
        columns = full[:, answer.support.ravel()]
        fit = np.linalg.lstsq(columns, known.measurements.ravel(), rcond=None)[0]
        direct = np.linalg.norm(known.measurements.ravel() - columns @ fit)
        assert residuals[count - 1] == pytest.approx(direct, rel=1e-9)
        assert answer.certificate.value == pytest.approx(direct, rel=1e-9)


def test_with_noise_it_stops_at_the_first_column_that_brings_the_residual_within():
    known = kronecker(24, 20, 12, 10, 5)
    y = known.measurements + noise_like(known.measurements, 0.3)
    result = recover(RecoveryProblem(known.operator, y, noise_level=0.5), "omp")
    residuals = result.history["residual"]
    assert residuals[-1] <= 0.5 < residuals[-2]
    assert result.iterations == result.support.sum()


def test_it_ends_where_no_column_can_lower_the_residual():
    draw = np.random.default_rng(0)
    tall = draw.standard_normal((20, 5))
    matrix = np.hstack([tall, tall[:, :2], np.zeros((20, 1))])  # equal and zero columns
    y = draw.standard_normal(20)
    result = recover(RecoveryProblem(matrix, y), "omp")
    assert result.status == "stalled"
    assert result.iterations == 5
    best = np.linalg.lstsq(tall, y, rcond=None)[1][0]
    assert result.objective == pytest.approx(0.5 * best)


def test_nearly_equal_columns_are_not_both_chosen():
    draw = np.random.default_rng(1)
    matrix = draw.standard_normal((6, 3))
    matrix = np.hstack([matrix, matrix + 1e-9 * draw.standard_normal((6, 3))])
    result = recover(RecoveryProblem(matrix, draw.standard_normal(6)), "omp", sparsity=6)
    assert result.support.sum() == 3
    assert np.abs(result.estimate).max() < 10


def test_it_ends_at_the_iteration_limit_where_no_sparsity_is_given():
    result = recover(kronecker(20, 16, 9, 8, 10).problem(), "omp", max_iterations=3)
    assert result.status == "iteration limit"
    assert result.support.sum() == 3


def test_more_columns_than_there_was_room_for_at_first_are_found():
    known = kronecker(60, 64, 40, 42, 150)
    result = recover(known.problem(), "omp")
    assert result.iterations > 128  # room for 64, then for 128
    assert result.support.sum() == 150  # a column chosen in error has no entry in the end
    np.testing.assert_allclose(result.estimate, known.truth, atol=1e-10)


def test_the_answer_of_an_ill_conditioned_core_is_as_accurate_as_its_condition_allows():
    known = dictionary(20, 18, 19, 17, 30)  # nearly square Gaussian factors
    result = recover(known.problem(), "omp")
    assert result.residual < 1e-13
    np.testing.assert_allclose(result.core, known.truth, atol=1e-10)


def test_a_residual_far_below_its_start_is_still_resolved():
    # ‖r‖² carried by subtraction would end at 1e-8 of ‖y‖.
    known = kronecker(24, 20, 12, 10, 3)
    entries = np.argwhere(known.truth)
    truth = known.truth.copy()
    truth[tuple(entries[0])] = 1e-9
    Y = known.operator.apply(truth)
    result = recover(RecoveryProblem(known.operator, Y), "omp", tolerance=1e-12)
    assert result.support.sum() == 3
    assert result.estimate[tuple(entries[0])] == pytest.approx(1e-9, rel=1e-5)
    last = np.zeros_like(truth)
    last[tuple(entries[0])] = 1e-9
    before_last = result.history["residual"][1]
    assert 0.5 < before_last / np.linalg.norm(known.operator.apply(last)) <= 1
