"""Soft and hard thresholding, the two shrinkage steps of sparse recovery.

Both take numpy arrays or torch tensors and return an array of the same library, type and device.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array

__all__ = ["clipped", "hard_threshold", "largest_entries", "soft_threshold"]


def soft_threshold(X: Any, threshold: Any) -> Any:
    """Return sign(x) · max(|x| − t, 0) for each entry x: the proximal map of t‖·‖₁ [1]_.

    The threshold t ≥ 0 is a number, or an array that broadcasts against X, of its library and
    device. Entries with |x| ≤ t are exactly zero.

    References
    ----------
    .. [1] D. L. Donoho, "De-noising by soft-thresholding", IEEE Trans. Information Theory 41
       (1995), 613-627.
    """
    return X - clipped(X, threshold)  # Moreau's decomposition; exact zeros


def clipped(X: Any, threshold: Any) -> Any:
    """Return the projection of each entry on [−t, t]: what soft thresholding takes away."""
    # numpy clips in one pass, three times as fast as a minimum and a maximum.
    return (
        np.clip(X, -threshold, threshold) if is_numpy_array(X) else X.clamp(-threshold, threshold)
    )


def largest_entries(X: Any, count: int) -> Any:
    """Return where the `count` entries of largest modulus of each item of (B, m, n) are.

    Row-major indices i·n + j, shape (B, count), in increasing order within an item. Which of
    several equal entries at the boundary are named is left to the library.
    """
    xp = array_namespace(X)
    moduli = xp.abs(xp.reshape(X, (X.shape[0], -1)))
    size = moduli.shape[1]
    if count == 0:
        return xp.zeros((X.shape[0], 0), dtype=xp.int64, device=X.device)
    if is_numpy_array(X):
        chosen = np.argpartition(moduli, size - count, axis=1)[:, size - count :]
        return np.sort(chosen, axis=1)
    return moduli.topk(count, dim=1, sorted=False).indices.sort(dim=1).values


def hard_threshold(X: Any, count: int) -> Any:
    """Return each item with its `count` entries of largest modulus kept and all others zero [1]_.

    This is a nearest matrix with at most so many nonzero entries; ties are broken arbitrarily.

    References
    ----------
    .. [1] T. Blumensath, M. E. Davies, "Iterative hard thresholding for compressed sensing",
       Applied and Computational Harmonic Analysis 27 (2009), 265-274.
    """
    xp = array_namespace(X)
    chosen = largest_entries(X, count)
    flat = xp.reshape(X, (X.shape[0], -1))
    kept = xp.zeros_like(flat)
    items = xp.reshape(xp.arange(X.shape[0], device=X.device), (-1, 1))
    kept[items, chosen] = flat[items, chosen]
    return xp.reshape(kept, X.shape)
