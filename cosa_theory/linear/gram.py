"""Entries of a Gram matrix G = AᵀA, given out in pieces and formed only where it is small."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cosa_theory.linear.operators import KroneckerOperator

__all__ = ["DenseGram", "Gram", "KroneckerGram", "as_gram"]

_FORMED_UP_TO = 4096  # columns up to which the whole Gram matrix is kept (128 MiB)
_CHOSEN = 1 << 22  # entries of A copied at a time for the blocks of supports
_LONGEST = 1e150  # squared norm of a column; its square must be finite
_SHORTEST = 1e-150  # squared norm of the longest column; its square must keep its digits
_NORM_ROWS = 1 << 22  # entries of an image A X Bᵀ held at a time

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


class DenseGram:
    """The Gram matrix of a matrix that is held in memory.

    Parameters
    ----------
    A : array, tensor, sparse array or LinearOperator, shape (k, d)
        Computed with in float64. Up to 4096 columns G is formed, once; beyond, its rows are
        products with A at each call.

    Attributes
    ----------
    A : ndarray, shape (k, d)
    rows_of_A, columns : int
        k and d.

    Raises
    ------
    ValueError
        If A is not a matrix of finite real numbers, a column has a squared norm above 1e150, or
        all have one below 1e-150 and some entry is not zero.
    """

    def __init__(self, A: Any, name: str = "A") -> None:
        from cosa_theory.isometry.certificates import checked_matrix

        self.A = checked_matrix(A, name)
        self.rows_of_A, self.columns = self.A.shape
        _check_range(self.largest, name, zero=not self.A.any())

    @property
    def about(self) -> str:
        """Which matrix this is, as in "the matrix A (wide, 20 × 30)"."""
        return _described("the matrix A", self.rows_of_A, self.columns)

    @cached_property
    def diagonal(self) -> Floats:
        """Squared norms of the columns, shape (d,)."""
        with np.errstate(over="ignore"):  # reported by _check_range
            return np.einsum("kd,kd->d", self.A, self.A)

    @property
    def largest(self) -> float:
        """The greatest squared norm of a column."""
        return float(self.diagonal.max())

    @cached_property
    def full(self) -> Floats:
        """G, shape (d, d)."""
        gram = self.A.T @ self.A
        np.fill_diagonal(gram, self.diagonal)
        return gram

    @property
    def dependent_from(self) -> int:
        """The least number of columns of which some set is sure to be dependent, or d + 1 if none.

        1 if a column is zero, else k + 1 by dimension; a dependence that takes a look at the
        entries, such as of equal columns, does not count.
        """
        shortest = self.diagonal == self.diagonal.min()
        if not self.A[:, shortest].any(axis=0).all():  # a square may have underflown to zero
            return 1
        return min(self.rows_of_A, self.columns) + 1

    def rows(self, columns: Indices) -> Floats:
        """Return rows of G, shape (…, d) for indices of shape (…)."""
        if self.columns <= _FORMED_UP_TO:
            return self.full[columns]
        chosen, places = np.unique(columns, return_inverse=True)
        rows = self.A[:, chosen].T @ self.A
        rows[np.arange(chosen.size), chosen] = self.diagonal[chosen]
        return rows[places.reshape(columns.shape)]

    def blocks(self, supports: Indices) -> Floats:
        """Return G restricted to each support, shape (N, s, s) for supports of shape (N, s)."""
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
        part.A = self.A[:, columns]
        part.rows_of_A, part.columns = part.A.shape
        return part

    def squared_norm(self, support: Indices, coefficients: Floats) -> float:
        """Return ‖Ax‖² for the vector with these coefficients on the support, computed from A."""
        image = self.A[:, support] @ coefficients
        return float(image @ image)


class KroneckerGram:
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
    rows_of_A, columns : int
        pq and mn.

    Raises
    ------
    ValueError
        As `DenseGram`, for either factor.
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
    def about(self) -> str:
        """Which matrix this is, as in "the dictionary Ψ = L ⊗ Rᵀ (tall, 256 × 64)"."""
        return _described(self.name, self.rows_of_A, self.columns)

    @property
    def domain_shape(self) -> tuple[int, int]:
        """The shape (m, n) of the matrices that A ⊗ B maps."""
        return self.left.columns, self.right.columns

    @cached_property
    def diagonal(self) -> Floats:
        """Squared norms of the columns, shape (mn,)."""
        return np.outer(self.left.diagonal, self.right.diagonal).ravel()

    @property
    def largest(self) -> float:
        """The greatest squared norm of a column."""
        return self.left.largest * self.right.largest

    @property
    def dependent_from(self) -> int:
        """The least number of columns of which some set is sure to be dependent, or mn + 1 if none.

        Columns packed in one row or one column of the domain are dependent as a factor's are.

        References
        ----------
        spark(A ⊗ B) = min(spark A, spark B): S. Jokar, V. Mehrmann, "Sparse solutions to
        underdetermined Kronecker product systems", Linear Algebra and its Applications 431 (2009),
        2437-2447.
        """
        sides = (self.left, self.right)
        sure = [side.dependent_from for side in sides if side.dependent_from <= side.columns]
        return min(sure, default=self.columns + 1)

    def rows(self, columns: Indices) -> Floats:
        """Return rows of G, shape (…, mn) for indices of shape (…): outer products."""
        i, j = np.divmod(columns, self.right.columns)
        outer = self.left.rows(i)[..., :, None] * self.right.rows(j)[..., None, :]
        return outer.reshape(*columns.shape, self.columns)

    def blocks(self, supports: Indices) -> Floats:
        """Return G restricted to each support, shape (N, s, s) for supports of shape (N, s)."""
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
        part.left, part.right = self.left.restricted(rows), self.right.restricted(columns)
        part.rows_of_A, part.columns = self.rows_of_A, rows.size * columns.size
        return part


Gram: TypeAlias = DenseGram | KroneckerGram


def as_gram(A: Any) -> Gram:
    """Return access to AᵀA for a matrix, a Kronecker operator or what already is a `Gram`.

    Parameters
    ----------
    A : array, tensor, sparse array, LinearOperator or Gram, shape (k, d)
        A `cosa_theory.KroneckerOperator` is kept in factors.

    Raises
    ------
    ValueError
        As `DenseGram`.
    """
    if isinstance(A, KroneckerOperator):
        return KroneckerGram(*A.factors, A.name)
    if isinstance(A, (DenseGram, KroneckerGram)):
        return A
    return DenseGram(A)


def _check_range(largest: float, name: str, *, zero: bool) -> None:
    """Refuse columns so long, or all so short, that products of entries of G leave the range."""
    if not largest < _LONGEST:
        limit, remedy = f"above {_LONGEST:g}", "divide"
    elif largest < _SHORTEST and not zero:
        limit, remedy = f"below {_SHORTEST:g}", "multiply"
    else:
        return
    raise ValueError(
        f"the squared norm of the longest column of {name} is {largest:.3g}, {limit}: {remedy} the "
        "matrix by a power of two first"
    )


def _described(name: str, rows: int, columns: int) -> str:
    form = "tall" if rows > columns else "wide" if rows < columns else "square"
    return f"{name} ({form}, {rows} × {columns})"
