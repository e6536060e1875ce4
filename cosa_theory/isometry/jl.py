"""Johnson-Lindenstrauss: the dimension that n points need, and the distortion of given vectors."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import ROUND_CEILING, Decimal, localcontext
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.spatial.distance import pdist

from cosa_theory.ground.checks import matrix, real, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.estimates import (
    Estimate,
    checked_confidence,
    mean_interval,
    proportion_interval,
    quantile_interval,
)
from cosa_theory.linear.operators import Factor, KroneckerOperator, to_host

__all__ = ["JLDistortion", "as_vectors", "jl_distortion", "jl_min_dim", "squared_norms"]

_SAFE = (1e-15, 1e15)  # of the largest entries, between which squares lose nothing
_MOST_PAIRS = 20_000_000  # 160 MB for each of the two lists of squared distances
_LARGEST = 2**63 - 1
# Relative error of the float64 formula: a logarithm, four products and a difference that can
# lose a factor of three; 64 units in the last place are ample.
_ROUNDING = 64 * 2.0**-53


def jl_min_dim(n_points: Any, eps: Any) -> Any:
    """Return the dimension into which n points embed with squared distances within 1 ± ε.

    The smallest whole k ≥ 4 ln n / (ε²/2 − ε³/3). A Gaussian projection to k dimensions keeps all
    distances with positive probability, so an embedding exists; a given draw may fail.

    Parameters
    ----------
    n_points : int or array of int
        n ≥ 1; of any size where it is a single number. One point has no distance to keep: k = 0.
    eps : float or array of float
        ε, strictly between 0 and 1, on the squared distance.

    Returns
    -------
    int, or ndarray of int64
        An int for two single numbers, else an array of their broadcast shape. Never below the
        bound: it is decided in decimal arithmetic wherever float64 could round the wrong way.

    Raises
    ------
    InputError
        If n is not a whole number of at least 1, ε is outside (0, 1), or an array's result
        exceeds 2⁶³ − 1.

    References
    ----------
    docs/theory.md, 3.5. S. Dasgupta and A. Gupta, "An elementary proof of a theorem of Johnson and
    Lindenstrauss", Random Structures & Algorithms 22 (2003), theorem 2.1.

    Examples
    --------
    >>> jl_min_dim(10_000, 0.1)
    7895
    >>> jl_min_dim([100, 10_000], 0.5)
    array([222, 443])
    """
    if np.ndim(n_points) == 0 and np.ndim(eps) == 0:
        return _min_dim(_points(n_points), real("eps", eps, above=0.0, below=1.0))
    counts, tolerances = np.broadcast_arrays(np.asarray(n_points), np.asarray(eps, np.float64))
    for count in np.unique(counts):
        _points(count)
    for tolerance in np.unique(tolerances):
        real("eps", float(tolerance), above=0.0, below=1.0)
    number = counts.astype(np.float64)
    bound = 4 * np.log(number) / (tolerances**2 * (0.5 - tolerances / 3))
    result = np.ceil(bound * (1 + _ROUNDING))
    unsure = (np.ceil(bound * (1 - _ROUNDING)) != result) & (number > 1)
    if np.any(bound >= _LARGEST):
        where = np.unravel_index(np.argmax(bound), bound.shape)
        raise InputError(
            f"n_points {counts[where]} and eps {tolerances[where]} need more than 2⁶³ − 1 "
            "dimensions: pass them as single numbers"
        )
    dimensions = result.astype(np.int64)
    for place in np.argwhere(unsure):
        where = tuple(place)
        dimensions[where] = _min_dim(_points(counts[where]), float(tolerances[where]))
    return dimensions


def _points(value: Any) -> int:
    """Return a number of points, of any size; a float that is whole counts as one."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.item()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return whole("n_points", value)


def _min_dim(count: int, eps: float) -> int:
    """Return the bound rounded up, with as many digits as its whole part needs and 40 more."""
    with localcontext() as context:
        context.prec = 80 + 4 * max(0, -math.frexp(eps)[1]) // 3 + len(str(count.bit_length()))
        exact = Decimal(eps)  # the binary fraction that the float is
        bound = 4 * Decimal(count).ln() / (exact**2 / 2 - exact**3 / 3)
        return int(bound.to_integral_value(rounding=ROUND_CEILING))


