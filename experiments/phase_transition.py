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

from cosa_theory import CosaBasis
from cosa_theory.isometry.intervals import clustered_share
from cosa_theory.laws.recovery import l1_weak_threshold, packed_l1_threshold
from cosa_theory.operators import Factor
from cosa_theory.projections import KINDS, make_projection
from cosa_theory.recovery import RecoveryProblem, recover
from experiments.crossing import Crossing, fit_crossing
from experiments.supports import PACKINGS, VALUES, capacity, sparse_updates
from experiments.sweep import run_cells
from experiments.sweep_command import sweep_command

__all__ = ["PRESETS", "Cell", "Config", "cells", "compute", "crossings", "expected_rho", "run"]

NAME, VERSION = "phase_transition", 1

STRUCTURES = ("plain", "kronecker")
# Where Kronecker curves cross one half, as fractions of `expected_rho`: it centres the grid alone.
CENTRES = {"random": 0.7, "block": 0.5}
LINE = ["structure", "kind", "packing", "m", "n", "a", "b"]
"""The columns that one success curve, over ρ, has in common."""


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
    fractions : tuple of float
        The sparsities, as fractions of where the curve is expected to cross. Those that a packing
        cannot hold become the most that it holds.
    draws, updates : int
        Independent projections of a cell, and updates measured by each.
    values : {"gaussian", "signs"}
        Of the nonzero entries.
    error : float
        The largest relative error ‖estimate − ΔW‖/‖ΔW‖ that is a success.
    seed : int
        Of the projections and the updates.
    """

    shape: tuple[int, int] = (32, 32)
    cores: tuple[tuple[int, int], ...] = ((10, 10), (16, 16), (23, 23), (28, 28))
    lines: tuple[str, ...] = ("gaussian",)
    core: tuple[int, int] = (16, 16)
    kinds: tuple[str, ...] = KINDS
    packings: tuple[str, ...] = PACKINGS
    fractions: tuple[float, ...] = (0.4, 0.6, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5)
    draws: int = 5
    updates: int = 4
    values: str = "gaussian"
    error: float = 1e-3
    seed: int = 0

    def __post_init__(self) -> None:
        m, n = self.shape
        for a, b in (*self.cores, self.core):
            if not (1 <= a <= m and 1 <= b <= n):
                raise ValueError(f"core {(a, b)} must have 1 ≤ a ≤ m = {m} and 1 ≤ b ≤ n = {n}")
        for name, least in (("draws", 1), ("updates", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}: it must be at least {least}")
        for name in ("fractions", "error"):
            value = getattr(self, name)
            if not np.all(np.asarray(value) > 0) or np.size(value) == 0:
                raise ValueError(f"{name} is {value}: it must be positive")
        for given, known in (
            ((*self.kinds, *self.lines), KINDS),
            (self.packings, PACKINGS),
            ((self.values,), VALUES),
        ):
            unknown = [name for name in given if name not in known]
            if unknown:
                raise ValueError(f"no {unknown[0]!r}: there are {', '.join(known)}")


PRESETS = {
    "quick": Config(),
    "full": Config(
        cores=((7, 7), (10, 10), (13, 13), (16, 16), (20, 20), (23, 23), (26, 26), (28, 28)),
        lines=KINDS,
        fractions=(0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.1, 1.2, 1.35, 1.5),
        draws=10,
        updates=5,
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
    draws, updates, values, error, seed
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
    """Return the cells of a sweep: some ensembles at every core, all of them at one.

    Packed supports under plain projections are measured at that one alone: the columns of most
    ensembles are exchangeable, so that the place of the entries cannot matter.
    """
    curves = [(kind, core) for core in config.cores for kind in config.lines]
    curves += [(kind, config.core) for kind in config.kinds]
    rest = (config.draws, config.updates, config.values, config.error, config.seed)
    return [
        Cell(structure, kind, packing, *config.shape, *core, s, *rest)
        for kind, core in dict.fromkeys(curves)
        for structure in STRUCTURES
        for packing in config.packings
        if structure == "kronecker" or packing == "random" or core == config.core
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
    outcomes = [_recovered(cell, draw) for draw in range(cell.draws)]
    errors = np.array([outcome["errors"] for outcome in outcomes])
    statuses = [status for outcome in outcomes for status in outcome["statuses"]]
    successes = (errors <= cell.error).sum(axis=1)
    share = clustered_share(errors <= cell.error)
    sizes = (cell.m, cell.n, cell.a, cell.b)
    return {
        "d": cell.a * cell.b / (cell.m * cell.n),
        "rho": cell.s / (cell.a * cell.b),
        "expected_rho": expected_rho(cell.structure, cell.packing, *sizes),
        "weak_threshold": expected_rho("plain", "random", *sizes),
        "trials": errors.size,
        "successes": int(successes.sum()),
        "share": share.value,
        "ci_low": share.low,
        "ci_high": share.high,
        "successes_by_draw": json.dumps(successes.tolist()),
        "optimal": statuses.count("optimal"),
        "unfinished": len(statuses) - statuses.count("optimal"),
        "median_error": float(np.median(errors)),
        "median_iterations": float(np.median([o["iterations"] for o in outcomes])),
        "solver_seconds": float(sum(o["seconds"] for o in outcomes)),
    }


def _recovered(cell: Cell, draw: int) -> dict[str, Any]:
    """Recover the updates that one draw of the projections measures.

    An update whose measurements are all zero is lost: its error is that of the zero estimate.
    """
    operator, shape = _operator(cell, draw)
    key = (NAME, cell.structure, cell.kind, cell.a, cell.b, draw)
    size = (cell.m, cell.n)
    X = sparse_updates(
        size, cell.s, cell.packing, cell.updates, values=cell.values, seed=cell.seed, key=key
    )
    flat = X.reshape(cell.updates, -1)
    Y = operator.apply(X) if shape is None else flat @ operator.T
    seen = Y.any(axis=tuple(range(1, Y.ndim)))
    errors = np.ones(cell.updates)
    if not seen.any():
        lost = ["nothing measured"] * cell.updates
        return {"errors": errors, "statuses": lost, "iterations": [0], "seconds": 0.0}
    problem = RecoveryProblem(operator, Y[seen], shape=shape)
    result = recover(problem, "basis_pursuit", debiasing=False)
    errors[seen] = result.relative_error(X[seen])
    lost = ["nothing measured"] * int((~seen).sum())
    return {
        "errors": errors,
        "statuses": [*result.statuses, *lost],
        "iterations": np.resize(result.iterations, cell.updates),
        "seconds": result.seconds,
    }


def _operator(cell: Cell, draw: int) -> tuple[Any, tuple[int, int] | None]:
    """Draw the projections of a cell; the shape of ΔW goes with a plain one."""
    key = (NAME, cell.structure, cell.packing, cell.s, draw)
    settings: dict[str, Any] = {"seed": cell.seed, "scale": "analysis", "key": key}
    if cell.structure == "kronecker":
        basis = CosaBasis.sample(cell.m, cell.n, cell.a, cell.b, kind=cell.kind, **settings)
        return basis.sensing(), None
    drawn = make_projection(cell.kind, cell.a * cell.b, cell.m * cell.n, **settings)
    return Factor(drawn, "Φ").dense(np.dtype(np.float64)), (cell.m, cell.n)


def crossings(table: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return where every success curve of a table crosses one half.

    Parameters
    ----------
    table : pandas.DataFrame
        As `run` returns it.
    confidence : float
        The level of the intervals.

    Returns
    -------
    pandas.DataFrame
        One row for each structure, kind, packing and core: d, expected_rho, weak_threshold; rho50
        (NaN where the measured curve does not cross one half), rho50_low, rho50_high, width,
        dispersion (see `experiments.crossing.Crossing`); points and trials of the curve, and how
        many are unfinished.
    """
    done = table[table["status"] == "done"]
    rows = []
    for names, curve in done.groupby(LINE, sort=False):
        fit = _fitted(curve, confidence)
        first = curve.iloc[0]
        rows.append(
            {
                **dict(zip(LINE, names, strict=True)),
                **{name: first[name] for name in ("d", "expected_rho", "weak_threshold")},
                "rho50": fit.value,
                "rho50_low": fit.low,
                "rho50_high": fit.high,
                "width": fit.width,
                "dispersion": fit.dispersion,
                "points": len(curve),
                "trials": int(curve["trials"].sum()),
                "unfinished": int(curve["unfinished"].sum()),
            }
        )
    return pd.DataFrame(rows)


