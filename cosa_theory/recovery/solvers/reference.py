"""Small problems through cvxpy: an independent answer to compare the solvers with."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np
from scipy import sparse

from cosa_theory.ground.checks import choice, refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.scales import unit_scale
from cosa_theory.recovery.analysis_operators import analysis_of
from cosa_theory.recovery.constraint import Constraint
from cosa_theory.recovery.items import Answer, judged, least, proven, relative_gap
from cosa_theory.recovery.methods import solver
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.solvers.analysis import AnalysisDual
from cosa_theory.recovery.system import Floats, RowSpace, System, largest_entry

__all__ = ["OBJECTIVES", "reference"]

OBJECTIVES = ("bpdn", "basis_pursuit", "lasso", "analysis", "nuclear")
"""What `reference` can minimise."""

_LARGEST = 1024  # unknowns: beyond, a general interior-point method takes minutes
_LAM_RATIO = 1e-3
_SOLVERS: tuple[tuple[str, dict[str, float | int]], ...] = (
    ("CLARABEL", {"tol_gap_abs": 1e-11, "tol_gap_rel": 1e-11, "tol_feas": 1e-11, "max_iter": 500}),
    ("SCS", {"eps_abs": 1e-9, "eps_rel": 1e-9, "max_iters": 200_000}),
)


@solver(8, seeks="what is asked", exact=True)
def reference(
    system: System,
    Y: Any,
    *,
    noise_level: float = 0.0,
    objective: str = "bpdn",
    lam: float | None = None,
    lam_ratio: float | None = None,
    omega: Any = None,
    tolerance: float = 1e-6,
) -> Solution:
    """Solve a small problem with a general convex solver, through cvxpy [1]_.

    At most 1,024 unknowns, and σ is for "bpdn", "analysis" and "nuclear".

    Parameters
    ----------
    objective : str
        ``bpdn``: ‖x‖₁ subject to ‖Φx − y‖ ≤ σ (Φx = y at σ = 0). ``basis_pursuit``: subject to
        Φx = y whatever σ is. ``lasso``: ½‖Φx − y‖² + λ‖x‖₁. ``analysis``: ‖Ωx‖₁ and ``nuclear``:
        ‖X‖_*, both subject to ‖Φx − y‖ ≤ σ; here x are the coefficients in the problem's basis,
        so Ω acts on ΔW itself in the coordinate basis only.
    lam, lam_ratio : float, optional
        For the lasso only; a thousandth of ‖Φᵀy‖_∞ by default.
    omega : optional
        Ω, as in `analysis`; differences by default. For "analysis" only.

    Returns
    -------
    Solution
        CLARABEL's answer (SCS's, with fewer digits, where CLARABEL fails, which the message says),
        projected on the constraint, so that it is exactly feasible. The solver's multipliers are
        scaled to a feasible dual point, and objective and gap are computed from both by this
        library's formulas: nothing is taken on trust. Status "optimal", "stalled" or "infeasible".

    Raises
    ------
    InputError
        More than 1,024 unknowns, an unknown objective, or an option of another objective.

    References
    ----------
    .. [1] S. Diamond, S. Boyd, "CVXPY: a Python-embedded modeling language for convex
       optimization", Journal of Machine Learning Research 17 (2016), 1-5.
    .. [2] P. J. Goulart, Y. Chen, "Clarabel: an interior-point solver for conic programs with
       quadratic objectives", arXiv 2405.12762 (2024).
    """
    _check_objective(system, objective, lam, lam_ratio, omega)
    if objective == "lasso":
        return _lasso(system, Y, lam, lam_ratio, tolerance)
    norm: _Norm = _Absolute()
    if objective == "analysis":
        norm = _Analysis(system, "differences" if omega is None else omega)
    elif objective == "nuclear":
        norm = _Nuclear(system.matrix_shape)

    def solve(item: int, constraint: Constraint) -> Answer:
        return _least(norm, system, constraint, tolerance)

    sigma = 0.0 if objective == "basis_pursuit" else noise_level
    return least(system, Y, sigma, norm.formula + " subject to {}", tolerance, solve, norm.value)


def _check_objective(
    system: System, objective: str, lam: float | None, lam_ratio: float | None, omega: Any
) -> None:
    choice("objective", objective, OBJECTIVES)
    if system.size > _LARGEST:
        raise InputError(
            f"the problem has {system.size:,} unknowns and the reference takes at most "
            f"{_LARGEST:,}: use fista, basis_pursuit or bpdn, which prove their gap too"
        )
    belongs = [
        ("lam", lam, "lasso"),
        ("lam_ratio", lam_ratio, "lasso"),
        ("omega", omega, "analysis"),
    ]
    for argument, value, owner in belongs:
        if value is not None and objective != owner:
            must = f"left out, for it belongs to the objective {owner}, not to {objective}"
            raise refuse(argument, value, must)


class _Norm(Protocol):
    """What is minimised: for cvxpy, for arrays, and its dual."""

    formula: str

    def expression(self, X: Any) -> tuple[Any, list[Any]]:
        """Return the norm of a cvxpy variable and the constraints that define it."""
        ...

    def value(self, X: Floats) -> float:
        """Return the norm of coefficients (m, n)."""
        ...

    def dual(self, space: RowSpace, D: Floats) -> tuple[Floats, float]:
        """Return coordinates near D that are feasible once divided by the number returned."""
        ...


class _Absolute:
    """‖x‖₁, whose dual norm is ‖·‖_∞."""

    formula = "‖x‖₁"

    def expression(self, X: Any) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return cp.sum(cp.abs(X)), []

    def value(self, X: Floats) -> float:
        return float(np.abs(X).sum())

    def dual(self, space: RowSpace, D: Floats) -> tuple[Floats, float]:
        return D, float(np.abs(space.coefficients(D)).max())


class _Nuclear:
    """‖X‖_*, whose dual norm is the spectral norm."""

    formula = "‖X‖_*"

    def __init__(self, shape: tuple[int, int]) -> None:
        self.shape = shape

    def expression(self, X: Any) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        return cp.normNuc(cp.reshape(X, self.shape, order="C")), []

    def value(self, X: Floats) -> float:
        return float(np.linalg.svd(X.reshape(self.shape), compute_uv=False).sum())

    def dual(self, space: RowSpace, D: Floats) -> tuple[Floats, float]:
        return D, float(np.linalg.norm(space.coefficients(D).reshape(self.shape), 2))


class _Analysis:
    """‖Ωx‖₁, whose dual needs the multipliers u of z = Ωx."""

    def __init__(self, system: System, omega: Any) -> None:
        self.operator = analysis_of(omega, system.matrix_shape)
        self.shape = system.matrix_shape
        self.formula = f"‖Ωx‖₁ with Ω = {self.operator.name},"
        self._duals = AnalysisDual(system, system.row_space(np.zeros(1)), self.operator)
        units = np.eye(system.size).reshape(-1, *self.shape)
        self._matrix = np.stack([self.operator.apply(unit).ravel() for unit in units], axis=1)
        self._definition: Any = None

    def expression(self, X: Any) -> tuple[Any, list[Any]]:
        import cvxpy as cp

        image = cp.Variable(len(self._matrix))
        rows = sparse.csr_array(self._matrix) @ cp.vec(X, order="C")
        self._definition = image == rows
        return cp.norm1(image), [self._definition]

    def value(self, X: Floats) -> float:
        return float(np.abs(self.operator.apply(X.reshape(self.shape))).sum())

    def dual(self, space: RowSpace, D: Floats) -> tuple[Floats, float]:
        image_shape = self.operator.apply(np.zeros(self.shape)).shape
        u = -np.asarray(self._definition.dual_value).reshape(image_shape)
        return self._duals.feasible(u)


def _least(norm: _Norm, system: System, constraint: Constraint, tolerance: float) -> Answer:
    """Return the answer of least norm to one right-hand side."""
    import cvxpy as cp

    space, radius = constraint.space, float(constraint.radius[0])
    A, B = system.factors
    left, right = space.right.factors  # the range's coordinates, in which no equation is redundant
    target = (space.values * constraint.centre)[0]
    # Powers of two make the sizes of operator, measurements and unknown the solver's own.
    a, b, t = (unit_scale(largest_entry(part)) for part in (A, B, target))
    unit, radius = a * b / t, radius * t
    X = cp.Variable(system.coefficient_shape)
    residual = (left @ (a * A)) @ X @ (right @ (b * B)).T - t * target
    matched = residual == 0 if radius == 0 else cp.norm(residual, "fro") <= radius
    cost, definitions = norm.expression(X)
    message, iterations = _solved(cp.Problem(cp.Minimize(cost), [matched, *definitions]))
    found = unit * np.asarray(X.value, dtype=np.float64)
    multiplier = -np.asarray(matched.dual_value, dtype=np.float64)
    if radius > 0:
        missed = np.asarray(residual.value)
        multiplier = multiplier * missed / (float(np.linalg.norm(missed)) or 1.0)
    C = space.coordinates(found[None])
    feasible = found + space.coefficients(constraint.project(C)[0] - C)[0]
    D, size = norm.dual(space, (a * b * space.values * multiplier)[None])
    value = norm.value(feasible)
    return judged(constraint, feasible, value, D, size, tolerance, iterations, message=message)


def _lasso(
    system: System, Y: Any, lam: float | None, lam_ratio: float | None, tolerance: float
) -> Solution:
    """Minimise ½‖Φx − y‖² + λ‖x‖₁ for each right-hand side; its dual is ½‖y‖² − ½‖y − θ‖²."""
    import cvxpy as cp

    like = np.asarray(Y)
    stack = like.astype(np.float64, copy=False)
    ratio = _LAM_RATIO if lam_ratio is None else lam_ratio
    greatest = np.abs(system.apply_adjoint(stack)).max(axis=(-2, -1))
    weights = np.full(len(stack), lam) if lam is not None else ratio * greatest
    A, B = system.factors
    answers = []
    a, b = unit_scale(largest_entry(A)), unit_scale(largest_entry(B))
    for y, weight in zip(stack, weights, strict=True):
        t = unit_scale(largest_entry(y))
        X = cp.Variable(system.coefficient_shape)
        missed = (a * A) @ X @ (b * B).T - t * y
        cost = 0.5 * cp.sum_squares(missed) + weight * t * a * b * cp.sum(cp.abs(X))
        message, iterations = _solved(cp.Problem(cp.Minimize(cost)))
        found = a * b / t * np.asarray(X.value, dtype=np.float64)
        found = found.astype(like.dtype).astype(np.float64)  # what is returned is judged
        residual = y - system.apply(found[None])[0]
        largest = float(np.abs(system.apply_adjoint(residual[None])).max())
        dual = residual * min(1.0, weight / largest) if largest > 0 else residual
        objective = 0.5 * float(np.vdot(residual, residual)) + weight * float(np.abs(found).sum())
        gap = objective - float(np.vdot(dual, y)) + 0.5 * float(np.vdot(dual, dual))
        status = "optimal" if relative_gap(gap, objective) <= tolerance else "stalled"
        answers.append(Answer(found, gap, status, iterations, (), message, objective, dual))
    said = f"{lam:g}" if lam is not None else f"{ratio:g}·‖Φᵀy‖_∞"
    return proven(system, like, answers, f"½‖Φx − y‖² + λ‖x‖₁, λ = {said}", tolerance)


def _solved(problem: Any) -> tuple[str, int]:
    """Solve a cvxpy problem; return what is to be said about it, and the iterations."""
    import cvxpy as cp

    failures = []
    for name, settings in _SOLVERS:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an inaccurate answer is judged by its gap
                problem.solve(solver=name, **settings)
        except cp.SolverError as error:
            failures.append(f"{name} failed ({error})")
            continue
        if problem.status in ("optimal", "optimal_inaccurate"):
            if failures:
                failures.append(f"the answer is {name}'s")
            return "; ".join(failures), int(problem.solver_stats.num_iters or 0)
        failures.append(f"{name} says {problem.status}")
    raise InputError(f"no solver has an answer: {'; '.join(failures)}: rescale the measurements")
