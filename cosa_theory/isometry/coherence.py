"""Mutual coherence, the Babel function, the Welch bound and bounds of the spark."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.isometry.certificates import checked_matrix
from cosa_theory.linear.gram import DenseGram
from cosa_theory.linear.operators import KroneckerOperator

__all__ = [
    "SparkBounds",
    "babel",
    "checked_counts",
    "mutual_coherence",
    "off_diagonal_blocks",
    "spark_bounds",
    "unit_columns",
    "welch_bound",
]

_BLOCK = 1 << 22  # entries of the Gram matrix held at a time
_RESOLVED = 1e-8  # λ_min/λ_max of a float64 Gram matrix from which on the rank is surely full


def unit_columns(A: Any, name: str = "A") -> NDArray[np.float64]:
    """Return A with every column divided by its norm, in float64.

    Raises
    ------
    ValueError
        If it is not a real finite matrix, or a column is zero.
    """
    matrix = checked_matrix(A, name)
    largest = np.abs(matrix).max(axis=0)
    if not largest.all():
        column = int(np.argmin(largest))
        raise ValueError(
            f"column {column} of {name} is zero and has no direction: leave it out, or bound "
            "δ_s itself, which allows it"
        )
    matrix = matrix / largest  # first, so that no square over- or underflows
    return matrix / np.sqrt(np.einsum("ij,ij->j", matrix, matrix))


def off_diagonal_blocks(
    gram: DenseGram, count: int
) -> Iterator[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Yield rows of the Gram matrix, reduced to what Gershgorin's theorem needs.

    Parameters
    ----------
    gram : DenseGram
        Of a matrix with d columns, held or computed a block of rows at a time as it sees fit.
    count : int
        How many entries of a row to keep, from 0 to d − 1.

    Yields
    ------
    diagonal : ndarray, shape (rows,)
        G_jj of the next rows.
    magnitudes : ndarray, shape (rows, count)
        The `count` largest |G_ij|, i ≠ j, of each, in descending order.
    """
    height = max(1, _BLOCK // gram.columns)
    for start in range(0, gram.columns, height):
        own = np.arange(start, min(start + height, gram.columns))
        rows = np.abs(gram.rows(own))
        rows[own - start, own] = 0.0
        if count == 1:
            yield gram.diagonal[own], rows.max(axis=1, keepdims=True)
            continue
        rows.partition(gram.columns - count - 1, axis=1)
        kept = rows[:, gram.columns - count :]
        kept.sort(axis=1)
        yield gram.diagonal[own], kept[:, ::-1].copy()


def mutual_coherence(A: Any) -> float:
    """Return μ(A), the largest |⟨a_i, a_j⟩|/(‖a_i‖ ‖a_j‖) over pairs of columns.

    Parameters
    ----------
    A : array or operator, shape (k, d)
        Columns of any norm except zero. Of a Kronecker operator only the factors are used:
        μ(A ⊗ B) = max(μ(A), μ(B)).

    Returns
    -------
    float
        In [0, 1]; 0 for a single column. Beyond 4096 columns the Gram matrix is never held whole.

    Raises
    ------
    ValueError
        If A is not a real finite matrix, or a column is zero.

    References
    ----------
    D. L. Donoho and X. Huo, "Uncertainty principles and ideal atomic decomposition", IEEE Trans.
    Information Theory 47 (2001); for Kronecker products S. Jokar and V. Mehrmann, "Sparse solutions
    to underdetermined Kronecker product systems", Linear Algebra Appl. 431 (2009).
    """
    if isinstance(A, KroneckerOperator):
        return max(mutual_coherence(factor) for factor in A.factors)
    matrix = unit_columns(A)
    if matrix.shape[1] == 1:
        return 0.0
    largest = max(float(kept.max()) for _, kept in off_diagonal_blocks(DenseGram(matrix), 1))
    return min(largest, 1.0)


def babel(A: Any, k: int | Sequence[int] | NDArray[np.int64]) -> Any:
    """Return the Babel function μ₁(k), the largest sum of k cosines with one column.

    μ₁(k) = max_j of the sum of the k largest |⟨a_i, a_j⟩|/(‖a_i‖ ‖a_j‖), i ≠ j; μ₁(1) = μ and
    μ₁(k) ≤ kμ.

    Parameters
    ----------
    A : array or operator, shape (k, d)
        Columns of any norm except zero; of a Kronecker operator only the factors are used.
    k : int or sequence of int
        How many cosines, each from 1 to d − 1.

    Returns
    -------
    float or ndarray
        One value for each k.

    Raises
    ------
    ValueError
        If A is not a real finite matrix, a column is zero, or k is outside its range.

    References
    ----------
    J. A. Tropp, "Greed is good: algorithmic results for sparse approximation", IEEE Trans.
    Information Theory 50 (2004).
    """
    if isinstance(A, KroneckerOperator):
        from cosa_theory.isometry.kronecker_coherence import kronecker_babel

        return kronecker_babel(A.factors[0], A.factors[1], k)
    matrix = unit_columns(A)
    counts = checked_counts(k, matrix.shape[1])
    sums = np.zeros(int(counts.max()))
    for _, kept in off_diagonal_blocks(DenseGram(matrix), len(sums)):
        np.maximum(sums, np.cumsum(kept, axis=1).max(axis=0), out=sums)
    values = sums[counts - 1]
    return float(values[0]) if np.ndim(k) == 0 else values


def checked_counts(k: Any, columns: int) -> NDArray[np.int64]:
    """Return k, a number or several, as a vector, after checking 1 ≤ k < number of columns.

    Raises
    ------
    ValueError
        If one is not a whole number in that range, or there is none.
    """
    counts = np.atleast_1d(np.asarray(k))
    whole = counts.dtype.kind in "iu" and counts.size > 0
    if not whole or not np.all((counts >= 1) & (counts < columns)):
        raise ValueError(f"k is {k}: it must be whole, from 1 to one less than {columns} columns")
    return counts.astype(np.int64)


def welch_bound(rows: Any, columns: Any) -> Any:
    """Return √((N − M)/(M(N − 1))), which no coherence of N columns in M dimensions is below.

    Parameters
    ----------
    rows, columns : int or array of int
        M and N, positive; they broadcast. Where N ≤ M the bound is 0.

    Raises
    ------
    ValueError
        If a size is not a positive whole number.

    References
    ----------
    L. R. Welch, "Lower bounds on the maximum cross correlation of signals", IEEE Trans.
    Information Theory 20 (1974).
    """
    M, N = np.asarray(rows, dtype=np.float64), np.asarray(columns, dtype=np.float64)
    for name, size in (("rows", M), ("columns", N)):
        if not np.all(np.isfinite(size) & (size >= 1) & (size == np.floor(size))):
            raise ValueError(f"{name} must be positive whole numbers, got {size}")
    return np.sqrt(np.maximum(N - M, 0.0) / (M * np.maximum(N - 1, 1.0)))[()]


@dataclass(frozen=True)
class SparkBounds:
    """Bounds of the spark, the least number of linearly dependent columns.

    Parameters
    ----------
    lower, upper : float
        Whole numbers, or infinity where all columns are independent and no set is dependent.
    how : str
        What each end comes from.
    """

    lower: float
    upper: float
    how: str


def spark_bounds(A: Any) -> SparkBounds:
    """Bound the spark of A, the least number of linearly dependent columns.

    Every vector with at most spark/2 nonzero entries (strictly fewer) is the only one as sparse
    that gives its measurements, and no method recovers all vectors with more.

    Parameters
    ----------
    A : array or operator, shape (k, d)
        The matrix; of a Kronecker operator only the factors are used, see
        `kronecker_spark`.

    Returns
    -------
    SparkBounds
        A zero column gives exactly 1. Below, the least k with μ₁(k − 1) ≥ 1, which is at least
        1 + 1/μ; above, the rank plus one. Rank and parallel columns are decided up to rounding,
        with all columns scaled to norm one: their norms do not matter.

    Raises
    ------
    ValueError
        If A is not a real finite matrix.

    References
    ----------
    D. L. Donoho and M. Elad, "Optimally sparse representation in general (nonorthogonal)
    dictionaries via ℓ1 minimization", PNAS 100 (2003); for the Babel
    function J. A. Tropp, "Greed is good", IEEE Trans. Information Theory 50 (2004).
    """
    if isinstance(A, KroneckerOperator):
        from cosa_theory.isometry.kronecker_coherence import kronecker_spark

        return kronecker_spark(*A.factors)
    matrix = checked_matrix(A)
    rows, columns = matrix.shape
    if not np.all(np.abs(matrix).max(axis=0)):
        return SparkBounds(1, 1, "a zero column")
    matrix = unit_columns(matrix)  # else short columns count as rounding of long ones
    rank = _rank(matrix)
    if rank == columns:
        return SparkBounds(math.inf, math.inf, "all columns are independent")
    slack = 4 * (rows + columns) * 2.0**-53
    # A few hundred cosines are enough to reach 1 in practice; more would cost whole rows.
    most = min(rank, columns - 1, 512)
    sums = babel(matrix, np.arange(1, most + 1)) + slack * np.arange(1, most + 1)
    reached = np.flatnonzero(sums >= 1.0)
    lower = int(reached[0]) + 2 if reached.size else most + 2
    lower = min(lower, rank + 1)
    if lower == 2 and sums[0] >= 1.0:
        return SparkBounds(2, 2, "two parallel columns")
    return SparkBounds(lower, rank + 1, "Babel function; rank")


def _rank(matrix: NDArray[np.float64]) -> int:
    """Return the rank of unit columns; the smaller Gram matrix tells where it is surely full."""
    short = matrix @ matrix.T if matrix.shape[0] < matrix.shape[1] else matrix.T @ matrix
    values = np.linalg.eigvalsh(short)
    if values[0] > _RESOLVED * values[-1]:
        return len(short)
    return int(np.linalg.matrix_rank(matrix))
