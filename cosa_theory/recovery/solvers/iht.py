"""Normalised iterative hard thresholding, for a batch of right-hand sides at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.greedy import (
    SPARSE_FIT,
    Goals,
    RightSide,
    UnitColumns,
    energy_ratio,
    fit_on_support,
    sparsities,
    sparsity_message,
)
from cosa_theory.recovery.items import residual_history
from cosa_theory.recovery.methods import Monitor, solver
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.shrinkage import hard_threshold
from cosa_theory.recovery.system import Floats, Indices, System, like_array

__all__ = ["iht", "normalised_step"]

# A step that changes the support is safe if it is at most (1 − c)‖Δx‖²/‖ΦΔx‖², and is divided by
# κ(1 − c) until it is: c and κ of the step rule.
_MARGIN, _SHRINK = 0.01, 2.0
# Every so many iterations the entries are refitted on their support, and progress is judged.
_CHECK = 5
_PROGRESS = 1e-2


@solver(11, arrays="any", look=("purple", "-", "P"))
def iht(
    system: System,
    Y: Any,
    *,
    noise_level: float = 0.0,
    sparsity: int | None = None,
    tolerance: float | None = None,
    max_iterations: int = 500,
    start: Any = None,
    monitor: Monitor | None = None,
) -> Solution:
    """Step along the gradient, keep the s largest entries: x ← H_s(x + μ Φᵀ(y − Φx)).

    The columns of Φ are taken at unit norm, which no scale of the factors then matters for, and
    the step is the best one on the current support S, μ = ‖g_S‖²/‖Φ g_S‖² with g the gradient;
    where the support would change, μ is halved until μ ≤ 0.99 ‖Δx‖²/‖ΦΔx‖² [1]_, so that the
    residual never grows. Every 5 iterations the entries are refitted by least squares on their
    support, which is where the iterations go as long as the support stays. They end when ‖r‖ is
    at most σ (or tolerance·‖y‖, if that is larger), or has fallen by less than one part in a
    hundred between two refits.

    All right-hand sides are solved together, each with its own sparsity: without one, those up to
    half of the measurements are tried, from the latest iterate cut to the sparsity.

    Returns
    -------
    Solution
        Certificate "residual". Status "fitted" if it holds, "stalled" where the residual fell no
        more, else "iteration limit".

    References
    ----------
    .. [1] T. Blumensath, M. E. Davies, "Normalized iterative hard thresholding: guaranteed
       stability and performance", IEEE J. Selected Topics in Signal Processing 4 (2010), 298-309,
       equations 13 to 15.
    """
    attempts = _Attempts(system, Y, Goals.of(Y, noise_level, tolerance), start, monitor)
    limit = max(1, min(system.measurements // 2, system.size))
    for count in [sparsity] if sparsity else sparsities(limit):
        attempts.attempt(count, max_iterations)
        if not attempts.open:
            break
    said = sparsity_message(attempts.sparsity, attempts.open, limit)
    return attempts.solution("" if sparsity else said)


class _Attempts:
    """The best answer of each right-hand side so far, and the attempts to better it.

    Everything is in the coordinates of unit columns.
    """

    def __init__(
        self, system: System, Y: Any, goals: Goals, start: Any, monitor: Monitor | None
    ) -> None:
        self.unit = UnitColumns(system, Y)
        self.Y, self.goals, self.monitor = Y, goals, monitor
        self.correlations = to_host(system.apply_adjoint(Y))
        zeros = self.unit.norms * array_namespace(Y).zeros_like(Y[:, :1, :1])
        self.latest = zeros if start is None else start * self.unit.norms
        self.best = zeros + 0
        self.residuals = np.full(len(Y), np.inf)
        self.status = ["iteration limit"] * len(Y)
        self.sparsity = np.zeros(len(Y), np.int64)
        self.iterations = np.zeros(len(Y), np.int64)
        self.history: list[tuple[int, int, float]] = []

    @property
    def open(self) -> list[int]:
        """The right-hand sides that are not explained."""
        return np.flatnonzero(self.residuals > self.goals.limits).tolist()

    def attempt(self, count: int, max_iterations: int) -> None:
        """Iterate with `count` nonzero entries on every right-hand side that is not explained."""
        items = np.array(self.open)
        U = hard_threshold(self.latest[items.tolist()], count)
        R = self.Y[items.tolist()] - self.unit.apply(U)
        support = self.unit.first_support(U, R, count)
        checked = _norms(R)
        for number in range(1, max_iterations + 1):
            U, R = normalised_step(self.unit, U, R, support, count)
            norms = _norms(R)
            if (norms <= self.goals.limits[items]).any():  # R is carried along, so look again
                R = self.Y[items.tolist()] - self.unit.apply(U)
                norms = _norms(R)
            stuck = np.zeros(len(items), bool)
            if number % _CHECK == 0:
                U, R = self._refitted(items, U)
                norms = _norms(R)
                stuck = norms > (1 - _PROGRESS) * checked
                checked = norms
            self._report(items, U, norms, number)
            fitted = norms <= self.goals.limits[items]
            ended = fitted | stuck | (number == max_iterations)
            status = np.where(fitted, "fitted", np.where(stuck, "stalled", "iteration limit"))
            self._keep(items, U, norms, status, ended, count)
            self.iterations[items] += 1
            if ended.all():
                return
            if ended.any():
                left = np.flatnonzero(~ended).tolist()
                items, checked, U, R = items[left], checked[left], U[left], R[left]
            support = U != 0

    def _refitted(self, items: Indices, U: Any) -> tuple[Any, Any]:
        """Return the least-squares fits on the supports, and their residuals."""
        system, U = self.unit.system, U + 0
        for place, item in enumerate(items):
            support = np.flatnonzero(to_host(U[place]))
            X = fit_on_support(system, self.correlations[item], support, np.float64)
            if X is not None:
                U[place] = like_array(X, self.Y)[0] * self.unit.norms
        return U, self.Y[items.tolist()] - self.unit.apply(U)

    def _report(self, items: Indices, U: Any, norms: Any, number: int) -> None:
        done = self.iterations[items] + 1
        self.history += zip(items.tolist(), done.tolist(), norms.tolist(), strict=True)
        if self.monitor is not None:
            self.monitor(number, float(norms.max()), U * self.unit.inverse)

    def _keep(
        self,
        items: Indices,
        U: Any,
        norms: Floats,
        status: NDArray[np.str_],
        ended: NDArray[np.bool_],
        count: int,
    ) -> None:
        for place in np.flatnonzero(ended).tolist():
            item = items[place]
            self.latest[item] = U[place]
            if norms[place] < self.residuals[item]:
                self.best[item] = U[place]
                self.residuals[item] = norms[place]
                self.sparsity[item] = count
                self.status[item] = str(status[place])

    def _cleaned(self, X: Any) -> Any:
        """Return answers that explain the measurements without entries that are only rounding."""
        for item in np.flatnonzero(self.residuals <= self.goals.limits).tolist():
            one, Y = (to_host(stack[item : item + 1]) for stack in (X, self.Y))
            bounds = float(self.goals.norms[item]), float(self.goals.limits[item])
            right = RightSide(self.unit.system, item, Y, *bounds)
            X[item] = like_array(right.without_rounding(one), X)[0]
        return X

    def solution(self, message: str) -> Solution:
        """Return the best answers, with the residuals recomputed from the operator."""
        X = self.best * self.unit.inverse
        if self.goals.noise_level == 0:
            X = self._cleaned(X)
        residuals = _norms(self.Y - self.unit.system.apply(X))
        return Solution(
            coefficients=X,
            objective=0.5 * residuals**2,
            formula=SPARSE_FIT,
            certificate=self.goals.certificate(residuals),
            status=tuple(self.status),
            iterations=self.iterations,
            history=residual_history(self.history),
            message=message,
        )


def _norms(stack: Any) -> Floats:
    xp = array_namespace(stack)
    numbers = xp.astype(stack, xp.float64)
    return np.asarray(to_host(xp.sqrt(xp.sum(numbers * numbers, axis=(1, 2)))))


def normalised_step(unit: UnitColumns, U: Any, R: Any, support: Any, count: int) -> tuple[Any, Any]:
    """Return the next iterate and its residual.

    U are iterates (B, m, n) with at most `count` nonzero entries, in the coordinates of unit
    columns, and R their residuals y − ΦU; on `support` the step is the best one.
    """
    xp = array_namespace(U)
    G, step = unit.best_step(R, support)
    while True:
        V = hard_threshold(U + step * G, count)
        D = V - U
        image = unit.apply(D)
        changed = xp.any(xp.reshape((V != 0) != support, (len(U), -1)), axis=1)
        long = xp.reshape(changed, (-1, 1, 1)) & (step > (1 - _MARGIN) * energy_ratio(D, image))
        if not bool(xp.any(long)):
            return V, R - image
        step = xp.where(long, step / (_SHRINK * (1 - _MARGIN)), step)
