"""The Kronecker operator is the Kronecker product, for every kind of factor, never formed."""

import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator, lsqr

from cosa_theory import KroneckerOperator
from cosa_theory.linear.operators import Factor
from cosa_theory.projections import make_projection

EPS = np.finfo(np.float64).eps


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


# Two rectangular factors of unequal sizes, 12 × 15 and 10 × 9, made in every way a factor can be.
KINDS = {
    "dense": lambda k, d, seed: gaussian(k, d, seed=seed),
    "float32": lambda k, d, seed: gaussian(k, d, seed=seed).astype(np.float32),
    "fortran order": lambda k, d, seed: np.asfortranarray(gaussian(k, d, seed=seed)),
    "read only": lambda k, d, seed: np.broadcast_to(gaussian(1, d, seed=seed), (k, d)),
    "flipped": lambda k, d, seed: gaussian(k, d, seed=seed)[::-1, ::-1],
    "sparse": lambda k, d, seed: make_projection("very_sparse", k, d, seed=seed, density=0.08),
    "sparse transposed": lambda k, d, seed: make_projection("sjlt", d, k, seed=seed, nonzeros=1).T,
    "half full": lambda k, d, seed: make_projection("achlioptas", k, d, seed=seed),
    "coordinate": lambda k, d, seed: sparse.coo_array(np.round(gaussian(k, d, seed=seed))),
    "whole numbers": lambda k, d, seed: np.round(3 * gaussian(k, d, seed=seed)).astype(np.int64),
    "tensor": lambda k, d, seed: torch.from_numpy(gaussian(k, d, seed=seed)),
    "float32 tensor": lambda k, d, seed: torch.from_numpy(gaussian(k, d, seed=seed)).float(),
    "srht": lambda k, d, seed: make_projection("srht", k, d, seed=seed),
    "srht transposed": lambda k, d, seed: make_projection("srht", d, k, seed=seed).T,
    "operator": lambda k, d, seed: aslinearoperator(gaussian(k, d, seed=seed)),
}
NUMPY_ONLY = {"operator"}
# Factors do not know each other: each kind stands once on either side, beside another.
PAIRS = list(zip(KINDS, [*list(KINDS)[6:], *list(KINDS)[:6]], strict=True))


def dense(matrix):
    """The factor as float64 numpy, by another route than the library's."""
    if isinstance(matrix, LinearOperator):
        return matrix.matmat(np.eye(matrix.shape[1]))
    if sparse.issparse(matrix):
        return matrix.toarray().astype(np.float64)
    return np.asarray(matrix, dtype=np.float64)


def pair(kind, other):
    A, B = KINDS[kind](12, 15, 1), KINDS[other](10, 9, 2)
    return A, B, dense(A), dense(B)


sizes = st.integers(1, 6)


@given(sizes, sizes, sizes, sizes, st.integers(1, 4), st.integers(0, 2**32))
def test_the_operator_is_numpy_kron_on_row_major_vectors(p, m, q, n, columns, seed):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((p, m)), rng.standard_normal((q, n))
    K, explicit = KroneckerOperator(A, B), np.kron(A, B)
    V, U = rng.standard_normal((m * n, columns)), rng.standard_normal((p * q, columns))
    assert K.shape == explicit.shape
    for got, expected in [
        (K @ V[:, 0], explicit @ V[:, 0]),
        (K @ V, explicit @ V),
        (K.T @ U[:, 0], explicit.T @ U[:, 0]),
        (K.T @ U, explicit.T @ U),
        (K.H @ U, explicit.T @ U),
        (K.rmatvec(U[:, 0]), explicit.T @ U[:, 0]),
        (K.rmatmat(U), explicit.T @ U),
        (K.T.T @ V, explicit @ V),
    ]:
        np.testing.assert_allclose(got, expected, atol=1e-13)


