"""Rounding: every entry kept, at few bits, with one scale for each row."""

from functools import partial

import numpy as np

from cosa_theory.spectrum.approximations.base import (
    VALUE_BITS,
    Given,
    Matrix,
    Stored,
    register,
    rounded,
)

__all__: list[str] = []


def _signs(given: Given) -> Matrix:
    """Return the signs of ΔW times the mean magnitude of each row, the best scale there is."""
    scales = rounded(np.mean(np.abs(given.delta), axis=1, keepdims=True))
    return np.where(given.delta >= 0, scales, -scales)


def _bits(given: Given, bits: int) -> Matrix:
    """Return ΔW on a symmetric grid of 2^bits − 1 levels up to the largest entry of each row."""
    levels = 2 ** (bits - 1) - 1
    scales = rounded(np.max(np.abs(given.delta), axis=1, keepdims=True)) / levels
    safe = np.where(scales > 0, scales, 1)
    return np.clip(np.rint(given.delta / safe), -levels, levels) * scales


def _stored(bits: int, m: int, n: int, rank: int) -> Stored:
    return Stored(m * n + m, bits * m * n + VALUE_BITS * m)


_register = partial(register, group="rounding", budgeted=False)

_register(60, name="signs", label="signs, a scale per row", make=_signs, stored=partial(_stored, 1))
for _place, _count in enumerate((2, 3, 4, 8)):
    _register(
        61 + _place,
        name=f"bits_{_count}",
        label=f"rounded to {_count} bits",
        make=partial(_bits, bits=_count),
        stored=partial(_stored, _count),
    )
