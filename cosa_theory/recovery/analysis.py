"""Analysis form of ℓ1 recovery: the update with the least ‖Ω ΔW‖₁ for its measurements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.recovery.constraint import Constraint, constraint_of
from cosa_theory.recovery.items import Answer, check_options, gathered, infeasible, relative_gap
from cosa_theory.recovery.redundant import AnalysisOperator, analysis_of
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.system import RowSpace, System

__all__ = ["AnalysisDual", "analysis"]

_CHECK_EVERY = 20
_FIRST_STEP = 0.1  # of the least-norm answer's largest entry
_STEP_SHARE = 0.2  # of ‖ΩX‖/‖u‖, as in basis pursuit

Floats = NDArray[np.float64]


def analysis(
    system: System,
    Y: Any,
    *,
    noise_level: float = 0.0,
    omega: Any = "differences",
    tolerance: float = 1e-8,
    max_iterations: int = 20000,
    start: Any = None,
    monitor: Callable[[int, float, Any], None] | None = None,
) -> Solution:
    """Minimise ‖Ω ΔW‖₁ subject to ‖Φ vec(ΔW) − y‖ ≤ σ.

    Parameters
    ----------
    system : System
        The map from the entries of ΔW.
    Y : ndarray, shape (B, p, q)
    noise_level : float
        σ; zero asks for equality.
    omega : {"differences", "dct+identity"}, Transform or AnalysisOperator
        Ω, see `cosa_theory.recovery.redundant`.
    tolerance : float
        Of the duality gap over ‖ΩΔW‖₁.
    max_iterations : int
    start : ndarray, shape (B, m, n), optional
        An update to start from.
    monitor : callable, optional
        Called at every check with the iteration, the relative gap and the update (m, n).

    Returns
    -------
    Solution
        `certificate.dual` is ν with Φᵀν = Ωᵀu for a u with ‖u‖_∞ ≤ 1; the gap is
        ‖ΩΔW‖₁ − ⟨y, ν⟩ + σ‖ν‖. Status "optimal", "stalled", "iteration limit" or "infeasible".
        Computed in float64.

    Raises
    ------
    ValueError
        If an option is out of range or Ω is unknown.

    Notes
    -----
    The primal-dual method of [1]_ with the exact projection on the constraint as a proximal step,
    so every iterate explains the measurements:

        u⁺ = clip(u + s Ω(2x − x⁻), ±1),   x⁺ = P(x − τ Ωᵀu⁺),   τ s ‖Ω‖² = 1 with τ = γ/‖Ω‖,

    where γ is rescaled at iterations 20, 40, 80, …. A feasible dual pair is made of u in closed
    form: g is the part of Ωᵀu in the row space of Φ, less what is not orthogonal to the kernel of
    Ω; u' = u + Ω(ΩᵀΩ)⁺(g − Ωᵀu) has Ωᵀu' = g; both are divided by ‖u'‖_∞. With an orthonormal Ω
    this is basis pursuit for the coefficients; analysis and synthesis differ otherwise [2]_.

    References
    ----------
    .. [1] A. Chambolle, T. Pock, "A first-order primal-dual algorithm for convex problems with
       applications to imaging", Journal of Mathematical Imaging and Vision 40 (2011), 120-145,
       algorithm 1; the convergence at τ s ‖Ω‖² = 1: L. Condat, Journal of Optimization Theory and
       Applications 158 (2013), 460-479, theorem 3.3.
    .. [2] M. Elad, P. Milanfar, R. Rubinstein, "Analysis versus synthesis in signal priors",
       Inverse Problems 23 (2007), 947-968.
    """
    check_options(tolerance, max_iterations)
    like = np.asarray(Y)
    stack = like.astype(np.float64, copy=False)
    operator = analysis_of(omega, system.matrix_shape)
    constraint = constraint_of(system, stack, noise_level, float(np.finfo(like.dtype).eps))
    answers = []
    for item in range(len(stack)):
        one = constraint.take(np.array([item]))
        if not one.feasible[0]:
            answers.append(infeasible(one, system, stack[item]))
            continue
        solver = _Solver(system, one, operator, tolerance)
        answers.append(solver.run(None if start is None else start[item], max_iterations, monitor))
    condition = "Φx = y" if noise_level == 0 else f"‖Φx − y‖ ≤ {noise_level:g}"
    formula = f"‖Ωx‖₁ subject to {condition}, Ω = {operator.name}"
    return gathered(answers, formula, tolerance, system, like)


class AnalysisDual:
    """Feasible dual points of the analysis form: Φᵀν = Ωᵀu with ‖u‖_∞ ≤ 1.

    Parameters
    ----------
    system : System
    space : RowSpace
        Of the system, in float64.
    operator : AnalysisOperator
        Ω.
    """

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


class _Solver:
    """The primal-dual method for one right-hand side."""

    def __init__(
        self,
        system: System,
        constraint: Constraint,
        operator: AnalysisOperator,
        tolerance: float,
    ) -> None:
        self.constraint, self.space = constraint, constraint.space
        self.operator, self.tolerance = operator, tolerance
        self.multiplier: Any = None  # of the last projection
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

    def run(
        self,
        start: Floats | None,
        max_iterations: int,
        monitor: Callable[[int, float, Any], None] | None,
    ) -> Answer:
        """Iterate until the gap closes."""
        least_norm = self._matrix(self.constraint.centre)
        gamma = _FIRST_STEP * float(np.abs(least_norm).max()) or 1.0
        x = least_norm if start is None else np.asarray(start, np.float64).reshape(self.shape)
        x = ahead = self._project(x)
        operator, norm = self.operator, self.operator.norm
        u = np.zeros_like(operator.apply(x))
        history: list[tuple[int, float, float]] = []
        rescale_at = _CHECK_EVERY
        for iteration in range(1, max_iterations + 1):
            u += operator.apply(ahead) / (gamma * norm)
            np.clip(u, -1.0, 1.0, out=u)
            new = self._project(x - (gamma / norm) * operator.adjoint(u))
            ahead, last, x = 2 * new - x, x, new
            if iteration % _CHECK_EVERY and iteration != max_iterations:
                continue
            image = operator.apply(x)
            objective = float(np.abs(image).sum())
            bound, dual = self._dual(u)
            gap = objective - bound
            relative = relative_gap(gap, objective)
            history.append((iteration, objective, relative))
            if monitor is not None:
                monitor(iteration, relative, x)
            moved = float(np.abs(x - last).max()) > 4e-16 * float(np.abs(x).max())
            if relative <= self.tolerance or not moved:
                status = "optimal" if relative <= self.tolerance else "stalled"
                return Answer(x, objective, gap, dual, status, iteration, history)
            if iteration == rescale_at:
                rescale_at *= 2
                size, dual_size = float(np.linalg.norm(image)), float(np.linalg.norm(u))
                gamma = _STEP_SHARE * size / dual_size if size * dual_size > 0 else gamma
        return Answer(x, objective, gap, dual, "iteration limit", iteration, history)

    def _dual(self, u: Floats) -> tuple[float, Floats]:
        """Return the bound of a feasible dual point made of u, and the point ν (p, q)."""
        D, size = self.duals.feasible(u)
        value = float(self.constraint.dual_value(D)[0])
        if value <= 0:
            return 0.0, np.zeros_like(self.constraint.outside[0])
        return value / size, self.constraint.dual_point(D / size)[0]


def _orthonormal(vectors: list[Floats], size: int) -> Floats:
    """Return an orthonormal basis, as columns, of the span of some vectors."""
    if not vectors:
        return np.zeros((size, 0))
    U, s, _ = np.linalg.svd(np.stack(vectors, axis=1), full_matrices=False)
    basis: Floats = U[:, s > 1e-12]
    return basis
