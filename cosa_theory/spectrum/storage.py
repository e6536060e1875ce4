"""Zeros of an update, and those that storing weights in bfloat16 makes."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.special import erf, erfc

from cosa_theory.ground.checks import matrix
from cosa_theory.ground.scales import frobenius_norm
from cosa_theory.linear.operators import to_host
from cosa_theory.spectrum.singular_values import row_blocks

__all__ = ["StoredShares", "bf16_sparsity"]

# Numbers of bfloat16 have eight significant binary digits, are multiples of 2^-133, and end below
# 2^128.
_DIGITS, _LEAST, _LARGEST = 8, -133, 255 * 2.0**120
_SMALLEST_NORMAL = 2.0**-126
_BISECTIONS = 60
_STEPS = 20  # of the spacing, beyond which no update is that is up to twice as large as it

Block = NDArray[np.float64]


class StoredShares(NamedTuple):
    """Shares of the entries of an update that are zero, or would be.

    Attributes
    ----------
    zero_share : float or None
        ΔW_ij = 0.
    bf16_lost_share : float or None
        The stored W_ij stays what it is when ΔW_ij is added and the sum stored in bfloat16: ΔW_ij
        is below half the spacing there. Equal to `zero_share` where both weights are stored so.
    bf16_lost_null : float or None
        The same share expected of a dense update of this size, independent of W.
    """

    zero_share: float | None = None
    bf16_lost_share: float | None = None
    bf16_lost_null: float | None = None


def bf16_sparsity(delta: Any, base: Any) -> StoredShares:
    """Measure how sparse an update is, and how sparse bfloat16 makes one of its size.

    With w = W_ij rounded to bfloat16 and h half the spacing at w towards w + ΔW_ij, an entry is
    lost if |ΔW_ij| < h, or = h and w has an even last digit, to which ties are rounded. The null is
    an update with independent normal entries of standard deviation s: mean of erf(h/(s√2)) over
    the entries. s is the root mean square of ΔW; but where ΔW is the difference of weights stored
    in bfloat16, which took its small entries and rounded the others, the s of which the stored
    difference has this root mean square. See docs/theory.md, 5.8.

    Parameters
    ----------
    delta, base : array of shape (m, n)
        ΔW and W, numpy arrays or torch tensors.

    Returns
    -------
    StoredShares
        The shares of bfloat16 are None where W has entries beyond its range, 3.4e38.

    Raises
    ------
    InputError
        If a matrix is empty or not finite, or the shapes differ.
    """
    delta = matrix("delta", to_host(delta))
    base = matrix("base", to_host(base), delta.shape)
    zeros, lost = int(np.count_nonzero(delta == 0)), 0
    on_grid, in_range = True, True
    spacings = np.zeros(1 - _LEAST + 1024, dtype=np.int64)
    for change, weight in zip(row_blocks(delta), row_blocks(base), strict=True):
        stored = _rounded(weight)
        on_grid &= bool((stored == weight).all())
        in_range &= bool((np.abs(stored) <= _LARGEST).all())
        lost += int(np.count_nonzero(_is_lost(change, stored)))
        for side in (-np.inf, np.inf):
            here = _spacing(np.nextafter(stored, side)).ravel()
            spacings += np.bincount(here - _LEAST, minlength=spacings.size)
    share = zeros / delta.size
    if not in_range:
        return StoredShares(share)
    exponents = np.flatnonzero(spacings)
    gaps, weights = np.ldexp(1.0, exponents + _LEAST), spacings[exponents] / spacings.sum()
    rms = frobenius_norm(delta) / math.sqrt(delta.size)
    if on_grid and lost == zeros and rms > 0:
        rms = _before_storing(rms, gaps, weights)
    with np.errstate(divide="ignore", over="ignore"):
        null = float(weights @ erf(gaps / (2 * math.sqrt(2)) / rms))
    return StoredShares(share, lost / delta.size, min(null, 1.0))


def _spacing(x: Block) -> NDArray[np.intc]:
    """Return e with 2^e the spacing of bfloat16 at x and above in magnitude."""
    exponents: NDArray[np.intc] = np.frexp(np.maximum(np.abs(x), _SMALLEST_NORMAL))[1]
    return exponents - _DIGITS


def _rounded(x: Block) -> Block:
    """Return the nearest numbers of bfloat16, ties to even, without an upper limit."""
    exponents = _spacing(x)
    return np.ldexp(np.rint(np.ldexp(x, -exponents)), exponents)


def _is_lost(change: Block, stored: Block) -> NDArray[np.bool_]:
    """Return which entries of bfloat16 stay what they are."""
    # Next to a power of two the spacing towards zero is that of the numbers below it.
    towards = np.nextafter(stored, np.copysign(np.inf, change))
    half = np.ldexp(0.5, _spacing(towards))
    even = np.ldexp(stored, -_spacing(stored)) % 2 == 0
    size = np.abs(change)
    return (size < half) | ((size == half) & even)


def _before_storing(rms: float, gaps: Block, weights: Block) -> float:
    """Return the s of which normal entries, rounded to multiples of the gaps, have this rms.

    The sum over k ≥ 1 of (2k − 1) P(|s g| > (k − ½) d) d² is the mean square at a gap d, because
    k² is the sum of the first k odd numbers; it grows with s.
    """
    odd = 2 * np.arange(1, _STEPS + 1) - 1

    def stored(s: float) -> float:
        ratio = gaps / s
        tails = erfc(np.outer(ratio, odd) / (2 * math.sqrt(2)))
        # Far below s the gaps add the variance of a uniform rounding error.
        square = np.where(ratio > 0.5, ratio**2 * (tails @ odd), 1 + ratio**2 / 12)
        return s * math.sqrt(weights @ square)

    low, high = rms / 4, 4 * max(rms, gaps[-1])
    for _ in range(_BISECTIONS):
        middle = math.sqrt(low) * math.sqrt(high)
        low, high = (middle, high) if stored(middle) < rms else (low, middle)
    return high
