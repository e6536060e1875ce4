"""Simplex steps between vertices of basis pursuit, from a vertex near the optimum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import lu_solve, qr
from scipy.linalg.lapack import dgetrf

from cosa_theory.ground.threads import one_thread
from cosa_theory.projections import stream
from cosa_theory.recovery.system import Floats, Indices, RowSpace, System

__all__ = ["LARGEST_RANK", "Candidate", "optimal_vertex", "vertex_work"]

LARGEST_RANK = 1024
"""Rank up to which a basis is held and factorised densely (8 MB)."""

_CANDIDATES = 2  # columns offered for the first basis, in multiples of the rank
_REFACTOR = 40  # steps between fresh factorisations of the basis
_PERTURBED = 1e-9  # of the largest entry
_DEPENDENT = 1e-9  # least pivot of an independent basis, relative to the largest


@dataclass(frozen=True)
class Candidate:
    """A candidate for the optimum of basis pursuit, with the dual point that may prove it.

    `dual` (r, t) has the row-space coordinates D of a dual point; V_A D V_Bᵀ is the sign of
    `values` (s,) on the support (s,).
    """

    support: Indices
    values: Floats
    dual: Floats

    @property
    def objective(self) -> float:
        """‖x‖₁."""
        return float(np.abs(self.values).sum())


def vertex_work(rank: int, steps: int) -> float:
    """Return about how many multiply-adds a search of some steps costs, without the pricing."""
    return 5.0 * rank**3 + 4.0 * steps * rank**2


def optimal_vertex(
    system: System, space: RowSpace, centre: Floats, scores: Floats, steps: int
) -> Candidate | None:
    """Return an optimal vertex of min ‖x‖₁ subject to Vᵀx = C₀, or None if none was reached.

    The space is that of the system in float64, of rank at most `LARGEST_RANK`, C₀ is `centre`
    (r, t). `scores` (mn,) say how likely each column is in the optimal basis: the greatest are
    taken first. At most `steps` columns are exchanged.

    Since x has no signs, every nonsingular basis S gives a feasible x_S = V_S⁻ᵀ C₀, and with D
    such that (V D)_S = sign x_S the vertex is optimal when ‖V D‖_∞ ≤ 1. Else the column of the
    largest |V D| enters, and the step goes past the zeros of x_S as long as the objective falls
    [1]_. The first basis comes from a pivoted QR factorisation of the columns weighted with their
    scores. C₀ is moved by a share of 1e-9, so that no step is idle where x_S has zeros, as it has
    where the answer is sparse; feasibility of the dual point depends on the basis and signs alone,
    and x_S is that of C₀ itself.

    References
    ----------
    .. [1] I. Barrodale, F. D. K. Roberts, "An improved algorithm for discrete ℓ1 linear
       approximation", SIAM Journal on Numerical Analysis 10 (1973), 839-848.
    """
    rank = centre.size
    target = centre.ravel()
    with one_thread():
        basis = _first_basis(system, space, scores, rank)
        columns = _columns(system, space, basis)
        factor = _factorised(columns)
        moved = target if factor is None else _perturbed(columns, factor.solve(target), target)
        for step in range(steps + 1):
            if factor is None:
                return None
            values, dual, image = _judge(space, factor, moved)
            entering = int(np.argmax(np.abs(image)))
            excess = abs(float(image[entering]))
            if excess <= 1 + 1e-9 or entering in basis:
                found = Candidate(basis, factor.solve(target), dual.reshape(centre.shape))
                return found if excess <= 1 + 1e-6 else None
            if step == steps:
                return None
            column = _columns(system, space, np.array([entering]))[:, 0]
            slopes = np.sign(image[entering]) * factor.solve(column)
            leaving = _leaving(values, slopes, excess)
            if leaving is None:
                return None
            basis = basis.copy()
            basis[leaving] = entering
            factor = factor.exchanged(leaving, column)
            if factor is None or factor.exchanges >= _REFACTOR:
                factor = _factorised(_columns(system, space, basis))
    return None


@dataclass(frozen=True)
class _Factor:
    """The inverse of the basis, after some exchanges of columns."""

    inverse: Floats
    exchanges: int = 0

    def solve(self, right: Floats) -> Floats:
        return self.inverse @ right

    def solve_transposed(self, right: Floats) -> Floats:
        return self.inverse.T @ right

    def exchanged(self, place: int, column: Floats) -> _Factor | None:
        """Return the inverse with one column of the basis replaced, or None if that is unsafe."""
        direction = self.inverse @ column
        if abs(direction[place]) <= 1e-8 * float(np.abs(direction).max()):
            return None
        row = self.inverse[place] / direction[place]
        direction[place] -= 1.0
        return _Factor(self.inverse - np.outer(direction, row), self.exchanges + 1)


def _columns(system: System, space: RowSpace, chosen: Indices) -> Floats:
    """Return chosen columns of Vᵀ, shape (r, count): products of the factors' rows."""
    left, right = (np.asarray(part) for part in space.left.factors)
    i, j = np.divmod(chosen, system.coefficient_shape[1])
    return np.einsum("rc,tc->rtc", left[:, i], right[:, j]).reshape(-1, chosen.size)


def _first_basis(system: System, space: RowSpace, scores: Floats, rank: int) -> Indices:
    offered = min(_CANDIDATES * rank, scores.size)
    chosen = np.argpartition(scores, -offered)[-offered:]
    weights = scores[chosen] / max(float(scores.max()), 1e-300)
    columns = _columns(system, space, chosen) * np.maximum(weights, 1e-6) ** 2
    order = qr(columns, mode="r", pivoting=True, check_finite=False)[1]
    basis: Indices = chosen[order[:rank]]
    return basis


def _factorised(columns: Floats) -> _Factor | None:
    triangles, swaps, _ = dgetrf(columns)  # scipy's lu_factor warns of what is looked at below
    pivots = np.abs(np.diag(triangles))
    if pivots.min() <= _DEPENDENT * pivots.max():
        return None
    return _Factor(lu_solve((triangles, swaps), np.eye(len(columns)), check_finite=False))


def _perturbed(columns: Floats, values: Floats, target: Floats) -> Floats:
    """Return C₀ moved so little that only zeros of x_S change sign."""
    size = _PERTURBED * float(np.abs(values).max(initial=0.0))
    shifts = stream(0, "vertex").uniform(0.5, 1.0, values.size)
    moved: Floats = target + columns @ (size * shifts * np.where(values >= 0, 1.0, -1.0))
    return moved


def _judge(space: RowSpace, factor: _Factor, target: Floats) -> tuple[Floats, Floats, Floats]:
    """Return the basic solution, its dual point and that point's image."""
    values = factor.solve(target)
    dual = factor.solve_transposed(np.where(values >= 0, 1.0, -1.0))
    image = space.coefficients(dual.reshape(1, *space.values.shape))
    return values, dual, image.ravel()


def _leaving(values: Floats, slopes: Floats, excess: float) -> int | None:
    """Return the place at which the objective stops falling along values − t·slopes."""
    with np.errstate(divide="ignore", invalid="ignore"):
        times = np.where(slopes != 0, values / slopes, np.inf)
    times = np.where(times >= 0, times, np.inf)
    order = np.argsort(times, kind="stable")
    falling = 1.0 - excess + np.cumsum(2 * np.abs(slopes[order]))
    stop = int(np.searchsorted(falling, 0.0))
    if stop == order.size or not np.isfinite(times[order[stop]]):
        return None
    return int(order[stop])
