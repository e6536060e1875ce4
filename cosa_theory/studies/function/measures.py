"""Function recovered, and how well energies predict it, with intervals over texts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosa_theory.projections import stream

__all__ = ["Interval", "Resampling", "rank_correlation"]

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A value and its percentile interval over resampled texts."""

    value: float
    low: float
    high: float


class Resampling:
    """Bootstrap over texts: the same resamples for everything, so that comparisons are paired.

    Parameters
    ----------
    texts : int
        How many there are.
    seed : int
        Of the resamples.

    References
    ----------
    B. Efron, R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapter 13.
    """

    def __init__(self, texts: int, seed: int) -> None:
        drawn = stream(seed, "function", "resampling").integers(texts, size=(RESAMPLES, texts))
        self.counts = np.zeros((RESAMPLES, texts))
        np.add.at(self.counts, (np.arange(RESAMPLES)[:, None], drawn), 1.0)

    def recovered(
        self, left: NDArray[np.float64], change: NDArray[np.float64]
    ) -> tuple[float, NDArray[np.float64]]:
        """Return 1 − Σ left/Σ change over all texts, and over each resample.

        See docs/theory.md, 6.1.
        """
        with np.errstate(divide="ignore", invalid="ignore"):
            values = 1 - (self.counts @ left) / (self.counts @ change)
        return float(1 - left.sum() / change.sum()), values

    @staticmethod
    def interval(value: float, resampled: NDArray[np.float64]) -> Interval:
        """Return a value with the interval of what the resamples give."""
        known = resampled[np.isfinite(resampled)]
        if not len(known):
            return Interval(value, np.nan, np.nan)
        tail = 50 * (1 - CONFIDENCE)
        low, high = np.percentile(known, [tail, 100 - tail])
        return Interval(value, float(low), float(high))


def rank_correlation(
    predictor: Sequence[float] | NDArray[np.float64], function: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return Spearman's rank correlation of a predictor with each row of `function`.

    Ties share their mean rank. NaN where either side is constant.
    """
    from scipy.stats import rankdata

    one = rankdata(predictor)
    other = rankdata(np.atleast_2d(function), axis=1)
    one = one - one.mean()
    other = other - other.mean(axis=1, keepdims=True)
    with np.errstate(divide="ignore", invalid="ignore"):
        scale = np.sqrt((one @ one) * np.einsum("ij,ij->i", other, other))
        values: NDArray[np.float64] = (other @ one) / scale
    return values
