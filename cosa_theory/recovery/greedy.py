"""What the greedy solvers share: when to stop, which sparsities to try, items one by one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.shrinkage import hard_threshold
from cosa_theory.recovery.support import solve_on_support, support_of
from cosa_theory.recovery.system import System, like_array

__all__ = [
    "GROWTH",
    "LARGEST_FIT",
    "SPARSE_FIT",
    "Fit",
    "Goals",
    "Monitor",
    "UnitColumns",
    "check_iterations",
    "checked_sparsity",
    "fit_on_support",
    "residual_certificate",
    "residual_goals",
    "search_sparsity",
    "solve_items",
    "sparsities",
    "sparsity_message",
    "start_fit",
    "without_rounding",
]

Monitor: TypeAlias = Callable[[int, float, Any], None]

GROWTH = 1.5
"""Ratio of the sparsities that are tried where none is given."""

LARGEST_FIT = 3000
"""Columns up to which least squares forms their Gram matrix (72 MB)."""

SPARSE_FIT = "½‖Φx − y‖² over x with at most s nonzero entries"

_TOLERANCE = {8: 1e-8, 4: 1e-5}  # of ‖Φx − y‖/‖y‖, by the bytes of a number


@dataclass(frozen=True, eq=False)
class Goals:
    """When the measurements of each right-hand side count as explained.

    Attributes
    ----------
    norms : ndarray, shape (B,)
        ‖y‖.
    limits : ndarray, shape (B,)
        The residual at which to stop: the larger of σ and tolerance·‖y‖.
    tolerance : float
    noise_level : float
        σ.
    """

    norms: NDArray[np.float64]
    limits: NDArray[np.float64]
    tolerance: float
    noise_level: float


@dataclass(frozen=True, eq=False)
class Fit:
    """What a solver makes of one right-hand side.

    Attributes
    ----------
    coefficients : ndarray, shape (1, m, n)
    residual : float
        ‖Φx − y‖.
    status : str
    iterations : int
    history : tuple of (int, float)
        Iteration and residual of each check.
    message : str
    """

    coefficients: NDArray[Any]
    residual: float
    status: str
    iterations: int
    history: tuple[tuple[int, float], ...] = ()
    message: str = ""


def residual_goals(Y: Any, noise_level: float, tolerance: float | None) -> Goals:
    """Return when to stop; the default tolerance is 1e-8 in float64 and 1e-5 in float32.

    Raises
    ------
    ValueError
        If the tolerance is not positive.
    """
    host = to_host(Y)
    if tolerance is None:
        tolerance = _TOLERANCE[host.dtype.itemsize]
    if not 0 < tolerance < 1:
        raise ValueError(f"tolerance is {tolerance}: it must be between 0 and 1, of ‖Φx − y‖/‖y‖")
    norms = np.linalg.norm(host.reshape(len(host), -1).astype(np.float64), axis=1)
    return Goals(norms, np.maximum(noise_level, tolerance * norms), tolerance, noise_level)


def residual_certificate(goals: Goals, residuals: NDArray[np.float64]) -> Certificate:
    """Return the certificate of ‖Φx − y‖: relative to ‖y‖, or to σ where there is noise."""
    if goals.noise_level:
        return Certificate("residual", residuals, residuals / goals.limits, 1.0)
    return Certificate("residual", residuals, residuals / goals.norms, goals.tolerance)


def check_iterations(max_iterations: int) -> None:
    """Refuse a limit that allows no iteration.

    Raises
    ------
    ValueError
        If the limit is not at least 1.
    """
    if not max_iterations >= 1:
        raise ValueError(f"max_iterations is {max_iterations}: it must be at least 1")


def checked_sparsity(system: System, sparsity: int | None) -> int | None:
    """Return the sparsity, which may be None.

    Raises
    ------
    ValueError
        If it is not a whole number from 1 to the least of M and N.
    """
    if sparsity is None:
        return None
    most = min(system.measurements, system.size)
    whole = isinstance(sparsity, (int, np.integer)) and not isinstance(sparsity, bool)
    if not whole or not 1 <= sparsity <= most:
        raise ValueError(
            f"sparsity is {sparsity!r}: {system.measurements:,} measurements of "
            f"{system.size:,} unknowns determine at most {most:,} nonzero entries, so give a "
            f"whole number from 1 to {most:,}"
        )
    return int(sparsity)


def sparsities(limit: int) -> Iterator[int]:
    """Yield 1, 2, 3, 4, 6, 9, 13, …, each 1.5 times the one before, and `limit` at the end."""
    count = 1
    while count < limit:
        yield count
        count = max(count + 1, int(GROWTH * count))
    yield max(limit, 1)


def fit_on_support(
    system: System, correlations: NDArray[Any], support: NDArray[np.int64], dtype: Any
) -> NDArray[Any] | None:
    """Return argmin ‖Φx − y‖ over x that vanish off the support, shape (1, m, n).

    None where the columns are dependent, or too many for their Gram matrix.
    """
    if support.size > LARGEST_FIT:
        return None
    values = solve_on_support(system, correlations, support)
    if values is None:
        return None
    fitted = np.zeros(system.size, dtype)
    fitted[support] = values
    return fitted.reshape(1, *system.coefficient_shape)


class UnitColumns:
    """A system seen in coordinates in which every column of Φ that is not zero has unit norm.

    u = x ∘ ‖φ‖, so that a larger |uⱼ| means a larger share of the measurements. Entries at zero
    columns stay zero.

    Parameters
    ----------
    system : System
    like : array or tensor
        Of the library, type and device to work in.

    Attributes
    ----------
    norms, inverse : array or tensor, shape (m, n)
        ‖φⱼ‖, and 1/‖φⱼ‖ or 0.
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


