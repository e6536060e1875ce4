"""Where a probability of success crosses one half: a logistic curve with an honest interval."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq, minimize_scalar
from scipy.special import chdtri, expit, fdtri, log_expit

__all__ = ["Crossing", "fit_crossing"]

_SLOPES = (-7.0, 9.0)  # logarithms of the slope over the whole range of x that are searched
_REACH = 1.0  # how far outside the measured x an end is sought, in units of their range


@dataclass(frozen=True)
class Crossing:
    """Where the probability of success falls to one half.

    Attributes
    ----------
    value : float
        The fitted crossing; NaN where the shares of success never cross one half.
    low, high : float
        Ends of its confidence interval. Without a crossing, one is the last x measured on that
        side and the other infinite: the crossing is beyond it. Infinite, too, where the data do
        not bound the crossing.
    width : float
        The distance over which the fitted curve falls from 90 % to 10 %; NaN without a crossing.
    dispersion : float
        How much more counts at the same x vary than binomial ones do, at least 1; it widens the
        interval.
    """

    value: float
    low: float
    high: float
    width: float
    dispersion: float


def fit_crossing(
    x: ArrayLike, successes: ArrayLike, trials: ArrayLike, confidence: float = 0.95
) -> Crossing:
    """Fit P(success) = 1/(1 + exp(β(x − c))), decreasing in x, and return the crossing c.

    The likelihood is multiplied by Jeffreys' prior, the root of the determinant of the Fisher
    information in the regression's own coefficients [1]_: the estimate stays finite where success
    and failure are separated by x, and is nearly unbiased. The interval is that of the profile of
    this penalised likelihood [2]_ (no less than the gap where success and failure are separated),
    its quantile multiplied by the dispersion. Trials that share
    randomness (such as one draw of a matrix) are one entry of x, successes and trials, so that
    the dispersion can see it.

    Parameters
    ----------
    x : array, shape (k,)
        At least two different values.
    successes, trials : array, shape (k,)
        Counts at each; 0 ≤ successes ≤ trials, trials ≥ 1.
    confidence : float
        The level.

    Returns
    -------
    Crossing

    Raises
    ------
    ValueError
        If the shapes differ, counts are impossible, or all x are equal.

    References
    ----------
    .. [1] D. Firth, "Bias reduction of maximum likelihood estimates", Biometrika 80 (1993), 27-38.
    .. [2] G. Heinze, M. Schemper, "A solution to the problem of separation in logistic
       regression", Statistics in Medicine 21 (2002), 2409-2419.
    """
    x, hits, count = _checked(x, successes, trials)
    places = np.unique(x)
    shares = np.array([hits[x == place].sum() / count[x == place].sum() for place in places])
    if shares.min() > 0.5:
        return Crossing(math.nan, float(places[-1]), math.inf, math.nan, 1.0)
    if shares.max() < 0.5:
        return Crossing(math.nan, -math.inf, float(places[0]), math.nan, 1.0)
    span = float(places[-1] - places[0])
    t = (x - places[0]) / span

    profile = _Profile(t, hits, count)
    c = _best_crossing(profile)
    top, slope = profile(c)
    dispersion, freedom = _dispersion(x, hits, count)
    drop = float(chdtri(1, 1 - confidence)) / 2
    if dispersion > 1:  # itself uncertain, so that Fisher's quantile takes the place of χ²
        drop = float(fdtri(1, freedom, confidence)) / 2 * dispersion
    low, high = (_end(lambda end: top - profile(end)[0] - drop, c, side) for side in (-1, 1))
    value, low, high = (float(places[0]) + span * end for end in (c, low, high))
    if set(shares) <= {0.0, 1.0}:  # separated: the data tell no place in the gap from another
        low = min(low, float(places[shares == 1].max()))
        high = max(high, float(places[shares == 0].min()))
    width = 2 * math.log(9) / slope * span
    return Crossing(value, low, high, width, max(dispersion, 1.0))


def _checked(
    x: ArrayLike, successes: ArrayLike, trials: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    places, hits, count = (np.asarray(v, dtype=np.float64) for v in (x, successes, trials))
    if not places.shape == hits.shape == count.shape or places.ndim != 1:
        shapes = f"{places.shape}, {hits.shape} and {count.shape}"
        raise ValueError(f"x, successes and trials have shapes {shapes}: they must be equal lists")
    if not np.all((count >= 1) & (hits >= 0) & (hits <= count)):
        raise ValueError("successes must be from 0 to trials, and trials at least 1")
    if len(np.unique(places)) < 2:
        raise ValueError("x must have at least two different values")
    return places, hits, count


def _penalised(
    t: NDArray[Any], hits: NDArray[Any], count: NDArray[Any], c: float, slope: float
) -> float:
    """Return the logarithm of the likelihood times Jeffreys' prior, x scaled to [0, 1]."""
    eta = -slope * (t - c)
    likelihood = float(hits @ log_expit(eta) + (count - hits) @ log_expit(-eta))
    weights = count * expit(eta) * expit(-eta)
    total = weights.sum()
    if total < 1e-280:
        return -math.inf
    centred = t - weights @ t / total
    information = total * float(weights @ centred**2)
    return likelihood + 0.5 * math.log(information) if information > 0 else -math.inf


