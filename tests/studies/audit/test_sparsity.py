"""Effective sparsity counts what it says, and its interval holds what rounding hides."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq
from scipy.stats import norm

from cosa_theory.linear.transforms import DCT, Coordinate, SingularBasis
from cosa_theory.studies.audit.layer import measured_participation
from cosa_theory.studies.audit.sparsity import (
    NO_DECAY,
    energy_count,
    measure_bases,
    numerical_sparsity_range,
)
from tests.studies.audit.layers import dense, sparse_in, weight


def measure(matrix, rounding=0.0):
    return measure_bases(np.asarray(matrix, dtype=float), [Coordinate()], rounding)[0]


def count_90(x):
    energy = np.cumsum(np.sort(np.square(np.ravel(x)))[::-1])
    return int(np.argmax(energy >= 0.9 * energy[-1] * (1 - 1e-12)) + 1)


@given(st.integers(0, 10_000), st.integers(1, 12), st.integers(1, 12))
def test_the_count_is_the_fewest_entries_with_ninety_percent_of_the_energy(seed, m, n):
    x = np.random.default_rng(seed).standard_t(2, (m, n))
    found = measure(x)
    assert found.effective.value == count_90(x)
    assert found.effective.low <= found.effective.value <= found.effective.high
    numerical = np.abs(x).sum() ** 2 / np.square(x).sum()
    assert found.effective.low <= numerical * (1 + 1e-9)
    assert found.effective.high >= numerical * (1 - 1e-9)


def rounded(seed, level, kind):
    """Return a matrix, and the same with an error of a norm that is `level` times its own.

    The error is random, or the one that moves a measure the most: along the small entries, along
    the signs, or along the first singular vectors.
    """
    generator = np.random.default_rng(seed)
    x = generator.standard_t(2, (9, 7))
    if kind == "random":
        error = generator.standard_normal(x.shape)
    elif kind == "small entries":
        error = np.where(np.abs(x) < np.quantile(np.abs(x), 0.7), x, 0.0)
    elif kind == "signs":
        error = np.sign(x)
    else:
        U, _, Vt = np.linalg.svd(x)
        error = np.outer(U[:, 0], Vt[0])
    error *= generator.choice([-1, 1]) * level * np.linalg.norm(x) / np.linalg.norm(error)
    return x, x + error, float(np.linalg.norm(error))


errors = st.sampled_from(["random", "small entries", "signs", "first singular vectors"])


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.floats(1e-6, 2.0), errors)
def test_the_intervals_hold_both_counts_of_the_update_before_rounding(seed, level, kind):
    x, stored, rounding = rounded(seed, level, kind)
    magnitudes = np.sort(np.abs(stored), axis=None)
    energy = np.cumsum(magnitudes**2)
    fewest, _, most = energy_count(energy, rounding)
    assert fewest <= count_90(x) <= most
    low, high = numerical_sparsity_range(magnitudes, float(energy[-1]), rounding)
    numerical = np.abs(x).sum() ** 2 / np.square(x).sum()
    assert low * (1 - 1e-9) <= numerical <= high * (1 + 1e-9)
    both = measure(stored, rounding).effective
    assert both.low == pytest.approx(min(low, fewest))
    assert both.high == pytest.approx(max(high, most))


@settings(max_examples=300)
@given(st.integers(0, 10_000), st.floats(1e-6, 2.0), errors)
def test_the_interval_of_the_participation_ratio_holds_that_before_rounding(seed, level, kind):
    x, stored, rounding = rounded(seed, level, kind)
    sigma, exact = (np.linalg.svd(y, compute_uv=False) for y in (stored, x))
    found = measured_participation(sigma, rounding)
    ratio = np.sum(exact**2) ** 2 / np.sum(exact**4)
    assert 1 <= found.low <= ratio * (1 + 1e-9)
    assert ratio * (1 - 1e-9) <= found.high <= 7
    assert found.low <= found.value <= found.high


def test_rounding_could_hide_that_a_dominant_singular_value_is_not_there():
    tail = np.full(60, 60**-0.5)
    found = measured_participation(np.concatenate([[1.0], tail]), 1.0)
    assert found.value < 5
    assert found.high >= 60


def test_without_rounding_the_interval_of_the_participation_ratio_is_a_point():
    sigma = np.array([3.0, 2.0, 1.0])
    found = measured_participation(sigma, 0.0)
    assert (found.low, found.high) == pytest.approx((found.value,) * 2)
    assert found.value == pytest.approx(14**2 / 98)


@pytest.mark.parametrize("basis", ["coordinate", "dct", "singular"])
def test_the_right_basis_needs_the_fewest_coefficients(basis):
    delta = sparse_in(basis, 5)
    transforms = [Coordinate(), DCT(), SingularBasis(weight(96, 80).astype(float))]
    found = measure_bases(delta, transforms, 0.0)
    assert [one.basis for one in found] == ["coordinate", "dct", "singular"]
    best = min(found, key=lambda one: one.effective.value)
    assert best.basis == basis
    assert best.effective.value == 5
    others = [one.effective.value for one in found if one is not best]
    assert min(others) > 100


def test_gaussian_entries_are_sparse_in_no_basis():
    found = measure(dense(300, 200))
    # Entries below z hold 2Φ(z) − 1 − 2zφ(z) of the energy.
    z = brentq(lambda z: 2 * norm.cdf(z) - 1 - 2 * z * norm.pdf(z) - 0.1, 0, 3)
    assert found.effective.value / 60_000 == pytest.approx(2 * norm.sf(z), abs=0.01)
    assert found.profile["numerical_sparsity_share"] == pytest.approx(2 / math.pi, abs=0.01)
    assert found.exponent.low > 3


def test_the_decay_is_that_of_the_best_s_term_error():
    x = np.array([[8.0, -4.0], [2.0, 2.0]])
    decay = dict(measure(x).decay)
    assert decay == pytest.approx({0.25: 0.5, 0.5: 0.25, 0.75: 0.125, 1.0: 0.0})


def test_a_power_law_has_its_exponent_and_equal_entries_have_none():
    entries = np.arange(1, 100_001.0) ** -2.0  # |x|_(k) = k^(-1/p) with p = 1/2
    found = measure(entries.reshape(400, 250))
    assert (found.exponent.low, found.exponent.high) == pytest.approx((0.5, 0.5), rel=1e-6)
    equal = measure(np.ones((20, 20)))
    assert equal.exponent.value == equal.profile["weak_lp"] == NO_DECAY
    assert equal.effective.value == 360
