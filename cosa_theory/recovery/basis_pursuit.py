"""Basis pursuit and its form with noise: the least ℓ1 norm that explains the measurements."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from array_api_compat import array_namespace
from numpy.typing import NDArray

from cosa_theory.operators import to_host
from cosa_theory.recovery.constraint import (
    Constraint,
    constraint_of,
    flat_norms,
    per_item,
    take,
)
from cosa_theory.recovery.items import check_options, out_of_reach
from cosa_theory.recovery.pursuit_polish import Polisher
from cosa_theory.recovery.result import Certificate, Solution
from cosa_theory.recovery.shrinkage import soft_threshold
from cosa_theory.recovery.system import System, like_array

__all__ = ["basis_pursuit", "bpdn"]

Monitor = Callable[[int, float, Any], None]

_CHECK_EVERY = 10  # iterations between certificates: each costs about one iteration's half
_FIRST_STEP = 0.1  # of the least-norm answer's largest entry
# The step that balances primal and dual distances is ‖x*‖/‖Φᵀν*‖; a fifth of it was within 1.4 of
# the best over sizes, sparsities and both kinds of sensing, because the distance to go from the
# least-norm answer is shorter than ‖x*‖.
_STEP_SHARE = 0.2
_TOLERANCES = {8: 1e-8, 4: 1e-5}  # relative gap, by bytes of a number
_MATCHED = {8: 1e-8, 4: 1e-4}  # share of ‖y‖ by which the constraint may be missed at exit


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

    Parameters, algorithm and certificate are those of `bpdn` with σ = 0, whatever the noise level.

    Raises
    ------
    ValueError
        If an option is out of range.

    References
    ----------
    S. S. Chen, D. L. Donoho, M. A. Saunders, "Atomic decomposition by basis pursuit", SIAM
    Journal on Scientific Computing 20 (1998), 33-61, equation (3.1).
    """
    solution = bpdn(
        system,
        Y,
        noise_level=0.0,
        tolerance=tolerance,
        max_iterations=max_iterations,
        start=start,
        polish=polish,
        monitor=monitor,
    )
    if noise_level > 0:
        ignored = "the noise level is not used: bpdn is the method that allows for it"
        message = f"{solution.message}; {ignored}" if solution.message else ignored
        object.__setattr__(solution, "message", message)
    return solution


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

    Parameters
    ----------
    system : System
    Y : array or tensor, shape (B, p, q)
        Right-hand sides; each leaves the batch when it is solved.
    noise_level : float
        σ; zero asks for equality.
    tolerance : float, optional
        Of the duality gap over ‖x‖₁; 1e-8 in float64 and 1e-5 in float32 by default.
    max_iterations : int
        Of each right-hand side.
    start : array or tensor, shape (B, m, n), optional
        Coefficients to start from.
    polish : bool
        Whether the linear systems of the optimum are solved on promising supports.
    monitor : callable, optional
        Called at every check with the iteration, the worst relative gap of those not yet solved,
        and their coefficients.

    Returns
    -------
    Solution
        Status "optimal" if gap and constraint, recomputed in float64 with the operator itself,
        hold; else "stalled", "iteration limit", or "infeasible" if no x satisfies the constraint.
        `certificate.dual` is a ν (B, p, q) with ‖Φᵀν‖_∞ ≤ 1, and the gap is
        ‖x‖₁ − ⟨y, ν⟩ + σ‖ν‖.

    Raises
    ------
    ValueError
        If an option is out of range.

    Notes
    -----
    Douglas-Rachford splitting [1]_ of the norm and the constraint, written so that an iteration
    costs one product into the row space of Φ and one back, as many as a gradient step: with V the
    basis of the row space, P the projection on the constraint in its coordinates (`Constraint`)
    and S the soft threshold,

        x⁺ = S(x + V d; γ),   h = 2Vᵀx⁺ − Vᵀx − d,   d⁺ = P(h) − h.

    The whitening is free and exact because Φ is diagonal there. V d/γ is a subgradient's part in
    the row space, so every iterate carries a dual point. Fixed points are the solutions for every
    γ > 0; it is rescaled at iterations 10, 20, 40, ….

    References
    ----------
    .. [1] P. L. Combettes, J.-C. Pesquet, "A Douglas-Rachford splitting approach to nonsmooth
       convex variational signal recovery", IEEE Journal of Selected Topics in Signal Processing 1
       (2007), 564-574.
    .. [2] E. van den Berg, M. P. Friedlander, "Probing the Pareto frontier for basis pursuit
       solutions", SIAM Journal on Scientific Computing 31 (2008), 890-912, for the dual problem.
    """
    bytes_ = to_host(Y[:0]).dtype.itemsize
    limit = _TOLERANCES[bytes_] if tolerance is None else tolerance
    check_options(limit, max_iterations)
    solver = _Solver(system, Y, noise_level, limit, polish)
    solver.run(start, max_iterations, monitor)
    return solver.solution()


@dataclass
class _State:
    """The iterates of the right-hand sides that are not solved yet."""

    items: NDArray[np.int64]
    constraint: Constraint
    x: Any  # (B, m, n), sparse
    c: Any  # (B, r, t), coordinates of x
    d: Any  # (B, r, t), γ times the coordinates of the dual point
    step: Any  # (B, 1, 1), γ
    multiplier: Any = None

    def keep(self, places: NDArray[np.int64]) -> None:
        """Keep the items at some places."""
        self.items, self.constraint = self.items[places], self.constraint.take(places)
        self.x, self.c, self.d = (take(part, places) for part in (self.x, self.c, self.d))
        self.step = take(self.step, places)
        if self.multiplier is not None:
            self.multiplier = take(self.multiplier, places)


class _Solver:
    """One call of `bpdn`."""

    def __init__(
        self, system: System, Y: Any, noise_level: float, tolerance: float, polish: bool
    ) -> None:
        self.system, self.Y, self.sigma, self.tolerance = system, Y, noise_level, tolerance
        self.constraint = constraint_of(system, Y, noise_level)
        self.space = self.constraint.space
        batch = int(Y.shape[0])
        self.X = array_namespace(Y).zeros(
            (batch, *system.coefficient_shape), dtype=Y.dtype, device=_device(Y)
        )
        self.dual = 0 * Y
        self.iterations = np.zeros(batch, np.int64)
        self.status = ["infeasible"] * batch
        self.polished = np.zeros(batch, bool)
        self.history: dict[str, list[Any]] = {"iteration": [], "objective": [], "certificate": []}
        self.last = {name: np.full(batch, np.nan) for name in ("objective", "certificate")}
        self.polisher: Polisher | None = None
        if polish:
            host = np.asarray(to_host(Y), dtype=np.float64)
            eps = float(array_namespace(Y).finfo(Y.dtype).eps)
            self.polisher = Polisher(system, constraint_of(system, host, noise_level, eps))
        r, t = self.space.values.shape
        m, n = system.coefficient_shape
        # Multiply-adds of one iteration, and those spent on polishing, of each item.
        self.iteration_work = 2.0 * min(r * m * n + r * n * t, m * n * t + m * t * r)
        self.polish_work = np.zeros(batch)
        self.tried: list[bytes] = [b""] * batch

    def run(self, start: Any, max_iterations: int, monitor: Monitor | None) -> None:
        """Iterate until every item is solved or the iterations end."""
        feasible = np.flatnonzero(self.constraint.feasible)
        if feasible.size == 0:
            return
        state = self._first(feasible, start)
        rescale_at = _CHECK_EVERY
        for iteration in range(1, max_iterations + 1):
            towards = self.space.coefficients(state.d)
            check = iteration % _CHECK_EVERY == 0 or iteration == max_iterations
            duals = self._dual_bounds(state, towards) if check else None
            towards += state.x
            x = soft_threshold(towards, state.step)
            c = self.space.coordinates(x)
            h = 2 * c - state.c - state.d
            projected, state.multiplier = state.constraint.project(h, state.multiplier)
            proof, state.x, state.c, state.d = state.d, x, c, projected - h
            if duals is None:
                continue
            self._check(state, proof, duals, iteration, iteration == max_iterations, monitor)
            if state.items.size == 0:
                return
            if iteration == rescale_at:
                rescale_at *= 2
                self._rescale(state)

    def _first(self, items: NDArray[np.int64], start: Any) -> _State:
        """Return the state at the start: zero, with the least-norm answer as the first dual."""
        constraint = self.constraint.take(items)
        least_norm = self.space.coefficients(constraint.centre)
        step = per_item(_FIRST_STEP * _largest(least_norm), self.Y)
        if start is None:
            x, c, d = 0 * least_norm, 0 * constraint.centre, 1 * constraint.centre
            return _State(items, constraint, x, c, d, _positive(step))
        x = take(start, items)
        c, d = self.space.coordinates(x), 0 * constraint.centre
        state = _State(items, constraint, x, c, d, _positive(step))
        if self.polisher is not None:
            for place, item in enumerate(items):
                found = self.polisher.polish(int(item), _host64(x[place]), None)
                if found is not None:
                    state.d[place] = like_array(found.dual, d) * state.step[place, 0, 0]
        return state

    def _dual_bounds(self, state: _State, image: Any) -> NDArray[np.float64]:
        """Return the dual objective of V d scaled to feasibility, for each item."""
        value = state.constraint.dual_value(state.d)
        largest = _largest(image)
        return np.where(value > 0, value / np.where(largest > 0, largest, 1.0), 0.0)

    def _check(
        self,
        state: _State,
        proof: Any,
        duals: NDArray[np.float64],
        iteration: int,
        last: bool,
        monitor: Monitor | None,
    ) -> None:
        """Find the gaps, and hand out and drop what is solved."""
        nearest, _ = state.constraint.project(state.c, state.multiplier)
        feasible = state.x + self.space.coefficients(nearest - state.c)
        objective = _sums64(feasible)
        gaps = _relative(objective - duals, objective)
        self.iterations[state.items] = iteration
        self.last["objective"][state.items] = objective
        done = np.zeros(state.items.size, bool)
        for place, item in enumerate(state.items):
            found = self._polished(state, place, last)
            if found is not None:
                gaps[place], done[place] = found, True
            elif gaps[place] <= self.tolerance or last:
                status = "optimal" if gaps[place] <= self.tolerance else "iteration limit"
                self._hand_out(item, feasible[place], proof[place], status)
                done[place] = True
        self.last["certificate"][state.items] = gaps
        self._record(iteration)
        if monitor is not None:
            monitor(iteration, float(gaps.max()), state.x)
        if done.any():
            state.keep(np.flatnonzero(~done))

    def _polished(self, state: _State, place: int, last: bool) -> float | None:
        """Try to finish one item; return its relative gap, or None if it is not finished."""
        if self.polisher is None:
            return None
        item = int(state.items[place])
        X = _host64(state.x[place])
        count = int(np.count_nonzero(X))
        work = self.polisher.work(count)
        budget = self.iteration_work * self.iterations[item]
        if count > self.polisher.largest or (self.polish_work[item] + work > budget and not last):
            return None
        self.polish_work[item] += work
        scaled = _host64(state.d[place]) / float(state.step[place, 0, 0])
        found = self.polisher.polish(item, X, scaled)
        if found is None:
            return None
        exact = self.polisher
        image, value = exact.judged(item, found)
        objective = found.objective
        bound = value / max(1.0, image)
        gap = float(_relative(np.asarray(objective - bound), np.asarray(objective)))
        if gap > self.tolerance:
            return None
        flat = np.zeros(self.system.size)
        flat[found.support] = found.values
        answer = like_array(flat.reshape(self.system.coefficient_shape), self.Y)
        self._hand_out(item, answer, like_array(found.dual, self.Y), "optimal")
        self.polished[item] = True
        self.last["objective"][item] = objective
        return gap

    def _hand_out(self, item: int, x: Any, d: Any, status: str) -> None:
        """Store the answer of one item and its dual point, whose scale is set later."""
        self.X[item] = x
        one = self.constraint.take(np.array([item]))
        self.dual[item] = one.dual_point(d[None])[0]
        self.status[item] = status

    def _rescale(self, state: _State) -> None:
        """Set γ to a share of ‖x‖/‖V d/γ‖, keeping the dual point."""
        size, dual = flat_norms(state.x), flat_norms(state.d)
        usable = (size > 0) & (dual > 0)
        ratio = np.where(usable, _STEP_SHARE * size / np.where(usable, dual, 1.0), 1.0)
        factor = per_item(ratio, state.d)
        state.step, state.d = state.step * factor, state.d * factor

    def _record(self, iteration: int) -> None:
        self.history["iteration"].append(iteration)
        for name, values in self.last.items():
            self.history[name].append(values.copy())

    def solution(self) -> Solution:
        """Return the answers, judged afresh in float64 with the operator itself."""
        X, Y = (np.asarray(to_host(part), dtype=np.float64) for part in (self.X, self.Y))
        dual = np.asarray(to_host(self.dual), dtype=np.float64)
        dual /= np.maximum(_largest(self.system.apply_adjoint(dual)), 1e-300).reshape(-1, 1, 1)
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
        equal = self.sigma == 0
        return Solution(
            coefficients=self.X,
            objective=objective,
            formula="‖x‖₁ subject to " + ("Φx = y" if equal else f"‖Φx − y‖ ≤ {self.sigma:g}"),
            certificate=Certificate(
                "duality gap", gap, relative, self.tolerance, like_array(dual, self.Y)
            ),
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
        projected = self.constraint.feasible & ~self.polished
        if projected.any():
            parts.append(
                f"{int(projected.sum())} of {len(self.status)} answers are iterates projected on "
                "the constraint, which are not exactly sparse"
            )
        return "; ".join(parts)


def _device(like: Any) -> Any:
    return getattr(like, "device", None)


def _host64(X: Any) -> NDArray[np.float64]:
    return np.asarray(to_host(X), dtype=np.float64)


def _positive(step: Any) -> Any:
    return array_namespace(step).where(step > 0, step, 1 + 0 * step)


def _largest(X: Any) -> NDArray[np.float64]:
    """Return the largest modulus of each item."""
    xp = array_namespace(X)
    return _host64(xp.amax(xp.abs(X), (-2, -1)) if hasattr(xp, "amax") else xp.max(xp.abs(X)))


def _sums64(X: Any) -> NDArray[np.float64]:
    """Return ‖x‖₁ of each item, added up in float64."""
    xp = array_namespace(X)
    return _host64(xp.sum(xp.abs(X), axis=(-2, -1), dtype=xp.float64))


def _relative(gap: NDArray[np.float64], objective: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return |gap|/objective; a gap is negative only by the rounding of the constraint."""
    return np.abs(gap) / np.where(objective > 0, objective, 1.0)
