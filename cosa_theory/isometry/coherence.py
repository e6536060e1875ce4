"""Mutual coherence, the Babel function, the Welch bound and bounds of the spark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import refuse, sizes, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.linear.gram import unit_gram
from cosa_theory.linear.gram_protocol import SparkBounds

__all__ = ["SparkBounds", "babel", "mutual_coherence", "spark_bounds", "welch_bound"]


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
    InputError
        If A is not a real finite matrix, or a column is zero.

    References
    ----------
    docs/theory.md, 2.2. D. L. Donoho and X. Huo, "Uncertainty principles and ideal atomic
    decomposition", IEEE Trans. Information Theory 47 (2001); for Kronecker products S. Jokar and V.
    Mehrmann, "Sparse solutions to underdetermined Kronecker product systems", Linear Algebra Appl.
    431 (2009).
    """
    return unit_gram(A).coherence()


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
    InputError
        If A is not a real finite matrix or has one column, a column is zero, or k is outside its
        range.

    References
    ----------
    docs/theory.md, 2.6. J. A. Tropp, "Greed is good: algorithmic results for sparse approximation",
    IEEE Trans. Information Theory 50 (2004).
    """
    gram = unit_gram(A)
    if gram.columns == 1:
        raise InputError("A has one column: cosines take two at least", argument="A")
    counts = [whole("k", count, most=gram.columns - 1) for count in np.atleast_1d(k).tolist()]
    if not counts:
        raise refuse("k", k, "at least one whole number")
    values = gram.babel(np.array(counts))
    return float(values[0]) if np.ndim(k) == 0 else values


def welch_bound(rows: Any, columns: Any) -> Any:
    """Return √((N − M)/(M(N − 1))), which no coherence of N columns in M dimensions is below.

    Parameters
    ----------
    rows, columns : int or array of int
        M and N, positive; they broadcast. Where N ≤ M the bound is 0.

    References
    ----------
    docs/theory.md, 2.7. L. R. Welch, "Lower bounds on the maximum cross correlation of signals",
    IEEE Trans. Information Theory 20 (1974).
    """
    M, N = sizes(rows=rows, columns=columns)
    return np.sqrt(np.maximum(N - M, 0.0) / (M * np.maximum(N - 1, 1.0)))[()]


def spark_bounds(A: Any) -> SparkBounds:
    """Bound the spark of A, the least number of linearly dependent columns.

    Every vector with fewer than spark/2 nonzero entries is the only one as sparse that gives its
    measurements; with as many or more there are two such vectors, and no method recovers both.

    Parameters
    ----------
    A : array or operator, shape (k, d)
        The matrix; of a Kronecker operator only the factors are used:
        spark(A ⊗ B) = min(spark A, spark B).

    Returns
    -------
    SparkBounds
        A zero column gives exactly 1. Below, the least k with μ₁(k − 1) ≥ 1, which is at least
        1 + 1/μ; above, the rank plus one. Rank and parallel columns are decided up to rounding,
        with all columns scaled to norm one: their norms do not matter.

    Raises
    ------
    InputError
        If A is not a real finite matrix.

    References
    ----------
    docs/theory.md, 2.3. D. L. Donoho and M. Elad, "Optimally sparse representation in general
    (nonorthogonal) dictionaries via ℓ1 minimization", PNAS 100 (2003); for the Babel function J. A.
    Tropp, "Greed is good", IEEE Trans. Information Theory 50 (2004); for Kronecker products S.
    Jokar, V. Mehrmann, Linear Algebra Appl. 431 (2009).
    """
    return unit_gram(A).spark()
