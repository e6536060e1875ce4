"""Entries: a random mask, the largest entries, the largest coefficients of a cosine transform."""

from functools import partial
from typing import Any

from cosa_theory.laws import InputMoments
from cosa_theory.spectrum.approximations.base import budget, register
from cosa_theory.spectrum.approximations.of_family import made, stored

__all__: list[str] = []


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
        make=partial(made, family=family),
        stored=partial(stored, family=family),
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