def _derivative(
    t: NDArray[Any], hits: NDArray[Any], count: NDArray[Any], c: float, slope: float
) -> float:
    """Return the derivative of `_penalised` with respect to the logarithm of the slope."""
    u = t - c
    p = expit(-slope * u)
    weights = count * p * (1 - p)
    bent, squares = weights * (2 * p - 1), u * u
    # The moments of the weights, and how each changes with the slope.
    s0, s1, s2 = weights.sum(), weights @ u, weights @ squares
    d0, d1, d2 = bent @ u, bent @ squares, bent @ (squares * u)
    information = s0 * s2 - s1**2
    if not information > 0:
        return math.nan
    change = d0 * s2 + s0 * d2 - 2 * s1 * d1
    return slope * float((count * p - hits) @ u + 0.5 * change / information)


class _Profile:
    """The profile of the penalised likelihood: maps a crossing to its maximum and the slope there.

    The best slope is a zero of the derivative, found by secants from the one before, which was that
    of a crossing close by; where these do not converge to a maximum, by a search of all slopes.
    """

    def __init__(self, t: NDArray[Any], hits: NDArray[Any], count: NDArray[Any]) -> None:
        self._data = (t, hits, count)
        self._last = math.nan

    def __call__(self, c: float) -> tuple[float, float]:
        log_slope = self._last if math.isfinite(self._last) else 0.5 * sum(_SLOPES)
        log_slope = self._by_secants(c, log_slope)
        if math.isnan(log_slope):
            log_slope = self._by_search(c)
        self._last = log_slope
        slope = math.exp(log_slope)
        return _penalised(*self._data, c, slope), slope

    def _by_secants(self, c: float, start: float) -> float:
        """Return the logarithm of the best slope, or NaN."""
        old, new = start, start + 1e-3
        g_old = _derivative(*self._data, c, math.exp(old))
        for _ in range(10):
            g_new = _derivative(*self._data, c, math.exp(new))
            fall = (g_old - g_new) / (new - old)
            if not fall > 0:  # no maximum ahead, or NaN
                return math.nan
            old, g_old, new = new, g_new, new + g_new / fall
            if not _SLOPES[0] < new < _SLOPES[1] or abs(new - start) > 1:
                return math.nan
            if abs(new - old) < 1e-7:
                return new
        return math.nan

    def _by_search(self, c: float) -> float:
        def cost(log_slope: float) -> float:
            return min(-_penalised(*self._data, c, math.exp(log_slope)), 1e300)

        found = minimize_scalar(cost, bounds=_SLOPES, method="bounded", options={"xatol": 1e-6})
        return float(found.x)


def _best_crossing(profile: Callable[[float], tuple[float, float]]) -> float:
    """Return the crossing of greatest profile: a coarse search, then a fine one around its best."""
    grid = np.linspace(0, 1, 41)
    best = grid[int(np.argmax([profile(c)[0] for c in grid]))]
    around = (float(best) - 0.05, float(best) + 0.05)
    found = minimize_scalar(
        lambda c: -profile(c)[0], bounds=around, method="bounded", options={"xatol": 1e-7}
    )
    return float(found.x)


def _dispersion(x: NDArray[Any], hits: NDArray[Any], count: NDArray[Any]) -> tuple[float, float]:
    """Return the variance of counts at equal x over the binomial one, and its degrees of freedom.

    Only counts that differ where x is the same are evidence: a curve that is not quite logistic is
    none. Each x weighs by its binomial variance, as certain successes and failures tell nothing.
    """
    seen, expected, squares = 0.0, 0.0, 0.0
    for place in np.unique(x):
        here = x == place
        share = hits[here].sum() / count[here].sum()
        repeats, variance = int(here.sum()) - 1, count[here].mean() * share * (1 - share)
        seen += float(((hits[here] - count[here] * share) ** 2).sum())
        expected += repeats * variance
        squares += repeats * variance**2
    if expected == 0:
        return 1.0, math.inf
    return seen / expected, expected**2 / squares


def _end(drop: Callable[[float], float], c: float, side: int) -> float:
    """Return where the profile has dropped enough on one side, or infinity."""
    limit = -_REACH if side < 0 else 1 + _REACH
    steps = np.linspace(c, limit, 65)[1:]
    inner = c
    for outer in map(float, steps):
        if drop(outer) >= 0:
            return float(brentq(drop, inner, outer, xtol=1e-9))
        inner = outer
    return side * math.inf
