"""The core of a layer: the one asked for, the one in use, and what its dictionary is like."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import eye_array

from cosa_theory import laws
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.projections import make_projection
from cosa_theory.spectrum.budget import cosa_shape, default_ranks, lora_parameters
from cosa_theory.studies.audit.assumptions import Measured

__all__ = ["Conditioning", "Core", "choose_core", "measure_conditioning"]

_DRAWS = 4  # the extreme singular values differ by a few per cent from draw to draw


@dataclass(frozen=True)
class Core:
    """The core of one m × n layer.

    Parameters
    ----------
    asked : (int, int)
        The shape (a, b) that was asked for.
    a, b : int
        The same cut to a ≤ m and b ≤ n: the core in use.
    rank : int or None
        The rank of the LoRA whose trainable parameters set the shape; None for a given shape.
    """

    asked: tuple[int, int]
    a: int
    b: int
    rank: int | None = None


def choose_core(m: int, n: int, core: tuple[int, int] | None, rank: int) -> Core:
    """Choose the core of a layer.

    Parameters
    ----------
    m, n : int
        The layer.
    core : (int, int) or None
        A shape for all layers, or None for one that trains as many numbers as a LoRA of rank
        `rank`: `cosa_theory.spectrum.budget.cosa_shape`. Where such a LoRA would train more than
        half of the layer, the rank of `default_ranks` nearest to it is taken.
    rank : int
        The rank, at least 1.

    Returns
    -------
    Core
    """
    if core is not None:
        return Core(core, min(core[0], m), min(core[1], n))
    if 2 * lora_parameters(m, n, rank) > m * n:
        rank = min(default_ranks(m, n), key=lambda one: abs(one - rank))
    shape = cosa_shape(m, n, lora_parameters(m, n, rank))
    return Core((shape.a, shape.b), shape.a, shape.b, rank)


@dataclass(frozen=True)
class Conditioning:
    """How far the dictionary Ψ = L ⊗ Rᵀ (mn × ab) is from an isometry over all cores.

    Parameters
    ----------
    sigma_min, sigma_max : float
        Its extreme singular values at the named scale, means over the draws.
    kappa : float or None
        σ_max/σ_min, mean over the draws; None where a draw is rank deficient.
    delta : float
        max(σ_max² − 1, 1 − σ_min²), the isometry constant at the named scale, mean over the draws.
    scale_free : Measured
        (κ² − 1)/(κ² + 1), the constant at the best scale: mean, least and greatest of the draws.
    bai_yin_scale_free : float
        The same from the asymptotic edges of Bai and Yin (1993).
    draws : int
        How many bases were drawn; 0 where both sides are whole and the dictionary is the identity.
    """

    sigma_min: float
    sigma_max: float
    kappa: float | None
    delta: float
    scale_free: Measured
    bai_yin_scale_free: float
    draws: int


def measure_conditioning(
    m: int, n: int, core: Core, *, kind: str, scale: str, draws: int, seed: int, key: str
) -> Conditioning:
    """Measure the extreme singular values of a few dictionaries.

    A whole side (a = m or b = n) is taken as the identity: nothing random is needed for it, and a
    square Gaussian factor would be far worse (condition numbers in the thousands).

    Parameters
    ----------
    m, n : int
        The layer.
    core : Core
        The core in use.
    kind, scale, seed
        As in `cosa_theory.projections.make_projection`.
    draws : int
        The most draws; four are enough.
    key : str
        Name of the layer. Draw i is the basis that `cosa_theory.spectrum.families` draws.

    Returns
    -------
    Conditioning
    """
    whole = (core.a == m, core.b == n)
    count = 0 if all(whole) else min(draws, _DRAWS)
    settings = {"seed": seed, "scale": scale}
    ranges = np.ones((max(count, 1), 2))
    for index in range(count):
        L = _factor(kind, core.a, m, (key, "draw", index, "L"), settings)
        R = _factor(kind, core.b, n, (key, "draw", index, "R"), settings)
        ranges[index] = CosaBasis(L.T, R).singular_value_range()
    low, high = ranges.T
    constants = [laws.scale_free_constant(*pair) for pair in ranges**2]
    return Conditioning(
        sigma_min=float(low.mean()),
        sigma_max=float(high.mean()),
        kappa=float(np.mean(high / low)) if low.all() else None,
        delta=float(np.maximum(high**2 - 1, 1 - low**2).mean()),
        scale_free=Measured(float(np.mean(constants)), min(constants), max(constants)),
        bai_yin_scale_free=_bai_yin_constant(m, n, core),
        draws=count,
    )


def _bai_yin_constant(m: int, n: int, core: Core) -> float:
    """Return (κ² − 1)/(κ² + 1) for the asymptotic edges of σ; a whole side is the identity."""
    sides = ((m, core.a), (n, core.b))
    low, high = laws.dictionary_edges(*(side for side in sides if side[1] < side[0]))
    return float(laws.scale_free_constant(low**2, high**2))


def _factor(kind: str, k: int, d: int, key: tuple[str | int, ...], settings: dict[str, Any]) -> Any:
    """Return a k × d projection, or the identity for a whole side."""
    if k == d:
        return eye_array(d, format="csr")
    return make_projection(kind, k, d, key=key, **settings)
