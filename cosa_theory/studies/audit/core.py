"""The core of a layer: the one asked for, the one in use, and what its dictionary is like."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.sparse import eye_array

from cosa_theory import laws
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.projections import left_projection, make_projection
from cosa_theory.spectrum.budget import cosa_shape, default_ranks, lora_parameters, one_sided_shape
from cosa_theory.studies.audit.assumptions import Measured

__all__ = ["Conditioning", "Core", "choose_core", "measure_conditioning"]

_DRAWS = 4  # the extreme singular values differ by a few per cent from draw to draw


@dataclass(frozen=True)
class Core:
    """The core of one layer: the shape asked for, and the same cut to a ≤ m and b ≤ n, in use.

    `rank` is that of the LoRA whose trainable parameters set the shape; None for a given shape.
    """

    asked: tuple[int, int]
    a: int
    b: int
    rank: int | None = None


def choose_core(
    m: int, n: int, core: tuple[int, int] | None, rank: int, one_sided: bool = False
) -> Core:
    """Choose the core of an m × n layer: a shape for all layers, or one of a LoRA's budget.

    With `core` None it trains as many numbers as a LoRA of rank `rank`:
    `cosa_theory.spectrum.budget.cosa_shape`, or `one_sided_shape`. Where such a LoRA would train
    more than half of the layer, the rank of `default_ranks` nearest to it is taken.
    """
    if core is not None:
        return Core(core, min(core[0], m), min(core[1], n))
    if 2 * lora_parameters(m, n, rank) > m * n:
        rank = min(default_ranks(m, n), key=lambda one: abs(one - rank))
    shape = (one_sided_shape if one_sided else cosa_shape)(m, n, lora_parameters(m, n, rank))
    return Core((shape.a, shape.b), shape.a, shape.b, rank)


@dataclass(frozen=True)
class Conditioning:
    """How far the dictionary Ψ = L ⊗ Rᵀ (mn × ab) is from an isometry over all cores.

    `sigma_min` and `sigma_max` are its extreme singular values at the named scale, `kappa` their
    quotient (None where a draw is rank deficient) and `delta` the isometry constant
    max(σ_max² − 1, 1 − σ_min²), all means over the draws. `scale_free` is (κ² − 1)/(κ² + 1), the
    constant at the best scale: mean, least and greatest of the draws; `bai_yin_scale_free` the same
    from the asymptotic edges of Bai and Yin (1993). `draws` is 0 where both sides are whole and the
    dictionary is the identity.
    """

    sigma_min: float
    sigma_max: float
    kappa: float | None
    delta: float
    scale_free: Measured
    bai_yin_scale_free: float
    draws: int


def measure_conditioning(
    m: int,
    n: int,
    core: Core,
    *,
    kind: str,
    scale: str,
    draws: int,
    seed: int,
    key: str,
    moments: Mapping[str, Any] | None = None,
) -> Conditioning:
    """Measure the extreme singular values of a few dictionaries, at most four draws.

    A whole side (a = m or b = n) is taken as the identity: nothing random is needed for it, and a
    square Gaussian factor would be far worse (condition numbers in the thousands). Draw i for the
    layer named `key` is the basis that `cosa_theory.spectrum.families` draws. `moments` are what
    `CosaBasis.sample` takes for an informed kind.
    """
    options = dict(moments or {})
    on_left, of_left = left_projection(kind, core.a, m, options)
    of_right = {name: value for name, value in options.items() if name == "moments"}
    whole = (core.a == m, core.b == n)
    count = 0 if all(whole) else min(draws, _DRAWS)
    settings = {"seed": seed, "scale": scale}
    ranges = np.ones((max(count, 1), 2))
    for index in range(count):
        L = _factor(on_left, core.a, m, (key, "draw", index, "L"), settings | of_left)
        R = _factor(kind, core.b, n, (key, "draw", index, "R"), settings | of_right)
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
