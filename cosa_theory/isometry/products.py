"""Rows of a Kronecker Gram matrix, from the rows of the factors' Gram matrices.

Row (i, j) of AᵀA ⊗ BᵀB holds the products of row i of AᵀA with row j of BᵀB. Its largest entries
are products of large entries, so the few largest of each factor row are enough.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cosa_theory.isometry.coherence import off_diagonal_blocks
from cosa_theory.linear.gram import DenseGram

__all__ = ["FactorRows", "extreme_disc", "factor_rows"]

_BLOCK = 1 << 21  # products held at a time


@dataclass(frozen=True, eq=False)
class FactorRows:
    """What Gershgorin's theorem needs of the Gram matrix of one factor.

    Parameters
    ----------
    values : ndarray, shape (d, 1 + count)
        In column 0 the diagonal, then the `count` largest off-diagonal magnitudes of each row, in
        descending order.
    """

    values: NDArray[np.float64]

    @property
    def diagonal(self) -> NDArray[np.float64]:
        """G_jj, shape (d,)."""
        return self.values[:, 0]

    def reach(self, order: int) -> NDArray[np.float64]:
        """Return the sum of the order − 1 largest off-diagonal magnitudes of each row."""
        return self.values[:, 1:order].sum(axis=1)

    @property
    def envelope(self) -> NDArray[np.float64]:
        """The largest value in each place, over all rows; shape (1, 1 + count)."""
        return self.values.max(axis=0, keepdims=True)


def factor_rows(gram: DenseGram, order: int) -> FactorRows:
    """Return the rows of a factor's Gram matrix, as far as supports of one order can see them.

    Parameters
    ----------
    gram : DenseGram
        Of the factor, with d columns.
    order : int
        The largest order s wanted: min(s, d) − 1 magnitudes are kept.
    """
    count = min(order, gram.columns) - 1
    blocks = off_diagonal_blocks(gram, count)
    return FactorRows(np.vstack([np.column_stack(block) for block in blocks]))


def extreme_disc(left: FactorRows, right: FactorRows, order: int, sign: Literal[1, -1]) -> float:
    """Return max over (i, j) of sign·a_ij + t_ij, the outermost point of Gershgorin's discs.

    a_ij is the diagonal entry of row (i, j) of the Kronecker Gram matrix and t_ij the sum of its
    order − 1 largest off-diagonal magnitudes; with sign −1 it is minus the innermost point.

    Parameters
    ----------
    left, right : FactorRows
        Of the factors, for this order or a larger one.
    order : int
        s.
    sign : {1, -1}
        Which side.

    Notes
    -----
    Of the products x_r y_c of two descending lists the k largest have rc ≤ k, because rc − 1
    others are at least as large; so O(s ln s) products of a row are looked at. All rows at once
    would be as many as the columns of A ⊗ B: each row of the left factor is first paired with an
    envelope of a group of rows of the right one, which bounds all pairs of the group, and groups
    are evaluated in descending order until no bound exceeds what was found. The result is exact.
    """
    groups = _groups(right)
    bounds = np.column_stack([_bound(left, group, order, sign) for group in groups])
    best = -np.inf
    for place in np.argsort(-bounds, axis=None, kind="stable"):
        i, g = divmod(int(place), len(groups))
        if bounds[i, g] <= best:
            break
        found = _pairs(left.values[i : i + 1], groups[g].values, order, sign)
        best = max(best, float(found.max()))
    return best


def _groups(rows: FactorRows) -> list[FactorRows]:
    """Return the rows in some √d groups of similar diagonal, which their envelopes fit."""
    ordered = rows.values[np.argsort(rows.diagonal, kind="stable")]
    number = math.isqrt(len(ordered) - 1) + 1
    return [FactorRows(part) for part in np.array_split(ordered, number)]


def _bound(left: FactorRows, group: FactorRows, order: int, sign: int) -> NDArray[np.float64]:
    """Return a bound of sign·a_ij + t_ij over all j of a group, for every row i."""
    farthest = group.diagonal.max() if sign > 0 else group.diagonal.min()
    return sign * left.diagonal * farthest + _reaches(left.values, group.envelope, order)


def _pairs(
    row: NDArray[np.float64], others: NDArray[np.float64], order: int, sign: int
) -> NDArray[np.float64]:
    """Return sign·a_ij + t_ij for one row i and several j."""
    return sign * row[0, 0] * others[:, 0] + _reaches(others, row, order)


def _reaches(
    rows: NDArray[np.float64], other: NDArray[np.float64], order: int
) -> NDArray[np.float64]:
    """Return the sum of the order − 1 largest products of two lists, (0, 0) apart, for each row."""
    wanted = order - 1
    mine, its = _candidates(rows.shape[1], other.shape[1], wanted)
    if len(mine) == 0:
        return np.zeros(len(rows))
    sums = []
    height = max(1, _BLOCK // len(mine))
    edges = [*range(0, len(rows), height), len(rows)]
    for start, stop in pairwise(edges):
        products = rows[start:stop, mine] * other[0, its]
        if wanted < len(mine):
            products.partition(len(mine) - wanted, axis=1)
            products = products[:, len(mine) - wanted :]
        sums.append(products.sum(axis=1))
    return np.concatenate(sums)


def _candidates(
    first: int, second: int, wanted: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the places of products that can be among the `wanted` largest, diagonal times one."""
    places = [
        (r, c)
        for r in range(min(first, wanted + 1))
        for c in range(min(second, wanted + 1))
        if r * c <= wanted and (r, c) != (0, 0)
    ]
    table = np.array(places, dtype=np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]
