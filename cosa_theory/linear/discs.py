"""Gershgorin's discs of a Gram matrix on all supports of one size, from the few largest entries.

On a support with s columns the disc of row j is centred at G_jj, and its radius is a sum of s − 1
magnitudes |G_ij|, i ≠ j: never more than the s − 1 largest of the row. Row (i, j) of AᵀA ⊗ BᵀB
holds the products of row i of AᵀA with row j of BᵀB, whose largest are products of large entries,
so the few largest of each factor row are enough there too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["LargestEntries", "extreme_disc"]

_BLOCK = 1 << 21  # products held at a time


@dataclass(frozen=True, eq=False)
class LargestEntries:
    """The diagonal and the largest other entries of some rows of a Gram matrix.

    Column 0 of `values` (rows, 1 + count) is the diagonal; then come the `count` largest
    off-diagonal magnitudes of each row, in descending order.
    """

    values: NDArray[np.float64]

    @classmethod
    def of_rows(
        cls, rows: NDArray[np.float64], diagonal: NDArray[np.float64], first: int, count: int
    ) -> LargestEntries:
        """Reduce whole rows, whose diagonal begins at column `first`; they are overwritten."""
        size, columns = rows.shape
        np.abs(rows, out=rows)
        rows[np.arange(size), np.arange(first, first + size)] = 0.0
        if count == 1:
            kept = rows.max(axis=1, keepdims=True)
        else:
            rows.partition(columns - count - 1, axis=1)
            kept = rows[:, columns - count :]
            kept.sort(axis=1)
            kept = kept[:, ::-1]
        return cls(np.column_stack([diagonal, kept]))

    @property
    def diagonal(self) -> NDArray[np.float64]:
        """G_jj of each row."""
        return self.values[:, 0]

    def ends(self, order: int) -> tuple[float, float]:
        """Return the innermost and the outermost point of the discs of supports of one order."""
        reach = self.values[:, 1:order].sum(axis=1)
        return float((self.diagonal - reach).min()), float((self.diagonal + reach).max())

    @property
    def envelope(self) -> NDArray[np.float64]:
        """The largest value in each place, over all rows; shape (1, 1 + count)."""
        return self.values.max(axis=0, keepdims=True)


def extreme_disc(
    left: LargestEntries, right: LargestEntries, order: int, sign: Literal[1, -1]
) -> float:
    """Return max over (i, j) of sign·a_ij + t_ij, the outermost point of Gershgorin's discs.

    a_ij is the diagonal entry of row (i, j) of the Kronecker Gram matrix and t_ij the sum of its
    order − 1 largest off-diagonal magnitudes; with sign −1 it is minus the innermost point. `left`
    and `right` are the factors' entries for this order or a larger one.

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


def _groups(rows: LargestEntries) -> list[LargestEntries]:
    """Return the rows in some √d groups of similar diagonal, which their envelopes fit."""
    ordered = rows.values[np.argsort(rows.diagonal, kind="stable")]
    number = math.isqrt(len(ordered) - 1) + 1
    return [LargestEntries(part) for part in np.array_split(ordered, number)]


def _bound(
    left: LargestEntries, group: LargestEntries, order: int, sign: int
) -> NDArray[np.float64]:
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