@given(sizes, sizes, sizes, sizes, st.integers(0, 2**32))
def test_stacking_columns_instead_swaps_the_factors(p, m, q, n, seed):
    rng = np.random.default_rng(seed)
    A, B, X = (rng.standard_normal(shape) for shape in ((p, m), (q, n), (m, n)))
    stacked = np.kron(B, A) @ X.ravel(order="F")
    got = KroneckerOperator(A, B).apply(X).ravel(order="F")
    np.testing.assert_allclose(got, stacked, atol=1e-13)


@pytest.mark.parametrize(("kind", "other"), PAIRS)
def test_every_kind_of_factor_agrees_with_the_explicit_product_on_either_side(kind, other):
    A, B, dense_A, dense_B = pair(kind, other)
    K, explicit = KroneckerOperator(A, B), np.kron(dense_A, dense_B)
    V, U = gaussian(K.shape[1], 3, seed=3), gaussian(K.shape[0], 3, seed=4)
    scale = np.abs(explicit).sum(axis=1).max() * np.abs(V).max()
    np.testing.assert_allclose(K @ V, explicit @ V, atol=50 * EPS * scale)
    scale = np.abs(explicit).sum(axis=0).max() * np.abs(U).max()
    np.testing.assert_allclose(K.T @ U, explicit.T @ U, atol=50 * EPS * scale)


@pytest.mark.parametrize("kind", ["dense", "sparse", "srht", "operator"])
def test_the_adjoint_passes_the_dot_test(kind):
    A, B, dense_A, dense_B = pair(kind, "dense")
    K = KroneckerOperator(A, B)
    X, Y = gaussian(*K.domain_shape, seed=5), gaussian(*K.range_shape, seed=6)
    forward, backward = np.vdot(K.apply(X), Y), np.vdot(X, K.apply_adjoint(Y))
    size = np.linalg.norm(dense_A) * np.linalg.norm(dense_B) * np.linalg.norm(X)
    assert abs(forward - backward) <= 50 * EPS * size * np.linalg.norm(Y)
    assert abs(forward) > 1e-3 * size  # the test would see a wrong sign or transpose


