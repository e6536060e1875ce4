"""Phase transitions: how often ℓ1 brings a sparse ΔW back, over the undersampling and the sparsity.

With d = ab/(mn) and ρ = s/(ab), for every ensemble: measurements through one plain ab × mn
projection against the Kronecker ones Lᵀ ΔW Rᵀ, and supports anywhere in ΔW against packed ones,
in one column, one row or a block.

    python -m experiments.phase_transition --out results/phase_transition
    python -m figures.phase_transition results/phase_transition --out results/figures
"""

import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory import CosaBasis
from cosa_theory.ground.checks import choice, real, refuse, whole
from cosa_theory.ground.estimates import clustered_share
from cosa_theory.ground.sweep import run_cells
from cosa_theory.laws.recovery import l1_weak_threshold, packed_l1_threshold
from cosa_theory.linear.operators import Factor
from cosa_theory.projections import KINDS, make_projection
from cosa_theory.recovery import RecoveryProblem, recover
from experiments.command import sweep_command
from experiments.phase_lines import verdict
from experiments.supports import PACKINGS, VALUES, capacity, sparse_updates

__all__ = ["PRESETS", "Cell", "Config", "cells", "compute", "expected_rho", "run"]

NAME, VERSION = "phase_transition", 1

STRUCTURES = ("plain", "kronecker")
FIRST_ITERATIONS = 200  # enough for most updates
# Rounding that is allowed to the measurements and to the norm of a competitor.
_ROUNDING = 1e-8
# Where Kronecker curves cross one half, as fractions of `expected_rho`: it centres the grid alone.
CENTRES = {"random": 0.7, "block": 0.5}
SHARED = ("draws", "updates", "values", "error", "iterations", "seed")


@dataclass(frozen=True)
class Config:
    """What is swept.

    Attributes
    ----------
    shape : tuple of int
        (m, n) of ΔW.
    cores : tuple of tuple of int
        The (a, b) at which the ensembles `lines` are measured.
    lines : tuple of str
        Ensembles measured at every core, which gives lines over d.
    core : tuple of int
        The (a, b) at which every ensemble of `kinds` is measured.
    kinds : tuple of str
        Ensembles.
    packings : tuple of str
        Where the nonzero entries are, see `experiments.supports`.
    packed_plain : tuple of str
        Ensembles whose plain projections get packed supports too, at `core`. The columns of most
        are exchangeable, so that the place of the entries cannot matter; those of srht are not.
    fractions : tuple of float
        The sparsities, as fractions of where the curve is expected to cross. Those that a packing
        cannot hold become the most that it holds.
    draws, updates : int
        Independent projections of a cell, and updates measured by each.
    values : {"gaussian", "signs"}
        Of the nonzero entries.
    error : float
        The largest relative error ‖estimate − ΔW‖/‖ΔW‖ that is a success.
    iterations : int
        The most that the solver gets.
    seed : int
        Of the projections and the updates.
    """

    shape: tuple[int, int] = (32, 32)
    cores: tuple[tuple[int, int], ...] = ((10, 10), (16, 16), (23, 23))
    lines: tuple[str, ...] = ("gaussian",)
    core: tuple[int, int] = (16, 16)
    kinds: tuple[str, ...] = KINDS
    packings: tuple[str, ...] = PACKINGS
    packed_plain: tuple[str, ...] = ("gaussian", "srht")
    fractions: tuple[float, ...] = (0.4, 0.75, 0.92, 1.08, 1.4)
    draws: int = 4
    updates: int = 5
    values: str = "gaussian"
    error: float = 1e-3
    iterations: int = 600
    seed: int = 0

    def __post_init__(self) -> None:
        m, n = self.shape
        for a, b in (*self.cores, self.core):
            if not (1 <= a <= m and 1 <= b <= n):
                raise refuse("core", (a, b), f"(a, b) with 1 ≤ a ≤ m = {m} and 1 ≤ b ≤ n = {n}")
        for name in ("draws", "updates", "iterations"):
            whole(name, getattr(self, name))
        real("error", self.error, above=0)
        for fraction in self.fractions or (0,):
            real("fractions", fraction, above=0)
        for kind in (*self.kinds, *self.lines, *self.packed_plain):
            choice("kinds", kind, KINDS)
        for packing in self.packings:
            choice("packings", packing, PACKINGS)
        choice("values", self.values, VALUES)


