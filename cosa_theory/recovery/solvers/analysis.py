"""Analysis form of ℓ1 recovery: the update with the least ‖Ω ΔW‖₁ for its measurements."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from cosa_theory.recovery.analysis_operators import AnalysisOperator, analysis_of
from cosa_theory.recovery.constraint import Constraint
from cosa_theory.recovery.items import Answer, judged, least, relative_gap
from cosa_theory.recovery.methods import Monitor, default_tolerance, solver
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.splitting import anchored, restart_due
from cosa_theory.recovery.system import Floats, RowSpace, System

__all__ = ["AnalysisDual", "analysis"]

_CHECK_EVERY = 20
_FIRST_STEP = 0.1  # of the least-norm answer's largest entry
_STEP_SHARE = 0.2  # of ‖ΩX‖/‖u‖, as in basis pursuit
_STUCK = 8 * np.finfo(np.float64).eps  # share of the iterate below which a step is rounding


@solver(6, seeks="sparse image", on_update=True, exact=True, look=("grey", ":", ">"))
def analysis(
    system: System,
    Y: Any,
    *,
    noise_level: float = 0.0,
    omega: Any = "differences",
    tolerance: float | None = None,
    max_iterations: int = 20000,
    start: Any = None,
    monitor: Monitor | None = None,
) -> Solution:
    """Minimise ‖Ω ΔW‖₁ subject to ‖Φ vec(ΔW) − y‖ ≤ σ.

    Parameters
    ----------
    omega : {"differences", "dct+identity"}, Transform or AnalysisOperator
        Ω, see `cosa_theory.recovery.analysis_operators`.

    Returns
    -------
    Solution
        `certificate.dual` is ν with Φᵀν = Ωᵀu for a u with ‖u‖_∞ ≤ 1; the gap is
        ‖ΩΔW‖₁ − ⟨y, ν⟩ + σ‖ν‖. Status "optimal", "stalled", "iteration limit" or "infeasible".
        Computed in float64.

    Raises
    ------
    InputError
        If Ω is unknown.

    Notes
    -----
    The primal-dual method of [1]_ with the exact projection on the constraint as a proximal step,
    so every answer explains the measurements:

        x⁺ = P(x − τ Ωᵀu),   u⁺ = clip(u + s Ω(2x⁺ − x), ±1),   τ s ‖Ω‖² = 1 with τ = γ/‖Ω‖,

    anchored and restarted as in `cosa_theory.recovery.splitting.Splitting`, with γ set anew at each
    restart. A feasible dual pair is made of u in closed form: g is the part of Ωᵀu in the row space
    of Φ, less what is not orthogonal to the kernel of Ω; u' = u + Ω(ΩᵀΩ)⁺(g − Ωᵀu) has
    Ωᵀu' = g; both are divided by ‖u'‖_∞. With an orthonormal Ω this is basis pursuit for the
    coefficients; analysis and synthesis differ otherwise [2]_.

    References
    ----------
    .. [1] A. Chambolle, T. Pock, "A first-order primal-dual algorithm for convex problems with
       applications to imaging", Journal of Mathematical Imaging and Vision 40 (2011), 120-145,
       algorithm 1; the convergence at τ s ‖Ω‖² = 1: L. Condat, Journal of Optimization Theory and
       Applications 158 (2013), 460-479, theorem 3.3.
    .. [2] M. Elad, P. Milanfar, R. Rubinstein, "Analysis versus synthesis in signal priors",
       Inverse Problems 23 (2007), 947-968.
    """
    limit = default_tolerance(Y) if tolerance is None else tolerance
    operator = analysis_of(omega, system.matrix_shape)

    def solve(item: int, constraint: Constraint) -> Answer:
        first = None if start is None else start[item]
        steps = _PrimalDual(system, constraint, operator, limit)
        return steps.run(first, max_iterations, monitor)

    formula = f"‖Ωx‖₁ subject to {{}}, Ω = {operator.name}"

    def norm(X: Floats) -> float:
        return float(np.abs(operator.apply(X)).sum())

    return least(system, Y, noise_level, formula, limit, solve, norm)


class AnalysisDual:
    """Feasible dual points of the analysis form, Φᵀν = Ωᵀu with ‖u‖_∞ ≤ 1; the space in float64."""

    def __init__(self, system: System, space: RowSpace, operator: AnalysisOperator) -> None:
        self._space, self._operator = space, operator
        self._shape = (1, *system.coefficient_shape)
        kernel = [space.coordinates(one.reshape(self._shape)).ravel() for one in operator.kernel]
        self._kernel = _orthonormal(kernel, space.values.size)

    def feasible(self, u: Floats) -> tuple[Floats, float]:
        """Return row-space coordinates D (1, r, t), and the s for which D/s is feasible.

        V_A D V_Bᵀ = Ωᵀu' for the u' near u that the notes of `analysis` describe, and s = ‖u'‖_∞.
        """
        pulled = self._operator.adjoint(u)
        D = self._space.coordinates(pulled.reshape(self._shape))
        flat = D.reshape(-1)
        D = (flat - self._kernel @ (self._kernel.T @ flat)).reshape(D.shape)
        image = self._space.coefficients(D).reshape(pulled.shape)
        near = u + self._operator.apply(self._operator.solve(image - pulled))
        return D, float(np.abs(near).max())


class _PrimalDual:
    """The primal-dual method for one right-hand side."""

    def __init__(
        self, system: System, constraint: Constraint, operator: AnalysisOperator, tolerance: float
    ) -> None:
        self.constraint, self.space = constraint, constraint.space
        self.operator, self.tolerance = operator, tolerance
        self.multiplier: Any = None  # of the last projection
        self.gamma = 1.0
        self.history: list[tuple[int, float, float]] = []
        self.shape, self.coefficient_shape = system.matrix_shape, system.coefficient_shape
        self.duals = AnalysisDual(system, constraint.space, operator)

    def _coordinates(self, X: Floats) -> Floats:
        found: Floats = self.space.coordinates(X.reshape(1, *self.coefficient_shape))
        return found

    def _matrix(self, C: Floats) -> Floats:
        found: Floats = self.space.coefficients(C).reshape(self.shape)
        return found

    def _project(self, X: Floats) -> Floats:
        """Return the nearest matrix that satisfies the constraint."""
        C = self._coordinates(X)
        nearest, self.multiplier = self.constraint.project(C, self.multiplier)
        return X + self._matrix(nearest - C)

    def run(self, start: Floats | None, max_iterations: int, monitor: Monitor | None) -> Answer:
        """Iterate until the gap closes."""
        least_norm = self._matrix(self.constraint.centre)
        self.gamma = _FIRST_STEP * float(np.abs(least_norm).max()) or 1.0
        x = least_norm if start is None else np.asarray(start, np.float64).reshape(self.shape)
        u = np.zeros_like(self.operator.apply(x))
        anchor, first, last, since = (x, u), np.inf, np.inf, 0
        for iteration in range(1, max_iterations + 1):
            new = self._step(x, u)
            residual = self._length(new[0] - x, new[1] - u)
            first = residual if since == 0 else first
            restart = False
            if iteration % _CHECK_EVERY == 0 or iteration == max_iterations:
                stuck = bool(residual <= _STUCK * self._length(x, u))
                answer = self._judged(iteration, *new, stuck)
                if monitor is not None:
                    monitor(iteration, self.history[-1][2], new[0])
                if answer.status != "iteration limit":
                    return answer
                restart = bool(restart_due(residual, first, last, since, iteration))
                last = residual
            if restart:
                (x, u), anchor, last, since = new, new, np.inf, 0
                self._rescale(x, u)
                continue
            weight = (since + 1.0) / (since + 2.0)
            x, u = anchored(new[0], x, anchor[0], weight), anchored(new[1], u, anchor[1], weight)
            since += 1
        return answer

    def _step(self, x: Floats, u: Floats) -> tuple[Floats, Floats]:
        """Return one primal-dual step from (x, u); its x satisfies the constraint."""
        operator, norm = self.operator, self.operator.norm
        new = self._project(x - (self.gamma / norm) * operator.adjoint(u))
        ahead = u + operator.apply(2 * new - x) / (self.gamma * norm)
        return new, np.clip(ahead, -1.0, 1.0, out=ahead)

    def _length(self, x: Floats, u: Floats) -> float:
        """Return the length of (x, u) in the scale of the two steps."""
        return math.hypot(float(np.linalg.norm(x)) / self.gamma, float(np.linalg.norm(u)))

    def _rescale(self, x: Floats, u: Floats) -> None:
        size, dual_size = float(np.linalg.norm(self.operator.apply(x))), float(np.linalg.norm(u))
        if size > 0 and dual_size > 0:
            self.gamma = _STEP_SHARE * size / dual_size

    def _judged(self, iteration: int, x: Floats, u: Floats, stuck: bool) -> Answer:
        """Return x as an answer, with the gap that a feasible dual point made of u proves."""
        objective = float(np.abs(self.operator.apply(x)).sum())
        D, size = self.duals.feasible(u)
        answer = judged(
            self.constraint, x, objective, D, size, self.tolerance, iteration, self.history,
            otherwise="stalled" if stuck else "iteration limit",
        )  # fmt: skip
        self.history.append((iteration, objective, relative_gap(answer.value, objective)))
        return answer


def _orthonormal(vectors: list[Floats], size: int) -> Floats:
    """Return an orthonormal basis, as columns, of the span of some vectors."""
    if not vectors:
        return np.zeros((size, 0))
    U, s, _ = np.linalg.svd(np.stack(vectors, axis=1), full_matrices=False)
    basis: Floats = U[:, s > 1e-12]
    return basis