def _fitted(curve: pd.DataFrame, confidence: float) -> Crossing:
    """Fit a curve whose points may be a single one, which no curve can be fitted to."""
    counts = [json.loads(text) for text in curve["successes_by_draw"]]
    rho = np.repeat(curve["rho"], [len(count) for count in counts])
    trials = np.repeat(curve["trials"] / curve["draws"], [len(count) for count in counts])
    if len(curve) == 1:
        nan, at = float("nan"), float(curve["rho"].iloc[0])
        above = curve["share"].iloc[0] > 0.5
        return Crossing(nan, *((at, np.inf) if above else (-np.inf, at)), nan, 1.0)
    return fit_crossing(rho, np.concatenate(counts), trials, confidence)


def run(config: Config, **settings: Any) -> pd.DataFrame:
    """Run the sweep.

    Parameters
    ----------
    config : Config
        What is swept.
    **settings
        folder, jobs, dask, timeout, progress: as for `experiments.sweep.run_cells`.

    Returns
    -------
    pandas.DataFrame
        One row for each cell: the settings of `Cell`; d = ab/(mn), rho = s/(ab), expected_rho (see
        the function) and weak_threshold at that d; trials, successes, share with ci_low and
        ci_high (95 %, over draws), successes_by_draw (a JSON list); optimal (trials whose solver
        proved its answer) and unfinished (the others), median_error, median_iterations,
        solver_seconds; and what `run_cells` adds.
    """
    return run_cells(compute, cells(config), name=NAME, version=VERSION, **settings)


