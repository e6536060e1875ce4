"""The lasso by accelerated proximal gradient steps, stopped on a duality gap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from array_api_compat import array_namespace, is_numpy_array
from numpy.typing import NDArray

from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.accelerated import AcceleratedSteps, as_column
from cosa_theory.recovery.lasso_polish import (
    LARGEST_SUPPORT,
    LassoFinish,
    polish_cost,
    polish_lasso,
)
from cosa_theory.recovery.methods import Monitor, solver
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.system import Floats, System, like_array

__all__ = ["default_penalty", "fista"]

_TOLERANCE = {4: 1e-4, 8: 1e-8}  # of the gap over λ‖x‖₁, by bytes of an entry
_LAM_RATIO = {4: 1e-5, 8: 1e-6}  # of the noiseless default
_STAGE = 0.2  # factor of λ from one stage of the continuation to the next
_STAGE_GAP = 0.03  # relative gap at which a stage ends
_BETWEEN_POLISHES = 5  # iterations, and as many more as polishing costs
_POLISH_ROUNDS = 2  # that it is counted with
_RARER = 1.5  # factor of all that after an attempt in vain
_ROUNDING = 32  # units of rounding in a correlation, of the largest there was
_PATIENCE = 100  # iterations without a better gap, at the level of rounding


@solver(3, arrays="any", look=("vermilion", "-", "o"))
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
    polish: bool = True,
    monitor: Monitor | None = None,
) -> Solution:
    """Minimise ½‖Φx − y‖² + λ‖x‖₁ over the coefficients x.

    Fast iterative shrinkage-thresholding with local curvature and adaptive restart (see
    `AcceleratedSteps`), λ falling to its final value in stages [1]_, and the equations on the
    support solved directly once it is nearly known (see `polish_lasso`).

    Parameters
    ----------
    lam : float, optional
        The default for σ > 0, and only that depends on σ, is (σ/√M)·√(2 ln N)·φ, with M
        measurements, N unknowns and φ the root mean square norm of the columns of Φ: the level
        that correlations with white noise stay below, all N of them, with high probability
        [2]_, [3]_.
    lam_ratio : float, optional
        From 1 on zero is the solution. The default for σ = 0 is 1e-6 (1e-5 in single precision),
        which interpolates the measurements up to such a share.
    tolerance : float, optional
        Of the duality gap relative to λ‖x‖₁: 1e-8 by default, 1e-4 in single precision.
    max_iterations : int
        Steps, including those taken again because they were too long.
    start : array or tensor, shape (B, m, n), optional
        Such as the solution for another λ. It spares the stages that it has behind it.
    monitor : callable, optional
        The gap is that of the exact finish where that succeeds, the coefficients are those before
        it.

    Returns
    -------
    Solution
        Its certificate is the duality gap P(x) − D(θ) with D(θ) = ½‖y‖² − ½‖θ − y‖² at the dual
        point θ, ‖Φᵀθ‖_∞ ≤ λ: no x has an objective smaller by more. ``relative`` is the gap over
        λ‖x‖₁. Status "optimal" within the tolerance; "stalled" where rounding ends all progress
        before (single precision, or a tolerance beyond reach); else "iteration limit". History:
        "iteration", "objective", "gap", "certificate" (the gap over λ‖x‖₁) and "lam" (of the
        stage), of shape (checks,), or (checks, B) for several right-hand sides; gaps are those at
        the final λ.

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
    tolerance = _TOLERANCE[Y.dtype.itemsize] if tolerance is None else tolerance
    steps = AcceleratedSteps(system, Y, start)
    largest = steps.correlation if start is None else _largest_correlations(system, Y)
    penalties = _penalties(system, Y, noise_level, lam, lam_ratio, largest)
    descent = _Descent(steps, penalties, largest, tolerance, polish)
    if start is not None:
        descent.work[:] = np.inf  # its support may be the right one
    descent.solve(max_iterations, monitor)
    return descent.solution()


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
    if lam is None and lam_ratio is None and noise_level > 0:
        lam = default_penalty(system, noise_level)
    if lam is not None:
        return np.full(len(largest), float(lam))
    return largest * (lam_ratio or _LAM_RATIO[Y.dtype.itemsize])


def _largest_correlations(system: System, Y: Any) -> Floats:
    """Return ‖Φᵀy‖_∞ of each right-hand side."""
    correlations = to_host(system.apply_adjoint(Y)).reshape(Y.shape[0], -1)
    return np.maximum(correlations.max(axis=1), -correlations.min(axis=1)).astype(np.float64)


