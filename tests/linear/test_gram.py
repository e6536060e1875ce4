"""A Gram matrix gives out the entries and spectrum of the explicit product, formed or not."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from cosa_theory import KroneckerOperator
from cosa_theory.linear.gram import DenseGram, KroneckerGram, as_gram
from cosa_theory.linear.gram_protocol import rounding_slack
from cosa_theory.projections import make_projection


def gaussian(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)) / math.sqrt(rows)


def factors():
    return gaussian(3, 5, 1), gaussian(4, 3, 2)


@pytest.mark.parametrize("kind", ["float32", "sparse", "tensor", "half", "list", "operator"])
def test_every_kind_of_matrix_is_read_exactly(kind):
    A = np.array([[1.0, 0.5, 0.0], [0.0, -2.0, 0.25]])
    forms = {
        "float32": A.astype(np.float32),
        "sparse": sparse.csr_array(A),
        "tensor": torch.tensor(A),
        "half": torch.tensor(A, dtype=torch.float16),
        "list": A.tolist(),
        "operator": sparse.linalg.aslinearoperator(A),
    }
    matrix = DenseGram(forms[kind]).A
    assert matrix.dtype == np.float64
    np.testing.assert_array_equal(matrix, A)


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (np.ones(3), "must be a matrix"),
        (np.ones((2, 2, 2)), "must be a matrix"),
        (np.ones((0, 3)), "at least one entry"),
        (np.ones((2, 2)) * 1j, "real"),
        (np.array([["a"]]), "real"),
        (np.array([[1.0, np.nan]]), r"A has a NaN or infinite entry, first at \(0, 1\)"),
        (np.array([[1.0], [-np.inf]]), r"first at \(1, 0\)"),
    ],
)
def test_what_is_not_a_finite_real_matrix_is_refused(A, message):
    with pytest.raises(ValueError, match=message):
        DenseGram(A)


def test_the_ensembles_are_read_through_their_own_products():
    A = make_projection("srht", 4, 6, seed=1)
    np.testing.assert_allclose(DenseGram(A).A ** 2, 0.25)


@given(st.integers(2, 60), st.integers(1, 8), st.integers(0, 10**6), st.floats(-60, 60))
def test_the_slack_covers_the_rounding_of_a_gram_matrix_and_its_eigenvalues(k, s, seed, power):
    A = np.random.default_rng(seed).standard_normal((k, s)) * 10**power
    computed = np.linalg.eigvalsh(A.T @ A)
    true = np.zeros(s)
    singular = np.linalg.svd(A, compute_uv=False) ** 2  # relative errors of u: a sharper value
    true[: singular.size] = singular
    slack = rounding_slack(k, s, float((A * A).sum(axis=0).max()))
    assert np.abs(np.sort(computed) - np.sort(true)).max() <= slack


@pytest.mark.parametrize("formed_up_to", [4096, 0], ids=["formed", "by rows"])
def test_a_dense_gram_gives_out_entries_of_the_product(formed_up_to, monkeypatch):
    monkeypatch.setattr("cosa_theory.linear.gram._FORMED_UP_TO", formed_up_to)
    A = gaussian(4, 6)
    check_gram(DenseGram(A), A)


def test_a_kronecker_gram_gives_out_entries_of_the_explicit_product():
    A, B = factors()
    gram = KroneckerGram(A, B)
    check_gram(gram, np.kron(A, B))
    assert gram.domain_shape == (5, 3)
    part = gram.restricted(np.array([0, 3]), np.array([2, 1]))
    check_gram(part, np.kron(A[:, [0, 3]], B[:, [2, 1]]))


def check_gram(gram, A):
    G = A.T @ A
    d = A.shape[1]
    assert (gram.rows_of_A, gram.columns) == A.shape
    np.testing.assert_allclose(gram.diagonal, G.diagonal(), rtol=1e-13)
    assert gram.largest == gram.diagonal.max()
    places = np.array([[d - 1, 0], [1, 1]])
    np.testing.assert_allclose(gram.rows(places), G[places], atol=1e-13)
    supports = np.array([[0, 2, d - 1], [1, 2, 3]])
    blocks = [G[np.ix_(S, S)] for S in supports]
    np.testing.assert_allclose(gram.blocks(supports), blocks, atol=1e-13)
    x = np.array([0.5, -1.0, 2.0])
    norm = np.linalg.norm(A[:, supports[0]] @ x) ** 2
    assert math.isclose(gram.squared_norm(supports[0], x), norm, rel_tol=1e-12)


def test_a_long_image_is_summed_by_parts(monkeypatch):
    A, B = factors()
    whole = KroneckerGram(A, B).squared_norm(np.array([1, 8]), np.array([0.6, 0.8]))
    monkeypatch.setattr("cosa_theory.linear.gram._NORM_ROWS", 5)
    parts = KroneckerGram(A, B).squared_norm(np.array([1, 8]), np.array([0.6, 0.8]))
    assert math.isclose(whole, parts, rel_tol=1e-14)


def test_operators_stay_in_factors_and_grams_stay_as_they_are():
    A, B = factors()
    gram = as_gram(KroneckerOperator(A, B))
    assert isinstance(gram, KroneckerGram)
    assert as_gram(gram) is gram
    assert isinstance(as_gram(A), DenseGram)


@pytest.mark.parametrize(
    ("A", "number"),
    [
        (gaussian(4, 9), 5),
        (gaussian(9, 4), 5),
        (np.eye(4), 5),
        (np.diag([1.0, 0.0]), 1),
        (KroneckerOperator(gaussian(3, 5), gaussian(6, 9)), 4),
        (KroneckerOperator(gaussian(7, 5), gaussian(2, 9)), 3),
        (KroneckerOperator(gaussian(7, 5), gaussian(9, 2)), 11),
    ],
)
def test_columns_are_surely_dependent_from_the_spark_wall_on(A, number):
    assert as_gram(A).dependent_from == number


def test_columns_out_of_the_range_of_squares_are_refused_and_zero_ones_are_not():
    A = np.random.default_rng(0).standard_normal((4, 6))
    for scale, remedy in ((1e80, "divide"), (1e200, "divide"), (1e-80, "multiply")):
        with pytest.raises(ValueError, match=f"longest column of A is .*{remedy} the matrix"):
            DenseGram(scale * A)
    with pytest.raises(ValueError, match="longest column of A is 0, below 1e-150: multiply"):
        DenseGram(1e-200 * A)
    with pytest.raises(ValueError, match=r"longest column of A ⊗ B is .*, below 1e-150"):
        KroneckerGram(1e-50 * A, 1e-50 * A)
    assert DenseGram(np.zeros((2, 3))).dependent_from == 1
    assert KroneckerGram(np.zeros((2, 3)), 1e-60 * A).largest == 0.0
    short = KroneckerGram(np.hstack([A, 1e-80 * A]), np.eye(3)).restricted(
        np.arange(6, 12), np.arange(2)
    )
    assert (short.columns, short.largest < 1e-150) == (12, True)
    # The square of a short column beside long ones may underflow; that does not make it zero.
    assert DenseGram(np.diag([1.0, 1e-200])).dependent_from == 3


@pytest.mark.parametrize("shape", [(9, 4), (4, 9), (5, 5)])
def test_the_spectrum_is_that_of_the_short_side_and_zero_with_more_columns_than_rows(shape):
    A = np.random.default_rng(3).standard_normal(shape)
    least, greatest = DenseGram(A).spectrum_range
    values = np.linalg.svd(A, compute_uv=False) ** 2
    assert 0 <= greatest - values[0] <= 1e-12
    assert 0 <= (0.0 if shape[1] > shape[0] else values[-1]) - least <= 1e-12