def as_vectors(X: Any) -> NDArray[Any]:
    """Return vectors as rows of a finite float32 or float64 array; a single one is one row."""
    host = to_host(X)
    array = host.toarray() if sparse.issparse(host) else np.asarray(host)
    return matrix("X", array[None, :] if array.ndim == 1 else array)


def squared_norms(rows: NDArray[Any]) -> NDArray[np.float64]:
    """Return ‖x‖² of every row, summed in float64."""
    return np.einsum("ij,ij->i", rows, rows, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class JLDistortion:
    """How much one projection changed the squared norms of given vectors.

    The distortion of a vector is |‖Ax‖²/‖x‖² − 1|. Intervals take the vectors as independent draws
    from some distribution and speak of that distribution, for this one A.

    Parameters
    ----------
    ratios : ndarray of float64, shape (n,)
        ‖Ax‖²/‖x‖² of every vector, or of every difference of two vectors.
    sample : ndarray of float64
        The ratios that may be taken as independent, from which intervals are computed: all of
        them, or for differences those of the disjoint pairs (0, 1), (2, 3), ….
    skipped : int
        Zero vectors, or pairs of equal vectors, left out.
    confidence : float
        Level of the intervals.
    """

    ratios: NDArray[np.float64]
    sample: NDArray[np.float64]
    skipped: int
    confidence: float

    @cached_property
    def distortions(self) -> NDArray[np.float64]:
        """|ratio − 1| of every vector."""
        return np.abs(self.ratios - 1)

    @property
    def max(self) -> float:
        """The largest distortion seen; see `coverage` for what that says about others."""
        return float(self.distortions.max())

    @property
    def coverage(self) -> float:
        """The share of the distribution that lies below `max`, with the stated confidence.

        (1 − confidence)^(1/n) for n independent vectors, whatever the distribution.
        """
        return float((1 - self.confidence) ** (1 / max(self.sample.size, 1)))

    @property
    def mean(self) -> Estimate:
        """The mean distortion, with Student's interval."""
        return self._over_all(
            float(self.distortions.mean()), mean_interval(self._independent, self.confidence)
        )

    def quantile(self, q: float) -> Estimate:
        """Return the q-quantile of the distortion, 0 < q < 1, with order statistics as interval.

        An end is infinite where there are too few vectors for it.
        """
        interval = quantile_interval(self._independent, q, self.confidence)
        return self._over_all(float(np.quantile(self.distortions, q)), interval)

    def failure(self, eps: float) -> Estimate:
        """Return P(distortion > ε) for an ε > 0, with the Clopper-Pearson interval."""
        eps = real("eps", eps, above=0.0)
        independent = self._independent
        hits = np.count_nonzero(independent > eps)
        low, high = proportion_interval(hits, independent.size, self.confidence)
        share = float(np.mean(self.distortions > eps))
        return self._over_all(share, Estimate(share, float(low), float(high)))

    @cached_property
    def _independent(self) -> NDArray[np.float64]:
        return np.abs(self.sample - 1)

    @staticmethod
    def _over_all(value: float, interval: Estimate) -> Estimate:
        """Put the estimate from all ratios into an interval, widened if need be, from 0 on."""
        return Estimate(value, max(min(interval.low, value), 0.0), max(interval.high, value))


def jl_distortion(
    A: Any, X: Any, *, differences: bool = False, confidence: float = 0.95
) -> JLDistortion:
    """Measure ‖Ax‖²/‖x‖² for given vectors, or for all differences of two of them.

    Parameters
    ----------
    A : array, tensor, sparse array, SRHT or other LinearOperator, shape (k, d)
        The projection, at analysis scale if ratios are to be near 1. A `KroneckerOperator` of
        factors p × m and q × n takes vectors of length d = mn, or matrices.
    X : array, tensor or sparse array, shape (n, d)
        Vectors as rows; for a `KroneckerOperator` also a stack of matrices, shape (N, m, n).
    differences : bool
        Whether to measure the differences of all pairs of rows, as the lemma states it, in place
        of the rows themselves. Squared distances are summed from differences, not from inner
        products, so that near duplicates keep their digits.
    confidence : float
        Level of the intervals.

    Returns
    -------
    JLDistortion
        The ratios; mean, quantiles and failure probability with intervals.

    Raises
    ------
    InputError
        If A is not a real matrix, the vectors do not have its number of columns, an entry is not
        finite, every vector is zero, or there are more than 20 million pairs.

    Examples
    --------
    >>> import numpy as np
    >>> from cosa_theory.projections import make_projection
    >>> A = make_projection("sjlt", 512, 2000, seed=1)
    >>> result = jl_distortion(A, np.eye(2000)[:50])
    >>> round(result.max, 12)  # its columns have norm one exactly
    0.0
    """
    checked_confidence(confidence)
    if isinstance(A, KroneckerOperator) and np.ndim(X) == 3:
        if tuple(np.shape(X)[1:]) != A.domain_shape:
            raise InputError(
                f"X holds matrices of shape {tuple(np.shape(X)[1:])}; A takes {A.domain_shape}"
            )
        X = np.asarray(to_host(X)).reshape(len(X), -1)
    vectors = _in_range(as_vectors(X), each=not differences)
    factor = Factor(A, "A")
    columns = factor.shape[1]
    if vectors.shape[1] != columns:
        transposed = vectors.shape[0] == columns
        remedy = "pass X.T, vectors are rows" if transposed else f"vectors need {columns} entries"
        raise InputError(f"X has shape {vectors.shape} and A has {columns} columns: {remedy}")
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is refused below
        images = np.asarray(factor.right(vectors))
    if not np.isfinite(images).all():
        raise InputError("A X has entries that are not finite: A holds NaN or Inf, or overflows")
    if differences:
        return _of_differences(vectors, images, confidence)
    norms = squared_norms(vectors)
    kept = norms > 0
    if not kept.any():
        raise InputError("every vector is zero: nothing to measure")
    ratios = squared_norms(images)[kept] / norms[kept]
    _check_ratios(ratios)
    return JLDistortion(ratios, ratios, int(np.count_nonzero(~kept)), confidence)


def _in_range(vectors: NDArray[Any], each: bool) -> NDArray[Any]:
    """Return the rows times powers of two, one for all or one for each, where squares need them."""
    largest = np.abs(vectors).max(axis=1)
    some = largest[largest > 0]
    if not some.size or (some.min() > _SAFE[0] and some.max() < _SAFE[1]):
        return vectors
    powers = np.frexp(largest if each else largest.max(keepdims=True))[1]
    return np.ldexp(vectors, -powers[:, None])


def _check_ratios(ratios: NDArray[np.float64]) -> None:
    if not np.isfinite(ratios).all():
        text = "A X has squares out of the range of numbers: divide A by a power of two"
        raise InputError(text, argument="A")


def _of_differences(vectors: NDArray[Any], images: NDArray[Any], confidence: float) -> JLDistortion:
    """Return the ratios of squared distances of all pairs of rows."""
    count = len(vectors)
    pairs = count * (count - 1) // 2
    if not 1 <= pairs <= _MOST_PAIRS:
        raise InputError(
            f"{count} vectors have {pairs} pairs; between 1 and {_MOST_PAIRS} can be measured, "
            "so pass two vectors at least and a sample of a larger set"
        )
    before, after = pdist(vectors, "sqeuclidean"), pdist(images, "sqeuclidean")
    kept = before > 0
    if not kept.any():
        raise InputError("all vectors are equal: there is no distance to measure")
    first = np.arange(0, count - 1, 2)
    # Place of pair (i, i + 1) in the condensed list, of whose row i count − 1 − i pairs are.
    disjoint = first * count - first * (first + 1) // 2
    disjoint = disjoint[kept[disjoint]]
    ratios = after[kept] / before[kept]
    _check_ratios(ratios)
    sample = after[disjoint] / before[disjoint]
    return JLDistortion(ratios, sample, int(np.count_nonzero(~kept)), confidence)
