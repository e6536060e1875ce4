"""Right-hand sides solved one by one, and their answers gathered into one solution."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.recovery.constraint import Constraint, constraint_of
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.system import Floats, System

__all__ = [
    "Answer",
    "gathered",
    "judged",
    "least",
    "out_of_reach",
    "proven",
    "relative_gap",
    "residual_history",
]


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of one right-hand side.

    Its certificate is `value`: ‖Φx − y‖, or the objective minus the dual objective at `dual`, a
    feasible dual point (p, q). The history has, of each check, the iteration and the residual, or
    the iteration, the objective and the relative gap.
    """

    coefficients: NDArray[Any]  # mn entries
    value: float
    status: str
    iterations: int
    history: Sequence[tuple[float, ...]] = ()
    message: str = ""
    objective: float = 0.0
    dual: Floats | None = None


def gathered(
    system: System,
    answers: Sequence[Answer],
    formula: str,
    certificate: Certificate,
    dtype: Any = None,
) -> Solution:
    """Return the answers to all right-hand sides as one solution, as they are or in one type."""
    coefficients = np.stack([one.coefficients.reshape(-1) for one in answers])
    coefficients = coefficients if dtype is None else coefficients.astype(dtype)
    if certificate.kind == "residual":
        checks = ((item, *check) for item, one in enumerate(answers) for check in one.history)
        history = residual_history(checks)
    else:
        history = _gap_history(answers)
    return Solution(
        coefficients=coefficients.reshape(-1, *system.coefficient_shape),
        objective=np.array([one.objective for one in answers]),
        formula=formula,
        certificate=certificate,
        status=tuple(one.status for one in answers),
        iterations=np.array([one.iterations for one in answers], dtype=np.int64),
        history=history,
        message="; ".join(dict.fromkeys(one.message for one in answers if one.message)),
    )


def residual_history(checks: Iterable[tuple[float, ...]]) -> dict[str, NDArray[Any]]:
    """Return a history with one entry for each check of one item: (item, iteration, residual)."""
    table = np.array(list(checks), np.float64).reshape(-1, 3)
    return {
        "item": table[:, 0].astype(np.int64),
        "iteration": table[:, 1].astype(np.int64),
        "residual": table[:, 2],
    }


def _gap_history(answers: Sequence[Answer]) -> dict[str, NDArray[Any]]:
    """Return a history with one row per check and one column per item.

    An item keeps its last values once it is solved, and has NaN where it was never checked.
    """
    longest = max((answer.history for answer in answers), key=len)
    history: dict[str, NDArray[Any]] = {
        "iteration": np.array([one[0] for one in longest], np.int64)
    }
    for place, name in enumerate(("objective", "certificate"), 1):
        rows = [
            [one.history[min(check, len(one.history) - 1)][place] if one.history else np.nan
             for one in answers]
            for check in range(len(longest))
        ]  # fmt: skip
        history[name] = np.array(rows, np.float64).reshape(len(longest), len(answers))
    return history


def proven(
    system: System, like: NDArray[Any], answers: Sequence[Answer], formula: str, tolerance: float
) -> Solution:
    """Return answers with duality gaps as one solution."""
    certificate = Certificate(
        "duality gap",
        np.array([one.value for one in answers]),
        np.array([relative_gap(one.value, one.objective) for one in answers]),
        tolerance,
        np.stack([one.dual for one in answers if one.dual is not None]),
    )
    return gathered(system, answers, formula, certificate, like.dtype)


def least(
    system: System,
    Y: Any,
    noise_level: float,
    formula: str,
    tolerance: float,
    solve: Callable[[int, Constraint], Answer],
    norm: Callable[[Floats], float],
) -> Solution:
    """Minimise a norm subject to ‖Φx − y‖ ≤ σ, for each right-hand side and in float64.

    ``solve(item, constraint)`` answers a right-hand side that some unknown explains; the constraint
    goes where the formula has {}. Objective and gap are those of the answer as the type of Y stores
    it, of which ``norm(X)`` is taken anew.
    """
    like = np.asarray(Y)
    stack = like.astype(np.float64, copy=False)
    constraint = constraint_of(system, stack, noise_level, float(np.finfo(like.dtype).eps))
    answers = []
    for item, y in enumerate(stack):
        one = constraint.take(np.array([item]))
        if not one.feasible[0]:
            answers.append(_infeasible(one, system, y))
            continue
        answer = solve(item, one)
        stored = answer.coefficients.astype(like.dtype).astype(np.float64)
        objective = norm(stored.reshape(system.matrix_shape))
        gap = answer.value + (objective - answer.objective)
        answers.append(replace(answer, objective=objective, value=gap))
    return proven(system, like, answers, formula.format(constraint.condition), tolerance)


def judged(
    constraint: Constraint,
    X: Floats,
    objective: float,
    D: Floats,
    size: float,
    tolerance: float,
    iterations: int = 0,
    history: Sequence[tuple[float, ...]] = (),
    otherwise: str = "stalled",
    message: str = "",
) -> Answer:
    """Return a feasible X as an answer, with the gap that a dual point proves.

    D are row-space coordinates (1, r, t), feasible once divided by `size`. The status is "optimal"
    if the relative gap is within the tolerance, and `otherwise` else.
    """
    value = float(constraint.dual_value(D)[0])
    dual = np.zeros_like(constraint.outside[0])
    if value > 0:
        value, dual = value / size, constraint.dual_point(D / size)[0]
    gap = objective - max(value, 0.0)
    status = "optimal" if relative_gap(gap, objective) <= tolerance else otherwise
    return Answer(X, gap, status, iterations, history, message, objective, dual)


def relative_gap(gap: float, objective: float) -> float:
    """Return |gap|/objective; a gap is negative only by the rounding of the constraint."""
    return abs(gap) / objective if objective > 0 else abs(gap)


def out_of_reach(distance: float, noise_level: float, system: System) -> str:
    """Return why no unknown explains some measurements."""
    return (
        f"infeasible: the measurements are {distance:.3g} away from the range of {system.name}, "
        f"and {noise_level:g} is allowed"
    )


def _infeasible(constraint: Constraint, system: System, y: Floats) -> Answer:
    """Return zero as the answer to a right-hand side that no unknown explains."""
    said = out_of_reach(float(constraint.distance[0]), constraint.noise_level, system)
    nothing = np.zeros(system.matrix_shape)
    return Answer(nothing, float("inf"), "infeasible", 0, (), said, 0.0, np.zeros_like(y))
