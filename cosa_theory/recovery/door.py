"""`recover`: one door to every solver, which also recomputes what a solver claims."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any

import numpy as np
from array_api_compat import is_torch_array

from cosa_theory.ground.checks import choice, finite, refuse, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.threads import one_thread
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.constraint import constraint_of
from cosa_theory.recovery.methods import METHODS, Method
from cosa_theory.recovery.problem import RecoveryProblem
from cosa_theory.recovery.result import STATUSES, RecoveryResult, Solution
from cosa_theory.recovery.support import debias
from cosa_theory.recovery.system import System, check_range, like_array

__all__ = ["SparsityWarning", "default_method", "recover"]

_SMALL = 1 << 17  # unknowns up to which everything is done on one thread


class SparsityWarning(UserWarning):
    """A sparsity that no solver can recover uniformly from these measurements."""


def recover(
    problem: RecoveryProblem,
    method: str | None = None,
    *,
    sparsity: int | None = None,
    start: Any = None,
    debiasing: bool = True,
    **options: Any,
) -> RecoveryResult:
    """Recover an update from its measurements, or a sparse core for an update.

    See docs/theory.md, 2.4, 4.2 and 4.3.

    Parameters
    ----------
    problem : RecoveryProblem
        What is known. Its truth is not looked at.
    method : str, optional
        A name in `METHODS`; by default that of `default_method`, which the result names.
    sparsity : int, optional
        How many nonzero coefficients the unknown has, for the greedy methods, which otherwise find
        out. The convex methods and the closed forms need no such number and do not use it.
    start : array or tensor, shape (m, n) or (B, m, n), optional
        A warm start for the methods that take one: an update, or a core if that is the unknown.
    debiasing : bool
        Whether least squares on the support is computed too, for methods with sparse answers.
    **options
        Those of the method, see `Method` and `options_of`; none is needed. An option given as None
        counts as not given.

    Returns
    -------
    RecoveryResult
        In the library, type and device of the measurements.

    Raises
    ------
    InputError
        What is no `RecoveryProblem`, an unknown method, an option that the method does not have,
        or a value it refuses; an operator that is zero, or numbers whose squares leave the range
        of their type.

    Warns
    -----
    SparsityWarning
        If the sparsity asked for is above half of the spark, min(a, b)/2 for a CoSA core: then
        some updates of this sparsity share their measurements.

    Examples
    --------
    >>> import numpy as np
    >>> from cosa_theory import CosaBasis
    >>> basis = CosaBasis.sample(16, 12, 10, 8, seed=1, scale="analysis")
    >>> update = np.zeros((16, 12))
    >>> update[3, 4] = 1.0
    >>> result = recover(RecoveryProblem(basis.sensing(), basis.encode(update)), "least_norm")
    >>> result.estimate.shape, result.core.shape, result.status
    ((16, 12), (10, 8), 'optimal')
    """
    began = time.perf_counter()
    if not isinstance(problem, RecoveryProblem):
        must = "a RecoveryProblem, as in recover(RecoveryProblem(operator, measurements))"
        raise refuse("problem", type(problem).__name__, must)
    if method is None:
        method = default_method(problem, options)
    entry = METHODS[choice("method", method, METHODS)]
    options = _checked_options(problem, entry, {**options, "sparsity": sparsity, "start": start})
    system = problem.update_system if entry.on_update else problem.system
    check_range(system, problem.Y)
    Y = problem.Y if entry.arrays == "any" else to_host(problem.Y)
    # Small products gain nothing from a second thread, and lose much where the cores are busy.
    with one_thread() if system.size <= _SMALL else nullcontext():
        solution = entry.solve(system, Y, noise_level=problem.noise_level, **options)
        fitted = debias(system, Y, solution.coefficients) if debiasing and entry.sparse else None
        return _result(problem, entry, system, solution, fitted, began)


def default_method(problem: RecoveryProblem, options: Mapping[str, Any] | None = None) -> str:
    """Return the method for a problem where none is named.

    Without noise the sparsest explanation is sought: ``"basis_pursuit"``, which ends as soon as the
    support is found. With a noise level, an option of the lasso (`lam`, `lam_ratio`), or
    measurements that no unknown explains exactly, as of a core for an update of full rank:
    ``"fista"``.

    Parameters
    ----------
    problem : RecoveryProblem
        Its operator, measurements and noise level are looked at.
    options : mapping, optional
        Those to be given to the method; None counts as not given.
    """
    given = {name for name, value in (options or {}).items() if value is not None}
    if problem.noise_level > 0 or given & {"lam", "lam_ratio"}:
        return "fista"
    check_range(problem.system, problem.Y)
    with one_thread() if problem.system.size <= _SMALL else nullcontext():
        explained = constraint_of(problem.system, problem.Y, 0.0).feasible.all()
    return "basis_pursuit" if explained else "fista"


def _checked_options(
    problem: RecoveryProblem, entry: Method, options: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the options that are given, as the solver takes them."""
    given = {name: value for name, value in options.items() if value is not None}
    known = entry.options
    if "sparsity" in given:
        _check_sparsity(problem.system, given["sparsity"], "sparsity" in known)
        if "sparsity" not in known:
            del given["sparsity"]
    for name in given:
        if name not in known:
            taken = ", ".join(known) or "none"
            text = f"{name} is no option of {entry.name}, which takes {taken}"
            raise InputError(text, argument=name)
    if {"lam", "lam_ratio"} <= given.keys():
        raise refuse("lam", given["lam"], "left out where lam_ratio is given, which sets it too")
    checked = {name: entry.checked(name, value) for name, value in given.items()}
    if "start" in checked:
        checked["start"] = _warm_start(problem, entry, checked["start"])
    return checked