@pytest.mark.parametrize("kind", KINDS)
def test_the_type_of_the_array_is_kept_whatever_the_factors_are(kind):
    A, B, dense_A, dense_B = pair(kind, "dense")
    K = KroneckerOperator(A, B)
    X = gaussian(*K.domain_shape, seed=7)
    exact = dense_A @ X @ dense_B.T
    single = K.apply(X.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact, atol=1e-5 * np.abs(exact).max())
    assert K.apply(X).dtype == np.float64
    assert (K @ X.ravel().astype(np.float32)).dtype == np.float32
    assert K.apply_adjoint(K.apply(X.astype(np.float32))).dtype == np.float32
    whole = K.apply(np.ones(K.domain_shape, dtype=np.int32))
    assert whole.dtype == np.float64
    np.testing.assert_allclose(whole, dense_A @ np.ones_like(X) @ dense_B.T, atol=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("device", ["cpu", "cuda"])
@pytest.mark.parametrize("kind", sorted(set(KINDS) - NUMPY_ONLY))
def test_tensors_keep_their_type_and_device_and_agree_with_numpy(kind, device):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    A, B, dense_A, dense_B = pair(kind, "dense")
    K = KroneckerOperator(A, B)
    X = gaussian(4, *K.domain_shape, seed=8)
    exact = dense_A @ X @ dense_B.T
    for dtype, digits in [(torch.float64, 1e-13), (torch.float32, 1e-5), (torch.bfloat16, 0.05)]:
        got = K.apply(torch.from_numpy(X).to(device, dtype))
        assert (got.dtype, got.device.type) == (dtype, device)
        np.testing.assert_allclose(
            got.cpu().double().numpy(), exact, atol=digits * np.abs(exact).max()
        )
    assert K.apply(torch.ones(K.domain_shape, dtype=torch.int64, device=device)).dtype == (
        torch.float64
    )


@pytest.mark.parametrize("kind", sorted(set(KINDS) - NUMPY_ONLY))
def test_the_gradient_of_a_tensor_is_the_adjoint(kind):
    A, B, dense_A, dense_B = pair(kind, "dense")
    K = KroneckerOperator(A, B)
    X = torch.from_numpy(gaussian(*K.domain_shape, seed=9)).requires_grad_()
    Y = gaussian(*K.range_shape, seed=10)
    (K.apply(X) * torch.from_numpy(Y)).sum().backward()
    np.testing.assert_allclose(X.grad.numpy(), dense_A.T @ Y @ dense_B, atol=1e-11)


@pytest.mark.parametrize("kind", KINDS)
def test_leading_dimensions_are_a_stack_of_matrices(kind):
    A, B, dense_A, dense_B = pair(kind, kind)
    K = KroneckerOperator(A, B)
    X = gaussian(2, 3, *K.domain_shape, seed=11)
    np.testing.assert_allclose(K.apply(X), dense_A @ X @ dense_B.T, atol=1e-11)
    Y = gaussian(5, *K.range_shape, seed=12)
    np.testing.assert_allclose(K.apply_adjoint(Y), dense_A.T @ Y @ dense_B, atol=1e-11)


def test_wide_arrays_are_multiplied_in_blocks_without_losing_columns():
    X = gaussian(64, 1001, seed=13)
    for M in (
        make_projection("sjlt", 16, 64, nonzeros=1),
        make_projection("srht", 16, 64),
        aslinearoperator(gaussian(16, 64)),
    ):
        np.testing.assert_allclose(Factor(M).left(X), dense(M) @ X, atol=1e-12)
        np.testing.assert_allclose(Factor(M).right(X.T), X.T @ dense(M).T, atol=1e-12)


@pytest.mark.parametrize("density", [0.01, 0.08, 0.3])
def test_the_gram_matrix_of_a_sparse_factor_is_exact_at_every_density(density):
    M = make_projection("very_sparse", 300, 700, density=density)
    for matrix in (M, M.T):
        expected = matrix.toarray().T @ matrix.toarray()
        gram = Factor(matrix).gram(np.dtype(np.float64))
        np.testing.assert_allclose(gram, expected, atol=1e-13 * np.abs(expected).max())


def test_the_gram_matrix_of_an_implicit_factor_is_exact():
    for matrix in (make_projection("srht", 300, 700).T, aslinearoperator(gaussian(320, 300))):
        expected = dense(matrix).T @ dense(matrix)
        gram = Factor(matrix).gram(np.dtype(np.float64))
        np.testing.assert_allclose(gram, expected, atol=1e-13 * np.abs(expected).max())


def test_a_kronecker_operator_may_itself_be_a_factor():
    A, B, C = gaussian(2, 3), gaussian(4, 3), gaussian(2, 5)
    K = KroneckerOperator(KroneckerOperator(A, B), C)
    x = gaussian(K.shape[1])
    np.testing.assert_allclose(K @ x, np.kron(np.kron(A, B), C) @ x, atol=1e-12)
    np.testing.assert_allclose(K.T @ (K @ x), np.kron(np.kron(A, B), C).T @ (K @ x), atol=1e-11)


@pytest.mark.parametrize(
    ("shape_A", "shape_B", "first"),
    [((2, 50), (40, 60), "left"), ((40, 50), (2, 60), "right"), ((90, 50), (60, 6), "left")],
)
def test_the_cheaper_of_the_two_orders_is_taken(shape_A, shape_B, first, monkeypatch):
    (p, m), (q, n) = shape_A, shape_B
    costs = {"left": p * m * n + p * n * q, "right": m * n * q + p * m * q}
    assert min(costs, key=costs.get) == first
    order = []
    for name in ("left", "right"):
        original = getattr(Factor, name)
        monkeypatch.setattr(
            Factor, name, lambda self, X, n=name, f=original: order.append(n) or f(self, X)
        )
    KroneckerOperator(gaussian(*shape_A), gaussian(*shape_B)).apply(gaussian(m, n))
    assert order[0] == first


def test_the_product_is_never_formed():
    # The explicit matrix would take 40·30·200·150 float64, 275 MiB.
    K = KroneckerOperator(gaussian(40, 200), gaussian(30, 150))
    x = gaussian(K.shape[1])
    tracemalloc.start()
    y = K @ x
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert y.shape == (1200,)
    assert peak < 4 * x.nbytes


def test_a_converted_factor_is_kept_for_the_next_product_and_shared_by_the_transpose():
    A = Factor(gaussian(5, 4))
    X = gaussian(4, 3).astype(np.float32)
    assert A.like(X) is A.like(X)
    assert A.T.like(X).base is A.like(X)
    assert A.like(gaussian(4, 3)) is A.matrix  # nothing to convert, nothing copied


def test_scipy_solvers_accept_the_operator():
    A, B = gaussian(4, 9, seed=14), gaussian(3, 7, seed=15)
    K, y = KroneckerOperator(A, B), gaussian(12, seed=16)
    expected = np.linalg.pinv(np.kron(A, B)) @ y
    np.testing.assert_allclose(lsqr(K, y, atol=1e-14, btol=1e-14)[0], expected, atol=1e-9)


def test_the_shape_of_the_argument_is_checked():
    K = KroneckerOperator(gaussian(3, 5), gaussian(4, 7))
    with pytest.raises(
        ValueError, match=r"expected a matrix of shape \(5, 7\).*got shape \(7, 5\)"
    ):
        K.apply(gaussian(7, 5))
    with pytest.raises(ValueError, match=r"expected a matrix of shape \(3, 4\)"):
        K.apply_adjoint(gaussian(5, 7))
    with pytest.raises(ValueError, match="dimension mismatch"):
        K @ gaussian(34)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (np.ones(3), "A must be a matrix"),
        (np.ones((3, 2, 2)), "A must be a matrix"),
        (np.ones((0, 2)), "at least one entry"),
        (np.ones((2, 2)) * 1j, r"^A has entries of type .*real numbers"),
        (torch.ones(2, 2) * 1j, r"^A has entries of type .*real numbers"),
        (sparse.csr_array(np.ones((2, 2)) * 1j), "A must have real entries"),
        (torch.ones(2, 2).to_sparse(), "scipy sparse array"),
        (np.array([["a"]]), r"^A has entries of type .*real numbers"),
    ],
)
def test_a_factor_must_be_a_real_matrix(bad, message):
    with pytest.raises(ValueError, match=message):
        KroneckerOperator(bad, np.ones((2, 2)))


@pytest.mark.parametrize("kind", ["gaussian", "very_sparse", "srht"])
@pytest.mark.parametrize("empty", [np.empty, torch.empty])
def test_an_empty_stack_of_matrices_gives_an_empty_stack(kind, empty):
    K = KroneckerOperator(make_projection(kind, 3, 64), make_projection(kind, 2, 64))
    assert tuple(K.apply(empty((0, 64, 64))).shape) == (0, 3, 2)
    assert tuple(K.apply_adjoint(empty((0, 3, 2))).shape) == (0, 64, 64)


def test_complex_arrays_are_refused_rather_than_cut_to_their_real_part():
    K = KroneckerOperator(np.ones((2, 2)), np.ones((2, 2)))
    with pytest.raises(ValueError, match="complex128"):
        K.apply(1j * np.ones((2, 2)))


def test_a_tensor_meets_a_clear_error_where_a_factor_works_on_numpy_only():
    K = KroneckerOperator(aslinearoperator(np.ones((2, 2))), np.ones((2, 2)))
    with pytest.raises(ValueError, match="multiplies numpy arrays only"):
        K.apply(torch.ones(2, 2))
