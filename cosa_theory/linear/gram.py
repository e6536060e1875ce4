"""The Gram matrix G = AᵀA of a matrix or of a Kronecker product, given out in pieces.

Whatever asks for entries, enclosures of eigenvalues or dependent columns asks a `Gram`, and need
not know whether A is held in memory or known by its factors, whose product is never formed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np

from cosa_theory.ground.checks import finite
from cosa_theory.ground.errors import InputError
from cosa_theory.linear.discs import LargestEntries, extreme_disc
from cosa_theory.linear.gram_protocol import (
    Floats,
    Gram,
    Indices,
    SparkBounds,
    outward,
    rounding_slack,
)
from cosa_theory.linear.operators import Factor, KroneckerOperator

__all__ = ["DenseGram", "KroneckerGram", "as_gram", "unit_gram"]

_FORMED_UP_TO = 4096  # columns up to which the whole Gram matrix is kept (128 MiB)
_CHOSEN = 1 << 22  # entries of A copied at a time for the blocks of supports
_BLOCK = 1 << 22  # entries of G searched for the largest of each row at a time
_NORM_ROWS = 1 << 22  # entries of an image A X Bᵀ held at a time
_LONGEST = 1e150  # squared norm of a column; its square must be finite
_SHORTEST = 1e-150  # squared norm of the longest column; its square must keep its digits
_RESOLVED = 1e-8  # λ_min/λ_max of a float64 Gram matrix from which on the rank is surely full
_COSINES = 512  # of a column, looked at for the spark: enough to reach 1 in practice


class DenseGram(Gram):
    """The Gram matrix of a matrix that is held in memory.

    Parameters
    ----------
    A : array, tensor, sparse array or LinearOperator, shape (k, d)
        Computed with in float64. Up to 4096 columns G is formed, once; beyond, its rows are
        products with A at each call.
    name : str
        What errors call it.

    Attributes
    ----------
    A : ndarray, shape (k, d)

    Raises
    ------
    InputError
        If A is not a matrix of finite real numbers, a column has a squared norm above 1e150, or
        all have one below 1e-150 and some entry is not zero.
    """

    _entries: LargestEntries | None = None

    def __init__(self, A: Any, name: str = "A") -> None:
        self.name, self.symbol, self.A = f"the matrix {name}", name, _read(A, name)
        self.rows_of_A, self.columns = self.A.shape
        _check_range(self.largest, name, zero=not self.A.any())

    @cached_property
    def diagonal(self) -> Floats:
        """Squared norms of the columns."""
        with np.errstate(over="ignore"):  # reported by _check_range
            return np.einsum("kd,kd->d", self.A, self.A)

    @property
    def cross(self) -> float:
        """The greatest entry beside the diagonal."""
        return float(self.entries(2).values[:, 1:2].max(initial=0.0))

    @cached_property
    def full(self) -> Floats:
        """G, shape (d, d)."""
        gram = self.A.T @ self.A
        np.fill_diagonal(gram, self.diagonal)
        return gram

    @property
    def dependent_from(self) -> int:
        """By dimension from k + 1 columns on."""
        shortest = self.diagonal == self.diagonal.min()
        if not self.A[:, shortest].any(axis=0).all():  # a square may have underflown to zero
            return 1
        return min(self.rows_of_A, self.columns) + 1

    def rows(self, columns: Indices) -> Floats:
        """Return rows of G, formed or multiplied out."""
        if self.columns <= _FORMED_UP_TO:
            return self.full[columns]
        chosen, places = np.unique(columns, return_inverse=True)
        rows = self.A[:, chosen].T @ self.A
        rows[np.arange(chosen.size), chosen] = self.diagonal[chosen]
        return rows[places.reshape(columns.shape)]

    def blocks(self, supports: Indices) -> Floats:
        """Return blocks of G, formed or multiplied out."""
        if self.columns <= _FORMED_UP_TO:
            return self.full[supports[:, :, None], supports[:, None, :]]
        count, s = supports.shape
        blocks = np.empty((count, s, s))
        step = max(1, _CHOSEN // (s * self.rows_of_A))
        for start in range(0, count, step):
            chosen = self.A.T[supports[start : start + step]]
            blocks[start : start + step] = chosen @ chosen.transpose(0, 2, 1)
        return blocks

    def restricted(self, columns: Indices) -> DenseGram:
        """Return the Gram matrix of some columns, which may all be too short to be checked."""
        part = DenseGram.__new__(DenseGram)
        part.name, part.symbol, part.A = self.name, self.symbol, self.A[:, columns]
        part.rows_of_A, part.columns = part.A.shape
        return part

    def squared_norm(self, support: Indices, coefficients: Floats) -> float:
        """Return the squared norm of one product with A."""
        image = self.A[:, support] @ coefficients
        return float(image @ image)

    def entries(self, order: int) -> LargestEntries:
        """Return the entries that the discs of supports of this order see; they are kept."""
        if self._entries is None or self._entries.values.shape[1] < min(order, self.columns):
            self._entries = LargestEntries(np.vstack([p.values for p in self._parts(order)]))
        return self._entries

    def _parts(self, order: int) -> Iterator[LargestEntries]:
        """Yield the same a block of rows at a time, or what is kept."""
        width = min(order, self.columns)
        if self._entries is not None and self._entries.values.shape[1] >= width:
            yield self._entries
            return
        height = max(1, _BLOCK // self.columns)
        for first in range(0, self.columns, height):
            own = np.arange(first, min(first + height, self.columns))
            yield LargestEntries.of_rows(self.rows(own), self.diagonal[own], first, width - 1)

    def discs(self, order: int) -> tuple[float, float]:
        """Enclose row by row."""
        least, greatest = zip(*(part.ends(order) for part in self._parts(order)), strict=True)
        return outward(min(least), max(greatest), self.slack(order))

    @cached_property
    def spectrum_range(self) -> tuple[float, float]:
        """The eigenvalues of the shorter side's Gram matrix; the least is 0 if A is wide."""
        wide = self.rows_of_A < self.columns
        short = self.A @ self.A.T if wide else self.full
        values = np.linalg.eigvalsh(short)
        slack = rounding_slack(max(self.A.shape), len(short), float(short.diagonal().max()))
        return outward(0.0 if wide else float(values[0]), float(values[-1]), slack)

    def coherence(self) -> float:
        """Return the greatest cosine of two columns."""
        self._check_directions()
        return min(self.cross, 1.0)

    def babel(self, counts: Indices) -> Floats:
        """Return the greatest sums of cosines with one column."""
        self._check_directions()
        sums = np.zeros(int(counts.max()))
        for part in self._parts(sums.size + 1):
            kept = part.values[:, 1 : sums.size + 1]
            np.maximum(sums, np.cumsum(kept, axis=1).max(axis=0), out=sums)
        return sums[counts - 1]

    def spark(self) -> SparkBounds:
        """Bound by the Babel function from below and by the rank from above."""
        if not self.diagonal.all():
            return SparkBounds(1, 1, "a zero column")
        rank = self._rank()
        if rank == self.columns:
            return SparkBounds(math.inf, math.inf, "all columns are independent")
        counts = np.arange(1, min(rank, self.columns - 1, _COSINES) + 1)
        slack = 4 * (self.rows_of_A + self.columns) * 2.0**-53
        reached = np.flatnonzero(self.babel(counts) + slack * counts >= 1.0)
        lower = int(reached[0] if reached.size else counts.size) + 2
        if lower == 2:
            return SparkBounds(2, 2, "two parallel columns")
        return SparkBounds(min(lower, rank + 1), rank + 1, "Babel function; rank")

    def _rank(self) -> int:
        """Return the rank; the shorter side's Gram matrix tells where it is surely full."""
        short = self.A @ self.A.T if self.rows_of_A < self.columns else self.A.T @ self.A
        values = np.linalg.eigvalsh(short)
        if values[0] > _RESOLVED * values[-1]:
            return len(short)
        return int(np.linalg.matrix_rank(self.A))

    def _check_directions(self) -> None:
        if not self.diagonal.all():
            raise InputError(
                f"column {int(np.argmin(self.diagonal))} of {self.symbol} is zero and has no "
                "direction: leave it out, or bound δ_s itself, which allows it",
                argument=self.symbol,
            )


