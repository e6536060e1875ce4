"""The transforms are isometries of every shape, and show what they are meant to show."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.transforms import DCT, Coordinate, SingularBasis

SHAPES = [(6, 4), (4, 6), (5, 5), (1, 7), (7, 1), (1, 1)]
NAMES = ["coordinate", "dct", "singular", "singular of a rank-deficient weight"]


def build(name, shape, dtype=np.float64, seed=0):
    if name == "coordinate":
        return Coordinate()
    if name == "dct":
        return DCT()
    W = np.random.default_rng(seed).standard_normal(shape).astype(dtype)
    if "deficient" in name:
        W[:, -1] = W[:, 0]
        W[-1] = 0.0
    return SingularBasis(W)


@pytest.mark.parametrize("name", NAMES)
@given(m=st.integers(1, 9), n=st.integers(1, 9), seed=st.integers(0, 99))
def test_a_transform_keeps_inner_products_and_is_undone_by_its_inverse(name, m, n, seed):
    transform = build(name, (m, n), seed=seed)
    X, Y = np.random.default_rng(seed + 1).standard_normal((2, m, n))
    cX, cY = transform.forward(X), transform.forward(Y)
    assert cX.shape == (m, n)
    np.testing.assert_allclose(np.sum(cX * cY), np.sum(X * Y), atol=1e-12 * m * n)
    np.testing.assert_allclose(transform.inverse(cX), X, atol=1e-12)
    # An isometry of a finite-dimensional space is onto: the other order is the identity too.
    np.testing.assert_allclose(transform.forward(transform.inverse(X)), X, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", SHAPES)
def test_a_transform_computes_in_the_type_it_is_given(name, shape):
    X = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    transform = build(name, shape, np.float32)
    assert transform.forward(X).dtype == transform.inverse(X).dtype == np.float32
    np.testing.assert_allclose(transform.inverse(transform.forward(X)), X, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_left_as_it_was(name):
    X = np.random.default_rng(1).standard_normal((6, 4))
    before = X.copy()
    transform = build(name, X.shape)
    transform.forward(X)
    transform.inverse(X)
    np.testing.assert_array_equal(X, before)


def test_the_cosine_transform_is_the_explicit_orthonormal_sum():
    m, n = 5, 3

    def cosines(size):
        k, p = np.arange(size)[:, None], np.arange(size)[None, :]
        weights = np.where(k == 0, np.sqrt(1 / size), np.sqrt(2 / size))
        return weights * np.cos(np.pi * (2 * p + 1) * k / (2 * size))

    X = np.random.default_rng(0).standard_normal((m, n))
    np.testing.assert_allclose(DCT().forward(X), cosines(m) @ X @ cosines(n).T, atol=1e-14)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_singular_basis_turns_its_weight_into_a_diagonal(shape):
    W = np.random.default_rng(3).standard_normal(shape)
    basis = SingularBasis(W)
    diagonal = np.zeros(shape)
    np.fill_diagonal(diagonal, np.linalg.svd(W, compute_uv=False))
    np.testing.assert_allclose(basis.forward(W), diagonal, atol=1e-13)
    np.testing.assert_allclose(basis.singular_values, np.diag(diagonal), atol=1e-13)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_the_singular_basis_is_that_of_the_explicit_svd_up_to_signs(shape):
    rng = np.random.default_rng(4)
    W, X = rng.standard_normal((2, *shape))
    U, _, Vt = np.linalg.svd(W)
    k = min(shape)
    expected = np.abs(U.T @ X @ Vt.T)
    found = np.abs(SingularBasis(W).forward(X))
    np.testing.assert_allclose(found[:k, :k], expected[:k, :k], atol=1e-13)
    # The complement's basis is arbitrary: only its energy per singular vector is fixed.
    long_axis = 0 if shape[0] > shape[1] else 1
    np.testing.assert_allclose(
        np.linalg.norm(np.moveaxis(found, long_axis, 0)[k:], axis=0),
        np.linalg.norm(np.moveaxis(expected, long_axis, 0)[k:], axis=0),
        atol=1e-13,
    )


def test_the_singular_basis_of_a_long_matrix_takes_memory_of_its_size():
    m, n = 20_000, 8  # the complete left factor would be 3.2 GB
    W = np.random.default_rng(0).standard_normal((m, n))
    tracemalloc.start()
    basis = SingularBasis(W)
    basis.inverse(basis.forward(W))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 * W.nbytes


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: DCT().forward(np.zeros(3)), r"non-empty matrix, not an array of \(3,\)"),
        (lambda: DCT().forward(np.zeros((0, 3))), "non-empty"),
        (lambda: DCT().forward(np.zeros((2, 2), complex)), "real matrix, not complex128"),
        (lambda: SingularBasis(np.eye(3)).forward(np.zeros((3, 2))), r"\(3, 3\), not \(3, 2\)"),
        (lambda: SingularBasis(np.eye(3)).inverse(np.zeros((2, 3))), r"\(3, 3\), not \(2, 3\)"),
        (lambda: SingularBasis(np.full((2, 2), np.nan)), "NaN"),
    ],
)
def test_bad_input_is_refused_with_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