def start_fit(
    system: System, Y: NDArray[Any], start: NDArray[Any] | None, item: int, count: int
) -> Fit:
    """Return where to start from: zero, or the `count` largest entries of a given start."""
    one = Y[item : item + 1]
    if start is None:
        X = np.zeros((1, *system.coefficient_shape), Y.dtype)
    else:
        X = hard_threshold(start[item : item + 1], count)
    return Fit(X, float(np.linalg.norm(one - system.apply(X))), "", 0)


def search_sparsity(
    sparsity: int | None,
    limit: int,
    goal: float,
    attempt: Callable[[int, Fit | None], Fit],
) -> Fit:
    """Return the fit with a given sparsity, or with the least that explains the measurements.

    Without a sparsity, those of `sparsities` up to `limit` are tried in turn, each from the answer
    of the one before, until a residual is within the goal; if none is, the least residual wins.

    Parameters
    ----------
    sparsity : int, optional
    limit : int
        The largest sparsity worth trying.
    goal : float
        Of the residual.
    attempt : callable
        ``attempt(s, before)`` solves with at most s nonzero entries.
    """
    if sparsity is not None:
        return attempt(sparsity, None)
    best = previous = None
    iterations, history = 0, []
    for count in sparsities(limit):
        fit = attempt(count, previous)
        history += [(iterations + number, residual) for number, residual in fit.history]
        iterations += fit.iterations
        if best is None or fit.residual < best.residual:
            best, chosen = fit, count
        previous = fit
        if fit.residual <= goal:
            break
    assert best is not None
    message = sparsity_message([chosen], [0] if best.residual > goal else [], limit)
    return replace(best, iterations=iterations, history=tuple(history), message=message)


def sparsity_message(counts: Any, unexplained: list[int], limit: int) -> str:
    """Say which sparsities were chosen where none was given.

    Parameters
    ----------
    counts : sequence of int
        That of each right-hand side.
    unexplained : list of int
        The right-hand sides whose measurements no sparsity explains.
    limit : int
        The largest that was tried.
    """
    chosen = ", ".join(dict.fromkeys(str(int(count)) for count in counts))
    tried = f"no sparsity was given, so 1, 2, 3, 4, 6, 9, … were tried up to {limit:,}"
    if unexplained:
        return f"{tried}: none explains the measurements, the least residual is with {chosen}"
    return f"{tried}: {chosen} is the least of them that explains the measurements"


def without_rounding(system: System, Y: NDArray[Any], X: NDArray[Any], goal: float) -> NDArray[Any]:
    """Return an answer without the entries that are only rounding, shape (1, m, n).

    Where more nonzero entries were allowed than there are, the surplus ones are rounding errors.
    Those below 1e-6 of the largest go, if least squares on the others explains the measurements.
    """
    support = support_of(X)
    if support.size in (0, np.count_nonzero(X)) or support.size > LARGEST_FIT:
        return X
    correlations = system.apply_adjoint(Y.astype(np.float64))
    fitted = fit_on_support(system, correlations, support, X.dtype)
    if fitted is None or np.linalg.norm(Y - system.apply(fitted)) > goal:
        return X
    return fitted


def solve_items(
    system: System,
    goals: Goals,
    Y: NDArray[Any],
    solve: Callable[[int], Fit],
    formula: str,
    objective: Callable[[Fit], float] = lambda fit: 0.5 * fit.residual**2,
) -> Solution:
    """Return the solution of a stack whose right-hand sides are solved one after the other.

    Parameters
    ----------
    system : System
    goals : Goals
    Y : ndarray, shape (B, p, q)
    solve : callable
        ``solve(item)`` returns the `Fit` of one.
    formula : str
        What is minimised.
    objective : callable
        Its value at a fit.
    """
    fits = [solve(item) for item in range(len(Y))]
    if goals.noise_level == 0:
        fits = [_cleaned(system, Y[k : k + 1], fit, goals.limits[k]) for k, fit in enumerate(fits)]
    checks = [(item, *check) for item, fit in enumerate(fits) for check in fit.history]
    table = np.array(checks, np.float64).reshape(-1, 3)
    return Solution(
        coefficients=np.concatenate([fit.coefficients for fit in fits]),
        objective=np.array([objective(fit) for fit in fits]),
        formula=formula,
        certificate=residual_certificate(goals, np.array([fit.residual for fit in fits])),
        status=tuple(fit.status for fit in fits),
        iterations=np.array([fit.iterations for fit in fits], np.int64),
        history={
            "item": table[:, 0].astype(np.int64),
            "iteration": table[:, 1].astype(np.int64),
            "residual": table[:, 2],
        },
        message="; ".join(dict.fromkeys(fit.message for fit in fits if fit.message)),
    )


def _cleaned(system: System, Y: NDArray[Any], fit: Fit, goal: float) -> Fit:
    X = without_rounding(system, Y, fit.coefficients, goal)
    if X is fit.coefficients:
        return fit
    return replace(fit, coefficients=X, residual=float(np.linalg.norm(Y - system.apply(X))))
