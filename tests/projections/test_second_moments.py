"""Second moments: their leading directions, from all of C or from its eigenpairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.projections import SecondMoments

N = 30


def rows(count=200, n=N, seed=0):
    """Draw vectors with a mean and a decaying spectrum."""
    generator = np.random.default_rng(seed)
    mixing = np.linalg.qr(generator.standard_normal((n, n)))[0] * 0.8 ** np.arange(n)
    return generator.standard_normal((count, n)) @ mixing.T + 0.3 * generator.standard_normal(n)


def moments_of(x, dtype=float, **more):
    return SecondMoments((x.T @ x / len(x)).astype(dtype), mean=x.mean(0), count=len(x), **more)


def eigenpairs(C, k):
    values, vectors = np.linalg.eigh(C.matrix)
    return SecondMoments(
        vectors=vectors[:, ::-1][:, :k], values=values[::-1][:k], trace=C.total, count=C.count
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_leading_directions_are_orthonormal_eigenvectors_by_descending_eigenvalue(dtype):
    C = moments_of(rows(), dtype)
    values, vectors = C.leading(7)
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(7), atol=1e-14)
    error = C.matrix.astype(float) @ vectors - vectors * values
    assert np.abs(error).max() <= 20 * eps * values[0]
    np.testing.assert_allclose(
        values, np.linalg.eigvalsh(C.matrix.astype(float))[:-8:-1], rtol=50 * eps
    )
    assert (vectors[np.abs(vectors).argmax(0), range(7)] > 0).all()
    fewer = C.leading(3)
    np.testing.assert_allclose(fewer[1], vectors[:, :3], atol=1e-14)


@given(st.integers(1, N), st.floats(1e-6, 1e6))
@settings(max_examples=20, deadline=None)
def test_shares_are_those_of_the_eigenvalues_whatever_the_scale(k, scale):
    C = moments_of(rows())
    values = np.linalg.eigvalsh(C.matrix)[::-1]
    scaled = SecondMoments(C.matrix * scale)
    np.testing.assert_allclose(scaled.shares(k), np.cumsum(values)[:k] / values.sum(), rtol=1e-9)
    assert scaled.share(k) == pytest.approx(scaled.shares(k)[-1])


def test_eigenpairs_stand_for_the_matrix_and_hold_no_more_directions_than_they_have():
    C = moments_of(rows())
    few = eigenpairs(C, 6)
    assert few.n == N
    np.testing.assert_allclose(few.leading(6)[1], C.leading(6)[1], atol=1e-10)
    np.testing.assert_allclose(few.shares(9)[:6], C.shares(6), rtol=1e-12)
    assert few.shares(9)[-1] == few.shares(6)[-1]
    with pytest.raises(InputError, match=r"keep 6 directions, and 7 .* more directions"):
        few.leading(7)


@pytest.mark.parametrize("power", [0.5, 1, 2, 3.5])
def test_powers_are_those_of_the_matrix_over_its_trace(power):
    C = moments_of(rows())
    G = np.random.default_rng(1).standard_normal((4, N))
    values, vectors = np.linalg.eigh(C.matrix / np.trace(C.matrix))
    expected = G @ (vectors * values**power) @ vectors.T
    np.testing.assert_allclose(C.times(G, power), expected, rtol=1e-9, atol=1e-13)
    np.testing.assert_allclose(eigenpairs(C, N).times(G, power), expected, rtol=1e-9, atol=1e-12)


def test_centred_moments_are_the_covariance():
    x = rows()
    np.testing.assert_allclose(
        moments_of(x).centred().matrix, np.cov(x.T, bias=True), rtol=1e-10, atol=1e-12
    )
    for without in (SecondMoments(np.eye(3)), eigenpairs(moments_of(x), 3)):
        with pytest.raises(InputError, match=r"cannot be centred.* mean and all of C"):
            without.centred()


def test_moments_of_whole_numbers_are_centred_by_the_mean_that_is_none():
    moments = SecondMoments(np.array([[4, 1], [1, 3]]), mean=np.array([0.5, 0.9]))
    np.testing.assert_allclose(moments.centred().matrix, [[3.75, 0.55], [0.55, 2.19]])


@pytest.mark.parametrize(("count", "n"), [(5, 30), (30, 30), (200, 30), (5, 200)])
def test_no_more_directions_than_vectors_are_found(count, n):
    x = rows(count, n)
    for known in (count, None):
        C = SecondMoments((x.T @ x / count).astype(np.float32), count=known, where="layer 3")
        most = min(count, n)
        assert C.independent(n) <= most
        if most == count < n:
            assert C.leading(count)[1].shape == (n, count)
            with pytest.raises(InputError) as caught:
                C.leading(count + 1)
            message = str(caught.value)
            assert all(part in message for part in ("layer 3", f" {count} ", f" {count + 1} "))
            assert "texts" in message
            assert len(message) <= 300
    assert SecondMoments(np.eye(n), count=2).independent(n) == 2


def with_an_outlier(count, n, size, rank=None):
    """Draw vectors of which every fiftieth has one entry of another size."""
    generator = np.random.default_rng(3)
    rank = rank or n
    x = generator.standard_normal((count, rank)) @ generator.standard_normal((rank, n)) / rank**0.5
    x[::50, 7] += size
    return x


@pytest.mark.parametrize("size", [1e3, 1e4, 1e5])
def test_an_input_far_larger_than_the_others_hides_none_of_their_directions(size):
    x = with_an_outlier(2000, 100, size)
    C = moments_of(x, np.float32)
    assert (C.independent(60), C.independent(100)) == (60, 100)
    vectors = C.leading(60)[1]
    exact = np.linalg.eigh(x.T @ x / len(x))[1][:, ::-1]
    others = x - (x @ exact[:, :1]) @ exact[:, :1].T
    held, best = (np.linalg.norm(others @ one[:, :60]) ** 2 for one in (vectors, exact))
    assert held == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize("size", [0.0, 1e3, 1e5])
@pytest.mark.parametrize("rank", [1, 20])
def test_an_input_far_larger_than_the_others_makes_up_no_direction(rank, size):
    x = with_an_outlier(2000, 300, size, rank)
    for dtype in (np.float32, np.float64):
        C = SecondMoments((x.T @ x / len(x)).astype(dtype))
        assert C.independent(300) == rank + (size > 0)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({}, "missing: give matrix, or vectors and values"),
        ({"vectors": np.eye(3)}, "missing"),
        ({"matrix": np.ones((2, 3))}, r"\(2, 3\).*square"),
        ({"matrix": np.diag([1, np.nan])}, "NaN or infinite.*float32"),
        ({"vectors": np.eye(2), "values": np.array([np.inf, 1])}, "NaN or infinite"),
        ({"matrix": np.zeros((2, 2))}, "zero.*leave it out"),
        ({"matrix": np.zeros((0, 0))}, "zero.*leave it out"),
        ({"matrix": np.eye(300) + np.eye(300, k=-299)}, r"symmetric: entry \(0, 299\) is 0 and"),
        ({"matrix": np.array([[1, 2], [3, 4]], np.uint8)}, r"symmetric: entry \(0, 1\) is 2 and"),
    ],
)
def test_what_is_no_second_moments_is_refused_by_the_name_of_its_layer(parts, message):
    with pytest.raises(InputError, match=f"the moments of layer 3 .*{message}"):
        SecondMoments(**parts, where="layer 3")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"matrix": [[1.0], [1.0, 2.0]]}, "^matrix of the moments of layer 3 is .*real numbers"),
        ({"matrix": np.eye(2).astype(str)}, "^matrix of the moments of layer 3 is .*real numbers"),
        ({"matrix": np.eye(3), "mean": np.ones(2)}, r"layer 3 have a mean of shape \(2,\)"),
        ({"vectors": np.eye(3)[:, :2], "values": np.ones(3)}, r"\(3, 2\) and values of shape \(3,"),
        ({"vectors": np.ones(3), "values": np.ones(3)}, r"vectors of shape \(3,\)"),
        ({"vectors": np.ones((2, 3)), "values": np.ones(3)}, "r at most n"),
    ],
)
def test_parts_that_are_no_arrays_or_do_not_fit_each_other_are_refused(parts, message):
    with pytest.raises(InputError, match=message):
        SecondMoments(**parts, where="layer 3")


def test_lists_are_taken_as_arrays():
    np.testing.assert_array_equal(SecondMoments([[2.0, 0.0], [0.0, 1.0]]).leading(1)[0], [2.0])


def test_moments_are_symmetric_up_to_the_rounding_of_their_sums():
    C = moments_of(rows(), np.float32).matrix
    C[2, 5] *= 1 + 1e-4
    assert SecondMoments(C).n == N


def test_moments_of_another_length_are_refused():
    assert SecondMoments.of(np.eye(4).tolist(), 4).n == 4
    with pytest.raises(InputError, match=r"length 4: the layer has 5"):
        SecondMoments.of(np.eye(4), 5)
