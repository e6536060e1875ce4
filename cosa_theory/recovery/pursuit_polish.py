"""The exact end of basis pursuit: once the support is right, two small linear systems finish it."""

from __future__ import annotations

import numpy as np

from cosa_theory.recovery.constraint import Constraint
from cosa_theory.recovery.support import GramFactor
from cosa_theory.recovery.system import Floats, Indices, System
from cosa_theory.recovery.vertex import LARGEST_RANK, Candidate, optimal_vertex, vertex_work

__all__ = ["Polisher"]

_LARGEST = 3000  # entries of a support up to which its Gram block is formed (72 MB)
_NEGLIGIBLE = 1e-9  # share of the largest entry under which a fitted entry counts as zero
_MATCHED = 1e-9  # share of ‖C₀‖ by which the fit may miss them, and units in their last place
_MATCHED_UNITS = 200.0
_ROUNDS = 8  # solves on a changing support
_NEAR = 0.1  # share of ‖C₀‖ missed up to which entries are looked for that the support lacks
_FALLS = 0.7  # factor by which what is missed must fall when entries were added
_ALIKE = 0.5  # entries added: those that fit this share of what the best fits
_DEPENDENT = 1e-7  # least ratio of pivots of an independent support


class Polisher:
    """Solves the optimality conditions on given supports, in float64 on the host.

    The constraint is that of all right-hand sides, in float64 numpy arrays; `eps` is the relative
    rounding of the measurements.

    Equality: the coordinates satisfy V_Sᵀ x_S = C₀ with V the orthonormal basis of the row space,
    so x_S is least squares with the Gram matrix of V's rows, which is better conditioned than that
    of Φ. Entries that come out as zero are dropped; where little is missed, the entries that fit
    it best are added, as in matching pursuit, which finds small ones long before the iterates do.
    And from any point D near the dual optimum the nearest one that interpolates the signs is
    D + V_Sᵀ(V_S V_Sᵀ)⁻¹(sign x_S − (V D)_S) (Fuchs' certificate where D = 0 [1]_).

    Inequality with radius ρ: stationarity gives x_S = G_SS⁻¹(Φ_Sᵀy − μ sign x_S), whose residual
    has norm² ‖r_LS‖² + μ² sign(x_S)ᵀ G_SS⁻¹ sign(x_S), so μ is the root at which that is ρ²; the
    dual point is the residual over μ.

    References
    ----------
    .. [1] J.-J. Fuchs, "On sparse representations in arbitrary redundant bases", IEEE Trans.
       Information Theory 50 (2004), 1341-1344.
    """

    def __init__(self, system: System, constraint: Constraint, eps: float = 2.0**-52) -> None:
        self._system, self._constraint = system, constraint
        self._matched = max(_MATCHED, _MATCHED_UNITS * eps)
        self._space = constraint.space
        shape = system.matrix_shape
        self._whitened = System(self._space.left, shape, plain=system.plain)
        self._rank = int(np.prod(self._space.values.shape))

    def size(self, count: int) -> int:
        """Return how many entries an attempt on `count` nonzero entries takes; 0 for no attempt.

        A vertex has no more entries than Φ has rank, so of more the largest are taken.
        """
        size = min(count, self._rank)
        return size if size <= _LARGEST else 0

    def work(self, size: int) -> float:
        """Return about how many multiply-adds one attempt on a support of this size costs."""
        sides = sum(min(size, one) for one in self._space.values.shape)
        return size**3 / 3 + size**2 * (sides + 16.0)

    def polish(self, item: int, X: Floats, dual: Floats | None) -> Candidate | None:
        """Return the solution on the support and signs of one iterate, or None if there is none.

        `X` (m, n) is the sparse iterate of a right-hand side, `dual` (r, t) the coordinates of its
        dual point, zero by default.
        """
        flat = X.ravel()
        support = np.flatnonzero(flat)
        size = self.size(support.size)
        if size == 0:
            return None
        if size < support.size:
            order = np.argpartition(np.abs(flat[support]), -size)
            support = np.sort(support[order[-size:]])
        signs = np.sign(flat[support])
        if self._constraint.radius[item] > 0:
            return self._inequality(item, support, signs)
        return self._equality(item, support, dual)

    def vertex_work(self, steps: int) -> float:
        """Return about how many multiply-adds `vertex` costs, without the pricing of its steps.

        Infinity where the rank is too large for it.
        """
        return vertex_work(self._rank, steps) if self._rank <= LARGEST_RANK else float("inf")

    def vertex(self, item: int, scores: Floats, steps: int) -> Candidate | None:
        """Return what `optimal_vertex` does for a right-hand side, or None.

        Its constraint must be an equality; the scores have shape (m, n).
        """
        centre = self._constraint.centre[item]
        found = optimal_vertex(self._system, self._space, centre, scores.ravel(), steps)
        if found is None:
            return None
        kept = np.abs(found.values) > 1e-12 * np.abs(found.values).max()
        return Candidate(found.support[kept], found.values[kept], found.dual)

    def bound(self, item: int, found: Candidate) -> float:
        """Return the dual objective at a candidate's dual point, scaled to feasibility."""
        one = self._constraint.take(np.array([item]))
        size = float(np.abs(self._space.coefficients(found.dual[None])).max())
        return float(one.dual_value(found.dual[None])[0]) / max(1.0, size)

    def _equality(self, item: int, support: Indices, dual: Floats | None) -> Candidate | None:
        centre = self._constraint.centre[item]
        least_norm = self._space.coefficients(centre[None])[0].ravel()
        size, left = float(np.linalg.norm(centre)), np.inf
        for _ in range(_ROUNDS):
            factor = _factorised(self._whitened, support)
            if factor is None:
                return None
            values = factor.solve(least_norm[support])
            kept = np.abs(values) > _NEGLIGIBLE * np.abs(values).max()
            if not kept.all():
                support = support[kept]
                continue
            missed = centre - self._coordinates(support, values)
            before, left = left, float(np.linalg.norm(missed))
            if left <= self._matched * size:
                break
            if left > min(_NEAR * size, _FALLS * before):
                return None
            wanted = np.abs(self._space.coefficients(missed[None])[0].ravel())
            more = np.flatnonzero(wanted >= _ALIKE * wanted.max())
            support = np.union1d(support, more[: self._rank - support.size])
        else:
            return None
        signs = np.sign(values)
        start = np.zeros_like(centre) if dual is None else dual
        there = self._space.coefficients(start[None])[0].ravel()[support]
        step = factor.solve(signs - there)
        return Candidate(support, values, start + self._coordinates(support, step))

    def _inequality(self, item: int, support: Indices, signs: Floats) -> Candidate | None:
        weights, centre = self._space.values, self._constraint.centre[item]
        radius = self._constraint.radius[item]
        correlations = self._space.coefficients((weights**2 * centre)[None])[0].ravel()
        for _ in range(_ROUNDS):
            factor = _factorised(self._system, support)
            if factor is None:
                return None
            fit, tilt = factor.solve(correlations[support]), factor.solve(signs)
            left = weights * (centre - self._coordinates(support, fit))
            room = radius**2 - float(np.vdot(left, left))
            steepness = float(signs @ tilt)  # not positive where G is singular up to rounding
            if room <= 0 or steepness <= 0:
                return None
            multiplier = (room / steepness) ** 0.5
            values = fit - multiplier * tilt
            kept = values * signs > 0
            if kept.all():
                residual = left + multiplier * weights * self._coordinates(support, tilt)
                return Candidate(support, values, weights * residual / multiplier)
            support, signs = support[kept], signs[kept]
            if support.size == 0:
                return None
        return None

    def _coordinates(self, support: Indices, values: Floats) -> Floats:
        """Return the row-space coordinates (r, t) of the coefficients `values` on a support."""
        X = np.zeros(self._system.size)
        X[support] = values
        shaped: Floats = X.reshape(1, *self._system.coefficient_shape)
        coordinates: Floats = self._space.coordinates(shaped)[0]
        return coordinates


def _factorised(system: System, support: Indices) -> GramFactor | None:
    """Return the factorised Gram block on a support, or None if it is nearly singular."""
    factor = GramFactor.of(system, support)
    if factor is None or factor.pivots.min() <= _DEPENDENT * factor.pivots.max():
        return None
    return factor
