"""Where the leading directions of ΔW lie among those of W: principal or off-principal."""

import math
from typing import Any, NamedTuple

import numpy as np

from cosa_theory.ground.checks import matrix, whole
from cosa_theory.laws import energy_variance
from cosa_theory.linear.operators import to_host
from cosa_theory.spectrum.singular_vectors import leading_vectors

__all__ = ["DIRECTIONS", "PRINCIPAL", "Overlap", "subspace_overlap"]

DIRECTIONS = 8
"""How many of the leading directions of ΔW are placed."""

PRINCIPAL = 0.1
"""The principal directions of W, as a share of min(m, n)."""


class Overlap(NamedTuple):
    """How much of the leading directions of ΔW lies in the principal subspaces of W.

    Attributes
    ----------
    left_overlap, right_overlap : float or None
        ‖U_kᵀ U_r^Δ‖²/r and ‖V_kᵀ V_r^Δ‖²/r: the principal share of the r leading left and right
        singular directions of ΔW, from 0 to 1. The rest is off-principal.
    left_overlap_null, right_overlap_null : float or None
        k/m and k/n, their means for random directions.
    left_overlap_null_sd, right_overlap_null_sd : float or None
        Their standard deviations for random directions.
    """

    left_overlap: float | None = None
    left_overlap_null: float | None = None
    left_overlap_null_sd: float | None = None
    right_overlap: float | None = None
    right_overlap_null: float | None = None
    right_overlap_null_sd: float | None = None


def subspace_overlap(delta: Any, base: Any, r: int = DIRECTIONS, k: int | None = None) -> Overlap:
    """Measure the overlap of the top subspaces of ΔW with those of W, beside the mean at random.

    With U_k, V_k the top k left and right singular vectors of W and U_r^Δ, V_r^Δ the top r of ΔW,
    the share ‖U_kᵀ U_r^Δ‖_F²/r, likewise on the right. Random subspaces have k/m and k/n on
    average, with variance 2k(m − k)(m − r)/(m²(m − 1)(m + 2)r). See docs/theory.md, 5.7.

    Parameters
    ----------
    delta, base : array of shape (m, n)
        ΔW and W, numpy arrays or torch tensors.
    r : int
        Directions of ΔW; fewer where it has fewer resolved singular values.
    k : int, optional
        Directions of W that count as principal; by default a tenth of min(m, n), rounded up. Fewer
        where it has fewer resolved singular values.

    Returns
    -------
    Overlap
        All None where a matrix is zero.

    Raises
    ------
    InputError
        If a matrix is empty or not finite, the shapes differ, or a number is out of range.
    """
    delta = matrix("delta", to_host(delta))
    base = matrix("base", to_host(base), delta.shape)
    side = min(base.shape)
    k = math.ceil(PRINCIPAL * side) if k is None else whole("k", k, most=side)
    left, _, right = leading_vectors(delta, min(whole("r", r), side))
    U, _, V = leading_vectors(base, k)
    if not left.size or not U.size:
        return Overlap()
    found = []
    for length, of_base, of_delta in ((len(left), U, left), (len(right), V, right)):
        k, r = of_base.shape[1], of_delta.shape[1]
        share = float(np.square(of_base.T @ of_delta).sum()) / r
        # A flat ΔW of rank r, projected on one side alone.
        variance = energy_variance(length, length, k, length, r)
        found += [min(share, 1.0), k / length, math.sqrt(variance)]
    return Overlap(*found)