class _Descent:
    """One call of the solver: the items at work, and the answers of those that have left.

    Arrays over the whole batch are indexed by `at_work`, the numbers of the items in `steps`.
    """

    def __init__(
        self,
        steps: AcceleratedSteps,
        final: Floats,
        largest: Floats,
        tolerance: float,
        polish: bool,
    ) -> None:
        self.steps, self.final, self.tolerance, self.polish = steps, final, tolerance, polish
        self.system, self.Y, self.xp = steps.system, steps.Y, array_namespace(steps.Y)
        batch = len(final)
        self.at_work = np.arange(batch)
        self.iteration = 0
        # A start near the solution for some λ has correlations of about that size.
        self.lam = np.maximum(final, _STAGE * np.minimum(largest, steps.correlation))
        self.unit = float(np.finfo(np.float64 if self.Y.dtype.itemsize == 8 else np.float32).eps)
        rounding = _ROUNDING * self.unit * largest
        self.floor = np.divide(rounding, final, out=np.zeros(batch), where=final > 0)
        self.best, self.best_at = np.full(batch, np.inf), np.zeros(batch, np.int64)
        self.work, self.attempts = np.zeros(batch), np.zeros(batch)
        self.objective, self.gap, self.relative, self.stage_gap = np.zeros((4, batch))
        self.iterations = np.zeros(batch, np.int64)
        self.status = ["iteration limit"] * batch
        self.coefficients: Any = None
        self.dual: Any = None
        names = ("iteration", "objective", "gap", "certificate", "lam")
        self.history: dict[str, list[Any]] = {name: [] for name in names}

    def solve(self, max_iterations: int, monitor: Monitor | None) -> None:
        """Iterate until every right-hand side has left."""
        (p, q), (m, n) = self.system.measurement_shape, self.system.coefficient_shape
        cost = 2.0 * p * n * (m + q)
        moved = True
        while True:
            spent = self.iteration >= max_iterations
            if moved or spent:
                self._judge()
                self._settle(spent, cost, monitor)
                if self.at_work.size == 0:
                    return
                self._next_stage()
            moved = bool(self.steps.step(self.lam[self.at_work]).any())
            self.iteration += 1
            self.work[self.at_work] += cost

    def _judge(self) -> None:
        """Compute objectives and gaps at the final λ, and relative gaps at that of the stage.

        With r = y − Φx and θ = c(y − Φz), feasible by the choice of c, the gap P(x) − D(θ) is
        ½‖θ − r‖² + λ‖x‖₁ − ⟨Φx, θ⟩: no small difference of large numbers, even where no x has a
        small residual.
        """
        xp, steps, work = self.xp, self.steps, self.at_work
        flat = (xp.reshape(R, (work.size, -1)) for R in (steps.residual, steps.ahead, steps.Y))
        r, ahead, y = (xp.astype(R, xp.float64, copy=False) for R in flat)
        image = y + r
        rr, cross, aa, along = (
            _dots(xp, *pair) for pair in ((r, r), (r, ahead), (ahead, ahead), (image, ahead))
        )
        for lam, staged in ((self.lam[work], True), (self.final[work], False)):
            c, penalty = self._dual_scale(lam), lam * steps.norm1
            objective = 0.5 * rr + penalty
            if staged:  # the tolerance is coarse, so the square may be expanded
                apart = rr - 2 * c * cross + c**2 * aa
            else:
                away = r - ahead * as_column(c, ahead)
                apart = _dots(xp, away, away)
            gap = np.maximum(0.5 * apart + penalty + c * along, 0.0)
            unit = np.maximum(penalty, self.unit * objective)
            relative = np.divide(gap, unit, out=np.zeros_like(gap), where=unit > 0)
            if staged:
                self.stage_gap[work] = relative
        self.objective[work], self.gap[work], self.relative[work] = objective, gap, relative

    def _dual_scale(self, lam: Floats) -> Floats:
        """Return c ≤ 1 such that c(y − Φz) is feasible for the items at work."""
        largest = self.steps.correlation * (1 + 4 * self.unit)
        return np.divide(lam, largest, out=np.ones_like(lam), where=largest > lam)

    def _settle(self, spent: bool, cost: float, monitor: Monitor | None) -> None:
        """Polish what is worth it, write the history, and let the items go that are done."""
        work = self.at_work
        self.iterations[work] = self.iteration
        better = self.relative < 0.99 * self.best
        self.best[better], self.best_at[better] = self.relative[better], self.iteration
        tired = (self.lam <= self.final) & (self.relative <= self.floor)
        tired &= self.iteration - self.best_at >= _PATIENCE
        polished = {}
        for place, item in enumerate(work):
            if self.polish and self.relative[item] > self.tolerance:
                found = self._polish(place, cost, last=spent or bool(tired[item]))
                if found is not None:
                    polished[place] = found
                    self.objective[item] = found.objective
                    self.gap[item], self.relative[item] = found.gap, found.relative
        values = (self.objective, self.gap, self.relative, self.lam)
        self.history["iteration"].append(self.iteration)
        for entries, value in zip(list(self.history.values())[1:], values, strict=True):
            entries.append(value.copy())
        if monitor is not None:
            monitor(self.iteration, float(self.relative[work].max()), self.steps.X)
        optimal = self.relative <= self.tolerance
        for item in work:
            if optimal[item]:
                self.status[item] = "optimal"
            elif tired[item]:
                self.status[item] = "stalled"
        gone = (optimal | tired | spent)[work]
        if gone.any():
            self._leave(gone, polished)

    def _next_stage(self) -> None:
        """Lower λ of the items that are close enough to the solution of their stage.

        Their momentum goes on: where it is wrong, it starts anew by itself.
        """
        lam, final = self.lam[self.at_work], self.final[self.at_work]
        ready = (self.stage_gap[self.at_work] <= _STAGE_GAP) & (lam > final)
        self.lam[self.at_work[ready]] = np.maximum(_STAGE * lam, final)[ready]

    def _polish(self, place: int, cost: float, last: bool) -> LassoFinish | None:
        """Try to solve the equations on the support, if the iterations have cost as much."""
        item = self.at_work[place]
        budget = self.work[item] / _RARER ** self.attempts[item] - _BETWEEN_POLISHES * cost
        if last:  # there is no next time to wait for
            budget = max(budget, _POLISH_ROUNDS * self.iteration * cost)
        if budget < 0:
            return None
        X = self.steps.X[place : place + 1]
        size = int(np.count_nonzero(to_host(X)))
        if not 0 < size <= min(LARGEST_SUPPORT, self.system.measurements):
            return None
        if budget < _POLISH_ROUNDS * polish_cost(self.system, size):
            return None
        self.work[item] = 0.0
        self.attempts[item] += 1
        y, lam = self.steps.Y[place : place + 1], float(self.final[item])
        return polish_lasso(self.system, y, X, lam, tolerance=self.tolerance)

    def _leave(self, gone: NDArray[np.bool_], polished: dict[int, LassoFinish]) -> None:
        """Keep the answers of items that are done, and go on with the others."""
        steps = self.steps
        if self.coefficients is None:
            own = len(self.final) == 1 and self.iteration > 0  # else it may be the caller's start
            self.coefficients = steps.X if own else self.xp.empty_like(steps.X)
            self.dual = self.xp.empty_like(self.Y)
        scale = self._dual_scale(self.final[self.at_work])
        for place in np.flatnonzero(gone).tolist():
            item = int(self.at_work[place])
            if place in polished:
                found = polished[place]
                flat = self.xp.reshape(self.coefficients[item], (-1,))
                flat[...] = 0
                where = self.xp.asarray(found.support, device=flat.device)
                flat[where] = like_array(found.values, self.Y)
                self.dual[item] = like_array(found.dual, self.Y)
            else:
                self.coefficients[item] = steps.X[place]
                self.dual[item] = steps.ahead[place] * -float(scale[place])
        self.at_work = self.at_work[~gone]
        if self.at_work.size:
            steps.keep(~gone)

    def solution(self) -> Solution:
        """Return the answers."""
        low, high = self.final.min(), self.final.max()
        values = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
        history = {name: np.array(entries) for name, entries in self.history.items()}
        if len(self.final) == 1:
            history = {name: entries.reshape(-1) for name, entries in history.items()}
        certificate = Certificate(
            "duality gap", self.gap, self.relative, self.tolerance, dual=self.dual
        )
        return Solution(
            coefficients=self.coefficients,
            objective=self.objective,
            formula=f"½‖Φx − y‖² + λ‖x‖₁, λ = {values}",
            certificate=certificate,
            status=tuple(self.status),
            iterations=self.iterations,
            history=history,
            message=self._message(),
        )

    def _message(self) -> str:
        """Return what to do about answers that are not optimal."""
        worst = f"a gap of {self.relative.max():.2g} λ‖x‖₁"
        if "iteration limit" in self.status:
            return f"the iterations ended at {worst}: allow more of them, or take a larger λ"
        if "stalled" in self.status:
            return f"rounding ended all progress at {worst}: use float64, or take a larger λ"
        return ""


def _dots(xp: Any, a: Any, b: Any) -> Floats:
    """Return the inner products of the items of two arrays (items, entries)."""
    products = xp.vecdot(a, b)
    return products if is_numpy_array(products) else products.cpu().numpy()