def _warm_start(problem: RecoveryProblem, entry: Method, start: Any) -> Any:
    """Return the coefficients of a starting point, in the library of the measurements."""
    shape, count = tuple(problem.system.matrix_shape), len(problem.Y)
    array = np.asarray(to_host(start), dtype=to_host(problem.Y[:0]).dtype)
    if array.shape[-2:] != shape or array.size not in (np.prod(shape), np.prod(shape) * count):
        text = f"start has shape {array.shape}: it must be that of the unknown, {shape}"
        raise InputError(text, argument="start")
    finite("start", array)
    stack = np.ascontiguousarray(np.broadcast_to(array, (count, *shape)))
    coefficients = stack if entry.on_update else problem.to_coefficients(stack)
    return like_array(coefficients, problem.Y) if entry.arrays == "any" else coefficients


def _check_sparsity(system: System, sparsity: Any, used: bool) -> None:
    """Refuse a sparsity that cannot be; warn of one that no solver recovers uniformly."""
    from cosa_theory.laws import uniform_sparsity_limit

    most = min(system.size, system.measurements) if used else system.size
    sparsity = whole("sparsity", sparsity, 1, most)
    p, q = system.measurement_shape
    m, n = system.coefficient_shape
    sides = [rows for rows, columns in ((p, m), (q, n)) if rows < columns]
    if not sides:
        return  # tall: every core has its own update
    limit = int(uniform_sparsity_limit(*sides)) if len(sides) == 2 else sides[0] // 2
    if sparsity > limit:
        warnings.warn(
            f"sparsity is {sparsity}: {system.name} tells apart all updates with at most {limit} "
            f"nonzero {'entry' if limit == 1 else 'entries'}, half of its spark; beyond, some "
            "share their measurements",
            SparsityWarning,
            stacklevel=4,
        )


def _result(
    problem: RecoveryProblem,
    entry: Method,
    system: System,
    solution: Solution,
    fitted: Any,
    began: float,
) -> RecoveryResult:
    def returned(stack: Any) -> Any:
        """Bring a stack back to the caller's library; a single item loses its batch axis."""
        stack = like_array(to_host(stack), problem.Y) if isinstance(stack, np.ndarray) else stack
        return stack if problem.batched else stack[0]

    def scalar(values: Any) -> Any:
        return values if problem.batched else values[0].item()

    X = solution.coefficients
    unknown = X.reshape(-1, *system.matrix_shape) if entry.on_update else problem.to_unknown(X)
    debiased = None if fitted is None else _update(problem, problem.to_unknown(fitted))
    certificate = solution.certificate
    statuses = _borne_out(solution)
    update = _update(problem, unknown)
    return RecoveryResult(
        method=entry.name,
        estimate=returned(update),
        core=_returned_core(problem, unknown, returned),
        coefficients=returned(X.reshape(-1, *system.matrix_shape)),
        debiased=None if debiased is None else returned(debiased),
        objective=scalar(solution.objective),
        formula=solution.formula,
        certificate=dataclasses.replace(
            certificate,
            value=scalar(certificate.value),
            relative=scalar(certificate.relative),
            dual=_dual(problem, certificate.dual),
        ),
        residual=scalar(_residuals(system, to_host(problem.Y), X)),
        status=max(statuses, key=list(STATUSES).index),
        statuses=statuses,
        iterations=scalar(solution.iterations),
        seconds=time.perf_counter() - began,
        history=solution.history,
        message=solution.message,
    )


def _borne_out(solution: Solution) -> tuple[str, ...]:
    """Return the statuses, without a success that the certificate at exit does not bear out.

    Solvers decide on numbers that they carry along, in single precision too; what was recomputed
    at exit has the last word.
    """
    pairs = zip(solution.status, np.atleast_1d(solution.certificate.holds), strict=True)
    return tuple(
        "stalled" if status in ("optimal", "fitted") and not held else status
        for status, held in pairs
    )


def _dual(problem: RecoveryProblem, dual: Any) -> Any:
    """Return the dual point of a gap, in the precision it was judged in."""
    if dual is None:
        return None
    if is_torch_array(problem.Y) and isinstance(dual, np.ndarray):
        like = problem.Y[:0]
        dual = like_array(dual, like.double() if dual.dtype == np.float64 else like)
    return dual if problem.batched else dual[0]


def _update(problem: RecoveryProblem, unknown: Any) -> Any:
    """Return the updates that unknowns stand for."""
    return problem.operator.apply(unknown) if problem.unknown == "core" else unknown


def _returned_core(problem: RecoveryProblem, unknown: Any, returned: Callable[[Any], Any]) -> Any:
    if problem.unknown == "core":
        return returned(unknown)
    if problem.system.plain:
        return None
    A, B = problem.operator.factors
    basis = CosaBasis(A.T, B)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the many cores of a deficient factor, the least
        cores = np.stack([to_host(basis.best_core(update)) for update in unknown])
    return returned(cores)


def _residuals(system: System, Y: Any, X: Any) -> Any:
    """Return ‖Φx − y‖/‖y‖ of every item."""
    difference = to_host(system.apply(X)) - Y
    flat, wanted = (array.reshape(len(Y), -1).astype(np.float64) for array in (difference, Y))
    return np.linalg.norm(flat, axis=1) / np.linalg.norm(wanted, axis=1)
