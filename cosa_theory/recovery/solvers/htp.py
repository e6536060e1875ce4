"""Hard thresholding pursuit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from cosa_theory.recovery.greedy import LARGEST_FIT, RightSide, UnitColumns, solve_sparse
from cosa_theory.recovery.items import Answer
from cosa_theory.recovery.methods import Monitor, solver
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.shrinkage import largest_entries
from cosa_theory.recovery.system import System

__all__ = ["htp"]


@solver(12, look=("black", ":", "X"))
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

    Without a sparsity, those up to half of the measurements (and 3,000) are tried.

    Returns
    -------
    Solution
        Certificate "residual". Status "fitted" if it holds, "stalled" where a support came back
        or its columns are dependent, else "iteration limit".

    References
    ----------
    .. [1] S. Foucart, "Hard thresholding pursuit: an algorithm for compressive sensing", SIAM J.
       Numerical Analysis 49 (2011), 2543-2563; the step is that of its normalised form.
    """
    unit = UnitColumns(system, Y)
    limit = min(system.measurements // 2, system.size, LARGEST_FIT)

    def attempt(right: RightSide, count: int, first: Answer) -> Answer:
        best, X, history = first, first.coefficients, []
        seen: set[bytes] = set()
        status = "iteration limit"
        for number in range(1, max_iterations + 1):
            U = X * unit.norms
            R = right.Y - unit.apply(U)
            G, step = unit.best_step(R, unit.first_support(U, R, count))
            support = largest_entries(U + step * G, count)[0]
            again = support.tobytes()
            fitted = right.fit(support)
            if again in seen or fitted is None:
                status = "stalled"
                break
            seen.add(again)
            X = fitted
            residual = right.residual(X)
            history.append((number, residual))
            if residual < best.value:
                best = Answer(X, residual, "", 0)
            if monitor is not None:
                monitor(number, residual, X)
            if residual <= right.goal:
                status = "fitted"
                break
        return replace(best, status=status, iterations=number, history=tuple(history))

    return solve_sparse(system, Y, noise_level, tolerance, sparsity, limit, start, attempt)
