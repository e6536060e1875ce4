"""Function recovered and rank correlations, with intervals over texts."""

import numpy as np
import pytest
from scipy.stats import spearmanr

from cosa_theory.studies.function.measures import Resampling, rank_correlation


def test_function_recovered_is_one_for_no_error_and_zero_for_the_base():
    change = np.array([1.0, 4.0, 2.0])
    resampling = Resampling(3, 0)
    for left, expected in ((0 * change, 1.0), (change, 0.0), (3 * change, -2.0)):
        value, draws = resampling.recovered(left, change)
        assert value == pytest.approx(expected)
        np.testing.assert_allclose(draws, expected, atol=1e-12)


def test_intervals_over_texts_cover_the_truth_as_often_as_they_say():
    rng = np.random.default_rng(0)
    hits = 0
    for trial in range(200):
        change = rng.gamma(2.0, size=40)
        left = 0.3 * change * rng.gamma(4.0, 0.25, size=40)
        value, draws = Resampling(40, trial).recovered(left, change)
        interval = Resampling.interval(value, draws)
        hits += interval.low <= 0.7 <= interval.high
    # 95 % of 200, and four standard deviations; small samples cover a little less.
    assert 200 * 0.95 - 4 * np.sqrt(200 * 0.05 * 0.95) - 6 <= hits


def test_rank_correlations_are_spearmans():
    rng = np.random.default_rng(1)
    predictor = rng.integers(4, size=12).astype(float)  # with ties
    function = rng.standard_normal((5, 12))
    expected = [spearmanr(predictor, row).statistic for row in function]
    np.testing.assert_allclose(rank_correlation(predictor, function), expected)
    assert np.isnan(rank_correlation(np.ones(12), function)).all()
