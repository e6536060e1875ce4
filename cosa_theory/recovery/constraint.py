"""The set {X : ‖ΦX − y‖ ≤ σ}, where Φ is diagonal: projection, duality and distance."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from numpy.typing import NDArray

from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.system import Floats, Indices, RowSpace, System

__all__ = ["Constraint", "constraint_of", "flat_norms", "per_item", "take"]

_ROUNDING = 200.0  # units in the last place of ‖y‖ up to which y counts as in the range of Φ
_NEWTON_STEPS = 60


@dataclass(frozen=True)
class Constraint:
    """Measurements to be matched, up to σ, for each of B right-hand sides.

    With the thin singular value decompositions of both factors (`RowSpace`), coordinates
    C = V_Aᵀ X V_B and singular values w, ‖ΦX − y‖² = ‖w ∘ (C − C₀)‖² + δ², where C₀ are the
    coordinates of the least-norm solution and δ is the distance of y from the range of Φ. So the
    set is an ellipsoid of radius ρ = √(σ² − δ²) in C, and a single point C₀ where ρ = 0.
    """

    space: RowSpace
    centre: Any  # C₀, (B, r, t)
    outside: Any  # the part of y outside the range, (B, p, q)
    distance: Floats  # δ, (B,); zero where it is rounding
    radius: Floats  # ρ, (B,); NaN where σ < δ and no X satisfies the constraint
    noise_level: float  # σ

    @property
    def feasible(self) -> NDArray[np.bool_]:
        """Whether some X satisfies the constraint, for each item."""
        return ~np.isnan(self.radius)

    @property
    def condition(self) -> str:
        """The constraint as a formula says it."""
        return "Φx = y" if self.noise_level == 0 else f"‖Φx − y‖ ≤ {self.noise_level:g}"

    def take(self, items: Indices) -> Constraint:
        """Return the constraint of some of the right-hand sides."""
        centre, outside = take(self.centre, items), take(self.outside, items)
        distance, radius = self.distance[items], self.radius[items]
        return replace(self, centre=centre, outside=outside, distance=distance, radius=radius)

    def project(self, H: Any, multiplier: Any = None) -> tuple[Any, Any]:
        """Return the nearest point C of the set to coordinates H (B, r, t), and its multipliers μ.

        C = (H + μ w² C₀)/(1 + μ w²) with the least μ ≥ 0 for which ‖w ∘ (C − C₀)‖ ≤ ρ. The norm's
        reciprocal is concave in μ, so Newton's method reaches the root from the left without
        overshooting from wherever it starts [1]_, such as the μ (B, 1, 1) of the last projection.
        μ is zero inside the set, and where ρ = 0 and C is the centre.

        References
        ----------
        .. [1] J. J. Moré, D. C. Sorensen, "Computing a trust region step", SIAM Journal on
           Scientific and Statistical Computing 4 (1983), 553-572, section 3.
        """
        if not self.radius.any():
            return self.centre, multiplier
        xp = array_namespace(H)
        # In double precision, because a small radius is lost in squares of singles.
        wide = xp.astype(H, xp.float64, copy=False)
        radius = per_item(self.radius, wide)
        weights = xp.astype(self.space.values, xp.float64, copy=False) ** 2
        squares = weights * (wide - self.centre) ** 2
        inside = _sums(squares) <= radius**2
        point = radius == 0
        settled = inside | point
        mu = xp.zeros_like(radius) if multiplier is None else multiplier
        mu = xp.where(settled, xp.zeros_like(mu), mu)
        tolerance = 64 * float(xp.finfo(H.dtype).eps)
        one = xp.ones_like(radius)
        for _ in range(_NEWTON_STEPS):
            shrunk = 1 / (1 + mu * weights)
            terms = squares * shrunk * shrunk
            norm = _sums(terms) ** 0.5
            ratio = xp.where(settled, one, norm / xp.where(point, one, radius))
            if bool(xp.all(xp.abs(ratio - 1) <= tolerance)):
                break
            norm2 = xp.where(settled, one, norm**2)
            slope = xp.where(settled, one, _sums(terms * weights * shrunk) / norm2)
            step = mu + (ratio - 1) / slope
            mu = xp.where(step > 0, step, xp.zeros_like(step))
        kept = xp.astype(1 / (1 + mu * weights), H.dtype, copy=False)
        C = self.centre + (H - self.centre) * kept
        return xp.where(point, self.centre, C), mu

    def dual_value(self, D: Any) -> Floats:
        """Return max ⟨y, ν⟩ − σ‖ν‖ over the ν with Φᵀν = V_A D V_Bᵀ, for each item.

        The part of ν outside the range of Φ is free; its best choice leaves
        ⟨C₀, D⟩ − ρ‖D/w‖.
        """
        value = np.asarray(to_host(_sums(self.centre * D)), dtype=np.float64).ravel()
        if self.radius.any():
            value = value - self.radius * flat_norms(D / self.space.values)
        return value

    def dual_point(self, D: Any) -> Any:
        """Return the ν (B, p, q) that attains `dual_value`."""
        inner = D / self.space.values
        point = self.space.measurements(inner)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = np.where(self.radius > 0, flat_norms(inner) / self.radius, 0.0)
        return point + per_item(share, point) * self.outside

    def residual(self, C: Any) -> Floats:
        """Return ‖ΦX − y‖ of the coordinates C, for each item."""
        return np.hypot(flat_norms(self.space.values * (C - self.centre)), self.distance)


def constraint_of(
    system: System, Y: Any, noise_level: float, eps: float | None = None
) -> Constraint:
    """Return the constraint ‖ΦX − y‖ ≤ σ for a stack of measurements (B, p, q).

    `eps` is the relative rounding of Y, by default that of its type.
    """
    space = system.row_space(Y)
    measured = space.measured(Y)
    outside = Y - space.measurements(measured)
    eps = float(array_namespace(Y).finfo(Y.dtype).eps) if eps is None else eps
    distance = flat_norms(outside)
    distance = np.where(distance <= _ROUNDING * eps * flat_norms(Y), 0.0, distance)
    with np.errstate(invalid="ignore"):  # NaN marks what is infeasible
        radius = np.sqrt(noise_level**2 - distance**2)
    outside = outside * per_item((distance > 0).astype(np.float64), Y)
    return Constraint(space, measured / space.values, outside, distance, radius, noise_level)


def take(X: Any, items: Indices) -> Any:
    """Return some items of a stack of any library."""
    if is_numpy_array(X):
        return X[items]
    import torch

    return X[torch.as_tensor(items, device=X.device)]


def per_item(values: Floats, like: Any) -> Any:
    """Return one number for each item as an array (B, 1, 1) beside `like`."""
    xp = array_namespace(like)
    if is_numpy_array(like):
        return values.astype(like.dtype).reshape(-1, 1, 1)
    return xp.asarray(values.tolist(), dtype=like.dtype, device=like.device).reshape(-1, 1, 1)


def flat_norms(X: Any) -> Floats:
    """Return the Euclidean norm of each item of a stack, as float64 on the host."""
    xp = array_namespace(X)
    norms = xp.linalg.vector_norm(xp.reshape(X, (X.shape[0], -1)), axis=1)
    return np.asarray(to_host(norms), dtype=np.float64)


def _sums(X: Any) -> Any:
    """Return the sum of each item, shape (B, 1, 1)."""
    return array_namespace(X).sum(X, axis=(-2, -1), keepdims=True)
