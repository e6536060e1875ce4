"""Effective sparsity of an update in several bases, with what rounding may hide."""

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.linear.transforms import Transform
from cosa_theory.spectrum import sparsity_profile
from cosa_theory.studies.audit.assumptions import ENERGY, Measured

__all__ = ["NO_DECAY", "BasisSparsity", "energy_count", "measure_bases", "numerical_sparsity_range"]

NO_DECAY = 1e3
"""The weak-ℓp exponent at which magnitudes count as equal; that of equal ones is infinite."""

_DECAY_POINTS = 41
_DECAY_FROM = 1e-4


@dataclass(frozen=True)
class BasisSparsity:
    """The sparsity of one update in one basis.

    `profile` is the row of `cosa_theory.spectrum.sparsity_profile`; `effective` the number s of
    coefficients that hold 90 % of the energy, whose interval also spans the numerical sparsity
    ‖x‖₁²/‖x‖₂², the other common count, and all values of both that the rounding of the stored
    weights leaves possible; `exponent` the weak-ℓp exponent fitted to the largest tenth, whose
    interval spans that of the largest hundredth; `decay` has the fraction s/N of the coefficients
    and the best s-term error σ_s(x)₁/‖x‖₁.
    """

    basis: str
    profile: dict[str, Any]
    effective: Measured
    exponent: Measured
    decay: tuple[tuple[float, float], ...]


def measure_bases(
    delta: NDArray[Any], transforms: Iterable[Transform], rounding: float
) -> list[BasisSparsity]:
    """Measure the sparsity of a nonzero update in several orthonormal bases.

    `rounding` is the Frobenius norm of the error that storing has put into the update, in its
    units.
    """
    return [_measure(one.name, one.forward(delta), rounding) for one in transforms]


def _measure(basis: str, coefficients: NDArray[Any], rounding: float) -> BasisSparsity:
    """Measure one array of coefficients."""
    [profile] = sparsity_profile(coefficients, bases=("coordinate",)).to_dict("records")
    # In place wherever it can be: a vocabulary has many millions of coefficients.
    magnitudes = np.abs(coefficients).ravel()
    magnitudes.sort()
    noise = rounding / float(magnitudes[-1])
    magnitudes /= magnitudes[-1]  # so that no square underflows
    energy = np.square(magnitudes, dtype=np.float64)
    np.cumsum(energy, out=energy)
    few, count, many = energy_count(energy, noise)
    low, high = numerical_sparsity_range(magnitudes, float(energy[-1]), noise)
    return BasisSparsity(
        basis=basis,
        profile=_named(profile, basis),
        effective=Measured(count, min(few, low), max(many, high)),
        exponent=_exponent(min(float(profile["weak_lp"]), NO_DECAY), magnitudes),
        decay=_decay(magnitudes),
    )


def _named(profile: Mapping[Hashable, Any], basis: str) -> dict[str, Any]:
    """Return a profile with its own basis, and no number that JSON cannot hold."""
    named = {str(name): value for name, value in profile.items()}
    return named | {"basis": basis, "weak_lp": min(named["weak_lp"], NO_DECAY)}


def energy_count(energy: NDArray[np.float64], noise: float) -> tuple[int, int, int]:
    """Return the count that holds 90 % of the energy, between the least and most it can be.

    `energy` are the cumulative sums of x̂², the smallest first. With x̂ = x + e, ‖e‖ = noise, what
    the s largest entries of x leave out is within ‖e‖ of what those of x̂ leave out, and ‖x‖ within
    ‖e‖ of ‖x̂‖. Returned: the fewest entries of x that could hold 90 %, those of x̂ that do, the
    most of x.
    """
    norm, left = math.sqrt(energy[-1]), math.sqrt(1 - ENERGY)

    def outside(limit: float) -> int:
        """Count the coefficients needed so that the norm of the others is at most `limit`."""
        if limit < 0:
            return energy.size
        # A tie, as with equal entries, is not to be lost to the rounding of 1 − 0.9.
        left_out = int(np.searchsorted(energy, limit**2 * (1 + 1e-12), side="right"))
        return max(1, energy.size - left_out)

    return (
        outside(left * (norm + noise) + noise),
        outside(left * norm),
        outside(left * (norm - noise) - noise),
    )


def numerical_sparsity_range(
    magnitudes: NDArray[Any], energy: float, noise: float
) -> tuple[float, float]:
    """Return the least and greatest ‖x‖₁²/‖x‖₂² that rounding allows; ‖e‖₁ ≤ √N ‖e‖₂.

    From the magnitudes |x̂| of x̂ = x + e, their energy ‖x̂‖² and the noise ‖e‖.
    """
    size = magnitudes.size
    total, norm = float(magnitudes.sum(dtype=np.float64)), math.sqrt(energy)
    spread = math.sqrt(size) * noise
    low = max(0.0, total - spread) / (norm + noise)
    high = (total + spread) / (norm - noise) if norm > noise else math.inf
    return max(1.0, low**2), min(float(size), high**2)


def _exponent(of_tenth: float, magnitudes: NDArray[Any]) -> Measured:
    """Return the exponent of the largest tenth, with that of the largest hundredth beside it."""
    tenth = magnitudes[-max(2, math.ceil(magnitudes.size / 10)) :]
    # A profile fits the largest tenth of what it is given.
    [of_hundredth] = sparsity_profile(tenth[None, :], bases=("coordinate",))["weak_lp"]
    both = (of_tenth, min(float(of_hundredth), NO_DECAY))
    return Measured(of_tenth, min(both), max(both))


def _decay(magnitudes: NDArray[Any]) -> tuple[tuple[float, float], ...]:
    """Return the best s-term error at fractions spread evenly over their logarithm."""
    size = magnitudes.size
    fractions = np.geomspace(max(_DECAY_FROM, 1 / size), 1.0, _DECAY_POINTS)
    counts = np.unique(np.ceil(fractions * size - 1e-9).astype(np.int64))  # the last is all
    # Sums between one count and the next; what is left of the last boundary is never outside.
    parts = np.add.reduceat(magnitudes, size - counts[::-1], dtype=np.float64)
    inside = np.cumsum(parts[::-1])
    return tuple(
        (int(s) / size, max(0.0, 1.0 - float(held / inside[-1])))
        for s, held in zip(counts, inside, strict=True)
    )
