"""What the greedy solvers share: when to stop, which sparsities to try, fits on a support."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.items import Answer, gathered
from cosa_theory.recovery.methods import default_tolerance
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.shrinkage import hard_threshold
from cosa_theory.recovery.support import solve_on_support, support_of
from cosa_theory.recovery.system import Floats, Indices, System, like_array

__all__ = [
    "LARGEST_FIT",
    "SPARSE_FIT",
    "Goals",
    "RightSide",
    "UnitColumns",
    "energy_ratio",
    "search_sparsity",
    "solve_each",
    "solve_sparse",
    "sparsities",
    "sparsity_message",
]

LARGEST_FIT = 3000
"""Columns up to which least squares forms their Gram matrix (72 MB)."""

SPARSE_FIT = "½‖Φx − y‖² over x with at most s nonzero entries"

_GROWTH = 1.5  # ratio of the sparsities that are tried where none is given


@dataclass(frozen=True, eq=False)
class Goals:
    """When the measurements of each right-hand side count as explained."""

    norms: Floats  # ‖y‖, (B,)
    limits: Floats  # the residual at which to stop: the larger of σ and tolerance·‖y‖
    tolerance: float
    noise_level: float  # σ

    @classmethod
    def of(cls, Y: Any, noise_level: float, tolerance: float | None) -> Goals:
        """Return the goals for measurements (B, p, q)."""
        host = to_host(Y)
        tolerance = default_tolerance(Y) if tolerance is None else tolerance
        norms = np.linalg.norm(host.reshape(len(host), -1).astype(np.float64), axis=1)
        return cls(norms, np.maximum(noise_level, tolerance * norms), tolerance, noise_level)

    def certificate(self, residuals: Floats) -> Certificate:
        """Return the certificate of ‖Φx − y‖: relative to ‖y‖, or to σ where there is noise."""
        if self.noise_level:
            return Certificate("residual", residuals, residuals / self.limits, 1.0)
        return Certificate("residual", residuals, residuals / self.norms, self.tolerance)


@dataclass(frozen=True, eq=False)
class RightSide:
    """One right-hand side, for solvers that take one after the other."""

    system: System
    item: int  # its place in the batch
    Y: NDArray[Any]  # (1, p, q)
    norm: float  # ‖y‖
    goal: float  # the residual at which to stop

    @cached_property
    def correlations(self) -> Floats:
        """Φᵀy in float64, shape (1, m, n)."""
        found: Floats = self.system.apply_adjoint(self.Y.astype(np.float64))
        return found

    def residual(self, X: NDArray[Any]) -> float:
        """Return ‖Φx − y‖ for coefficients (1, m, n)."""
        return float(np.linalg.norm(self.Y - self.system.apply(X)))

    def fit(self, support: Indices, dtype: Any = None) -> NDArray[Any] | None:
        """Return argmin ‖Φx − y‖ over x that vanish off the support, shape (1, m, n).

        None where the columns are dependent, or too many for their Gram matrix. In the type of y,
        unless another is given.
        """
        return fit_on_support(self.system, self.correlations, support, dtype or self.Y.dtype)

    def started(self, start: NDArray[Any] | None, count: int) -> Answer:
        """Return where to start from: zero, or the `count` largest entries of a given start."""
        if start is None:
            X = np.zeros((1, *self.system.coefficient_shape), self.Y.dtype)
        else:
            X = hard_threshold(start[self.item : self.item + 1], count)
        return Answer(X, self.residual(X), "", 0)

    def without_rounding(self, X: NDArray[Any]) -> NDArray[Any]:
        """Return an answer without the entries that are only rounding, shape (1, m, n).

        Where more nonzero entries were allowed than there are, the surplus ones are rounding
        errors. Those below 1e-6 of the largest go, if least squares on the others explains the
        measurements.
        """
        support = support_of(X)
        if support.size in (0, np.count_nonzero(X)) or support.size > LARGEST_FIT:
            return X
        fitted = self.fit(support, X.dtype)
        return X if fitted is None or self.residual(fitted) > self.goal else fitted


def fit_on_support(
    system: System, correlations: NDArray[Any], support: Indices, dtype: Any
) -> NDArray[Any] | None:
    """Return what `RightSide.fit` does, for correlations Φᵀy of any shape."""
    values = (
        solve_on_support(system, correlations, support) if support.size <= LARGEST_FIT else None
    )
    if values is None:
        return None
    fitted = np.zeros(system.size, dtype)
    fitted[support] = values
    return fitted.reshape(1, *system.coefficient_shape)


class UnitColumns:
    """A system seen in coordinates in which every column of Φ that is not zero has unit norm.

    u = x ∘ ‖φ‖, so that a larger |uⱼ| means a larger share of the measurements. Entries at zero
    columns stay zero. `norms` is ‖φⱼ‖ and `inverse` 1/‖φⱼ‖ or 0, (m, n), in the library, type and
    device of `like`.
    """

    def __init__(self, system: System, like: Any) -> None:
        self.system = system
        norms = system.column_norms
        inverse = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
        self.norms, self.inverse = like_array(norms, like), like_array(inverse, like)

    def apply(self, U: Any) -> Any:
        """Return the measurements (B, p, q) of scaled coefficients (B, m, n)."""
        return self.system.apply(U * self.inverse)

    def apply_adjoint(self, R: Any) -> Any:
        """Return φⱼᵀr/‖φⱼ‖, shape (B, m, n)."""
        return self.system.apply_adjoint(R) * self.inverse

    def first_support(self, U: Any, R: Any, count: int) -> Any:
        """Return where U is not zero, or where the largest correlations are if all of it is."""
        xp = array_namespace(U)
        empty = xp.reshape(~xp.any(xp.reshape(U != 0, (len(U), -1)), axis=1), (-1, 1, 1))
        largest = hard_threshold(self.apply_adjoint(R), count)
        return xp.where(empty, largest, U) != 0

    def best_step(self, R: Any, support: Any) -> tuple[Any, Any]:
        """Return the gradient g = Φᵀr, and the step along g_S that reduces ‖r‖ most.

        μ = ‖g_S‖²/‖Φ g_S‖² for each item, shape (B, 1, 1).
        """
        G = self.apply_adjoint(R)
        on_support = G * support
        return G, energy_ratio(on_support, self.apply(on_support))


def energy_ratio(X: Any, image: Any) -> Any:
    """Return ‖X‖²/‖ΦX‖² of each item, shape (B, 1, 1), and 1 where ΦX = 0."""
    xp = array_namespace(X)
    size = xp.sum(X * X, axis=(1, 2), keepdims=True)
    mapped = xp.sum(image * image, axis=(1, 2), keepdims=True)
    return xp.where(mapped > 0, size / xp.where(mapped > 0, mapped, 1.0), xp.ones_like(size))


def sparsities(limit: int) -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 9, 13, …, each 1.5 times the one before, and `limit` at the end."""
    count = 1
    while count < limit:
        yield count
        count = max(count + 1, int(_GROWTH * count))
    yield max(limit, 1)


