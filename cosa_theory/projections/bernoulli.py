"""Sparse matrices of independent entries: a sign with some probability, else zero."""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from cosa_theory.projections.ensembles import Streams
from cosa_theory.projections.streams import CHUNK, fill_signs, raw_words

__all__ = ["bernoulli_signs", "most_rows"]

_TABLE = 4096  # longest gap found by one draw; a longer one takes several, and costs no accuracy
_MOST_TRIALS = 1 << 62  # so that a position just past the end still is a 64-bit integer


@lru_cache(maxsize=32)
def _survival_thresholds(density: Fraction) -> NDArray[np.uint64]:
    """Return ⌊2⁶⁴(1 − density)ʲ⌋ for j = J … 1, ascending, by exact integer arithmetic.

    J is the first j whose threshold is 0, at most `_TABLE`. With a uniform word u, the gap to the
    next nonzero exceeds j exactly when u is below the j-th threshold.
    """
    keep = 1 - density
    thresholds: list[int] = []
    survival = 1 << 192  # 128 guard bits: the floors never add up to one unit
    while len(thresholds) < _TABLE and (not thresholds or thresholds[-1]):
        survival = survival * keep.numerator // keep.denominator
        thresholds.append(survival >> 128)
    return np.array(thresholds[::-1], dtype=np.uint64)


def most_rows(d: int) -> int:
    """Return the most rows that leave the number of trials, k·d, at most 2⁶²."""
    return _MOST_TRIALS // d


def _bernoulli_positions(
    generator: np.random.Generator, density: Fraction, length: int
) -> NDArray[np.int64]:
    """Return, ascending, the successes among `length` independent trials of probability `density`.

    The gaps between successes are geometric, so only the successes cost work. A word below the
    smallest threshold says "no success in the next J trials"; the trials have no memory, so the
    search goes on from there.
    """
    thresholds = _survival_thresholds(density)
    J = thresholds.size
    found, end = [], -1  # `end`: the last trial whose outcome is known
    while end < length - 1:
        remaining = length - 1 - end
        count = min(CHUNK, int(remaining * density) + remaining // J + 64)
        # Thresholds above the word: 0 … J of them, J meaning no success in J trials.
        above = J - np.searchsorted(thresholds, raw_words(generator, count), side="right")
        steps = np.minimum(above + 1, J)
        positions = end + np.cumsum(steps)
        end = int(positions[-1])
        positions = positions[above < J]
        found.append(positions[: np.searchsorted(positions, length)])
    return np.concatenate(found)


def bernoulli_signs(
    streams: Streams, k: int, d: int, variance: Fraction, dtype: np.dtype[Any], density: Fraction
) -> csr_array:
    """Draw independent entries: ±√(variance/q) with probability q/2 each, else 0; q in (0, 1].

    For the other arguments see `Ensemble`. About q·k·d nonzeros, sorted; time and memory are
    proportional to their number.
    """
    positions = _bernoulli_positions(streams("positions"), density, k * d)
    starts = np.arange(k + 1, dtype=np.int64) * d
    indptr = np.searchsorted(positions, starts)
    positions -= np.repeat(starts[:-1], np.diff(indptr))  # row-major position to column
    index = np.int32 if max(d, positions.size) <= np.iinfo(np.int32).max else np.int64
    data = np.empty(positions.size, dtype)
    fill_signs(data, streams("signs"), math.sqrt(variance / density))
    return csr_array(
        (data, positions.astype(index, copy=False), indptr.astype(index, copy=False)), shape=(k, d)
    )