class KroneckerGram(Gram):
    """The Gram matrix of A ⊗ B, which is AᵀA ⊗ BᵀB and never formed.

    Parameters
    ----------
    A : array, tensor, sparse array or LinearOperator, shape (p, m)
    B : array, tensor, sparse array or LinearOperator, shape (q, n)
        The factors, or their `DenseGram`. Column number i·n + j of A ⊗ B is aᵢ ⊗ bⱼ, entry (i, j)
        of an m × n matrix in row-major order.
    name : str
        What results about it call it.

    Attributes
    ----------
    left, right : DenseGram
        Of the factors.

    Raises
    ------
    InputError
        As `DenseGram`, for either factor.

    References
    ----------
    Coherence, spark and their reasons: S. Jokar, V. Mehrmann, "Sparse solutions to underdetermined
    Kronecker product systems", Linear Algebra and its Applications 431 (2009), 2437-2447.
    """

    def __init__(self, A: Any, B: Any, name: str = "the Kronecker product A ⊗ B") -> None:
        self.name = name
        self.left = A if isinstance(A, DenseGram) else DenseGram(A, "A")
        self.right = B if isinstance(B, DenseGram) else DenseGram(B, "B")
        self.rows_of_A = self.left.rows_of_A * self.right.rows_of_A
        self.columns = self.left.columns * self.right.columns
        zero = self.left.largest == 0.0 or self.right.largest == 0.0
        _check_range(self.largest, "A ⊗ B", zero=zero)

    @property
    def domain_shape(self) -> tuple[int, int]:
        """The shape (m, n) of the matrices that A ⊗ B maps."""
        return self.left.columns, self.right.columns

    @cached_property
    def diagonal(self) -> Floats:
        """Products of the factors' squared norms, shape (mn,)."""
        return np.outer(self.left.diagonal, self.right.diagonal).ravel()

    @property
    def shortest(self) -> float:
        """The product of the factors' least."""
        return self.left.shortest * self.right.shortest

    @property
    def largest(self) -> float:
        """The product of the factors' greatest."""
        return self.left.largest * self.right.largest

    @property
    def cross(self) -> float:
        """The greater of two, which the product of two off-diagonal entries is never above."""
        left, right = self.left, self.right
        return max(left.cross * right.largest, left.largest * right.cross)

    @property
    def dependent_from(self) -> int:
        """The lesser of the factors: columns packed in one row or one column of the domain."""
        sides = (self.left, self.right)
        sure = [side.dependent_from for side in sides if side.dependent_from <= side.columns]
        return min(sure, default=self.columns + 1)

    def rows(self, columns: Indices) -> Floats:
        """Return outer products of the factors' rows."""
        i, j = np.divmod(columns, self.right.columns)
        outer = self.left.rows(i)[..., :, None] * self.right.rows(j)[..., None, :]
        return outer.reshape(*columns.shape, self.columns)

    def blocks(self, supports: Indices) -> Floats:
        """Return products of the factors' blocks, entry by entry."""
        i, j = np.divmod(supports, self.right.columns)
        return self.left.blocks(i) * self.right.blocks(j)

    def squared_norm(self, support: Indices, coefficients: Floats) -> float:
        """Return ‖A X Bᵀ‖² for the matrix X with these coefficients on the support."""
        i, j = np.divmod(support, self.right.columns)
        weighted = self.left.A[:, i] * coefficients
        chosen = self.right.A[:, j].T
        step = max(1, _NORM_ROWS // self.right.rows_of_A)
        total = 0.0
        for start in range(0, self.left.rows_of_A, step):
            image = weighted[start : start + step] @ chosen
            total += float(np.vdot(image, image))
        return total

    def restricted(self, rows: Indices, columns: Indices) -> KroneckerGram:
        """Return the Gram matrix of the columns aᵢ ⊗ bⱼ, i among `rows` and j among `columns`."""
        part = KroneckerGram.__new__(KroneckerGram)
        part.name = self.name
        part.left, part.right = self.left.restricted(rows), self.right.restricted(columns)
        part.rows_of_A, part.columns = self.rows_of_A, rows.size * columns.size
        return part

    def slack(self, order: int) -> float:
        """Return what rounding does to sums of products of entries of both Gram matrices."""
        rows = self.left.rows_of_A + self.right.rows_of_A
        return rounding_slack(rows, order, self.largest)

    def discs(self, order: int) -> tuple[float, float]:
        """Enclose exactly as for the product formed, from the factors' largest entries."""
        left, right = self.left.entries(order), self.right.entries(order)
        least, greatest = -extreme_disc(left, right, order, -1), extreme_disc(left, right, order, 1)
        return outward(least, greatest, self.slack(order))

    @property
    def spectrum_range(self) -> tuple[float, float]:
        """Products of the factors' eigenvalues."""
        (low_left, high_left), (low_right, high_right) = (
            side.spectrum_range for side in (self.left, self.right)
        )
        greatest = high_left * high_right
        return outward(low_left * low_right, greatest, 4 * math.ulp(greatest))

    def coherence(self) -> float:
        """Return max(μ(A), μ(B)): the cosine of two columns is a product of two."""
        return max(self.left.coherence(), self.right.coherence())

    def babel(self, counts: Indices) -> Floats:
        """Return the outermost points of the discs, less the diagonal of ones."""
        order = int(counts.max()) + 1
        for side in (self.left, self.right):
            side._check_directions()
        left, right = self.left.entries(order), self.right.entries(order)
        return np.array([extreme_disc(left, right, int(k) + 1, 1) - 1.0 for k in counts])

    def spark(self) -> SparkBounds:
        """Bound min(spark A, spark B).

        A dependent set of columns of A, each with the same column of B, is dependent; and if X has
        fewer nonzero entries than either spark, A X Bᵀ = 0 makes X Bᵀ zero and then X. With p < m
        and q < n rows it is at most min(p, q) + 1, however many rows pq the product has.
        """
        first, second = self.left.spark(), self.right.spark()
        low, high = min(first.lower, second.lower), min(first.upper, second.upper)
        return SparkBounds(low, high, f"the lesser of the factors: A, {first.how}; B, {second.how}")


def as_gram(A: Any) -> Gram:
    """Return AᵀA of a matrix, of a Kronecker operator by its factors, or a `Gram` as it is."""
    if isinstance(A, KroneckerOperator):
        return KroneckerGram(*A.factors, A.name)
    return A if isinstance(A, Gram) else DenseGram(A)


def unit_gram(A: Any, name: str = "A") -> Gram:
    """Return the cosines of a matrix: its Gram matrix with every column scaled to norm one.

    Parameters
    ----------
    A : array, tensor, sparse array or LinearOperator, shape (k, d)
        Columns of any norm, however extreme; zero ones stay zero. A `cosa_theory.KroneckerOperator`
        is kept in factors, each scaled by itself.
    name : str
        What errors call it.

    Raises
    ------
    InputError
        If A is not a matrix of finite real numbers.
    """
    if isinstance(A, KroneckerOperator):
        left, right = A.factors
        return KroneckerGram(unit_gram(left, "A"), unit_gram(right, "B"), A.name)
    matrix = _read(A, name)
    largest = np.abs(matrix).max(axis=0)  # by it first, so that no square over- or underflows
    matrix = matrix / np.where(largest > 0, largest, 1.0)
    norms = np.sqrt(np.einsum("ij,ij->j", matrix, matrix))
    return DenseGram(matrix / np.where(norms > 0, norms, 1.0), name)


def _read(A: Any, name: str) -> Floats:
    """Return a matrix in float64 on the host; float32 entries are the exact numbers they are."""
    matrix = Factor(A, name).dense(np.dtype(np.float64))
    finite(name, matrix)
    return matrix


def _check_range(largest: float, name: str, *, zero: bool) -> None:
    """Refuse columns so long, or all so short, that products of entries of G leave the range."""
    if not largest < _LONGEST:
        limit, remedy = f"above {_LONGEST:g}", "divide"
    elif largest < _SHORTEST and not zero:
        limit, remedy = f"below {_SHORTEST:g}", "multiply"
    else:
        return
    raise InputError(
        f"the squared norm of the longest column of {name} is {largest:.3g}, {limit}: {remedy} the "
        "matrix by a power of two first",
        argument=name,
    )