def search_sparsity(
    sparsity: int | None, limit: int, goal: float, attempt: Callable[[int, Answer | None], Answer]
) -> Answer:
    """Return the answer with a given sparsity, or with the least that explains the measurements.

    ``attempt(s, before)`` solves with at most s nonzero entries. Without a sparsity, those of
    `sparsities` up to `limit` are tried in turn, each from the answer of the one before, until a
    residual is within the goal; if none is, the least residual wins.
    """
    if sparsity is not None:
        return attempt(sparsity, None)
    best = previous = None
    iterations, history = 0, []
    for count in sparsities(limit):
        answer = attempt(count, previous)
        history += [(iterations + number, residual) for number, residual in answer.history]
        iterations += answer.iterations
        if best is None or answer.value < best.value:
            best, chosen = answer, count
        previous = answer
        if answer.value <= goal:
            break
    assert best is not None
    message = sparsity_message([chosen], [0] if best.value > goal else [], limit)
    return replace(best, iterations=iterations, history=tuple(history), message=message)


def sparsity_message(counts: Any, unexplained: list[int], limit: int) -> str:
    """Say which sparsities were chosen where none was given, tried up to `limit`.

    `counts` has that of each right-hand side, `unexplained` names those that none explains.
    """
    chosen = ", ".join(dict.fromkeys(str(int(count)) for count in counts))
    tried = f"no sparsity was given, so 1, 2, 3, 4, 6, 9, … were tried up to {limit:,}"
    if unexplained:
        return f"{tried}: none explains the measurements, the least residual is with {chosen}"
    return f"{tried}: {chosen} is the least of them that explains the measurements"


def solve_each(
    system: System,
    Y: NDArray[Any],
    goals: Goals,
    solve: Callable[[RightSide], Answer],
    formula: str = SPARSE_FIT,
    objective: Callable[[Answer], float] = lambda answer: 0.5 * answer.value**2,
) -> Solution:
    """Return the solution of a stack whose right-hand sides are solved one after the other.

    ``solve(right)`` returns the answer to one, of shape (1, m, n), and ``objective(answer)`` the
    value of the formula there.
    """
    answers = []
    for item in range(len(Y)):
        one = (float(goals.norms[item]), float(goals.limits[item]))
        right = RightSide(system, item, Y[item : item + 1], *one)
        answer = solve(right)
        if goals.noise_level == 0:
            X = right.without_rounding(answer.coefficients)
            if X is not answer.coefficients:
                answer = replace(answer, coefficients=X, value=right.residual(X))
        answers.append(replace(answer, objective=objective(answer)))
    certificate = goals.certificate(np.array([answer.value for answer in answers]))
    return gathered(system, answers, formula, certificate)


def solve_sparse(
    system: System,
    Y: NDArray[Any],
    noise_level: float,
    tolerance: float | None,
    sparsity: int | None,
    limit: int,
    start: NDArray[Any] | None,
    attempt: Callable[[RightSide, int, Answer], Answer],
) -> Solution:
    """Solve by attempts with at most s nonzero entries, for each right-hand side.

    ``attempt(right, s, first)`` goes on from the answer `first`; without a sparsity those up to
    `limit` are tried.
    """
    goals = Goals.of(Y, noise_level, tolerance)

    def solve(right: RightSide) -> Answer:
        def one(count: int, before: Answer | None) -> Answer:
            return attempt(right, count, before or right.started(start, count))

        return search_sparsity(sparsity, max(1, limit), right.goal, one)

    return solve_each(system, Y, goals, solve)
