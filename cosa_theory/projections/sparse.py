"""Sparse ensembles: Achlioptas, very sparse, sparse Johnson-Lindenstrauss (CountSketch)."""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from cosa_theory.projections.dense import Draw
from cosa_theory.projections.streams import CHUNK, fill_signs, raw_words, uniform_below

__all__ = ["achlioptas", "sjlt", "very_sparse"]

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


def _bernoulli_signs(
    draw: Draw, k: int, d: int, variance: Fraction, dtype: np.dtype[Any], density: Fraction
) -> csr_array:
    """Independent entries: ±√(variance/density) with probability density/2 each, else 0."""
    if k * d > _MOST_TRIALS:
        raise ValueError(f"k·d is {k} × {d}; sparse ensembles need it at most 2⁶²")
    positions = _bernoulli_positions(draw("positions"), density, k * d)
    starts = np.arange(k + 1, dtype=np.int64) * d
    indptr = np.searchsorted(positions, starts)
    positions -= np.repeat(starts[:-1], np.diff(indptr))  # row-major position to column
    index = np.int32 if max(d, positions.size) <= np.iinfo(np.int32).max else np.int64
    data = np.empty(positions.size, dtype)
    fill_signs(data, draw("signs"), math.sqrt(variance / density))
    return csr_array(
        (data, positions.astype(index, copy=False), indptr.astype(index, copy=False)),
        shape=(k, d),
    )


def achlioptas(draw: Draw, k: int, d: int, variance: Fraction, dtype: np.dtype[Any]) -> csr_array:
    """Independent entries: ±√(3·variance) with probability 1/6 each, else 0 [1]_.

    Parameters
    ----------
    draw, k, d, variance, dtype
        As for `cosa_theory.projections.dense.gaussian`.

    Returns
    -------
    csr_array, shape (k, d)
        About k·d/3 nonzeros, sorted; time and memory proportional to their number.

    References
    ----------
    .. [1] D. Achlioptas, "Database-friendly random projections", Journal of Computer and System
       Sciences 66 (2003), theorem 1.1, the second of its two distributions.
    """
    return _bernoulli_signs(draw, k, d, variance, dtype, Fraction(1, 3))


def _density(density: float | Fraction | None, d: int) -> Fraction:
    """Return the density as an exact fraction, 1/√d where it is None."""
    if density is None:
        return Fraction(1 / math.sqrt(d))
    valid = isinstance(density, (float, int, Fraction, np.floating, np.integer))
    if not valid or isinstance(density, bool) or not 0 < density <= 1:
        raise ValueError(f"density is {density!r}; it must be a number in (0, 1]")
    return density if isinstance(density, Fraction) else Fraction(float(density))


def very_sparse(
    draw: Draw,
    k: int,
    d: int,
    variance: Fraction,
    dtype: np.dtype[Any],
    *,
    density: float | Fraction | None = None,
) -> csr_array:
    """Independent entries: ±√(variance/q) with probability q/2 each, else 0 [1]_.

    Parameters
    ----------
    draw, k, d, variance, dtype
        As for `cosa_theory.projections.dense.gaussian`.
    density : float or fractions.Fraction, optional
        The probability q of a nonzero, in (0, 1]; by default 1/√d.

    Returns
    -------
    csr_array, shape (k, d)
        About q·k·d nonzeros, sorted; time and memory proportional to their number.

    Raises
    ------
    ValueError
        If the density is not in (0, 1].

    References
    ----------
    .. [1] P. Li, T. J. Hastie, K. W. Church, "Very sparse random projections", KDD 2006.
    """
    return _bernoulli_signs(draw, k, d, variance, dtype, _density(density, d))


def _nonzeros(nonzeros: int | None, k: int) -> int:
    """Return the number of nonzeros in a column, min(8, k) where it is None."""
    if nonzeros is None:
        return min(8, k)
    if (
        isinstance(nonzeros, bool)
        or not isinstance(nonzeros, (int, np.integer))
        or not 1 <= nonzeros <= k
    ):
        raise ValueError(f"nonzeros is {nonzeros!r}; it must be an integer from 1 to k = {k}")
    return int(nonzeros)


def _distinct_rows(
    generator: np.random.Generator, k: int, d: int, count: int, index: type[np.signedinteger[Any]]
) -> NDArray[np.signedinteger[Any]]:
    """Return `count` distinct rows out of k for each of d columns, shape (d, count).

    Floyd's sampling, many columns at once: every set of rows is equally likely, at `count` words a
    column and no rejection (J. Bentley and B. Floyd, "A sample of brilliance", Communications of
    the ACM 30, 1987).
    """
    result = np.empty((d, count), index)
    block = max(1, CHUNK // count)
    for start in range(0, d, block):
        out = result[start : start + block]
        words = raw_words(generator, out.size).reshape(out.shape).T
        rows = np.empty(words.shape, index)
        for i, top in enumerate(range(k - count, k)):
            rows[i] = uniform_below(words[i], top + 1)
            taken = (rows[:i] == rows[i]).any(axis=0)
            rows[i, taken] = top  # not yet taken: the rows so far are below `top`
        out[:] = rows.T
    return result


def sjlt(
    draw: Draw,
    k: int,
    d: int,
    variance: Fraction,
    dtype: np.dtype[Any],
    *,
    nonzeros: int | None = None,
) -> csr_array:
    """Sparse Johnson-Lindenstrauss transform: ζ nonzeros ±√(k·variance/ζ) in every column [1]_.

    Their rows are ζ distinct ones, uniform and independent between columns. At analysis scale the
    nonzeros are ±1/√ζ, so every column has norm one exactly; ζ = 1 is CountSketch [2]_.

    Parameters
    ----------
    draw, k, d, variance, dtype
        As for `cosa_theory.projections.dense.gaussian`.
    nonzeros : int, optional
        ζ, from 1 to k; by default min(8, k).

    Returns
    -------
    csr_array, shape (k, d)
        ζ·d nonzeros, sorted; time and memory proportional to their number.

    Raises
    ------
    ValueError
        If ζ is not an integer from 1 to k, or k exceeds 2³².

    References
    ----------
    .. [1] D. M. Kane, J. Nelson, "Sparser Johnson-Lindenstrauss transforms", Journal of the ACM
       61 (2014), the graph construction.
    .. [2] M. Charikar, K. Chen, M. Farach-Colton, "Finding frequent items in data streams",
       Theoretical Computer Science 312 (2004).
    """
    zeta = _nonzeros(nonzeros, k)
    if k > 1 << 32:
        raise ValueError(f"k is {k}; sjlt needs k at most 2³²")
    index = np.int32 if max(k, d, zeta * d) <= np.iinfo(np.int32).max else np.int64
    rows = _distinct_rows(draw("positions"), k, d, zeta, index)
    data = np.empty(zeta * d, dtype)
    fill_signs(data, draw("signs"), math.sqrt(variance * k / zeta))
    indptr = np.arange(0, zeta * d + 1, zeta, dtype=index)
    by_column = csc_array((data, rows.ravel(), indptr), shape=(k, d))
    return by_column.tocsr()  # which also sorts every row's columns
