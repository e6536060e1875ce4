"""Hard thresholding pursuit."""

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
from cosa_theory.recovery.iht import best_step
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.shrinkage import largest_entries
from cosa_theory.recovery.system import System

__all__ = ["htp"]


def htp(
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
    """Choose the support by a gradient step, then fit on it by least squares.

    S ← the s largest entries of x + μ Φᵀ(y − Φx), x ← argmin ‖y − Φz‖ over z supported on S [1]_,
    in coordinates in which the columns of Φ have unit norm, and with the best step on the support
    before, μ = ‖g_S‖²/‖Φ g_S‖² for the gradient g. It ends when ‖r‖ is at most σ (or
    tolerance·‖y‖, if that is larger), or when a support comes back: from then on the iterations
    repeat themselves, at a fixed point or in a cycle. The best iterate is returned.

    Parameters
    ----------
    system : System
    Y : ndarray, shape (B, p, q)
        Solved one after the other.
    noise_level : float
        σ ≥ 0.
    sparsity : int, optional
        s. Without it s = 1, 2, 3, 4, 6, 9, … are tried, each from the answer of the one before,
        up to half of the measurements (and 3,000), until one explains the measurements.
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
        Certificate "residual". Status "fitted" if it holds, "stalled" where a support came back
        or its columns are dependent, else "iteration limit".

    Raises
    ------
    ValueError
        A sparsity outside 1 … min(M, N), a tolerance outside (0, 1), no iterations.

    References
    ----------
    .. [1] S. Foucart, "Hard thresholding pursuit: an algorithm for compressive sensing", SIAM J.
       Numerical Analysis 49 (2011), 2543-2563; the step is that
       of its normalised form.
    """
    sparsity = checked_sparsity(system, sparsity)
    goals = residual_goals(Y, noise_level, tolerance)
    check_iterations(max_iterations)
    limit = max(1, min(system.measurements // 2, system.size, LARGEST_FIT))
    unit = UnitColumns(system, Y)

    def solve(item: int) -> Fit:
        goal, one = float(goals.limits[item]), Y[item : item + 1]
        correlations = system.apply_adjoint(one.astype(np.float64))

        def attempt(count: int, before: Fit | None) -> Fit:
            first = before or start_fit(system, Y, start, item, count)
            return _pursue(unit, one, correlations, goal, count, first, max_iterations, monitor)

        return search_sparsity(sparsity, limit, goal, attempt)

    return solve_items(system, goals, Y, solve, SPARSE_FIT)


def _pursue(
    unit: UnitColumns,
    Y: NDArray[Any],
    correlations: NDArray[np.float64],
    goal: float,
    count: int,
    first: Fit,
    max_iterations: int,
    monitor: Monitor | None,
) -> Fit:
    """Iterate on one right-hand side (1, p, q) with `count` nonzero entries."""
    best, X, history = first, first.coefficients, []
    seen: set[bytes] = set()
    status = "iteration limit"
    for number in range(1, max_iterations + 1):
        U = X * unit.norms
        R = Y - unit.apply(U)
        G, step = best_step(unit, R, unit.first_support(U, R, count))
        support = largest_entries(U + step * G, count)[0]
        again = support.tobytes()
        fitted = fit_on_support(unit.system, correlations, support, Y.dtype)
        if again in seen or fitted is None:
            status = "stalled"
            break
        seen.add(again)
        X = fitted
        residual = float(np.linalg.norm(Y - unit.system.apply(X)))
        history.append((number, residual))
        if residual < best.residual:
            best = Fit(X, residual, "", 0)
        if monitor is not None:
            monitor(number, residual, X)
        if residual <= goal:
            status = "fitted"
            break
    return replace(best, status=status, iterations=number, history=tuple(history))
