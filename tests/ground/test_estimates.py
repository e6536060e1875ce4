"""Intervals cover what they say: exactly where the distribution is finite, else by simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from cosa_theory.ground.estimates import (
    clustered_share,
    mean_interval,
    proportion_interval,
    quantile_interval,
    variance_interval,
)


def covers_at_least(hits, trials, level):
    """Whether so many hits are plausible (at one in 10,000) for a coverage of `level`."""
    return stats.binom.cdf(hits, trials, level) > 1e-4


@pytest.mark.parametrize("trials", [1, 7, 40])
@pytest.mark.parametrize("probability", [0.001, 0.05, 0.5, 0.93])
def test_proportion_interval_covers_by_enumeration(trials, probability):
    hits = np.arange(trials + 1)
    low, high = proportion_interval(hits, trials, 0.9)
    inside = (low <= probability) & (probability <= high)
    assert stats.binom.pmf(hits, trials, probability)[inside].sum() >= 0.9
    assert low[0] == 0.0
    assert high[-1] == 1.0


def test_proportion_interval_is_that_of_clopper_and_pearson():
    expected = stats.binomtest(3, 50).proportion_ci(0.95, method="exact")
    low, high = proportion_interval(3, 50)
    assert (low, high) == pytest.approx((expected.low, expected.high), rel=1e-9)


@pytest.mark.parametrize("count", [1, 5, 30, 200])
@pytest.mark.parametrize("q", [0.5, 0.95])
def test_quantile_interval_covers_by_the_law_of_order_statistics(count, q):
    """Of the sample 1, …, n the ends are ranks: their exact coverage is a binomial sum."""
    estimate = quantile_interval(np.arange(1, count + 1), q, 0.9)
    lower = 0 if math.isinf(estimate.low) else int(estimate.low)
    upper = count + 1 if math.isinf(estimate.high) else int(estimate.high)
    # The quantile lies between order statistics i and j if i ≤ B < j of the values are below it.
    coverage = stats.binom.cdf(upper - 1, count, q) - stats.binom.cdf(lower - 1, count, q)
    assert coverage >= 0.9
    narrower = stats.binom.cdf(upper - 2, count, q) - stats.binom.cdf(lower, count, q)
    assert narrower < 0.95 or count == 1  # not wider than it must be


def test_quantile_interval_has_no_upper_end_in_a_small_sample():
    assert quantile_interval(np.arange(20.0), 0.95).high == math.inf
    assert math.isfinite(quantile_interval(np.arange(200.0), 0.95).high)


def test_mean_interval_is_students():
    sample = np.array([1.0, 2.0, 4.0, 4.5])
    expected = stats.ttest_1samp(sample, 0).confidence_interval(0.9)
    assert mean_interval(sample, 0.9)[1:] == pytest.approx((expected.low, expected.high))
    assert mean_interval([3.0]) == (3.0, -math.inf, math.inf)


def test_clustered_share_covers_when_rows_are_dependent():
    """Rows with a failure probability of their own: an interval that ignored it would miss."""
    rng, trials, draws, n = np.random.default_rng(0), 600, 20, 50
    naive = clustered = 0
    for _ in range(trials):
        chances = rng.beta(1.0, 9.0, size=draws)  # mean 0.1, very uneven
        failures = rng.random((draws, n)) < chances[:, None]
        low, high = proportion_interval(failures.sum(), failures.size)
        naive += low <= 0.1 <= high
        share = clustered_share(failures)
        clustered += share.low <= 0.1 <= share.high
    assert covers_at_least(clustered, trials, 0.93)
    assert not covers_at_least(naive, trials, 0.8)


def test_clustered_share_without_failures_trusts_one_trial_a_row():
    share = clustered_share(np.zeros((20, 1000), bool))
    assert share.value == 0.0
    assert share.high == pytest.approx(1 - 0.025 ** (1 / 20))


def test_variance_interval_covers_the_variance_of_chi_square_ratios():
    rng, trials, k, draws = np.random.default_rng(1), 600, 8, 500
    hits = 0
    for _ in range(trials):
        ratios = rng.chisquare(k, size=draws) / k
        estimate = variance_interval(ratios, 1.0)
        hits += estimate.low <= 2 / k <= estimate.high
    assert covers_at_least(hits, trials, 0.93)
    assert not covers_at_least(hits, trials, 0.995)  # nor so wide that it says nothing


def test_a_variance_of_two_values_at_a_high_level_may_be_anything():
    assert variance_interval([0.0, 1.0], 0.0, 0.9999) == (0.5, 0.0, math.inf)


def test_levels_outside_zero_and_one_are_refused():
    for call in (
        lambda: mean_interval([1.0, 2.0], 1.0),
        lambda: quantile_interval([1.0], 0.5, 0.0),
        lambda: proportion_interval(1, 2, 95),
        lambda: variance_interval([1.0, 2.0], 1.0, -1),
        lambda: mean_interval([1.0, 2.0], "95 %"),
        lambda: mean_interval([1.0, 2.0], None),
    ):
        with pytest.raises(ValueError, match="confidence is"):
            call()
    with pytest.raises(ValueError, match="q is 1"):
        quantile_interval([1.0], 1)
