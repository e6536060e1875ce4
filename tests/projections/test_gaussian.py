"""The Gaussian law: its moments, its values, and what drawing it costs."""

import math
import tracemalloc
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from cosa_theory.projections import make_projection, stream
from cosa_theory.projections.gaussian import gaussian

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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_do_not_depend_on_the_size_of_the_chunks(dtype, monkeypatch):
    expected = make_projection("gaussian", 7, 300, dtype=dtype)
    monkeypatch.setattr("cosa_theory.projections.gaussian.CHUNK", 64)
    assert np.array_equal(make_projection("gaussian", 7, 300, dtype=dtype), expected)


def test_gaussian_float32_needs_no_float64_copy():
    tracemalloc.start()
    A = make_projection("gaussian", 1000, 2000, dtype="float32")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < A.nbytes + 2**20


def test_the_draw_takes_any_rational_variance():
    A = gaussian(lambda role: stream(0, role), 3, 4, Fraction(1), np.dtype(float))
    B = gaussian(lambda role: stream(0, role), 3, 4, Fraction(1, 4), np.dtype(float))
    assert np.array_equal(A, 2 * B)
