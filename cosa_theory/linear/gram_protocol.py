"""What is asked of a Gram matrix G = AᵀA, whether A is held in memory or a Kronecker product."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

__all__ = ["Floats", "Gram", "Indices", "SparkBounds", "outward", "rounding_slack"]

Indices: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]


def rounding_slack(rows: int, order: int, scale: float) -> float:
    """Return how far rounding can move an eigenvalue of an order × order Gram matrix.

    The entries of the Gram matrix are sums of `rows` products no larger than `scale` (the greatest
    squared norm of a column) in all, each wrong by at most rows·u·scale (u = 2⁻⁵³), and the
    eigenvalue routine is backward stable: both together stay below 4 (rows + order)·order·u·scale.

    Source: N. J. Higham, "Accuracy and Stability of Numerical Algorithms", 2nd ed. (2002), section
    3.1.
    """
    return 4 * (rows + order) * order * 2.0**-53 * scale


def outward(least: float, greatest: float, slack: float) -> tuple[float, float]:
    """Return an outer bound made safe against rounding; no eigenvalue of a Gram is negative."""
    return max(least - slack, 0.0), max(greatest + slack, 0.0)


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


class Gram(ABC):
    """What is known of G = AᵀA, for A with `rows_of_A` rows and d = `columns` columns.

    `name` is what results call A.
    """

    name: str
    rows_of_A: int
    columns: int

    @property
    def about(self) -> str:
        """Which matrix this is, as in "the dictionary Ψ = L ⊗ Rᵀ (tall, 256 × 64)"."""
        rows, columns = self.rows_of_A, self.columns
        form = "tall" if rows > columns else "wide" if rows < columns else "square"
        return f"{self.name} ({form}, {rows} × {columns})"

    @property
    @abstractmethod
    def diagonal(self) -> Floats:
        """Squared norms of the columns, shape (d,)."""

    @property
    def shortest(self) -> float:
        """The least squared norm of a column."""
        return float(self.diagonal.min())

    @property
    def largest(self) -> float:
        """The greatest squared norm of a column."""
        return float(self.diagonal.max())

    @property
    @abstractmethod
    def cross(self) -> float:
        """The greatest |G_ij|, i ≠ j, or 0 for a single column."""

    @abstractmethod
    def rows(self, columns: Indices) -> Floats:
        """Return rows of G, shape (…, d) for indices of shape (…)."""

    @abstractmethod
    def blocks(self, supports: Indices) -> Floats:
        """Return G restricted to each support, shape (N, s, s) for supports of shape (N, s)."""

    @abstractmethod
    def squared_norm(self, support: Indices, coefficients: Floats) -> float:
        """Return ‖Ax‖² for the vector with these coefficients on the support, computed from A."""

    @property
    @abstractmethod
    def dependent_from(self) -> int:
        """The least number of columns of which some set is sure to be dependent, or d + 1 if none.

        1 if a column is zero, else by dimension; a dependence that takes a look at the entries,
        such as of equal columns, does not count.
        """

    def slack(self, order: int) -> float:
        """Return how far rounding can move a sum of `order` entries of a row of G."""
        return rounding_slack(self.rows_of_A, order, self.largest)

    @abstractmethod
    def discs(self, order: int) -> tuple[float, float]:
        """Enclose all eigenvalues of blocks of one order by Gershgorin's theorem, with rounding.

        min_j (G_jj − t_j) and max_j (G_jj + t_j), where t_j is the sum of the order − 1 largest
        |G_ij|, i ≠ j.
        """

    @property
    @abstractmethod
    def spectrum_range(self) -> tuple[float, float]:
        """An enclosure of all eigenvalues of G, rounding included."""

    @abstractmethod
    def coherence(self) -> float:
        """Return the mutual coherence, for columns of norm one (see `unit_gram`), not zero."""

    @abstractmethod
    def babel(self, counts: Indices) -> Floats:
        """Return the Babel function at counts from 1 to d − 1, for columns of norm one, none 0."""

    @abstractmethod
    def spark(self) -> SparkBounds:
        """Bound the spark, for columns of norm one or zero: else short ones count as rounding."""
