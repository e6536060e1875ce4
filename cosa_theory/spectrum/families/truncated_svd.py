"""Low-rank updates ΔW ≈ B A: the best case of LoRA and of PiSSA."""

from collections.abc import Sequence
from dataclasses import dataclass

from cosa_theory.spectrum.budget import lora_parameters
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
from cosa_theory.spectrum.singular_vectors import best_factors

__all__ = ["TruncatedSVD"]


@dataclass(frozen=True)
class TruncatedSVD:
    """All matrices of rank at most r, of which the truncated SVD is the best approximation.

    The share of ‖ΔW‖² it captures is Σ_{i ≤ r} σᵢ² / Σ σᵢ², with r(m + n) trainable parameters.
    It is what LoRA and PiSSA could reach on this update, not what training them reaches.

    References
    ----------
    Eckart and Young, "The approximation of one matrix by another of lower rank", 1936.
    """

    name: str = "truncated_svd"
    label: str = "low rank (truncated SVD)"
    data_dependent: bool = True
    needs_base: bool = False
    sided: bool = False
    certainty: Certainty = "exact"
    group: str = "low rank"
    reference: str = (
        "E. Hu et al., arXiv 2106.09685 (2021); F. Meng et al., arXiv 2404.02948 (2024)"
    )

    def of(self, update: Update) -> "TruncatedSVD":
        """Return this family, which needs nothing but ΔW (see `Family.of`)."""
        return self

    def size(self, m: int, n: int, parameters: int) -> Size:
        """Return the largest rank r with r(m + n) ≤ P, at most min(m, n) (see `Family.size`)."""
        rank = min(m, n, parameters // (m + n))
        if not rank:
            return Size.unmet(f"rank 1 takes {m + n:,} numbers")
        return Size(lora_parameters(m, n, rank), f"r={rank}", a=None, b=None, rank=rank)

    def capture(self, update: Update, sizes: Sequence[Size], draws: Draws) -> list[Captured]:
        """Return the exact shares from the singular values of ΔW (see `Family.capture`)."""
        shares = update.energy_shares
        held = [float(shares[size.rank - 1]) if size.rank else float("nan") for size in sizes]
        return [Captured.exact(share) for share in held]

    def fit(self, update: Update, size: Size, draws: Draws) -> Fit:
        """Return U_r and U_rᵀ ΔW (see `Family.fit`)."""
        return Fit(best_factors(update.delta, size.rank), lambda B, A: B @ A)

    def cost(self, m: int, n: int, size: Size) -> Cost:
        """Return r(m + n) multiply-adds (see `Family.cost`)."""
        return Cost.of(size, 0, size.parameters)


register(TruncatedSVD(), place=1)
