"""The transforms are isometries of every shape, and show what they are meant to show."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.linear.transforms import DCT, Coordinate, SingularBasis, Wavelet

SHAPES = [(6, 4), (4, 6), (1, 7), (1, 1)]
NAMES = [
    *("coordinate", "dct", "haar wavelet", "db2 wavelet", "sym4 wavelet"),
    *("singular", "singular of a rank-deficient weight"),
]
# A side that cannot be halved is left as it is, which is tested below.
pytestmark = pytest.mark.filterwarnings("ignore:a side of length")


def build(name, shape, dtype=np.float64, seed=0):
    if name == "coordinate":
        return Coordinate()
    if name == "dct":
        return DCT()
    if "wavelet" in name:
        return Wavelet(name.split()[0])
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


@pytest.mark.parametrize(("name", "shape"), [*zip(NAMES, [(6, 4), (4, 6)] * 4, strict=False)])
def test_a_transform_computes_in_the_type_it_is_given(name, shape):
    X = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    transform = build(name, shape, np.float32)
    assert transform.forward(X).dtype == transform.inverse(X).dtype == np.float32
    np.testing.assert_allclose(transform.inverse(transform.forward(X)), X, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("shape", [(7, 1), (24, 16), (16, 48)])
def test_rows_are_the_factors_of_a_kronecker_operator_in_the_basis(name, shape):
    rng = np.random.default_rng(7)
    X, A, B = (rng.standard_normal(size) for size in (shape, (3, shape[0]), (5, shape[1])))
    transform = build(name, shape)
    folded = transform.rows(A, 0) @ transform.forward(X) @ transform.rows(B, 1).T
    np.testing.assert_allclose(folded, A @ X @ B.T, atol=1e-12)
    single = build(name, shape, np.float32)
    A, B, X = (array.astype(np.float32) for array in (A, B, X))
    folded = single.rows(A, 0) @ single.forward(X) @ single.rows(B, 1).T
    assert folded.dtype == np.float32
    np.testing.assert_allclose(folded, A @ X @ B.T, atol=1e-3)


def test_the_haar_wavelet_gives_means_and_differences_over_all_levels():
    # By hand: of (1, 2, 3, 4) the mean times 2, then half differences at both scales.
    signal = np.array([[1.0, 2.0, 3.0, 4.0]])
    coarse, mid, fine = 5.0, -2.0, -1 / np.sqrt(2)
    found = Wavelet("haar").rows(signal, 1)
    np.testing.assert_allclose(found, [[coarse, mid, fine, fine]], atol=1e-14)


@pytest.mark.filterwarnings("error")
def test_a_wavelet_makes_a_smooth_matrix_sparse_and_says_where_it_can_do_nothing():
    rows, columns = np.meshgrid(np.linspace(0, 1, 64), np.linspace(0, 1, 32), indexing="ij")
    smooth = np.exp(-rows) * (1 + columns**2)
    entries, energy = (
        np.sort(array.ravel() ** 2)[::-1] for array in (smooth, Wavelet("db2").forward(smooth))
    )
    # Two per cent of them. Periodisation meets a jump at the ends, which costs every scale a few.
    assert energy[:41].sum() > 0.98 * energy.sum()
    assert entries[:41].sum() < 0.08 * entries.sum()
    assert [Wavelet("haar").levels(length) for length in (1, 2, 12, 384, 4096)] == [0, 1, 2, 7, 12]
    with pytest.warns(UserWarning, match="a side of length 15 cannot be halved"):
        Wavelet().forward(np.ones((16, 15)))
    with pytest.warns(UserWarning, match="a side of length 15 cannot be halved"):
        Wavelet().rows(np.ones((2, 15)), 1)


@pytest.mark.parametrize("name", NAMES)
def test_the_input_is_left_as_it_was(name):
    X = np.random.default_rng(1).standard_normal((6, 4))
    before = X.copy()
    transform = build(name, X.shape)
    transform.forward(X)
    transform.inverse(X)
    transform.rows(X.T, 0)
    transform.rows(X, 1)
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
        (lambda: DCT().forward(np.zeros(3)), r"has shape \(3,\)"),
        (lambda: DCT().forward(np.zeros((0, 3))), r"has shape \(0, 3\)"),
        (lambda: DCT().forward(np.zeros((2, 2), complex)), "entries of type complex128"),
        (
            lambda: SingularBasis(np.eye(3)).forward(np.zeros((3, 2))),
            r"has shape \(3, 2\): it must be 3 × 3",
        ),
        (
            lambda: SingularBasis(np.eye(3)).inverse(np.zeros((2, 3))),
            r"has shape \(2, 3\): it must be 3 × 3",
        ),
        (lambda: SingularBasis(np.ones((3, 2))).rows(np.ones((1, 3)), 1), "side 1 of this basis"),
        (lambda: Wavelet("bior2.2"), "wavelet is 'bior2.2': it must be an orthogonal one"),
        (lambda: Wavelet("morl"), "wavelet is 'morl'"),
        (lambda: SingularBasis(np.full((2, 2), np.nan)), "NaN"),
    ],
)
def test_bad_input_is_refused_with_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
