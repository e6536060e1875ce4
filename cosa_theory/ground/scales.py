"""Powers of two that bring numbers near 1, so that squares and products stay in range."""

import math

__all__ = ["unit_scale"]


def unit_scale(largest: float) -> float:
    """Return the power of two that brings a magnitude into [½, 1); 1 for zero.

    Multiplying by it rounds nothing, so what is computed from scaled numbers is, bit for bit, what
    would be computed from the numbers themselves if no square of theirs left the range. Beyond
    2^±1000 it is cut, so that it has an inverse.
    """
    if largest == 0:
        return 1.0
    return 2.0 ** min(max(-math.frexp(largest)[1], -1000), 1000)
