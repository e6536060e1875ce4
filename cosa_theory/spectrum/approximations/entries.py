"""Entries: a random mask, the largest entries, the largest coefficients of a cosine transform."""

import math
from functools import partial

import numpy as np

from cosa_theory.laws import InputMoments
from cosa_theory.linear.transforms import DCT
from cosa_theory.spectrum.approximations.base import (
    Given,
    Matrix,
    Stored,
    budget,
    register,
    rounded,
)

__all__: list[str] = []


def _masked(given: Given) -> Matrix:
    """Return ΔW at P random places and zero elsewhere; the places come from the seed."""
    m, n = given.shape
    places = given.stream("mask").permutation(m * n)[: budget(m, n, given.rank)]
    return _at(given.delta, places)


def _rescaled(given: Given) -> Matrix:
    """Return the masked update over p = P/(mn), whose mean over masks is ΔW."""
    m, n = given.shape
    return _masked(given) * given.delta.dtype.type(m * n / budget(m, n, given.rank))


def _largest(given: Given) -> Matrix:
    return _at(given.delta, _top(given.delta, budget(*given.shape, given.rank)))


def _cosines(given: Given) -> Matrix:
    coefficients = DCT().forward(given.delta)
    kept = _at(coefficients, _top(coefficients, budget(*given.shape, given.rank)))
    back: Matrix = DCT().inverse(kept).astype(given.delta.dtype, copy=False)
    return back


def _top(values: Matrix, count: int) -> Matrix:
    return np.argpartition(np.abs(values), values.size - count, axis=None)[values.size - count :]


def _at(values: Matrix, places: Matrix) -> Matrix:
    kept = np.zeros_like(values)
    kept.flat[places] = rounded(values.flat[places])
    return kept


def _free(m: int, n: int, rank: int) -> Stored:
    return Stored.of(budget(m, n, rank))


def _placed(m: int, n: int, rank: int) -> Stored:
    """Return the size of P values and of their places: log₂ of the ways to choose them."""
    count = budget(m, n, rank)
    return Stored.of(count, _log2_choices(m * n, count))


def _log2_choices(total: int, count: int) -> float:
    parts = math.lgamma(total + 1) - math.lgamma(count + 1) - math.lgamma(total - count + 1)
    return parts / math.log(2)


def _share(m: int, n: int, rank: int) -> float:
    return budget(m, n, rank) / (m * n)


def _masked_law(p: float, gain: float, inputs: InputMoments) -> float:
    """Return the error of q M ∘ ΔW, M of independent entries that are 1 with probability p."""
    return (gain * p - 1) ** 2 + gain**2 * p * (1 - p) * inputs.aligned


_register = partial(register, group="entries")

_register(
    40,
    name="mask",
    label="random mask",
    make=_masked,
    stored=_free,
    law=lambda m, n, rank, inputs: _masked_law(_share(m, n, rank), 1.0, inputs),
)
_register(
    41,
    name="mask_rescaled",
    label="random mask over p",
    make=_rescaled,
    stored=_free,
    unbiased=True,
    law=lambda m, n, rank, inputs: _masked_law(_share(m, n, rank), 1 / _share(m, n, rank), inputs),
)
_register(42, name="top_entries", label="largest entries", make=_largest, stored=_placed)
_register(43, name="dct", label="largest cosine coefficients", make=_cosines, stored=_placed)
