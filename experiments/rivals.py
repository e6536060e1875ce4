"""Other people's sparse solvers, each given the same problem at the settings that suit it best.

A rival is a function of a `Task` that yields settings, the one to be timed last: it may try
several in pilot runs, with the true solution in sight, and is timed at the fastest that reaches
the accuracy asked for. Solvers of PyLops are timed twice, on PyLops' own Kronecker operator and on
ours; others that take an operator get ours. Dense matrices, where a rival needs one, are formed
outside the time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.linear.operators import KroneckerOperator

__all__ = ["RIVALS", "Attempt", "Task", "fastest"]

Floats = NDArray[np.float64]
_FITTED = 1e-6  # of ‖y‖: the residual at which a greedy rival may stop
_PATIENCE = 20_000  # iterations after which the first pilot run is given up


@dataclass(frozen=True)
class Task:
    """A problem and the solution that counts.

    Parameters
    ----------
    operator : KroneckerOperator
        Φ = A ⊗ B.
    y : ndarray, shape (pq,)
        Measurements.
    target : ndarray, shape (mn,)
        What is to be reached: the truth where there is no noise, else the minimiser of the lasso.
    sparsity : int
        Nonzero entries of the truth.
    lam : float
        λ of ½‖Φx − y‖² + λ‖x‖₁; zero where there is no noise.
    sigma : float
        ‖Φ target − y‖, with which basis pursuit denoising has the same minimiser.
    accuracy : float
        Relative error to be reached.
    """

    operator: KroneckerOperator
    y: Floats
    target: Floats
    sparsity: int
    lam: float
    sigma: float
    accuracy: float

    @cached_property
    def lipschitz(self) -> float:
        """‖Φ‖², which is given to who asks for it."""
        A, B = self.operator.factors
        return float((np.linalg.norm(A, 2) * np.linalg.norm(B, 2)) ** 2)

    @cached_property
    def lam_max(self) -> float:
        """‖Φᵀy‖_∞."""
        return float(np.abs(self.operator.T @ self.y).max())

    @cached_property
    def dense(self) -> Floats:
        """Φ as a matrix with contiguous columns."""
        # np.kron writes row by row; solvers by coordinates read columns.
        return np.asfortranarray(np.kron(*self.operator.factors))

    def error(self, x: Floats) -> float:
        """Return ‖x − target‖/‖target‖."""
        return float(np.linalg.norm(np.ravel(x) - self.target) / np.linalg.norm(self.target))


@dataclass(frozen=True)
class Attempt:
    """One way to run a solver.

    Parameters
    ----------
    settings : str
        In words.
    solve : callable
        Returns x, shape (mn,).
    """

    settings: str
    solve: Callable[[], Floats]


def fastest(task: Task, attempts: Iterable[Attempt]) -> Attempt | None:
    """Return the fastest attempt that reaches the accuracy, or None."""
    best, least = None, np.inf
    for attempt in attempts:
        begun = time.perf_counter()
        x = attempt.solve()
        seconds = time.perf_counter() - begun
        if seconds < least and task.error(x) <= task.accuracy:
            best, least = attempt, seconds
    return best


def _pylops_operator(task: Task, ours: bool) -> Any:
    import pylops

    K = task.operator
    if ours:
        return pylops.FunctionOperator(K.matvec, K.rmatvec, *K.shape)
    return pylops.Kronecker(*(pylops.MatrixMult(factor) for factor in K.factors))


class _Reached(Exception):
    pass


_RATES = (0.97, 0.9, 0.99, None)  # of the threshold per iteration; None leaves it alone


def _pylops_fista(
    task: Task, ours: bool, rates: Sequence[float | None] = _RATES
) -> Iterable[Attempt]:
    from pylops.optimization.sparsity import fista

    operator = _pylops_operator(task, ours)
    # PyLops minimises ‖y − Φx‖² + eps‖x‖₁, twice our objective.
    smallest = [task.lam] if task.lam else [task.lam_max * share for share in (1e-5, 1e-4, 1e-3)]
    most = _PATIENCE
    for rate in rates:
        for lam in smallest:
            decay = np.ones(_PATIENCE)
            if rate is not None:  # continuation from a third of the greatest useful λ
                decay = np.maximum(0.3 * task.lam_max / lam * rate ** np.arange(_PATIENCE), 1.0)
            run = partial(
                fista, operator, task.y, eps=2 * lam, alpha=1 / task.lipschitz, decay=decay, tol=0.0
            )
            count = _iterations_needed(task, run, most)
            if count is not None:
                most = count
                words = f"λ = {lam:.1e}, {'no decay' if rate is None else f'decay {rate}'}"
                yield Attempt(f"{words}, {count} iterations", partial(_first, run, niter=count))


def _iterations_needed(task: Task, run: Callable[..., Any], most: int) -> int | None:
    """Return after how many iterations the accuracy is reached, if that is less than `most`."""
    count = 0

    def watch(x: Floats) -> None:
        nonlocal count
        count += 1
        if task.error(x) <= task.accuracy:
            raise _Reached

    try:
        run(niter=most - 1, callback=watch)
    except _Reached:
        return count
    return None


def _first(run: Callable[..., Any], **settings: Any) -> Floats:
    return run(**settings)[0]


def _tolerances(task: Task) -> list[dict[str, float]]:
    return [{"opt_tol": tol, "bp_tol": tol} for tol in (1e-3, 1e-4, 1e-5, 1e-6, 1e-7)]


def _spgl1(task: Task) -> Iterable[Attempt]:
    from spgl1 import spgl1

    for tolerances in _tolerances(task):
        for subspace in (False, True):
            settings = {**tolerances, "iter_lim": 20_000, "subspace_min": subspace}
            run = partial(spgl1, task.operator, task.y, sigma=task.sigma, **settings)
            words = f"tolerances {tolerances['opt_tol']:g}{', subspace_min' if subspace else ''}"
            yield Attempt(words, partial(_first, run))


def _spgl1_whitened(task: Task) -> Iterable[Attempt]:
    from spgl1 import spgl1

    sides = [np.linalg.qr(factor.T) for factor in task.operator.factors]
    (Q_A, T_A), (Q_B, T_B) = sides
    whitened = KroneckerOperator(Q_A.T, Q_B.T)
    Y = task.y.reshape(task.operator.range_shape)
    y = np.linalg.solve(T_A.T, np.linalg.solve(T_B.T, Y.T).T).ravel()
    for tolerances in _tolerances(task):
        run = partial(spgl1, whitened, y, iter_lim=20_000, **tolerances)
        yield Attempt(f"tolerances {tolerances['opt_tol']:g}", partial(_first, run))


def _pylops_spgl1(task: Task, ours: bool) -> Iterable[Attempt]:
    from pylops.optimization.sparsity import spgl1

    operator = _pylops_operator(task, ours)
    for tolerances in _tolerances(task):
        settings = {**tolerances, "iter_lim": 20_000}
        run = partial(spgl1, operator, task.y, sigma=task.sigma, **settings)
        yield Attempt(f"tolerances {tolerances['opt_tol']:g}", partial(_first, run))


def _pylops_omp(task: Task, ours: bool) -> Iterable[Attempt]:
    from pylops.optimization.sparsity import omp

    operator = _pylops_operator(task, ours)
    for inner in (2, 3, 5, 10, 20, 40):
        stop = {"niter_outer": 2 * task.sparsity, "sigma": _FITTED * np.linalg.norm(task.y)}
        run = partial(omp, operator, task.y, niter_inner=inner, **stop)
        yield Attempt(f"{inner} inner iterations", partial(_first, run))


def _sklearn_omp(task: Task) -> Iterable[Attempt]:
    from sklearn.linear_model import orthogonal_mp

    limit = float((_FITTED * np.linalg.norm(task.y)) ** 2)
    yield Attempt("tol", partial(orthogonal_mp, task.dense, task.y, tol=limit))


def _celer(task: Task) -> Iterable[Attempt]:
    from celer import Lasso

    rows = len(task.y)  # its objective is divided by the number of rows
    shares = [task.lam] if task.lam else [task.lam_max * share for share in (1e-4, 1e-5)]
    for lam in shares:
        for tol in (1e-6, 1e-9):
            model = Lasso(lam / rows, fit_intercept=False, tol=tol, max_iter=200)
            solve = partial(_fitted, model, task)
            yield Attempt(f"λ = {lam:.1e}, tol {tol:g}", solve)


def _fitted(model: Any, task: Task) -> Floats:
    return model.fit(task.dense, task.y).coef_


def _cvxpy(task: Task) -> Iterable[Attempt]:
    import cvxpy as cp

    A, B = task.operator.factors
    X = cp.Variable(task.operator.domain_shape)
    residual = A @ X @ B.T - task.y.reshape(task.operator.range_shape)
    if task.lam:
        objective = 0.5 * cp.sum_squares(residual) + task.lam * cp.sum(cp.abs(X))
        problem = cp.Problem(cp.Minimize(objective))
    else:
        problem = cp.Problem(cp.Minimize(cp.sum(cp.abs(X))), [residual == 0])

    def solve() -> Floats:
        problem.solve(solver=cp.CLARABEL)
        return np.ravel(X.value)

    yield Attempt("Clarabel", solve)


RIVALS: dict[str, Callable[[Task], Iterable[Attempt]]] = {
    "PyLops FISTA": partial(_pylops_fista, ours=False),
    "PyLops FISTA, our operator": partial(_pylops_fista, ours=True),
    "PyLops FISTA, our operator, fixed λ": partial(_pylops_fista, ours=True, rates=(None,)),
    "PyLops SPGL1": partial(_pylops_spgl1, ours=False),
    "PyLops SPGL1, our operator": partial(_pylops_spgl1, ours=True),
    "PyLops OMP": partial(_pylops_omp, ours=False),
    "PyLops OMP, our operator": partial(_pylops_omp, ours=True),
    "spgl1": _spgl1,
    "spgl1, whitened rows": _spgl1_whitened,
    "scikit-learn OMP": _sklearn_omp,
    "celer": _celer,
    "cvxpy": _cvxpy,
}
"""Functions that yield the ways to run a solver on a task, by name."""
