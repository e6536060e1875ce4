"""Entries: a random mask, the largest entries, the largest coefficients of a cosine transform."""

from functools import partial
from typing import Any

import numpy as np

from cosa_theory.laws import InputMoments
from cosa_theory.spectrum.approximations.base import (
    Given,
    Matrix,
    Stored,
    budget,
    register,
    rounded,
)
from cosa_theory.spectrum.families import FAMILIES
from cosa_theory.spectrum.families.base import Draws, Update

__all__: list[str] = []


def _made(given: Given, family: str) -> Matrix:
    """Return the family's fit of the budget, with its numbers as they come back from storage."""
    one, update = FAMILIES[family], Update(given.delta, given.base, np.empty(0))
    size = one.size(*given.shape, budget(*given.shape, given.rank))
    fit = one.fit(update, size, Draws(seed=given.seed, key=given.key))
    return fit.update(rounded)


def _stored(m: int, n: int, rank: int, family: str) -> Stored:
    one = FAMILIES[family]
    size = one.size(m, n, budget(m, n, rank))
    return Stored(size.parameters, one.cost(m, n, size).bits)


def _share(m: int, n: int, rank: int) -> float:
    return budget(m, n, rank) / (m * n)


def _masked_law(p: float, gain: float, inputs: InputMoments) -> float:
    """Return the error of q M ∘ ΔW, M of independent entries that are 1 with probability p."""
    return (gain * p - 1) ** 2 + gain**2 * p * (1 - p) * inputs.aligned


def _register(place: int, name: str, label: str, family: str, **fields: Any) -> None:
    register(
        place,
        name=name,
        label=label,
        group="entries",
        make=partial(_made, family=family),
        stored=partial(_stored, family=family),
        **fields,
    )


_register(
    40,
    "mask",
    "random mask",
    "mask",
    law=lambda m, n, rank, inputs: _masked_law(_share(m, n, rank), 1.0, inputs),
)
_register(
    41,
    "mask_rescaled",
    "random mask over p",
    "dare",
    unbiased=True,
    law=lambda m, n, rank, inputs: _masked_law(_share(m, n, rank), 1 / _share(m, n, rank), inputs),
)
_register(42, "top_entries", "largest entries", "top_entries")
_register(43, "dct", "largest cosine coefficients", "dct")
