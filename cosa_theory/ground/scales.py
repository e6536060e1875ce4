"""Powers of two that bring numbers near 1, so that squares and products stay in range."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["SAFE_ENTRIES", "frobenius_norm", "in_safe_range", "unit_scale"]

# Of a norm, between which no square of an entry that matters was lost.
_SAFE = (1e-140, 1e150)
SAFE_ENTRIES = (1e-15, 1e15)
"""Of the largest entry, between which squares of single precision lose nothing that matters."""


def unit_scale(largest: float) -> float:
    """Return the power of two that brings a magnitude into [½, 1); 1 for zero.

    Multiplying by it rounds nothing, so what is computed from scaled numbers is, bit for bit, what
    would be computed from the numbers themselves if no square of theirs left the range. Beyond
    2^±1022 it is cut, so that it has an inverse.
    """
    if largest == 0:
        return 1.0
    return 2.0 ** min(max(-math.frexp(largest)[1], -1022), 1022)


def frobenius_norm(X: NDArray[Any]) -> float:
    """Return √Σx² in float64, whatever the size of the entries."""
    wide = X.astype(np.float64, copy=False)
    with np.errstate(over="ignore", under="ignore"):
        norm = float(np.linalg.norm(wide))
    if _SAFE[0] < norm < _SAFE[1] or not X.size:
        return norm
    scale = unit_scale(max(float(wide.max()), -float(wide.min())))
    return float(np.linalg.norm(wide * scale)) / scale


def in_safe_range(X: NDArray[Any]) -> tuple[NDArray[Any], float]:
    """Return a matrix with entries whose squares are in range, and the power of two it took.

    X itself and 1 where that is so already, and where X is zero or has a NaN or infinite entry.
    """
    largest = max(float(X.max()), -float(X.min()))
    if not 0 < largest < math.inf or SAFE_ENTRIES[0] < largest < SAFE_ENTRIES[1]:
        return X, 1.0
    unit = unit_scale(largest)
    wide = X.astype(np.float64, copy=False)  # the factor may be out of the range of X's type
    return (wide * unit).astype(X.dtype, copy=False), unit
