"""The factors of a LoRA layer from those of an update B A: balanced, truncated, rounded."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.linalg import qr, svd

__all__ = [
    "as_bytes",
    "balanced",
    "product_norm",
    "rank_for",
    "rounded",
    "rounding_error",
    "truncated",
    "zero_padded",
]

Array = NDArray[np.float64]


def balanced(B: Array, A: Array) -> tuple[Array, Array]:
    """Move a power of two between B (m × r) and A (r × n), so that ‖B‖ ≈ ‖A‖, to within √2 each.

    The product is the same to the last bit, and both factors are far from the ends of a short
    type's range. They are returned as they are if one is zero.
    """
    left, right = float(np.linalg.norm(B)), float(np.linalg.norm(A))
    if not (left > 0 and right > 0 and math.isfinite(left * right)):
        return B, A
    shift = round(math.log2(right / left) / 2)
    return np.ldexp(B, shift), np.ldexp(A, -shift)


def truncated(B: Array, A: Array, rank: int) -> tuple[Array, Array, float]:
    """Return the factors of the best approximation of B A of a rank, and what it loses.

    B = Q₁ T₁, Aᵀ = Q₂ T₂ and T₁ T₂ᵀ = U S Vᵀ give the singular value decomposition of the product
    from matrices of its small inner size; by Eckart and Young its first terms are the best
    approximation: the factors Q₁ U √S and √S Vᵀ Q₂ᵀ, which lose a share of ‖B A‖² (none of a zero
    product).
    """
    Q1, T1 = qr(B, mode="economic", check_finite=False)
    Q2, T2 = qr(A.T, mode="economic", check_finite=False)
    U, values, Vt = svd(T1 @ T2.T, full_matrices=False, check_finite=False)
    root = np.sqrt(values[:rank])
    lost = _tail_shares(values)[min(rank, len(values))]
    return Q1 @ (U[:, :rank] * root), (root[:, None] * Vt[:rank]) @ Q2.T, float(lost)


def rank_for(values: Array, energy: float) -> int:
    """Return the smallest rank, at least 1, whose largest singular values keep a share of Σσ²."""
    enough = _tail_shares(values) <= 1 - energy
    return max(1, int(np.argmax(enough)))


def _tail_shares(values: Array) -> Array:
    """Return the share of Σσ² that lies beyond the first r values, for r = 0 … all of them."""
    largest = values[0] if len(values) and values[0] > 0 else 1.0
    squares = (values / largest) ** 2
    tails = np.append(np.cumsum(squares[::-1])[::-1], 0.0)  # summed from the small end
    return tails / tails[0] if tails[0] > 0 else tails


def product_norm(B: Array, A: Array) -> float:
    """Return ‖B A‖, Frobenius, from the Gram matrices of the factors."""
    return math.sqrt(max(0.0, float(np.vdot(B.T @ B, A @ A.T))))


def rounded(matrix: Array, dtype: str) -> torch.Tensor:
    """Return a matrix as a contiguous tensor of a shorter type."""
    return torch.from_numpy(np.ascontiguousarray(matrix)).to(getattr(torch, dtype))


def rounding_error(B: Array, A: Array, stored: tuple[torch.Tensor, torch.Tensor]) -> float:
    """Return ‖B̂ Â − B A‖/‖B A‖ for stored factors B̂ and Â; 0 for a zero product.

    The difference is (B̂ − B) Â + B (Â − A), a product of factors of inner size 2r, one of them
    small in each term: its norm keeps its digits and nothing of the size of B A is formed.
    """
    norm = product_norm(B, A)
    if norm == 0:
        return 0.0
    left, right = (tensor.to(torch.float64).numpy() for tensor in stored)
    error = product_norm(np.hstack([left - B, B]), np.vstack([right, right - A]))
    return error / norm


def zero_padded(B: torch.Tensor, A: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the factors with zero columns of B and rows of A up to a rank."""
    missing = rank - B.shape[1]
    if missing == 0:
        return B, A
    return F.pad(B, (0, missing)), F.pad(A, (0, 0, 0, missing))


def as_bytes(tensor: torch.Tensor) -> bytes:
    """Return the entries of a tensor in row-major order as bytes."""
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()