PRESETS = {
    "quick": Config(),
    "full": Config(
        cores=((7, 7), (10, 10), (13, 13), (16, 16), (20, 20), (23, 23), (26, 26), (28, 28)),
        lines=KINDS,
        packed_plain=KINDS,
        fractions=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5),
        draws=10,
        updates=5,
        iterations=5000,
    ),
}


@dataclass(frozen=True)
class Cell:
    """One point of one success curve.

    Attributes
    ----------
    structure : {"plain", "kronecker"}
        One ab × mn projection, or Lᵀ ⊗ R.
    kind, packing : str
        The ensemble, and where the nonzero entries are.
    m, n, a, b, s : int
        Sizes and the number of nonzero entries.
    draws, updates, values, error, iterations, seed
        As in `Config`.
    """

    structure: str
    kind: str
    packing: str
    m: int
    n: int
    a: int
    b: int
    s: int
    draws: int
    updates: int
    values: str
    error: float
    iterations: int
    seed: int


def expected_rho(structure: str, packing: str, m: int, n: int, a: int, b: int) -> float:
    """Return the ρ = s/(ab) that the theory of Gaussian projections has for the 50 % line.

    The weak threshold of ℓ1 for plain projections, whose columns are exchangeable, and, for want of
    a law of their own, for random supports under Kronecker ones; for packed supports under those
    `cosa_theory.laws.recovery.packed_l1_threshold`, of which that of a block is an upper bound.
    """
    if structure == "kronecker" and packing != "random":
        return float(packed_l1_threshold(m, n, a, b, packing))  # type: ignore[arg-type]
    return float(l1_weak_threshold(a * b / (m * n)))


def cells(config: Config) -> list[Cell]:
    """Return the cells of a sweep: some ensembles at every core, all of them at one."""
    curves = [(kind, core) for core in config.cores for kind in config.lines]
    curves += [(kind, config.core) for kind in config.kinds]
    rest = tuple(getattr(config, name) for name in SHARED)

    def wanted(structure: str, packing: str, kind: str, core: tuple[int, int]) -> bool:
        everywhere = structure == "kronecker" or packing == "random"
        return everywhere or (core == config.core and kind in config.packed_plain)

    return [
        Cell(structure, kind, packing, *config.shape, *core, s, *rest)
        for kind, core in dict.fromkeys(curves)
        for structure in STRUCTURES
        for packing in config.packings
        if wanted(structure, packing, kind, core)
        for s in _sparsities(config, structure, packing, core)
    ]


def _sparsities(config: Config, structure: str, packing: str, core: tuple[int, int]) -> list[int]:
    """Return the numbers of nonzero entries of a curve, the same for every ensemble."""
    expected = expected_rho(structure, packing, *config.shape, *core) * core[0] * core[1]
    centre = CENTRES.get(packing, 1.0) if structure == "kronecker" else 1.0
    wanted = (round(fraction * centre * expected) for fraction in config.fractions)
    most = capacity(*config.shape, packing)
    return sorted({min(max(1, s), most) for s in wanted})


def compute(cell: Cell) -> dict[str, Any]:
    """Recover the updates of a cell and count the successes."""
    draws = [_recovered(cell, draw) for draw in range(cell.draws)]
    errors = np.array([draw.errors for draw in draws])
    found, trials = errors <= cell.error, errors.size
    share = clustered_share(~found)
    sizes = (cell.m, cell.n, cell.a, cell.b)
    optimal, refuted = (np.array([getattr(d, n) for d in draws]) for n in ("optimal", "refuted"))
    return {
        "d": cell.a * cell.b / (cell.m * cell.n),
        "rho": cell.s / (cell.a * cell.b),
        "expected_rho": expected_rho(cell.structure, cell.packing, *sizes),
        "weak_threshold": expected_rho("plain", "random", *sizes),
        "trials": trials,
        "successes": int(found.sum()),
        "share": 1 - share.value,
        "ci_low": 1 - share.high,
        "ci_high": 1 - share.low,
        "successes_by_draw": json.dumps(found.sum(axis=1).tolist()),
        "optimal": int(optimal.sum()),
        "refuted": int((refuted & ~found).sum()),
        "undecided": int((~found & ~refuted).sum()),
        "median_error": float(np.median(errors)),
        "median_iterations": float(np.median([draw.iterations for draw in draws])),
        "solver_seconds": sum(draw.seconds for draw in draws),
    }


