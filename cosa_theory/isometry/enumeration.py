"""All supports of one size, each decided by the sign of a pivot instead of its eigenvalues."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cosa_theory.isometry.search import top_values
from cosa_theory.linear.gram_protocol import Floats, Gram, Indices, rounding_slack

__all__ = ["best_of_all", "supports_reaching"]


def best_of_all(gram: Gram, candidate: Indices, sign: int) -> Indices:
    """Return a support with the greatest λ_max(σ G_S) of its size, up to half of `rounding_slack`.

    The candidate, of s columns, is where it starts: the better it is, the fewer others need a
    closer look. `sign` is σ, −1 for the least eigenvalue. The whole d × d matrix G is formed,
    unless s is 1.
    """
    s = candidate.size
    if s == 1:
        return np.array([(sign * gram.diagonal).argmax()])
    H = (sign / (gram.largest or 1.0)) * gram.rows(np.arange(gram.columns))
    # Ties with the candidate are no gain; without a tolerance each would be looked at.
    tolerance = rounding_slack(gram.rows_of_A, s, 1.0) / 2
    best, value = candidate, float(top_values(H[np.ix_(candidate, candidate)]))
    for supports in supports_reaching(H, s, value + tolerance):
        values = top_values(H[supports[:, :, None], supports[:, None, :]])
        if values.max() > value:
            best, value = supports[values.argmax()], float(values.max())
    return best


def supports_reaching(H: Floats, s: int, level: float) -> Iterator[Indices]:
    """Yield all supports S of size s ≥ 2 with λ_max(H_S) ≥ level, in batches of shape (N, s).

    λ_max(H_S) < level exactly where K_S is positive definite, K = level·I − H, that is where
    elimination without pivoting meets positive pivots only. Supports that begin alike share their
    elimination: what is left of K after its first s − 2 columns decides all pairs of last
    columns at once, by the sign of 2 × 2 determinants.

    Rounding: positive computed pivots prove λ_max(H_S) < level + O(s u ‖K_S‖) (S. M. Rump,
    "Verification of positive definiteness", BIT Numerical Mathematics 46 (2006), 433-452).
    """
    d = H.shape[0]
    K = level * np.eye(d) - H
    # Prefixes by their last column: what is left of K begins after it, so all have one shape.
    stacks = {-1: (np.empty((1, 0), np.int64), K[None])}
    for size in range(1, s - 1):
        last_level = size == s - 2
        grown: dict[int, tuple[Indices, Floats]] = {}
        for column in range(size - 1, d - s + size):
            parts = [_eliminate(*stacks[end], end, column) for end in stacks if end < column]
            if last_level:
                for prefixes, left in parts:
                    yield from _pairs(prefixes, left, column)
            else:
                prefixes, left = (np.concatenate(part) for part in zip(*parts, strict=True))
                grown[column] = (prefixes, left)
        stacks = grown
    if s == 2:
        yield from _pairs(*stacks[-1], -1)


def _eliminate(prefixes: Indices, left: Floats, end: int, column: int) -> tuple[Indices, Floats]:
    """Append one column to each prefix and eliminate it from what is left after it.

    A prefix on which K is not positive definite leaves zeros, so that all its supports are found.
    """
    at = column - end - 1
    pivot = left[:, at, at]
    fine = pivot > 0
    row = left[:, at, at + 1 :]
    scaled = row / np.where(fine, pivot, 1.0)[:, None]
    rest = left[:, at + 1 :, at + 1 :] - row[:, :, None] * scaled[:, None, :]
    rest[~fine] = 0.0
    added = np.full((prefixes.shape[0], 1), column)
    return np.concatenate([prefixes, added], axis=1), rest


def _pairs(prefixes: Indices, left: Floats, end: int) -> Iterator[Indices]:
    """Yield the prefixes extended by the pairs whose pivots are not both positive."""
    diagonal = np.einsum("nii->ni", left)
    fine = left * left < diagonal[:, :, None] * diagonal[:, None, :]
    fine &= (diagonal > 0)[:, :, None]
    fine |= np.tri(left.shape[1], dtype=bool)
    if fine.all():
        return
    number, i, j = np.nonzero(~fine)
    yield np.concatenate([prefixes[number], (end + 1 + i)[:, None], (end + 1 + j)[:, None]], axis=1)
