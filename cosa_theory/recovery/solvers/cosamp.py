"""Compressive sampling matching pursuit."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.recovery.greedy import LARGEST_FIT, RightSide, UnitColumns, solve_sparse
from cosa_theory.recovery.items import Answer
from cosa_theory.recovery.methods import Monitor, solver
from cosa_theory.recovery.result import Solution
from cosa_theory.recovery.shrinkage import largest_entries
from cosa_theory.recovery.system import System

__all__ = ["cosamp"]

# The residual must fall by this share, or the iterations have come to their end.
_PROGRESS = 1e-3


@solver(10, look=("orange", "-.", "v"))
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

    Without a sparsity, those up to a third of the measurements (and 1,000) are tried.

    Returns
    -------
    Solution
        Certificate "residual". Status "fitted" if it holds, "stalled" where the residual fell no
        more, else "iteration limit".

    References
    ----------
    .. [1] D. Needell, J. A. Tropp, "CoSaMP: iterative signal recovery from incomplete and
       inaccurate samples", Applied and Computational Harmonic Analysis 26 (2009), 301-321,
       algorithm 2.1.
    """
    unit, most = UnitColumns(system, Y), min(system.measurements, system.size, LARGEST_FIT)

    def attempt(right: RightSide, count: int, first: Answer) -> Answer:
        best, history, status = first, [], "iteration limit"
        for number in range(1, max_iterations + 1):
            answer = _exchanged(right, unit, count, most, best)
            if answer is None or answer.value > (1 - _PROGRESS) * best.value:
                status = "stalled"
                best = answer if answer is not None and answer.value < best.value else best
                break
            best = answer
            history.append((number, answer.value))
            if monitor is not None:
                monitor(number, answer.value, answer.coefficients)
            if answer.value <= right.goal:
                break
        status = "fitted" if best.value <= right.goal else status
        return replace(best, status=status, iterations=number, history=tuple(history))

    return solve_sparse(system, Y, noise_level, tolerance, sparsity, most // 3, start, attempt)


def _exchanged(
    right: RightSide, unit: UnitColumns, count: int, most: int, before: Answer
) -> Answer | None:
    """Return the answer of one iteration, or None where all columns taken are dependent."""
    scores = unit.apply_adjoint(right.Y - right.system.apply(before.coefficients))
    used = np.flatnonzero(before.coefficients)
    added = min(2 * count, most - used.size)
    merged = None
    while merged is None and added > 0:
        support = np.union1d(used, largest_entries(scores, added)[0])
        merged = right.fit(support, np.float64)
        added //= 2
    if merged is None:
        return None
    kept = largest_entries(merged * unit.norms, count)[0]
    kept = kept[merged.ravel()[kept] != 0]
    X = right.fit(kept)
    return None if X is None else Answer(X, right.residual(X), "", 0)
