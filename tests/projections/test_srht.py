"""The subsampled randomised Hadamard transform: its law, its products, their cost."""

import math
import time
from collections import Counter
from itertools import combinations, product

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import hadamard
from scipy.sparse.linalg import LinearOperator

from cosa_theory.ground.errors import InputError
from cosa_theory.projections import SRHT, make_projection, padded_length, stream
from cosa_theory.projections.srht import walsh_hadamard

Z = 4.5


def explicit(A):
    """√v · P H D as a matrix, from the definition."""
    H = hadamard(A.padded)[A.rows, : A.shape[1]]
    return A.magnitude * H * A.signs


@pytest.mark.parametrize("N", [1, 2, 4, 8, 16, 32, 128, 512, 1024])
@pytest.mark.parametrize("columns", [0, 1, 3])
def test_the_fast_transform_is_the_hadamard_matrix(N, columns):
    X = stream(0, "X").standard_normal((N, columns))
    np.testing.assert_allclose(walsh_hadamard(X), hadamard(N) @ X, rtol=1e-12, atol=1e-11)


def test_the_fast_transform_keeps_leading_dimensions_and_integers_exact():
    X = stream(0, "X").integers(-9, 9, (2, 3, 64, 5)).astype(float)
    assert np.array_equal(walsh_hadamard(X), hadamard(64) @ X)
    assert np.array_equal(walsh_hadamard(np.asfortranarray(X[0, 0])), hadamard(64) @ X[0, 0])


@pytest.mark.parametrize("N", [0, 3, 12])
def test_the_fast_transform_refuses_other_sizes(N):
    with pytest.raises(InputError, match=rf"X has {N} rows: .*power of two"):
        walsh_hadamard(np.zeros((N, 2)))


@given(st.integers(1, 70), st.data())
def test_products_are_those_of_the_explicit_matrix(d, data):
    padded = 1 << (d - 1).bit_length()
    k = data.draw(st.integers(1, padded))
    A = make_projection("srht", k, d, seed=data.draw(st.integers(0, 99)))
    assert isinstance(A, LinearOperator)
    M, rng = explicit(A), stream(1)
    assert M.shape == A.shape == (k, d)
    np.testing.assert_allclose(np.abs(M), 1 / math.sqrt(k), rtol=1e-15)
    X, Y = rng.standard_normal((d, 3)), rng.standard_normal((k, 3))
    close = {"rtol": 1e-12, "atol": 1e-12}
    for operator, left, right in ((A, X, Y), (A.T.T, X, Y), (A.T, Y, X), (A.H, Y, X)):
        matrix = M if operator.shape == (k, d) and left is X else M.T
        np.testing.assert_allclose(operator @ left, matrix @ left, **close)
        np.testing.assert_allclose(operator.apply(left), matrix @ left, **close)
        np.testing.assert_allclose(operator @ left[:, 0], matrix @ left[:, 0], **close)
        np.testing.assert_allclose(operator.matvec(left[:, :1]), matrix @ left[:, :1], **close)
        np.testing.assert_allclose(operator.T @ right, matrix.T @ right, **close)
        np.testing.assert_allclose(operator.rmatmat(right), matrix.T @ right, **close)
        np.testing.assert_allclose(operator.rmatvec(right[:, 0]), matrix.T @ right[:, 0], **close)
        np.testing.assert_allclose(operator.apply_transpose(right), matrix.T @ right, **close)
        np.testing.assert_allclose(right.T @ operator, right.T @ matrix, **close)


def test_forward_and_transpose_are_adjoint():
    A = make_projection("srht", 300, 1000, seed=2)
    x, y = stream(2).standard_normal(1000), stream(3).standard_normal(300)
    assert y @ (A @ x) == pytest.approx((A.T @ y) @ x, rel=1e-12)


def test_leading_dimensions_are_a_batch():
    A = make_projection("srht", 5, 12)
    X = stream(4).standard_normal((2, 3, 12, 4))
    np.testing.assert_allclose(A.apply(X), explicit(A) @ X, atol=1e-13)
    Y = stream(4).standard_normal((2, 3, 5, 4))
    np.testing.assert_allclose(A.T.apply(Y), explicit(A).T @ Y, atol=1e-13)


@pytest.mark.parametrize(
    ("given_dtype", "expected"),
    [("float32", "float32"), ("float64", "float64"), ("int64", "float64"), ("int8", "float64")],
)
@pytest.mark.parametrize("own", ["float32", "float64"])
def test_products_keep_the_dtype_of_the_array(given_dtype, expected, own):
    A = make_projection("srht", 5, 12, dtype=own)
    assert A.dtype == own
    for result in (A @ np.ones((12, 2), given_dtype), A.T.apply(np.ones(5, given_dtype))):
        assert result.dtype == expected
    tensor = torch.ones(12, 2, dtype=getattr(torch, given_dtype))
    assert A.apply(tensor).dtype == getattr(torch, expected)


def test_complex_arrays_are_mapped_by_their_parts():
    A = make_projection("srht", 5, 12)
    x, y = stream(5).standard_normal((2, 12))
    np.testing.assert_allclose(A @ (x + 1j * y), A @ x + 1j * (A @ y), atol=1e-14)


