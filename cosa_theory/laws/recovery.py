"""Closed forms of sparse recovery: how many nonzero entries ℓ1 minimisation finds, and from what.

Sizes are those of the layer: ΔW is m × n, and its core Lᵀ ΔW Rᵀ has ab of the mn numbers. With
N unknowns, M measurements and s nonzero entries, the undersampling is d = M/N and the sparsity
fraction ρ = s/M. An argument out of its range raises `InputError`.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import numpy as np
import scipy  # its parts are loaded where they are first used

from cosa_theory.ground.checks import numbers, refuse
from cosa_theory.laws.synthesis import Numbers, layer_sizes

__all__ = ["l1_weak_threshold", "packed_l1_threshold"]

_FARTHEST = 38.0  # thresholds z up to this: the undersampling there is below 1e-300
_HALVINGS = 64


def l1_weak_threshold(d: Numbers) -> Any:
    """Return the fraction ρ = s/M below which ℓ1 finds a sparse vector from Gaussian measurements.

    For N unknowns, M = dN independent Gaussian measurements and supports and signs that do not
    depend on them, min ‖x‖₁ subject to Ax = y finds a vector with s nonzero entries with
    probability tending to 1 as N → ∞ where s/M < ρ(d), and to 0 where s/M > ρ(d), with [1]_

    ρ(d) = max_z [1 − (2/d) g(z)] / [1 + z² − 2 g(z)],   g(z) = (1 + z²) Q(z) − z φ(z),

    Q the upper tail and φ the density of the standard normal law; [2]_ has this form. Setting the
    derivative to zero gives the curve by its parameter z ≥ 0 [3]_, which is what is solved here:
    d = 2φ/(z + 2φr) and ρ = r with r = 1 − zQ/φ. See docs/theory.md, 4.1.

    Parameters
    ----------
    d : float or array
        The undersampling M/N, in (0, 1] and at least 1e-300.

    Returns
    -------
    float or array
        ρ in (0, 1], of the shape of `d`, increasing in it; accurate to 1e-12. ρ(0.25) = 0.2674,
        ρ(0.5) = 0.3858, ρ(1) = 1.

    References
    ----------
    .. [1] D. L. Donoho, J. Tanner, "Counting faces of randomly projected polytopes when the
       projection radically lowers dimension", J. Amer. Math. Soc. 22 (2009), 1-53 (the weak
       threshold of the cross-polytope).
    .. [2] D. L. Donoho, A. Maleki, A. Montanari, "Message-passing algorithms for compressed
       sensing", PNAS 106 (2009), 18914-18919, equation 5.
    .. [3] D. L. Donoho, A. Maleki, A. Montanari, "The noise-sensitivity phase transition in
       compressed sensing", IEEE Trans. Information Theory 57 (2011), 6920-6941.
    """
    wanted = numbers("d", d, least=1e-300, most=1)
    low, high = np.zeros_like(wanted), np.full_like(wanted, _FARTHEST)
    for _ in range(_HALVINGS):  # d decreases strictly in z
        middle = (low + high) / 2
        above = _curve(middle)[0] > wanted
        low, high = np.where(above, middle, low), np.where(above, high, middle)
    return _curve(low)[1][()]


def _curve(z: Any) -> tuple[Any, Any]:
    """Return d and ρ at the parameter z."""
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    # Q/φ through the scaled error function, so that neither underflows.
    rho = 1 - z * math.sqrt(math.pi / 2) * scipy.special.erfcx(z / math.sqrt(2))
    return 2 * density / (z + 2 * density * rho), rho


def packed_l1_threshold(
    m: Numbers, n: Numbers, a: Numbers, b: Numbers, packing: Literal["column", "row", "block"]
) -> Any:
    """Return ρ = s/(ab) where ℓ1 stops finding a packed ΔW from its core, for Gaussian factors.

    A ΔW with one nonzero column is found from Lᵀ ΔW Rᵀ exactly when Lᵀ alone finds that column and
    R alone finds a single entry at its place: a competitor of either part is one of the whole, and
    the outer product of their dual certificates is a certificate of the whole. Nearly every R finds
    single entries, so the threshold is that of the other factor, s = a·ρ_w(a/m), however large b
    is, with ρ_w from `l1_weak_threshold`; for one row, s = b·ρ_w(b/n). A full k × k block is found
    only if Lᵀ finds each of its columns and R each of its rows, so its threshold is at most
    s = min(a·ρ_w(a/m), b·ρ_w(b/n))². See docs/theory.md, 4.1.

    Parameters
    ----------
    m, n, a, b : int or array of int
        Sizes of the layer and of the core, a ≤ m and b ≤ n.
    packing : {"column", "row", "block"}
        Where the nonzero entries are. For "block" the result is an upper bound.

    Returns
    -------
    float or array
        The fraction s/(ab); asymptotic in the sizes, as `l1_weak_threshold` is.
    """
    m, n, a, b = layer_sizes(m, n, a, b, between=True)
    if packing == "column":
        return l1_weak_threshold(a / m) / b
    if packing == "row":
        return l1_weak_threshold(b / n) / a
    if packing == "block":
        side = np.minimum(a * l1_weak_threshold(a / m), b * l1_weak_threshold(b / n))
        return side**2 / (a * b)
    raise refuse("packing", packing, "column, row or block")
