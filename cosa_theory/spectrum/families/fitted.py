"""Families that are measured by their fit: a size, the best update of that size, what it costs."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import LinAlgError, cho_factor, cho_solve

from cosa_theory.ground.checks import refuse
from cosa_theory.spectrum.families.base import (
    Captured,
    Certainty,
    Cost,
    Draws,
    Fit,
    Size,
    Update,
    register,
    t_interval,
)
from cosa_theory.spectrum.singular_vectors import best_factors

__all__ = [
    "Fitted",
    "Matrix",
    "Places",
    "add",
    "climb",
    "drawn_places",
    "leading_factors",
    "solved",
]

Matrix = NDArray[np.float64]
Places = NDArray[np.intp]
State = TypeVar("State")

_DRAWS = 4  # of a family that is drawn: its share differs little between them
ROUNDS = 20
"""The most steps of a search."""
_PERMUTED = 1 << 22  # places; to permute more takes seconds
_RIDGE = 1e-10  # of the mean diagonal of normal equations, which may be singular


@dataclass(frozen=True)
class Fitted:
    """A family whose share of the energy is 1 − ‖ΔW − Â‖²/‖ΔW‖² with Â its fit.

    Parameters
    ----------
    name, label, reference, group, certainty, needs_base : see `Family`
    sizes : callable
        (m, n, P) to the largest `Size` with at most P parameters; m is the number of outputs.
    best : callable
        (update, size, draws) to the `Fit`. ΔW and W come as outputs × inputs, in float64.
    costs : callable
        (m, n, size) to `Cost`.
    drawn : bool
        Whether the fit depends on a draw; the share is then the mean over a few, or where a fit is
        searched for, that of one draw, without an interval.
    law : bool
        Whether it is oblivious: it captures the share P/(mn) on average over rotations of ΔW.
    needs_slope : bool
        Whether it takes the gradient of a loss.
    """

    name: str
    label: str
    reference: str
    sizes: Callable[[int, int, int], Size]
    best: Callable[[Update, Size, Draws], Fit]
    costs: Callable[[int, int, Size], Cost]
    group: str
    certainty: Certainty = "exact"
    needs_base: bool = False
    drawn: bool = False
    law: bool = False
    needs_slope: bool = False
    sided: bool = True

    def of(self, update: Update) -> "Fitted | None":
        """Return this family where W and the gradient are known as far as it takes them."""
        missing = self.needs_base and update.base is None
        return None if missing or (self.needs_slope and update.slope is None) else self

    @property
    def data_dependent(self) -> bool:
        """Whether its updates are chosen by W or ΔW."""
        return not self.law

    def size(self, m: int, n: int, parameters: int) -> Size:
        """Return the largest size with at most so many parameters (see `Family.size`)."""
        return self.sizes(m, n, parameters)

    def cost(self, m: int, n: int, size: Size) -> Cost:
        """Return what an update of one size costs (see `Family.cost`)."""
        return self.costs(m, n, size)

    def fit(self, update: Update, size: Size, draws: Draws) -> Fit:
        """Return the best update that was found (see `Family.fit`)."""
        if self.of(update) is None:
            name, what = ("base", "weight") if update.base is None else ("slope", "gradient")
            raise refuse(name, None, f"the {what}, which {self.label} takes")
        dtype, turned = update.delta.dtype, update.transposed
        found = self.best(_oriented(update), size, draws)

        def build(*trained: NDArray) -> NDArray:
            made = found.build(*trained).astype(dtype, copy=False)
            return made.T if turned else made

        return Fit(found.trained, build, found.held)

    def capture(self, update: Update, sizes: Sequence[Size], draws: Draws) -> list[Captured]:
        """Measure each size (see `Family.capture`): each once, from the largest on."""
        whole, found = _oriented(update), dict[Size, Captured]()
        for size in sorted(sizes, key=lambda one: -one.parameters):
            if size not in found:
                found[size] = self._captured(whole, size, draws)
        return [found[size] for size in sizes]

    def _captured(self, update: Update, size: Size, draws: Draws) -> Captured:
        m, n = update.shape
        law = size.parameters / (m * n) if self.law else None
        if not size.parameters:
            return Captured.exact(float("nan"), law)
        if not self.drawn:
            return Captured.exact(self._share(update, size, draws), law)
        if self.certainty != "exact":  # a search is long, and its end no sample of anything
            return replace(Captured.exact(self._share(update, size, draws), law), draws=1)
        keys = [(*draws.key, "draw", index) for index in range(min(_DRAWS, draws.most))]
        shares = [self._share(update, size, replace(draws, key=key)) for key in keys]
        return t_interval(np.array(shares), draws.confidence, law)

    def _share(self, update: Update, size: Size, draws: Draws) -> float:
        """Return the share that a fit holds of an update that is oriented; no rounding beyond 1."""
        delta = update.delta
        total = update.once("energy", lambda: float(np.vdot(delta, delta)))
        found = self.best(update, size, draws)
        if found.held is not None:
            return min(found.held / total, 1.0)
        left = delta - found.update()
        return 1.0 - float(np.vdot(left, left)) / total


def _oriented(update: Update) -> Update:
    """Return the update as outputs × inputs in float64."""

    def turned(given: NDArray | None) -> NDArray | None:
        if given is None:
            return None
        whole = given.astype(np.float64, copy=False)
        return whole.T if update.transposed else whole

    delta = turned(update.delta)
    assert delta is not None
    return replace(
        update,
        delta=delta,
        base=turned(update.base),
        slope=turned(update.slope),
        transposed=False,
    )


def drawn_places(update: Update, total: int, size: Size, draws: Draws, role: str) -> Places:
    """Return as many places of `total` as a size has numbers, in the order that a seed gives.

    Sizes are taken from the largest on, whose places are drawn once for all.
    """

    def drawn() -> Places:
        generator, count = draws.stream(role), size.parameters
        if total > _PERMUTED:
            return generator.choice(total, count, replace=False)
        return generator.permutation(total)[:count].copy()

    return update.once((role, draws.key), drawn)[: size.parameters]


def leading_factors(update: Update, rank: int) -> tuple[Matrix, Matrix]:
    """Return the best factors of ΔW, see `best_factors`; the largest rank is asked for first."""
    left, right = update.once("leading", lambda: best_factors(update.delta, rank))
    return left[:, :rank], right[:rank]


def add(
    place: int,
    name: str,
    label: str,
    reference: str,
    sizes: Callable[[int, int, int], Size],
    best: Callable[[Update, Size, Draws], Fit],
    costs: Callable[[int, int, Size], Cost],
    certainty: Certainty = "exact",
    *,
    group: str,
    **flags: bool,
) -> None:
    """Register a `Fitted` at its place in lists."""
    register(Fitted(name, label, reference, sizes, best, costs, group, certainty, **flags), place)


def climb(
    starts: Iterable[State],
    better: Callable[[State], tuple[State, float]],
    gain: float = 1e-3,
    rounds: int = ROUNDS,
) -> tuple[State, float]:
    """Improve the most promising start until a step gains little; return it with what it captures.

    Every start takes two steps, and the one that then captures most goes on.

    Parameters
    ----------
    starts : iterable
        Where to begin.
    better : callable
        Maps a state to a next one and the share of energy that one captures, which alternating
        exact steps never lower.
    gain : float
        Share of what is captured that a step has to add for another to follow.
    rounds : int
        The most steps, at least two.
    """
    begun = []
    for state in starts:
        state, first = better(state)
        state, second = better(state)
        begun.append((state, first, second))
    state, before, share = max(begun, key=lambda one: one[2])
    for _ in range(rounds - 2):
        if share - before <= gain * max(share, 0.0):
            break
        before = share
        state, share = better(state)
    return state, share


def solved(gram: Matrix, right: Matrix) -> Matrix:
    """Return the least squares solutions of normal equations; axes before the last are batch."""
    size = gram.shape[-1]
    mean = np.trace(gram, axis1=-2, axis2=-1)[..., None, None] / size
    ridge = np.where(mean > 0, _RIDGE * mean, 1.0) * np.eye(size)
    if gram.ndim == 2:
        return _positive(gram + ridge, right)
    return np.asarray(np.linalg.solve(gram + ridge, right[..., None])[..., 0], dtype=np.float64)


def _positive(gram: Matrix, right: Matrix) -> Matrix:
    """Solve with a matrix that is positive but for rounding, at half the work of another."""
    try:
        found = cho_solve(cho_factor(gram, check_finite=False), right, check_finite=False)
    except LinAlgError:
        found = np.linalg.solve(gram, right)
    return np.asarray(found, dtype=np.float64)