def test_torch_tensors_give_the_same_numbers_and_pass_gradients():
    A = make_projection("srht", 20, 50, seed=3)
    X = stream(6).standard_normal((50, 4))
    tensor = torch.from_numpy(X).requires_grad_()
    result = A.apply(tensor)
    np.testing.assert_allclose(result.detach().numpy(), A @ X, atol=1e-13)
    weight = stream(7).standard_normal((20, 4))
    (result * torch.from_numpy(weight)).sum().backward()
    np.testing.assert_allclose(tensor.grad.numpy(), A.T @ weight, atol=1e-13)
    back = A.T.apply(torch.from_numpy(weight))
    np.testing.assert_allclose(back.numpy(), A.T @ weight, atol=1e-13)


def test_products_leave_their_argument_alone():
    A = make_projection("srht", 8, 16)
    X, Y = np.ones((16, 3)), np.ones((8, 3))
    A.apply(X)
    A.apply_transpose(Y)
    assert (X == 1).all()
    assert (Y == 1).all()


@pytest.mark.parametrize("X", [np.ones(11), np.ones((11, 2)), np.ones((12, 2, 3)), np.float64(1)])
def test_an_array_of_another_length_is_refused(X):
    A = make_projection("srht", 5, 12)
    with pytest.raises(InputError, match=r"X has shape .*: it must have 12 rows"):
        A.apply(X)


@pytest.mark.parametrize("X", [[1.0] * 12, np.array(["a"] * 12), None])
def test_what_is_no_array_of_numbers_is_refused(X):
    A = make_projection("srht", 12, 12)
    for apply in (A.apply, A.apply_transpose):
        with pytest.raises(InputError, match=r"^X is .*: it must be an array of numbers"):
            apply(X)


def test_the_padded_length_is_the_next_power_of_two_of_any_whole_number():
    assert [padded_length(d) for d in (1, np.int64(5), np.uint8(8), np.int32(9))] == [1, 8, 8, 16]
    for d in (0, -3, 2.5):
        with pytest.raises(InputError, match=f"d is {d}"):
            padded_length(d)


def test_rows_are_a_uniform_subset_without_replacement():
    draws = 2800
    sets = list(combinations(range(8), 3))
    counts = Counter(
        tuple(make_projection("srht", 3, 6, seed=s).rows.tolist()) for s in range(draws)
    )
    assert set(counts) <= set(sets)
    statistic = sum((counts[s] - 50) ** 2 / 50 for s in sets)
    assert stats.chi2.sf(statistic, len(sets) - 1) > 1e-4


def test_signs_are_fair():
    A = make_projection("srht", 100, 100_000, seed=1)
    assert set(A.signs) == {-1, 1}
    assert abs(A.signs.sum(dtype=int)) / math.sqrt(100_000) < Z


def test_all_rows_make_an_isometry():
    A = make_projection("srht", 64, 50, seed=1)  # k = N: nothing is dropped
    x = stream(1).standard_normal(50)
    assert np.linalg.norm(A @ x) == pytest.approx(np.linalg.norm(x), rel=1e-14)


@pytest.mark.parametrize(("k", "d"), [(5, 16), (64, 64), (1, 1)])
def test_rows_are_orthonormal_at_synthesis_scale_for_a_power_of_two(k, d):
    M = make_projection("srht", k, d, scale="synthesis") @ np.eye(d)
    np.testing.assert_allclose(M @ M.T, np.eye(k), atol=1e-14)


def test_padding_makes_four_rows_that_share_their_low_bits_dependent():
    # 384 of 512 entries: the two highest bits take three of their four values, so that the four
    # rows of a class live in three dimensions.
    deficient = 0
    for seed in range(12):
        A = make_projection("srht", 96, 384, seed=seed)
        complete = np.count_nonzero(np.bincount(A.rows % 128) == 4)
        assert np.linalg.matrix_rank(A @ np.eye(384)) == 96 - complete
        deficient += complete > 0
    assert 0 < deficient < 12


def test_sampling_without_replacement_has_its_smaller_variance():
    # Var‖Ax‖² = (2/k)(1 − ‖x‖₄⁴)(N − k)/(N − 1), checked by listing every sign and row choice of
    # the operator as it is applied.
    N, k = 4, 2
    x = np.array([0.1, 0.5, 0.7, math.sqrt(1 - 0.01 - 0.25 - 0.49)])
    norms = [
        np.sum(
            SRHT(np.array(signs, np.int8), np.array(rows), 1 / math.sqrt(k), np.dtype(float)).apply(
                x
            )
            ** 2
        )
        for signs in product((-1, 1), repeat=N)
        for rows in combinations(range(N), k)
    ]
    assert np.mean(norms) == pytest.approx(1, rel=1e-12)
    law = 2 / k * (1 - np.sum(x**4)) * (N - k) / (N - 1)
    assert np.var(norms) == pytest.approx(law, rel=1e-12)


def seconds(function, repeats=5):
    times = []
    for _ in range(repeats):
        start = time.process_time()  # other work may share the machine
        function()
        times.append(time.process_time() - start)
    return min(times)


def test_a_block_product_is_faster_than_the_dense_one():
    A = make_projection("srht", 1024, 4096)
    dense, X = make_projection("rademacher", 1024, 4096), np.ones((4096, 256))
    assert seconds(lambda: A @ X) < seconds(lambda: dense @ X) / 1.5  # about 5 when alone


def test_the_cost_of_a_vector_grows_almost_linearly():
    # N log N from 2¹² to 2¹⁸ grows 96-fold, N² would grow 4096-fold.
    small, large = (make_projection("srht", 64, 1 << bits) for bits in (12, 18))
    x, y = np.ones(1 << 12), np.ones(1 << 18)
    assert seconds(lambda: large @ y) < 500 * seconds(lambda: small @ x)
