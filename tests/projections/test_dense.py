"""The laws of the dense ensembles."""

import math
from fractions import Fraction

import numpy as np
import pytest
import scipy.linalg
from scipy import stats

from cosa_theory.projections import dense, make_projection, stream

Z = 4.5  # two-sided probability 7e-6; seeds are fixed


def z_scores(sample, means, variances):
    return (sample - means) / np.sqrt(variances)


def test_gaussian_entries_have_the_moments_of_a_normal_law():
    k, d = 200, 1000
    x = make_projection("gaussian", k, d, seed=1) * math.sqrt(k)
    n = x.size
    moments = np.array([np.mean(x**p) for p in (1, 2, 3, 4)])
    expected = np.array([0, 1, 0, 3])
    variances = np.array([1, 3 - 1, 15, 105 - 9]) / n
    assert np.abs(z_scores(moments, expected, variances)).max() < Z
    assert stats.kstest(x.ravel(), "norm").pvalue > 1e-4


def test_gaussian_entries_are_independent_along_rows_and_columns():
    k, d = 300, 400
    x = make_projection("gaussian", k, d, seed=2) * math.sqrt(k)
    lags = [x[:, 1:] * x[:, :-1], x[1:] * x[:-1], x[1:, 1:] * x[:-1, :-1]]
    assert max(abs(np.sum(lag)) / math.sqrt(lag.size) for lag in lags) < Z


def test_gaussian_values_are_pinned():
    A = make_projection("gaussian", 2, 3, seed=7, key="layer")
    np.testing.assert_allclose(A, GOLDEN_GAUSSIAN, rtol=1e-14)


GOLDEN_GAUSSIAN = [
    [-1.3518180654370586, 0.6749424354690816, 0.5462555604383488],
    [0.21570539386673312, -1.4614317790117022, 0.1907180181210142],
]


@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_do_not_depend_on_the_size_of_the_chunks(kind, dtype, monkeypatch):
    expected = make_projection(kind, 7, 300, dtype=dtype)
    monkeypatch.setattr("cosa_theory.projections.dense.CHUNK", 64)
    monkeypatch.setattr("cosa_theory.projections.streams.CHUNK", 64)
    assert np.array_equal(make_projection(kind, 7, 300, dtype=dtype), expected)


def test_gaussian_float32_needs_no_float64_copy():
    import tracemalloc

    tracemalloc.start()
    A = make_projection("gaussian", 1000, 2000, dtype="float32")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < A.nbytes + 2**20


def test_rademacher_entries_are_fair_and_independent_signs():
    k, d = 300, 400
    x = make_projection("rademacher", k, d, seed=3) * math.sqrt(k)
    np.testing.assert_allclose(np.abs(x), 1, rtol=1e-15)
    sums = [x, x[:, 1:] * x[:, :-1], x[1:] * x[:-1], x[:, 64:] * x[:, :-64]]
    assert max(abs(np.sum(each)) / math.sqrt(each.size) for each in sums) < Z


@pytest.mark.parametrize(("k", "d"), [(1, 1), (5, 5), (3, 40), (200, 300), (200, 1100)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_haar_rows_are_orthonormal_at_synthesis_scale(k, d, dtype):
    A = make_projection("haar", k, d, scale="synthesis", dtype=dtype).astype(float)
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(A @ A.T, np.eye(k), atol=tolerance)


def test_haar_is_the_qr_factor_with_a_positive_diagonal_on_both_routes():
    for k, d in ((200, 1100), (300, 1100)):  # by Cholesky (k ≤ d/4, d ≥ 1024), by Householder
        G = dense.haar_draw(lambda role: stream(0, role), k, d).T
        Q = dense._orthonormal(G.copy(order="F"))
        R = Q.T @ G
        assert np.diagonal(R).min() > 0
        np.testing.assert_allclose(np.tril(R, -1), 0, atol=1e-12)
        reference, triangle = scipy.linalg.qr(G, mode="economic")
        np.testing.assert_allclose(Q, reference * np.sign(np.diagonal(triangle)), atol=1e-14)


def test_the_cholesky_route_is_only_taken_where_it_keeps_orthogonality():
    for seed in range(40):
        for k, d in ((256, 1024), (2, 2), (5, 5), (2, 8)):
            A = make_projection("haar", k, d, seed=seed, scale="synthesis")
            np.testing.assert_allclose(A @ A.T, np.eye(k), atol=2e-14)


def test_haar_entries_have_the_moments_of_a_uniform_frame():
    # A row is uniform on the sphere of R^d: entry mean 0, E q² = 1/d, E q⁴ = 3/(d(d+2)). The
    # first entry sees a missing sign correction, which would make it one-signed.
    k, d, draws = 3, 4, 4000
    Q = np.array([make_projection("haar", k, d, seed=s, scale="synthesis") for s in range(draws)])
    second, fourth = 1 / d, 3 / (d * (d + 2))
    eighth = 105 / (d * (d + 2) * (d + 4) * (d + 6))
    for power, mean, square in ((1, 0, second), (2, second, fourth), (4, fourth, eighth)):
        z = z_scores(np.mean(Q**power, axis=0), mean, (square - mean**2) / draws)
        assert np.abs(z).max() < Z


def test_a_square_haar_matrix_has_unit_mean_squared_trace():
    # E tr(Q)² = 1 and E tr(Q)⁴ = 3 on O(d) for d ≥ 4 (Diaconis and Shahshahani 1994).
    draws = 4000
    traces = np.array(
        [np.trace(make_projection("haar", 5, 5, seed=s, scale="synthesis")) for s in range(draws)]
    )
    assert abs(z_scores(traces.mean(), 0, 1 / draws)) < Z
    assert abs(z_scores(np.mean(traces**2), 1, (3 - 1) / draws)) < Z


def test_haar_refuses_more_rows_than_columns():
    with pytest.raises(ValueError, match=r"k is 5 with d = 4; haar .* k at most d"):
        make_projection("haar", 5, 4)


def test_builders_take_any_rational_variance():
    A = dense.gaussian(lambda role: stream(0, role), 3, 4, Fraction(1), np.dtype(float))
    B = dense.gaussian(lambda role: stream(0, role), 3, 4, Fraction(1, 4), np.dtype(float))
    assert np.array_equal(A, 2 * B)