def verdict(table: pd.DataFrame, config: Config) -> str:
    """Return what the table says: at the core that all ensembles share, and about the law."""
    lines = crossings(table)
    m, n, a, b = (*config.shape, *config.core)
    shared = lines[(lines["a"] == a) & (lines["b"] == b)]
    law = float(l1_weak_threshold(a * b / (m * n)))
    parts = [f"At (m, n, a, b) = ({m}, {n}, {a}, {b})"]
    for structure, words in (("plain", "plain"), ("kronecker", "Kronecker")):
        rows = shared[(shared["structure"] == structure) & (shared["packing"] == "random")]
        parts.append(f"{words} projections find half of the random supports at {_span(rows)}")
    text = f"{parts[0]}, {parts[1]} (weak threshold {law:.3f}) and {parts[2]}"
    packed = shared[(shared["structure"] == "kronecker") & (shared["packing"] != "random")]
    for packing, rows in packed.groupby("packing", sort=False):
        where = "a block" if packing == "block" else f"one {packing}"
        text += f", of those in {where} at {_span(rows)}"
    trials, unfinished = (int(lines[name].sum()) for name in ("trials", "unfinished"))
    return f"{text}. {unfinished} of {trials} answers are not proven optimal."


def _span(rows: pd.DataFrame) -> str:
    """Return the range of ρ at 50 % over the ensembles, with the interval where there is one."""
    known = rows.dropna(subset=["rho50"]).sort_values("rho50")
    beyond = rows[rows["rho50"].isna()]
    words = ""
    if len(known):
        least, most = known.iloc[0], known.iloc[-1]
        words = f"ρ = {least['rho50']:.3f} [{least['rho50_low']:.3f}, {least['rho50_high']:.3f}]"
        if len(known) > 1:
            words = (
                f"ρ = {least['rho50']:.3f} ({least['kind']}) to {most['rho50']:.3f} "
                f"({most['kind']})"
            )
    if len(beyond):
        words += f"{', ' if words else ''}not within the grid for {', '.join(beyond['kind'])}"
    return words or "no measured ρ"


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep from the command line; the result is the exit code."""
    description = "Success of l1 recovery over undersampling and sparsity, for every ensemble."
    return sweep_command(NAME, description, PRESETS, run, verdict, arguments)


if __name__ == "__main__":
    sys.exit(main())
