"""Basis pursuit and its form with noise: the least ℓ1 norm that explains the measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.constraint import constraint_of, flat_norms, take
from cosa_theory.recovery.items import out_of_reach
from cosa_theory.recovery.methods import Monitor, default_tolerance, solver
from cosa_theory.recovery.pursuit_polish import Polisher
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.solvers.fista import fista
from cosa_theory.recovery.splitting import CHECK_EVERY, Iterate, Splitting, largest
from cosa_theory.recovery.system import Floats, Indices, System, like_array
from cosa_theory.recovery.vertex import Candidate

__all__ = ["basis_pursuit", "bpdn"]

_GUESS, _NEAR = 60, 1e-4  # iterations and relative gap of the lasso that bpdn may start from
_FEW = 8  # measurements for each of its nonzero entries from which on that pays
_STEPS = 400  # of the simplex method at the first attempt; each further one takes twice as many
_PASSES = 40.0  # multiply-adds that the passes over one coefficient cost in an iteration
# Simplex steps may cost this many times what the iterations did: they end what those would not.
_VERTEX_SHARE = 2.0
_STUCK = {8: 8.0, 4: 4.0}  # units in the last place of ‖z‖ below which a step is rounding
_MATCHED = {8: 1e-8, 4: 1e-4}  # share of ‖y‖ by which the constraint may be missed at exit


@solver(4, arrays="any", exact=True, look=("blue", "-", "s"))
def basis_pursuit(
    system: System,
    Y: Any,
    *,
    noise_level: float = 0.0,
    tolerance: float | None = None,
    max_iterations: int = 5000,
    start: Any = None,
    polish: bool = True,
    monitor: Monitor | None = None,
) -> Solution:
    """Minimise ‖x‖₁ subject to Φx = y.

    Algorithm and certificate are those of `bpdn` with σ = 0, whatever the noise level.

    References
    ----------
    S. S. Chen, D. L. Donoho, M. A. Saunders, "Atomic decomposition by basis pursuit", SIAM
    Journal on Scientific Computing 20 (1998), 33-61, equation (3.1).
    """
    options: dict[str, Any] = {"start": start, "polish": polish, "monitor": monitor}
    solution = bpdn(system, Y, tolerance=tolerance, max_iterations=max_iterations, **options)
    if noise_level == 0:
        return solution
    ignored = "the noise level is not used: bpdn is the method that allows for it"
    return replace(solution, message="; ".join(filter(None, (solution.message, ignored))))


@solver(5, arrays="any", exact=True, look=("sky", "--", "D"))
def bpdn(
    system: System,
    Y: Any,
    *,
    noise_level: float = 0.0,
    tolerance: float | None = None,
    max_iterations: int = 5000,
    start: Any = None,
    polish: bool = True,
    monitor: Monitor | None = None,
) -> Solution:
    """Minimise ‖x‖₁ subject to ‖Φx − y‖ ≤ σ.

    Right-hand sides leave the batch when they are solved.

    Returns
    -------
    Solution
        Status "optimal" if gap and constraint, recomputed in float64 with the operator itself,
        hold; else "stalled", "iteration limit", or "infeasible" if no x satisfies the constraint.
        `certificate.dual` is a ν (B, p, q) with ‖Φᵀν‖_∞ ≤ 1, and the gap is
        ‖x‖₁ − ⟨y, ν⟩ + σ‖ν‖.

    Notes
    -----
    An iteration (`cosa_theory.recovery.splitting.Splitting`) costs one product into the row space
    of Φ and one back, as many as a gradient step. Once the support of an iterate is right, two
    linear systems give the optimum with a gap at rounding level (`Polisher`); where the answer is
    not sparse and Φ has rank up to 1,024, simplex steps from a vertex near the iterate reach the
    optimal one (`optimal_vertex`). Either is tried as often as the iterations' own work pays for.
    With noise and no start, a few lasso steps are taken first, and begun from if they are very
    sparse.

    The dual problem is that of [1]_.

    References
    ----------
    .. [1] E. van den Berg, M. P. Friedlander, "Probing the Pareto frontier for basis pursuit
       solutions", SIAM Journal on Scientific Computing 31 (2008), 890-912, section 3.
    """
    limit = default_tolerance(Y) if tolerance is None else tolerance
    pursuit = _Pursuit(system, Y, noise_level, limit, polish)
    pursuit.run(start, max_iterations, monitor)
    return pursuit.solution()


class _Pursuit:
    """One call of `bpdn`."""

    def __init__(
        self, system: System, Y: Any, noise_level: float, tolerance: float, polish: bool
    ) -> None:
        self.system, self.Y, self.sigma, self.tolerance = system, Y, noise_level, tolerance
        self.constraint = constraint_of(system, Y, noise_level)
        self.space = self.constraint.space
        batch = int(Y.shape[0])
        shape, place = (batch, *system.coefficient_shape), getattr(Y, "device", None)
        self.X = array_namespace(Y).zeros(shape, dtype=Y.dtype, device=place)
        self.dual = 0 * Y
        self.iterations = np.zeros(batch, np.int64)
        self.status = ["infeasible"] * batch
        self.polished = np.zeros(batch, bool)
        self.history: dict[str, list[Any]] = {"iteration": [], "objective": [], "certificate": []}
        self.last = {name: np.full(batch, np.nan) for name in ("objective", "certificate")}
        self.eps = float(array_namespace(Y).finfo(Y.dtype).eps)
        self.stuck = _STUCK[to_host(Y[:0]).dtype.itemsize] * self.eps
        host = np.asarray(to_host(Y), dtype=np.float64)
        exact = constraint_of(system, host, noise_level, self.eps)
        self._exact = Polisher(system, exact, self.eps)
        self.polish = polish
        r, t = self.space.values.shape
        m, n = system.coefficient_shape
        # Multiply-adds of one iteration, and those spent on polishing, of each item.
        products = 2.0 * min(r * m * n + r * n * t, m * n * t + m * t * r)
        self.iteration_work = products + _PASSES * m * n
        self.steps = np.full(batch, _STEPS)  # of the simplex method at the next attempt
        self.fit_work, self.vertex_work = np.zeros(batch), np.zeros(batch)

    def run(self, start: Any, max_iterations: int, monitor: Monitor | None) -> None:
        """Iterate until every item is solved or the iterations end."""
        items = np.flatnonzero(self.constraint.feasible)
        if items.size == 0:
            return
        items, splitting = self._begun(items, start)
        if splitting is None:
            return
        for iteration in range(1, max_iterations + 1):
            found = splitting.iterate()
            last = iteration == max_iterations
            if iteration % CHECK_EVERY and not last:
                splitting.advance(found)
                continue
            residual, size = splitting.residual(found)
            stuck = residual <= self.stuck * size
            open_ = self._check(items, splitting, found, stuck, last)
            self._record(iteration)
            if monitor is not None:
                monitor(iteration, float(self.last["certificate"][items].max()), found.x)
            if open_.size == 0:
                return
            if open_.size < items.size:
                items, found, residual = items[open_], found.take(open_), residual[open_]
                splitting.keep(open_)
            splitting.advance_or_restart(found, residual)

    def _begun(self, items: Indices, start: Any) -> tuple[Indices, Splitting | None]:
        """Return the items to iterate on, if any, and the splitting at its start.

        What is warm may be finished at once; if not, a dual point is fitted to it.
        """
        warm = np.ones(len(self.status), bool)
        if start is None:
            start, warm = self._guess()
        if start is None:
            return items, Splitting(self.constraint.take(items))
        dual, solved = 0 * self.constraint.centre, np.zeros(len(self.status), bool)
        for item in items[warm[items]].tolist() if self.polish else ():
            found = self._exact.polish(item, _host64(start[item]), None)
            if found is not None:
                dual[item] = like_array(found.dual, dual)
                solved[item] = self._proven(item, found)
        if solved.any():
            self._record(0)
        left = items[~solved[items]]
        if left.size == 0:
            return left, None
        return left, Splitting(self.constraint.take(left), take(start, left), take(dual, left))

    def _guess(self) -> tuple[Any, NDArray[np.bool_]]:
        """Return the solutions of a lasso where they are soon found and very sparse.

        Elsewhere the start is the least-norm answer, as it is without a guess.
        """
        warm = np.zeros(len(self.status), bool)
        if self.sigma == 0 or not self.polish:
            return None, warm
        near = fista(
            self.system, self.Y, noise_level=self.sigma, tolerance=_NEAR, max_iterations=_GUESS
        )
        X, cold = near.coefficients, self.space.coefficients(self.constraint.centre)
        for item, status in enumerate(near.status):
            count = int(np.count_nonzero(to_host(X[item])))
            warm[item] = status == "optimal" and count <= self.system.measurements // _FEW
            if not warm[item]:
                X[item] = cold[item]
        return X if warm.any() else None, warm

    def _check(
        self,
        items: Indices,
        splitting: Splitting,
        found: Iterate,
        stuck: NDArray[np.bool_],
        last: bool,
    ) -> Indices:
        """Find the gaps, store the answers of what is solved, and return the places of the rest."""
        nearest, _ = splitting.constraint.project(found.coordinates, splitting.multiplier)
        feasible = found.x + self.space.coefficients(nearest - found.coordinates)
        objective = _sums64(feasible)
        value, size = splitting.constraint.dual_value(found.dual), largest(found.image)
        bound = np.where(value > 0, value / np.where(size > 0, size, 1.0), 0.0)
        gaps = _relative(objective - bound, objective)
        self.iterations[items] = splitting.iteration
        self.last["objective"][items], self.last["certificate"][items] = objective, gaps
        still = []
        for place, item in enumerate(items):
            ended = last or bool(stuck[place])
            candidates = self._candidates(int(item), place, splitting, found, ended)
            if any(self._proven(int(item), exact) for exact in candidates):
                continue
            if gaps[place] <= self.tolerance or ended:
                status = "stalled" if stuck[place] else "iteration limit"
                self._store(int(item), feasible[place], found.dual[place], status)
            else:
                still.append(place)
        return np.array(still, dtype=np.int64)

    def _proven(self, item: int, exact: Candidate) -> bool:
        """Keep an exact solution of one item, if its gap is within the tolerance."""
        objective = exact.objective
        gap = objective - self._exact.bound(item, exact)
        relative = float(_relative(np.asarray(gap), np.asarray(objective)))
        if relative > self.tolerance:
            return False
        flat = np.zeros(self.system.size)
        flat[exact.support] = exact.values
        answer = like_array(flat.reshape(self.system.coefficient_shape), self.Y)
        self._store(item, answer, like_array(exact.dual, self.Y), "optimal")
        self.polished[item] = True
        self.last["objective"][item], self.last["certificate"][item] = objective, relative
        return True

    def _candidates(
        self, item: int, place: int, splitting: Splitting, found: Iterate, ended: bool
    ) -> Iterator[Candidate]:
        """Yield exact solutions to be judged, no more than the iterations' own work pays for."""
        if not self.polish:
            return
        budget = self.iteration_work * self.iterations[item]
        X = _host64(found.x[place])
        size = self._exact.size(int(np.count_nonzero(X)))
        work = self._exact.work(size)
        if size and (ended or self.fit_work[item] + work <= budget):
            self.fit_work[item] += work
            dual = _host64(found.dual[place]) / float(splitting.gamma[place])
            fitted = self._exact.polish(item, X, dual)
            if fitted is not None:
                yield fitted
        if self.constraint.radius[item] > 0:
            return
        steps = int(self.steps[item])
        work = self._exact.vertex_work(steps) + 0.5 * steps * self.iteration_work
        if self.vertex_work[item] + work <= _VERTEX_SHARE * budget:
            self.vertex_work[item] += work
            self.steps[item] *= 2
            vertex = self._exact.vertex(item, np.abs(_host64(splitting.z[place])), steps)
            if vertex is not None:
                yield vertex

    def _store(self, item: int, x: Any, dual: Any, status: str) -> None:
        """Keep the answer of one item and its dual point, which `solution` scales and judges."""
        self.X[item] = x
        one = self.constraint.take(np.array([item]))
        self.dual[item] = one.dual_point(dual[None])[0]
        self.status[item] = status

    def _record(self, iteration: int) -> None:
        self.history["iteration"].append(iteration)
        for name, values in self.last.items():
            self.history[name].append(values.copy())

    def solution(self) -> Solution:
        """Return the answers, judged afresh in float64 with the operator itself."""
        X, Y = (np.asarray(to_host(part), dtype=np.float64) for part in (self.X, self.Y))
        dual = np.asarray(to_host(self.dual), dtype=np.float64)
        dual /= np.maximum(largest(self.system.apply_adjoint(dual)), 1e-300).reshape(-1, 1, 1)
        objective = _sums64(X)
        value = np.einsum("bij,bij->b", Y, dual) - self.sigma * flat_norms(dual)
        dual[value <= 0] = 0.0
        gap = objective - np.maximum(value, 0.0)
        missed = flat_norms(self.system.apply(X) - Y) - self.sigma
        matched = missed <= _MATCHED[to_host(self.Y[:0]).dtype.itemsize] * flat_norms(Y)
        relative = _relative(gap, objective)
        infeasible = ~self.constraint.feasible
        gap[infeasible] = relative[infeasible] = np.inf
        for item in np.flatnonzero(~infeasible):
            proven = matched[item] and relative[item] <= self.tolerance
            if proven:
                self.status[item] = "optimal"
            elif self.status[item] == "optimal":
                self.status[item] = "stalled"
        return Solution(
            coefficients=self.X,
            objective=objective,
            formula=f"‖x‖₁ subject to {self.constraint.condition}",
            certificate=Certificate("duality gap", gap, relative, self.tolerance, dual),
            status=tuple(self.status),
            iterations=self.iterations,
            history={name: np.asarray(values) for name, values in self.history.items()},
            message=self._message(),
        )

    def _message(self) -> str:
        distance = self.constraint.distance[~self.constraint.feasible]
        parts = []
        if distance.size:
            parts.append(out_of_reach(float(distance.max()), self.sigma, self.system))
        projected, count = self.constraint.feasible & ~self.polished, len(self.status)
        if projected.any():
            several = f"{int(projected.sum())} of {count} answers are iterates"
            which = "the answer is an iterate" if count == 1 else several
            parts.append(f"{which} projected on the constraint, which is not exactly sparse")
        return "; ".join(parts)


def _host64(X: Any) -> Floats:
    return np.asarray(to_host(X), dtype=np.float64)


def _sums64(X: Any) -> Floats:
    """Return ‖x‖₁ of each item, added up in float64."""
    xp = array_namespace(X)
    return _host64(xp.sum(xp.abs(X), axis=(-2, -1), dtype=xp.float64))


def _relative(gap: Floats, objective: Floats) -> Floats:
    """Return |gap|/objective; a gap is negative only by the rounding of the constraint."""
    return np.abs(gap) / np.where(objective > 0, objective, 1.0)
