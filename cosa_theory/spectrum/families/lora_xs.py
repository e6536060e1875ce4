"""Updates in the singular basis of the base weight: LoRA-XS."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.checks import refuse
from cosa_theory.spectrum.budget import lora_xs_rank
from cosa_theory.spectrum.families.base import (
    Captured,
    Certainty,
    Cost,
    Draws,
    Fit,
    Size,
    Update,
    register,
)
from cosa_theory.spectrum.singular_vectors import leading_vectors

__all__ = ["LoraXS"]


@dataclass(frozen=True)
class LoraXS:
    """All updates U_r S V_rᵀ, with U_r and V_r the top r singular vectors of W, and S r × r.

    The best core captures ‖U_rᵀ ΔW V_r‖²/‖ΔW‖², with r² trainable parameters. It is the CoSA
    form L Y R with L and R taken from the weight in place of a random draw. Where W has fewer
    than r non-zero singular values the rest of its basis is not determined, and what the linear
    algebra library returns is used; for W = 0 the share is null.

    References
    ----------
    Bałazy, Banaei, Aberer, Tabor, "LoRA-XS: Low-Rank Adaptation with Extremely Small Number of
    Parameters", 2024, arXiv 2405.17604.
    """

    name: str = "lora_xs"
    label: str = "LoRA-XS (singular basis of W)"
    data_dependent: bool = True
    needs_base: bool = True
    sided: bool = False
    certainty: Certainty = "exact"
    group: str = "frozen factors"
    reference: str = "K. Bałazy et al., arXiv 2405.17604 (2024)"

    def of(self, update: Update) -> "LoraXS | None":
        """Return this family where W is known (see `Family.of`)."""
        return None if update.base is None else self

    def size(self, m: int, n: int, parameters: int) -> Size:
        """Return the rank ⌊√P⌋, at most min(m, n) (see `Family.size`)."""
        rank = lora_xs_rank(m, n, parameters)
        return Size(parameters=rank * rank, text=f"r={rank}", a=rank, b=rank, rank=rank)

    def capture(self, update: Update, sizes: Sequence[Size], draws: Draws) -> list[Captured]:
        """Return the exact shares, from one decomposition of W (see `Family.capture`)."""
        if update.base is None:
            raise refuse("base", None, "the weight whose singular basis it takes")
        if not update.base.any():
            return [Captured.exact(float("nan")) for _ in sizes]
        core = singular_core(update.delta, update.base, max(size.rank for size in sizes))
        energy = np.cumsum(np.cumsum(core**2, axis=0), axis=1)
        total = float((update.sigma**2).sum())
        places = [size.rank - 1 for size in sizes]
        # No rank holds more than the truncated SVD, as bases rounded to float32 may seem to.
        return [
            Captured.exact(min(float(update.energy_shares[at]), float(energy[at, at]) / total))
            for at in places
        ]

    def fit(self, update: Update, size: Size, draws: Draws) -> Fit:
        """Return the core, from one decomposition of W (see `Family.fit`)."""
        assert update.base is not None
        dtype = update.delta.dtype
        left, right = singular_sides(update.base, size.rank)
        left, right = left.astype(dtype), right.astype(dtype)
        return Fit((left.T @ update.delta @ right,), lambda core: left @ core @ right.T)

    def cost(self, m: int, n: int, size: Size) -> Cost:
        """Return the cost with both bases kept, which W gives back (see `Family.cost`)."""
        frozen = size.rank * (m + n)
        return Cost.of(size, frozen, frozen + size.parameters)


register(LoraXS(), place=2)


def singular_sides(base: NDArray, rank: int) -> tuple[NDArray, NDArray]:
    """Return the top singular vectors U (m × r) and V (n × r) of W.

    r is at most min(m, n). Where the Gram matrix does not resolve the smallest wanted singular
    value, the direct SVD is taken.
    """
    left, _, right = leading_vectors(base, rank)
    if right.shape[1] < rank:
        whole, _, rows = np.linalg.svd(base.astype(np.float64), full_matrices=False)
        left, right = whole[:, :rank], rows[:rank].T
    return left, right


def singular_core(delta: NDArray, base: NDArray, rank: int) -> NDArray[np.float64]:
    """Return U_rᵀ ΔW V_r for the top r singular vectors of W, up to the signs of its entries.

    The leading s × s block is the core for rank s; see `singular_sides`.
    """
    left, right = singular_sides(base, rank)
    product = delta @ right.astype(delta.dtype)
    return (left.astype(delta.dtype).T @ product).astype(np.float64)
