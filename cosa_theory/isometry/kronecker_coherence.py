"""Coherence, Babel function and spark of a Kronecker product A ⊗ B, from its factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.isometry.coherence import (
    SparkBounds,
    checked_counts,
    mutual_coherence,
    spark_bounds,
    unit_columns,
)
from cosa_theory.isometry.products import extreme_disc, factor_rows
from cosa_theory.linear.gram import DenseGram

__all__ = ["kronecker_babel", "kronecker_coherence", "kronecker_spark"]


def kronecker_coherence(A: Any, B: Any) -> float:
    """Return μ(A ⊗ B) = max(μ(A), μ(B)): the cosine of two columns is a product of two.

    Parameters, errors and reference are those of `mutual_coherence`, for either factor.
    """
    return max(mutual_coherence(A), mutual_coherence(B))


def kronecker_babel(A: Any, B: Any, k: int | Sequence[int] | NDArray[np.int64]) -> Any:
    """Return the Babel function μ₁(k) of A ⊗ B, exactly, from the factors' largest cosines.

    Parameters
    ----------
    A, B : array or operator, shapes (p, m) and (q, n)
        The factors, without zero columns.
    k : int or sequence of int
        How many cosines, each from 1 to mn − 1.

    Returns
    -------
    float or ndarray
        One value for each k.

    Raises
    ------
    ValueError
        For a bad factor, a zero column, or k outside its range.
    """
    grams = [DenseGram(unit_columns(M, name)) for M, name in ((A, "A"), (B, "B"))]
    counts = checked_counts(k, grams[0].columns * grams[1].columns)
    left, right = (factor_rows(gram, int(counts.max()) + 1) for gram in grams)
    values = np.array([extreme_disc(left, right, int(count) + 1, 1) - 1.0 for count in counts])
    return float(values[0]) if np.ndim(k) == 0 else values


def kronecker_spark(A: Any, B: Any) -> SparkBounds:
    """Bound spark(A ⊗ B) = min(spark A, spark B).

    A dependent set of columns of A, each with the same column of B, is dependent; and if X has
    fewer nonzero entries than either spark, A X Bᵀ = 0 makes X Bᵀ zero and then X. With p < m and
    q < n rows it is at most min(p, q) + 1, however many rows pq the product has.

    Parameters
    ----------
    A, B : array or operator, shapes (p, m) and (q, n)
        The factors.

    Raises
    ------
    ValueError
        If a factor is not a real finite matrix.

    References
    ----------
    S. Jokar, V. Mehrmann, "Sparse solutions to underdetermined Kronecker product systems", Linear
    Algebra and its Applications 431 (2009), 2437-2447.
    """
    first, second = spark_bounds(A), spark_bounds(B)
    low, high = min(first.lower, second.lower), min(first.upper, second.upper)
    return SparkBounds(low, high, f"the lesser of the factors: A, {first.how}; B, {second.how}")
