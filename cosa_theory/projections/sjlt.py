"""The sparse Johnson-Lindenstrauss transform, CountSketch among them."""

import math
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array, csr_array

from cosa_theory.ground.checks import whole
from cosa_theory.projections.ensembles import Ensemble, Moments, Streams, register
from cosa_theory.projections.streams import CHUNK, fill_signs, raw_words, uniform_below

__all__ = ["sjlt"]


def _nonzeros(nonzeros: int | None, k: int) -> int:
    """Return the number of nonzeros in a column, min(8, k) where it is None."""
    return min(8, k) if nonzeros is None else whole("nonzeros", nonzeros, 1, k)


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
        # Step i draws from the first k − count + i + 1 rows.
        bounds = np.arange(k - count + 1, k + 1, dtype=np.uint64)
        rows = np.ascontiguousarray(uniform_below(words, bounds[:, None]), dtype=index)
        for i, top in enumerate(range(k - count, k)):
            taken = (rows[:i] == rows[i]).any(axis=0)
            rows[i, taken] = top  # not yet taken: the rows so far are below `top`
        out[:] = rows.T
    return result


def sjlt(
    streams: Streams,
    k: int,
    d: int,
    variance: Fraction,
    dtype: np.dtype[Any],
    *,
    nonzeros: int | None = None,
) -> csr_array:
    """Draw ζ nonzeros ±√(k·variance/ζ) in every column [1]_; see `Ensemble`.

    Their rows are ζ distinct ones, uniform and independent between columns. At analysis scale the
    nonzeros are ±1/√ζ, so every column has norm one exactly; ζ = 1 is CountSketch [2]_.
    Sorted; time and memory are proportional to the number ζ·d of nonzeros.

    Parameters
    ----------
    nonzeros : int, optional
        ζ, from 1 to k; by default min(8, k).

    References
    ----------
    .. [1] D. M. Kane, J. Nelson, "Sparser Johnson-Lindenstrauss transforms", Journal of the ACM
       61 (2014), the graph construction.
    .. [2] M. Charikar, K. Chen, M. Farach-Colton, "Finding frequent items in data streams",
       Theoretical Computer Science 312 (2004).
    """
    zeta = _nonzeros(nonzeros, k)
    index = np.int32 if max(k, d, zeta * d) <= np.iinfo(np.int32).max else np.int64
    rows = _distinct_rows(streams("positions"), k, d, zeta, index)
    data = np.empty(zeta * d, dtype)
    fill_signs(data, streams("signs"), math.sqrt(variance * k / zeta))
    indptr = np.arange(0, zeta * d + 1, zeta, dtype=index)
    by_column = csc_array((data, rows.ravel(), indptr), shape=(k, d))
    return by_column.tocsr()  # which also sorts every row's columns


def _magnitude(k: int, d: int, variance: Fraction, nonzeros: int | None = None) -> float:
    return math.sqrt(variance * k / _nonzeros(nonzeros, k))


def _moments(k: int, d: int, nonzeros: int | None = None) -> Moments:
    """Return the moments, whatever ζ: pair 1, cross 1/k, excess −2/k (D. M. Kane, J. Nelson).

    Columns have norm one exactly, and two of them share a row with probability ζ²/k for each of
    their nonzeros: Var‖Ax‖² = (2/k)(1 − ‖x‖₄⁴).
    """
    return 1.0, 1 / k, -2 / k


register(
    Ensemble(
        name="sjlt",
        label="sparse JL",
        order=5,
        draw=sjlt,
        moments=_moments,
        options=("nonzeros",),
        most_rows=lambda d: 1 << 32,  # a word holds the choice among so many
        magnitude=_magnitude,
        product="sparse",
    )
)
