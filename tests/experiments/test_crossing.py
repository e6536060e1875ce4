"""Crossings of success curves: right on average, with intervals that hold what they promise."""

import math

import numpy as np
import pytest

from cosa_theory.projections import stream
from experiments.crossing import _derivative, _penalised, _Profile, fit_crossing

X = np.linspace(0.1, 0.5, 9)
TRUE, SCALE = 0.27, 0.03


def curves(count, trials=40, draws=1, spread=0.0):
    """Draw counts from a logistic curve whose middle varies between draws."""
    generator = stream(0, "success curves", count, trials, draws)
    x = np.repeat(X, draws)
    for _ in range(count):
        middles = TRUE + spread * generator.standard_normal(len(x))
        successes = generator.binomial(trials, 1 / (1 + np.exp((x - middles) / SCALE)))
        yield x, successes, np.full(len(x), trials)


def test_the_crossing_is_right_on_average_and_its_interval_covers_it():
    fits = [fit_crossing(*curve) for curve in curves(60)]
    values = np.array([fit.value for fit in fits])
    assert abs(values.mean() - TRUE) < 4 * values.std() / math.sqrt(60)
    covered = sum(fit.low <= TRUE <= fit.high for fit in fits)
    assert 52 <= covered <= 60  # 57 less 3 standard deviations of 1.7
    widths = np.array([fit.width for fit in fits])
    assert widths.mean() == pytest.approx(2 * math.log(9) * SCALE, rel=0.1)


def test_counts_that_vary_between_draws_widen_the_interval():
    """Draws with middles of their own: pooled counts would claim far too much."""
    fits = [fit_crossing(*curve) for curve in curves(40, trials=40, draws=4, spread=0.05)]
    covered = sum(fit.low <= TRUE <= fit.high for fit in fits)
    assert covered >= 34
    assert np.median([fit.dispersion for fit in fits]) > 3
    pooled = []
    for x, successes, trials in curves(40, trials=40, draws=4, spread=0.05):
        split = [part.reshape(-1, 4).sum(axis=1) for part in (successes, trials)]
        pooled.append(fit_crossing(x[::4], *split))
    assert sum(fit.low <= TRUE <= fit.high for fit in pooled) < 32


def test_binomial_counts_in_several_draws_are_not_widened_much():
    fits = [fit_crossing(*curve) for curve in curves(30, trials=10, draws=4)]
    assert np.median([fit.dispersion for fit in fits]) < 1.2


def test_separated_counts_have_their_crossing_in_the_gap_and_the_gap_in_their_interval():
    fit = fit_crossing([0.1, 0.2, 0.3, 0.4], [40, 40, 0, 0], [40] * 4)
    assert fit.value == pytest.approx(0.25, abs=1e-3)
    assert (fit.low, fit.high) == (0.2, 0.3)
    assert 0 < fit.width < 0.1


def test_a_curve_that_does_not_cross_is_said_to_be_beyond_its_ends():
    above = fit_crossing([0.1, 0.2, 0.3], [40, 39, 30], [40] * 3)
    assert math.isnan(above.value)
    assert (above.low, above.high) == (0.3, math.inf)
    below = fit_crossing([0.1, 0.2, 0.3], [10, 4, 0], [40] * 3)
    assert math.isnan(below.value)
    assert (below.low, below.high) == (-math.inf, 0.1)


def test_a_curve_that_does_not_fall_bounds_nothing():
    flat = fit_crossing([0.1, 0.2, 0.3, 0.4], [22, 20, 18, 21], [40] * 4)
    assert math.isinf(flat.high)
    assert math.isinf(flat.low)


def test_the_fit_moves_and_stretches_with_x():
    x, successes, trials = next(iter(curves(1)))
    fit, moved = fit_crossing(x, successes, trials), fit_crossing(3 * x + 2, successes, trials)
    for name in ("value", "low", "high"):
        assert getattr(moved, name) == pytest.approx(3 * getattr(fit, name) + 2, abs=1e-5)


def test_a_higher_confidence_is_a_wider_interval():
    x, successes, trials = next(iter(curves(1)))
    wide, narrow = (fit_crossing(x, successes, trials, level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (([1, 2], [1, 1], [2]), "they must be equal lists"),
        (([1, 2], [3, 1], [2, 2]), "successes must be from 0 to trials"),
        (([1, 2], [0, 0], [0, 2]), "trials at least 1"),
        (([1, 1], [0, 1], [2, 2]), "at least two different values"),
    ],
)
def test_impossible_counts_are_refused(arguments, words):
    with pytest.raises(ValueError, match=words):
        fit_crossing(*arguments)


@pytest.mark.parametrize("c", [-0.5, 0.3, 0.47, 1.4])
def test_the_profile_is_what_a_search_of_all_slopes_finds(c):
    x, successes, trials = next(iter(curves(1)))
    t = (x - x[0]) / (x[-1] - x[0])
    profile = _Profile(t, successes, trials)
    for near in (0.31, c):  # the second starts from the slope of the first
        value, slope = profile(near)
    grid = [
        _penalised(t, successes, trials, c, slope * step) for step in np.geomspace(0.01, 100, 401)
    ]
    assert value >= max(grid) - 1e-9
    steps = [_penalised(t, successes, trials, c, slope * math.exp(h)) for h in (-1e-5, 1e-5)]
    assert abs(np.diff(steps)[0] / 2e-5 - _derivative(t, successes, trials, c, slope)) < 1e-5
