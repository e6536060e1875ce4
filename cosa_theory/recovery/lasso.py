"""The lasso by accelerated proximal gradient steps, stopped on a duality gap."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from cosa_theory.operators import to_host
from cosa_theory.recovery.accelerated import AcceleratedSteps, as_column
from cosa_theory.recovery.polish import LARGEST_SUPPORT, polish_cost, polish_lasso
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.system import System, like_array

__all__ = ["default_penalty", "fista"]

_TOLERANCE = {4: 1e-4, 8: 1e-8}  # of the relative gap, by bytes of an entry
_LAM_RATIO = {4: 1e-5, 8: 1e-6}  # of the noiseless default
_STAGE = 0.2  # factor of λ from one stage of the continuation to the next
_STAGE_GAP = 0.1  # relative gap at which a stage ends
_BETWEEN_POLISHES = 5  # iterations, and as many more as a polish costs
_ROUNDING = 32  # units of rounding in a correlation, of the largest there was
_PATIENCE = 50  # iterations without a better gap, at the level of rounding

Floats = NDArray[np.float64]
Monitor = Callable[[int, float, Any], None]


def fista(
    system: System,
    Y: Any,
    *,
    noise_level: float = 0.0,
    lam: float | None = None,
    lam_ratio: float | None = None,
    tolerance: float | None = None,
    max_iterations: int = 5000,
    start: Any = None,
    monitor: Monitor | None = None,
) -> Solution:
    """Minimise ½‖Φx − y‖² + λ‖x‖₁ over the coefficients x.

    Fast iterative shrinkage-thresholding with local curvature and adaptive restart (see
    `AcceleratedSteps`), λ falling to its final value in stages [1]_, and the equations on the
    support solved directly once it is nearly known (see `polish_lasso`).

    Parameters
    ----------
    system : System
    Y : array or tensor, shape (B, p, q)
        Right-hand sides; those that are done leave the batch.
    noise_level : float
        σ, a bound on ‖noise‖_F. Only the default of λ depends on it.
    lam : float, optional
        λ > 0. The default for σ > 0 is (σ/√M)·√(2 ln N)·φ, with M measurements, N unknowns and φ
        the root mean square norm of the columns of Φ: the level that correlations with white
        noise stay below, all N of them, with high probability [2]_, [3]_.
    lam_ratio : float, optional
        λ as a share of ‖Φᵀy‖_∞, from which on zero is the solution. The default for σ = 0 is 1e-6
        (1e-5 in single precision), which interpolates the measurements up to such a share.
    tolerance : float, optional
        Of the duality gap relative to λ‖x‖₁: 1e-8 by default, 1e-4 in single precision.
    max_iterations : int
        Steps, including those taken again because they were too long.
    start : array or tensor, shape (B, m, n), optional
        A guess of the solution, such as that for another λ. It spares the stages that it has
        behind it.
    monitor : callable, optional
        Called at every check with the iteration, the largest gap and the coefficients of the right
        hand sides still at work.

    Returns
    -------
    Solution
        Its certificate is the duality gap P(x) − D(θ) with D(θ) = ½‖y‖² − ½‖θ − y‖² at the dual
        point θ, ‖Φᵀθ‖_∞ ≤ λ: no x has an objective smaller by more. ``relative`` is the gap over
        λ‖x‖₁. Status "optimal" within the tolerance; "stalled" where rounding ends all progress
        before (single precision, or a tolerance beyond reach); else "iteration limit". History:
        "iteration", "objective", "certificate" (the gap) and "lam" (of the stage), of shape
        (checks,), or (checks, B) for several right-hand sides; gaps are those at the final λ.

    Raises
    ------
    ValueError
        If λ, its ratio or the tolerance is not positive, λ and its ratio are both given, or the
        limit of iterations is below 1.

    References
    ----------
    .. [1] E. T. Hale, W. Yin, Y. Zhang, "Fixed-point continuation for ℓ1-minimization", SIAM J.
       Optimization 19 (2008), 1107-1130.
    .. [2] D. L. Donoho, I. M. Johnstone, "Ideal spatial adaptation by wavelet shrinkage",
       Biometrika 81 (1994), 425-455: the universal threshold.
    .. [3] P. J. Bickel, Y. Ritov, A. B. Tsybakov, "Simultaneous analysis of lasso and Dantzig
       selector", Annals of Statistics 37 (2009), 1705-1732: λ = Aσ√(ln N) with A > √2 there, for
       columns of norm one and noise of standard deviation σ in each measurement.
    """
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}: allow at least one")
    if tolerance is None:
        tolerance = _TOLERANCE[Y.dtype.itemsize]
    elif not tolerance > 0:
        raise ValueError(f"tolerance is {tolerance}: it must be positive")
    steps = AcceleratedSteps(system, Y, start)
    largest = _largest_correlations(system, Y) if start is not None else steps.correlation
    penalties = _penalties(system, Y, noise_level, lam, lam_ratio, largest)
    run = _Run(system, Y, steps, penalties, largest, tolerance, max_iterations, start is not None)
    run.solve(monitor)
    return run.solution()


def default_penalty(system: System, noise_level: float) -> float:
    """Return (σ/√M)·√(2 ln N)·φ, the default λ for noise of norm at most σ (see `fista`)."""
    squared = math.prod(float(np.vdot(M, M)) for M in system.factors)
    column = math.sqrt(squared / system.size)
    universal = math.sqrt(2 * math.log(max(system.size, 2)))
    return noise_level / math.sqrt(system.measurements) * universal * column


def _penalties(
    system: System,
    Y: Any,
    noise_level: float,
    lam: float | None,
    lam_ratio: float | None,
    largest: Floats,
) -> Floats:
    """Return λ of each right-hand side."""
    if lam is not None and lam_ratio is not None:
        raise ValueError("lam and lam_ratio are both given: choose one")
    for name, value in (("lam", lam), ("lam_ratio", lam_ratio)):
        if value is not None and not (value > 0 and math.isfinite(value)):
            raise ValueError(f"{name} is {value}: it must be positive and finite")
    if lam is None and lam_ratio is None and noise_level > 0:
        lam = default_penalty(system, noise_level)
    if lam is not None:
        return np.full(len(largest), float(lam))
    return largest * (lam_ratio or _LAM_RATIO[Y.dtype.itemsize])


def _largest_correlations(system: System, Y: Any) -> Floats:
    """Return ‖Φᵀy‖_∞ of each right-hand side."""
    correlations = to_host(system.apply_adjoint(Y)).reshape(Y.shape[0], -1)
    return np.maximum(correlations.max(axis=1), -correlations.min(axis=1)).astype(np.float64)


@dataclass(frozen=True)
class _Judged:
    """Objectives and gaps at a point, one of each right-hand side."""

    objective: Floats
    gap: Floats
    relative: Floats


class _Run:
    """One call of the solver: the batch at work, and the answers of those that have left it."""

    def __init__(
        self,
        system: System,
        Y: Any,
        steps: AcceleratedSteps,
        penalties: Floats,
        largest: Floats,
        tolerance: float,
        max_iterations: int,
        warm: bool,
    ) -> None:
        self.system, self.Y, self.steps = system, Y, steps
        self.tolerance, self.max_iterations = tolerance, max_iterations
        self.final = penalties
        batch = len(penalties)
        self.at_work = np.arange(batch)
        self.lam = np.maximum(self.final, _STAGE * np.minimum(largest, steps.correlation))
        unit = float(np.finfo(to_host(Y[:0]).dtype).eps)
        self.unit = unit
        with np.errstate(divide="ignore", invalid="ignore"):
            self.floor = np.nan_to_num(_ROUNDING * unit * largest / self.final, nan=0.0)
        self.best, self.best_at = np.full(batch, np.inf), np.zeros(batch, np.int64)
        self.iteration = 0
        p, q = system.measurement_shape
        m, n = system.coefficient_shape
        self.iteration_cost = 2.0 * (p * m * n + p * q * n)
        self.work = np.full(batch, np.inf if warm else 0.0)
        self.answers: dict[str, Any] = {}
        self.objective, self.gap, self.relative = np.zeros((3, batch))
        self.iterations = np.zeros(batch, np.int64)
        self.status = ["iteration limit"] * batch
        self.coefficients: Any = None
        self.dual: Any = None
        self.history: dict[str, list[Any]] = {
            name: [] for name in ("iteration", "objective", "certificate", "lam")
        }

    def solve(self, monitor: Monitor | None) -> None:
        """Iterate until every right-hand side has left."""
        moved = True
        while self.at_work.size:
            if moved:
                self._check(monitor)
                if not self.at_work.size:
                    return
                self._continue()
            moved = bool(self.steps.step(self.lam[self.at_work]).any())
            self.iteration += 1
            self.work[self.at_work] += self.iteration_cost

    def _judge(self, lam: Floats) -> _Judged:
        """Return objective and gap for penalties of the items at work.

        With θ = c(y − Φz), the gap is ½‖θ − r‖² + λ‖x‖₁ − ⟨Φx, θ⟩ for r = y − Φx: no difference of
        large numbers even where the least residual is large.
        """
        steps, scale = self.steps, self._dual_scale(lam)
        r, ahead, y = (_double(R) for R in (steps.residual, steps.ahead, steps.Y))
        theta = ahead * as_column(-scale, ahead)
        away = theta + r
        penalty = lam * steps.norm1
        gap = 0.5 * _dots(away, away) + penalty - _dots(y + r, theta)
        objective = 0.5 * _dots(r, r) + penalty
        gap = np.maximum(gap, 0.0)
        smallest = np.maximum(penalty, self.unit * objective)
        relative = np.divide(gap, smallest, out=np.zeros_like(gap), where=smallest > 0)
        return _Judged(objective, gap, relative)

    def _dual_scale(self, lam: Floats) -> Floats:
        """Return c ≤ 1 such that c(y − Φz) is feasible."""
        largest = self.steps.correlation * (1 + 4 * self.unit)
        return np.divide(lam, largest, out=np.ones_like(lam), where=largest > lam)

    def _check(self, monitor: Monitor | None) -> None:
        """Judge the points at the final λ; let those go that are done."""
        work = self.at_work
        judged = self._judge(self.final[work])
        self.objective[work], self.gap[work] = judged.objective, judged.gap
        self.relative[work] = judged.relative
        self.iterations[work] = self.iteration
        better = judged.relative < 0.99 * self.best[work]
        self.best[work] = np.where(better, judged.relative, self.best[work])
        self.best_at[work] = np.where(better, self.iteration, self.best_at[work])
        optimal = judged.relative <= self.tolerance
        tired = (self.lam[work] <= self.final[work]) & (
            judged.relative <= np.maximum(self.floor[work], 0.0)
        )
        tired &= self.iteration - self.best_at[work] >= _PATIENCE
        spent = self.iteration >= self.max_iterations
        polished = np.zeros(len(work), bool)
        for place in np.flatnonzero(~optimal):
            polished[place] = self._polish(place, bool(tired[place]) or spent)
        self._record()
        if monitor is not None:
            monitor(self.iteration, float(self.gap[work].max()), self.steps.X)
        for place, item in enumerate(work):
            if optimal[place] or polished[place]:
                self.status[item] = "optimal"
            elif tired[place]:
                self.status[item] = "stalled"
        gone = optimal | polished | tired | spent
        if gone.any():
            self._leave(gone, polished)

    def _continue(self) -> None:
        """Lower λ of the items that are close enough to the solution of their stage."""
        lam, final = self.lam[self.at_work], self.final[self.at_work]
        if (lam <= final).all():
            return
        ready = (self._judge(lam).relative <= _STAGE_GAP) & (lam > final)
        if ready.any():
            self.lam[self.at_work[ready]] = np.maximum(_STAGE * lam, final)[ready]
            self.steps.restart(ready)

    def _polish(self, place: int, last: bool) -> bool:
        """Try to solve the equations on the support; return whether that is the answer."""
        item = self.at_work[place]
        X = self.steps.X[place : place + 1]
        enough = _BETWEEN_POLISHES * self.iteration_cost
        if not last and self.work[item] < enough:
            return False
        size = int(np.count_nonzero(to_host(X)))
        if not 0 < size <= min(LARGEST_SUPPORT, self.system.measurements):
            return False
        if not last and self.work[item] < enough + polish_cost(self.system, size):
            return False
        self.work[item] = 0.0
        y = self.steps.Y[place : place + 1]
        lam = float(self.final[item])
        found = polish_lasso(self.system, y, X, lam, tolerance=self.tolerance)
        if found is None:
            return False
        solution = np.zeros(self.system.size, dtype=to_host(X[:0]).dtype)
        solution[found.support] = found.values
        self.answers[int(item)] = (solution, found.dual)
        self.objective[item], self.gap[item] = found.objective, found.gap
        self.relative[item] = found.relative
        return True

    def _record(self) -> None:
        for name, values in (
            ("iteration", self.iteration),
            ("objective", self.objective.copy()),
            ("certificate", self.gap.copy()),
            ("lam", self.lam.copy()),
        ):
            self.history[name].append(values)

    def _leave(self, gone: NDArray[np.bool_], polished: NDArray[np.bool_]) -> None:
        """Keep the answers of items that are done, and go on with the others."""
        xp = array_namespace(self.Y)
        steps, single = self.steps, len(self.final) == 1
        dual = -self._dual_scale(self.final[self.at_work])[:, None, None]
        if self.coefficients is None:
            own = single and self.iteration > 0  # else it may be the caller's
            self.coefficients = steps.X if own else xp.empty_like(steps.X)
            self.dual = xp.empty_like(self.Y)
        for place in np.flatnonzero(gone):
            item = int(self.at_work[place])
            if polished[place]:
                solution, theta = self.answers.pop(item)
                self.coefficients[item] = like_array(
                    solution.reshape(self.system.coefficient_shape), self.Y
                )
                self.dual[item] = like_array(theta, self.Y)
            else:
                self.coefficients[item] = steps.X[place]
                self.dual[item] = steps.ahead[place] * float(dual[place, 0, 0])
        self.at_work = self.at_work[~gone]
        if self.at_work.size:
            steps.keep(~gone)

    def solution(self) -> Solution:
        """Return the answers."""
        low, high = self.final.min(), self.final.max()
        values = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
        history = {name: np.array(values) for name, values in self.history.items()}
        if len(self.final) == 1:
            history = {name: values.reshape(-1) for name, values in history.items()}
        return Solution(
            coefficients=self.coefficients,
            objective=self.objective,
            formula=f"½‖Φx − y‖² + λ‖x‖₁, λ = {values}",
            certificate=Certificate(
                "duality gap", self.gap, self.relative, self.tolerance, self.dual
            ),
            status=tuple(self.status),
            iterations=self.iterations,
            history=history,
        )


def _double(R: Any) -> Any:
    """Return (B, p, q) as (B, pq) in float64."""
    xp = array_namespace(R)
    return xp.astype(xp.reshape(R, (R.shape[0], -1)), xp.float64, copy=False)


def _dots(a: Any, b: Any) -> Floats:
    return to_host(array_namespace(a).vecdot(a, b)).copy()
