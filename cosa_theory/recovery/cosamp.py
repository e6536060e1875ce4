"""Compressive sampling matching pursuit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.recovery.greedy import (
    LARGEST_FIT,
    SPARSE_FIT,
    Fit,
    Monitor,
    UnitColumns,
    check_iterations,
    checked_sparsity,
    fit_on_support,
    residual_goals,
    search_sparsity,
    solve_items,
    start_fit,
)
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.shrinkage import largest_entries
from cosa_theory.recovery.system import System

__all__ = ["cosamp"]

# The residual must fall by this share, or the iterations have come to their end.
_PROGRESS = 1e-3


def cosamp(
    system: System,
    Y: NDArray[Any],
    *,
    noise_level: float = 0.0,
    sparsity: int | None = None,
    tolerance: float | None = None,
    max_iterations: int = 100,
    start: NDArray[Any] | None = None,
    monitor: Monitor | None = None,
) -> Solution:
    """Exchange columns of Φ in sets: add the best 2s, refit, keep the best s, refit.

    An iteration [1]_ takes the 2s columns with the largest |φⱼᵀr|/‖φⱼ‖ beside the s that are in
    use, fits all by least squares, keeps the s with the largest |xⱼ|‖φⱼ‖ and fits those again;
    the second fit makes every iterate a least-squares solution on its support. It ends when ‖r‖ is
    at most σ (or tolerance·‖y‖, if that is larger), or falls no more.

    Where the columns taken together are dependent, as many in one row of ΔW of a core are (there
    are only b independent ones), half as many are added, and half again.

    Parameters
    ----------
    system : System
    Y : ndarray, shape (B, p, q)
        Solved one after the other.
    noise_level : float
        σ ≥ 0.
    sparsity : int, optional
        s. Without it s = 1, 2, 3, 4, 6, 9, … are tried, each from the answer of the one before,
        up to a third of the measurements (and 1,000), until one explains the measurements.
    tolerance : float, optional
        Of ‖r‖/‖y‖; by default 1e-8 in float64 and 1e-5 in float32.
    max_iterations : int
        For each sparsity.
    start : ndarray, shape (B, m, n), optional
        Coefficients to start from.
    monitor : callable, optional
        Called with the iteration, ‖r‖ and the coefficients (1, m, n).

    Returns
    -------
    Solution
        Certificate "residual". Status "fitted" if it holds, "stalled" where the residual fell no
        more, else "iteration limit".

    Raises
    ------
    ValueError
        A sparsity outside 1 … min(M, N), a tolerance outside (0, 1), no iterations.

    References
    ----------
    .. [1] D. Needell, J. A. Tropp, "CoSaMP: iterative signal recovery from incomplete and
       inaccurate samples", Applied and Computational Harmonic Analysis 26 (2009), 301-321,
       algorithm 2.1.
    """
    sparsity = checked_sparsity(system, sparsity)
    goals = residual_goals(Y, noise_level, tolerance)
    check_iterations(max_iterations)
    limit = max(1, min(system.measurements, system.size, LARGEST_FIT) // 3)

    def solve(item: int) -> Fit:
        exchange = _Exchange(system, Y[item : item + 1], float(goals.limits[item]), monitor)

        def attempt(count: int, before: Fit | None) -> Fit:
            first = before or start_fit(system, Y, start, item, count)
            return exchange.run(count, first, max_iterations)

        return search_sparsity(sparsity, limit, float(goals.limits[item]), attempt)

    return solve_items(system, goals, Y, solve, SPARSE_FIT)


class _Exchange:
    """The iterations for one right-hand side."""

    def __init__(
        self, system: System, Y: NDArray[Any], goal: float, monitor: Monitor | None
    ) -> None:
        self.system, self.Y, self.goal, self.monitor = system, Y, goal, monitor
        self.correlations = system.apply_adjoint(Y.astype(np.float64))
        self.unit = UnitColumns(system, Y)

    def run(self, count: int, first: Fit, max_iterations: int) -> Fit:
        """Return the fit with `count` nonzero entries that the iterations come to."""
        best, history = first, []
        status = "iteration limit"
        for number in range(1, max_iterations + 1):
            fit = self._step(count, best)
            if fit is None or fit.residual > (1 - _PROGRESS) * best.residual:
                status = "stalled"
                best = fit if fit is not None and fit.residual < best.residual else best
                break
            best = fit
            history.append((number, fit.residual))
            if self.monitor is not None:
                self.monitor(number, fit.residual, fit.coefficients)
            if fit.residual <= self.goal:
                break
        status = "fitted" if best.residual <= self.goal else status
        return replace(best, status=status, iterations=number, history=tuple(history))

    def _step(self, count: int, before: Fit) -> Fit | None:
        residual = self.Y - self.system.apply(before.coefficients)
        scores = self.unit.apply_adjoint(residual)
        used = np.flatnonzero(before.coefficients)
        room = min(self.system.measurements, self.system.size, LARGEST_FIT) - used.size
        added = min(2 * count, room)
        merged = None
        while merged is None and added > 0:
            support = np.union1d(used, largest_entries(scores, added)[0])
            merged = fit_on_support(self.system, self.correlations, support, np.float64)
            added //= 2
        if merged is None:
            return None
        kept = largest_entries(merged * self.unit.norms, count)[0]
        kept = kept[merged.ravel()[kept] != 0]
        X = fit_on_support(self.system, self.correlations, kept, self.Y.dtype)
        if X is None:
            return None
        return Fit(X, float(np.linalg.norm(self.Y - self.system.apply(X))), "", 0)
