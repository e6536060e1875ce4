"""Right-hand sides solved one by one, and their answers gathered into one solution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cosa_theory.recovery.constraint import Constraint
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.system import System

__all__ = ["Answer", "check_options", "gathered", "infeasible", "out_of_reach", "relative_gap"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What became of one right-hand side.

    Attributes
    ----------
    coefficients : ndarray, shape (m, n)
    objective : float
    gap : float
        Objective minus the dual objective at `dual`.
    dual : ndarray, shape (p, q)
        A feasible dual point.
    status : str
    iterations : int
    history : list of (iteration, objective, relative gap)
    message : str
    """

    coefficients: Floats
    objective: float
    gap: float
    dual: Floats
    status: str
    iterations: int
    history: list[tuple[int, float, float]] = field(default_factory=list)
    message: str = ""

    @property
    def relative(self) -> float:
        """The gap over the objective."""
        return relative_gap(self.gap, self.objective)


def relative_gap(gap: float, objective: float) -> float:
    """Return |gap|/objective; a gap is negative only by the rounding of the constraint."""
    return abs(gap) / objective if objective > 0 else abs(gap)


def check_options(tolerance: float, max_iterations: int) -> None:
    """Refuse a tolerance or a number of iterations that makes no sense.

    Raises
    ------
    ValueError
        If the tolerance is not from 0 to below 1, or no iteration is allowed.
    """
    if not 0 <= tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: give a relative gap from 0 to below 1")
    if max_iterations < 1:
        raise ValueError(f"max_iterations is {max_iterations}: allow one at least")


def out_of_reach(distance: float, noise_level: float, system: System) -> str:
    """Return why no unknown explains some measurements."""
    return (
        f"infeasible: the measurements are {distance:.3g} away from the range of {system.name}, "
        f"and {noise_level:g} is allowed"
    )


def infeasible(constraint: Constraint, system: System, y: Floats) -> Answer:
    """Return zero as the answer to a right-hand side that no unknown explains."""
    return Answer(
        coefficients=np.zeros(system.matrix_shape),
        objective=0.0,
        gap=float("inf"),
        dual=np.zeros_like(y),
        status="infeasible",
        iterations=0,
        message=out_of_reach(float(constraint.distance[0]), constraint.noise_level, system),
    )


def gathered(
    answers: Sequence[Answer], formula: str, tolerance: float, system: System, like: Floats
) -> Solution:
    """Return the answers to all right-hand sides as one solution, in the type of `like`.

    The history has one entry per check and a column per right-hand side, which keeps its last
    values once it is solved.
    """
    longest = max((answer.history for answer in answers), key=len)
    history: dict[str, NDArray[np.generic]] = {
        "iteration": np.array([entry[0] for entry in longest], dtype=np.int64)
    }
    for place, name in enumerate(("objective", "certificate"), 1):
        rows = [[_entry(one, check, place) for one in answers] for check in range(len(longest))]
        history[name] = np.array(rows, dtype=np.float64).reshape(len(longest), len(answers))
    coefficients = np.stack([one.coefficients for one in answers])
    return Solution(
        coefficients=coefficients.reshape(-1, *system.coefficient_shape).astype(like.dtype),
        objective=np.array([one.objective for one in answers]),
        formula=formula,
        certificate=Certificate(
            "duality gap",
            np.array([one.gap for one in answers]),
            np.array([one.relative for one in answers]),
            tolerance,
            np.stack([one.dual for one in answers]),
        ),
        status=tuple(one.status for one in answers),
        iterations=np.array([one.iterations for one in answers], dtype=np.int64),
        history=history,
        message="; ".join(dict.fromkeys(one.message for one in answers if one.message)),
    )


def _entry(answer: Answer, check: int, place: int) -> float:
    """Return what an item's history says at a check, or its last word; NaN if it has none."""
    if not answer.history:
        return float("nan")
    return float(answer.history[min(check, len(answer.history) - 1)][place])