@dataclass
class _Outcome:
    """What became of the updates that one draw of the projections measured, an entry for each.

    A failure is proven by any other update that has the same measurements and no larger norm,
    however far that one is from the minimum: the true one is then not the only minimum.
    """

    errors: NDArray[np.float64]
    optimal: NDArray[np.bool_]
    refuted: NDArray[np.bool_]
    iterations: NDArray[np.int64]
    seconds: float = 0.0


def _recovered(cell: Cell, draw: int) -> _Outcome:
    """Recover the updates that one draw of the projections measures.

    All get a few iterations; those whose fate is then open, neither found nor refuted, get more.
    """
    operator, shape = _operator(cell, draw)
    X = _updates(cell, draw)
    Y = operator.apply(X) if shape is None else X.reshape(cell.updates, -1) @ operator.T
    # Zero explains measurements that are all zero: such an update is lost.
    lost = ~Y.any(axis=tuple(range(1, Y.ndim)))
    zeros = np.zeros(cell.updates)
    outcome = _Outcome(zeros + 1, zeros > 0, lost.copy(), zeros.astype(np.int64))
    for limit in (min(FIRST_ITERATIONS, cell.iterations), cell.iterations):
        undecided = np.flatnonzero((outcome.errors > cell.error) & ~outcome.refuted)
        if undecided.size and (outcome.iterations[undecided] < limit).any():
            problem = RecoveryProblem(operator, Y[undecided], shape=shape)
            _attempt(problem, X[undecided], limit, outcome, undecided)
    return outcome


def _attempt(
    problem: RecoveryProblem,
    X: NDArray[np.float64],
    limit: int,
    outcome: _Outcome,
    places: NDArray[np.int64],
) -> None:
    """Run the solver on some of the updates and enter what it finds."""
    result = recover(problem, "basis_pursuit", debiasing=False, max_iterations=limit)
    outcome.errors[places] = result.relative_error(X)
    outcome.optimal[places] = np.array(result.statuses) == "optimal"
    no_larger = result.objective <= np.abs(X).sum(axis=(1, 2)) * (1 + _ROUNDING)
    outcome.refuted[places] = no_larger & (result.residual <= _ROUNDING)
    outcome.iterations[places] = result.iterations
    outcome.seconds += result.seconds


def _updates(cell: Cell, draw: int) -> NDArray[np.float64]:
    """Draw the updates that a draw of the projections measures."""
    settings: dict[str, Any] = {"values": cell.values, "seed": cell.seed}
    key = (NAME, cell.structure, cell.kind, cell.a, cell.b, draw)
    shape = (cell.m, cell.n)
    return sparse_updates(shape, cell.s, cell.packing, cell.updates, **settings, key=key)


def _operator(cell: Cell, draw: int) -> tuple[Any, tuple[int, int] | None]:
    """Draw the projections of a cell; the shape of ΔW goes with a plain one."""
    key = (NAME, cell.structure, cell.packing, cell.s, draw)
    settings: dict[str, Any] = {"seed": cell.seed, "scale": "analysis", "key": key}
    if cell.structure == "kronecker":
        basis = CosaBasis.sample(cell.m, cell.n, cell.a, cell.b, kind=cell.kind, **settings)
        return basis.sensing(), None
    drawn = make_projection(cell.kind, cell.a * cell.b, cell.m * cell.n, **settings)
    return Factor(drawn, "Φ").dense(np.dtype(np.float64)), (cell.m, cell.n)


def run(config: Config, **settings: Any) -> pd.DataFrame:
    """Run the sweep.

    Parameters
    ----------
    config : Config
        What is swept.
    **settings
        folder, jobs, dask, timeout, progress: as for `cosa_theory.ground.sweep.run_cells`.

    Returns
    -------
    pandas.DataFrame
        One row for each cell: the settings of `Cell`; d = ab/(mn), rho = s/(ab), expected_rho (see
        the function) and weak_threshold at that d; trials, successes, share with ci_low and
        ci_high (95 %, over draws), successes_by_draw (a JSON list); optimal (trials whose answer
        the solver proved to be the minimum), refuted (failures proven by another update with
        the same measurements and no larger norm) and undecided (other failures, for want of
        iterations); median_error, median_iterations, solver_seconds; and what `run_cells` adds.
    """
    return run_cells(compute, cells(config), name=NAME, version=VERSION, **settings)


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep from the command line; the result is the exit code."""
    description = "Success of l1 recovery over undersampling and sparsity, for every ensemble."
    return sweep_command(NAME, description, PRESETS, run, verdict, arguments)


if __name__ == "__main__":
    sys.exit(main())
