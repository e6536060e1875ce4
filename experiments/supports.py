"""Sparse test updates by where their nonzero entries are: anywhere, or packed together."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import choice
from cosa_theory.projections import stream

__all__ = ["PACKINGS", "VALUES", "capacity", "sparse_updates"]

PACKINGS = ("random", "column", "row", "block")
VALUES = ("gaussian", "signs")


def capacity(m: int, n: int, packing: str) -> int:
    """Return how many entries of an m × n matrix a packing can hold.

    Raises
    ------
    ValueError
        If the packing is not in `PACKINGS`.
    """
    choice("packing", packing, PACKINGS)
    return {"column": m, "row": n}.get(packing, m * n)


def sparse_updates(
    shape: tuple[int, int],
    s: int,
    packing: str,
    count: int,
    *,
    values: str = "gaussian",
    seed: int = 0,
    key: tuple[Any, ...] = (),
) -> NDArray[np.float64]:
    """Draw updates with exactly s nonzero entries each.

    Parameters
    ----------
    shape : tuple of int
        (m, n).
    s : int
        Nonzero entries, from 1 to `capacity`.
    packing : {"random", "column", "row", "block"}
        Uniform among all entries; among those of one column or one row, itself uniform; or in a
        contiguous block at a uniform place, of r = ⌈√s⌉ rows and ⌈s/r⌉ columns, so that s = k²
        entries fill a k × k block; other sides where the matrix is narrower than that.
    count : int
        How many updates.
    values : {"gaussian", "signs"}
        Of the entries: standard normal, or ±1 with equal probability.
    seed, key
        Of the stream, see `cosa_theory.projections.stream`.

    Returns
    -------
    ndarray, shape (count, m, n)

    Raises
    ------
    ValueError
        For an unknown packing or law of the values, or more entries than the packing holds.
    """
    m, n = shape
    choice("values", values, VALUES)
    most = capacity(m, n, packing)
    if not 1 <= s <= most:
        where = "in all" if packing == "random" else f"in one {packing}"
        raise ValueError(f"s is {s}: an update of {m} × {n} has 1 to {most} entries {where}")
    generator = stream(seed, "sparse updates", packing, values, m, n, s, *key)
    X = np.zeros((count, m, n))
    for update in X:
        i, j = _support(generator, m, n, s, packing)
        drawn = generator.standard_normal(s)
        update[i, j] = drawn if values == "gaussian" else np.where(drawn < 0, -1.0, 1.0)
    return X


def _support(
    generator: np.random.Generator, m: int, n: int, s: int, packing: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw the row and column numbers of s entries."""
    rows, columns = {"column": (m, 1), "row": (1, n), "block": _sides(m, n, s)}.get(packing, (m, n))
    top, left = generator.integers(m - rows + 1), generator.integers(n - columns + 1)
    i, j = np.divmod(generator.choice(rows * columns, s, replace=False), columns)
    return i + top, j + left


def _sides(m: int, n: int, s: int) -> tuple[int, int]:
    """Return the sides of the smallest nearly square block of at least s entries."""
    long = math.isqrt(s - 1) + 1
    rows, columns = long, -(-s // long)
    if rows > m or columns > n:  # the matrix itself is narrower than that
        rows = min(m, max(rows, -(-s // n)))
        columns = -(-s // rows)
    return rows, columns
