"""The Haar law: orthonormal rows, uniformly distributed, by either route."""

import numpy as np
import pytest
import scipy.linalg

from cosa_theory.projections import ENSEMBLES, make_projection, stream
from cosa_theory.projections.haar import _orthonormal

Z = 4.5  # two-sided probability 7e-6; seeds are fixed


def z_scores(sample, means, variances):
    return (sample - means) / np.sqrt(variances)


@pytest.mark.parametrize(("k", "d"), [(1, 1), (5, 5), (3, 40), (200, 300), (200, 1100)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_haar_rows_are_orthonormal_at_synthesis_scale(k, d, dtype):
    A = make_projection("haar", k, d, scale="synthesis", dtype=dtype).astype(float)
    tolerance = 20 * np.finfo(dtype).eps
    np.testing.assert_allclose(A @ A.T, np.eye(k), atol=tolerance)


def test_haar_is_the_qr_factor_with_a_positive_diagonal_on_both_routes():
    for k, d in ((200, 1100), (300, 1100)):  # by Cholesky (k ≤ d/4, d ≥ 1024), by Householder
        G = ENSEMBLES["haar"].source(lambda role: stream(0, role), k, d, np.dtype(float)).T
        Q = _orthonormal(G.copy(order="F"))
        R = Q.T @ G
        assert np.diagonal(R).min() > 0
        np.testing.assert_allclose(np.tril(R, -1), 0, atol=1e-12)
        reference, triangle = scipy.linalg.qr(G, mode="economic")
        np.testing.assert_allclose(Q, reference * np.sign(np.diagonal(triangle)), atol=1e-14)


def test_the_cholesky_route_is_only_taken_where_it_keeps_orthogonality():
    for seed in range(15):
        for k, d in ((256, 1024), (2, 2), (5, 5), (2, 8)):
            A = make_projection("haar", k, d, seed=seed, scale="synthesis")
            np.testing.assert_allclose(A @ A.T, np.eye(k), atol=2e-14)


def test_haar_entries_have_the_moments_of_a_uniform_frame():
    # A row is uniform on the sphere of R^d: entry mean 0, E q² = 1/d, E q⁴ = 3/(d(d+2)). The
    # first entry sees a missing sign correction, which would make it one-signed.
    k, d, draws = 3, 4, 2500
    Q = np.array([make_projection("haar", k, d, seed=s, scale="synthesis") for s in range(draws)])
    second, fourth = 1 / d, 3 / (d * (d + 2))
    eighth = 105 / (d * (d + 2) * (d + 4) * (d + 6))
    for power, mean, square in ((1, 0, second), (2, second, fourth), (4, fourth, eighth)):
        z = z_scores(np.mean(Q**power, axis=0), mean, (square - mean**2) / draws)
        assert np.abs(z).max() < Z


def test_a_square_haar_matrix_has_unit_mean_squared_trace():
    # E tr(Q)² = 1 and E tr(Q)⁴ = 3 on O(d) for d ≥ 4 (Diaconis and Shahshahani 1994).
    draws = 2500
    traces = np.array(
        [np.trace(make_projection("haar", 5, 5, seed=s, scale="synthesis")) for s in range(draws)]
    )
    assert abs(z_scores(traces.mean(), 0, 1 / draws)) < Z
    assert abs(z_scores(np.mean(traces**2), 1, (3 - 1) / draws)) < Z
