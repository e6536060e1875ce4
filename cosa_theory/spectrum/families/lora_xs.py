"""Updates in the singular basis of the base weight: LoRA-XS."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigh

from cosa_theory.ground.checks import refuse
from cosa_theory.spectrum.budget import lora_xs_rank
from cosa_theory.spectrum.families.base import Captured, Draws, Size, Update, register

__all__ = ["LoraXS"]

# Below this share of the largest singular value the Gram matrix resolves no singular vector.
_RESOLVED = 1e-7
# Rows upcast to float64 at a time, so that no float64 copy of a large float32 matrix is made.
_BLOCK_ENTRIES = 1 << 22


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
        return [
            Captured.exact(min(1.0, float(energy[s.rank - 1, s.rank - 1]) / total)) for s in sizes
        ]


register(LoraXS(), place=2)


def singular_core(delta: NDArray, base: NDArray, rank: int) -> NDArray[np.float64]:
    """Return U_rᵀ ΔW V_r for the top r singular vectors of W, up to the signs of its entries.

    r is at most min(m, n); the leading s × s block is the core for rank s.

    V comes from the eigenvectors of the float64 Gram matrix on the short side. W V_r = U_r Σ_r,
    and a QR decomposition of it gives U_r orthonormal to machine precision, in the same order,
    where a division by Σ_r would lose it for small singular values. If W's smallest wanted
    singular value is below 1e-7 of its largest, the Gram matrix does not resolve its vectors, and
    the direct SVD is taken.
    """
    if base.shape[0] < base.shape[1]:
        return singular_core(delta.T, base.T, rank).T
    n = base.shape[1]
    gram = np.zeros((n, n))
    for rows in _row_blocks(base):
        gram += rows.T @ rows
    values, vectors = eigh(gram, subset_by_index=(n - rank, n - 1), overwrite_a=True)
    right = vectors[:, ::-1]
    if values[0] <= _RESOLVED**2 * values[-1]:
        left, _, right_t = np.linalg.svd(base.astype(np.float64), full_matrices=False)
        left, right = left[:, :rank], right_t[:rank].T
    else:
        left = np.linalg.qr(np.concatenate([rows @ right for rows in _row_blocks(base)]))[0]
    product = delta @ right.astype(delta.dtype)
    return (left.astype(delta.dtype).T @ product).astype(np.float64)


def _row_blocks(matrix: NDArray) -> Iterator[NDArray[np.float64]]:
    """Yield the rows in float64, some at a time."""
    step = max(1, _BLOCK_ENTRIES // matrix.shape[1])
    for start in range(0, matrix.shape[0], step):
        yield matrix[start : start + step].astype(np.float64)
