"""Failure curves: how often a projection changes a squared norm by more than ε.

Every ensemble on spikes, flat and Gaussian vectors, and on real ones (`experiments.real_vectors`),
over independent draws, beside the exact χ² law of Gaussian projections and the variance law.

    python -m experiments.jl_curves --out results/jl_curves
    python -m figures.jl_curves results/jl_curves --out results/figures
"""

import hashlib
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory.ground.checks import choice, whole
from cosa_theory.ground.estimates import clustered_share, mean_interval
from cosa_theory.ground.sweep import run_cells
from cosa_theory.isometry.jl_curves import jl_ratios
from cosa_theory.isometry.vectors import SYNTHETIC, synthetic_vectors
from cosa_theory.laws.norms import GramMoments, chi_square_failure, exact_failure, fourth_power
from cosa_theory.projections import ENSEMBLES, KINDS
from experiments import real_vectors
from experiments.command import sweep_command

__all__ = ["PRESETS", "Cell", "Config", "cells", "compute", "run"]

NAME, VERSION = "jl_curves", 1

LABELS = {"gaussian": "Gaussian vectors", "flat": "flat vectors", "spike": "spikes"}
LABELS |= real_vectors.NAMES


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes
    ----------
    kinds : tuple of str
        Ensembles.
    sets : tuple of str
        Vectors: "spike", "flat", "gaussian"; "delta", "gradient", "activation" are real.
    k : int
        Rows of the projections.
    vectors : int
        Vectors of each set, all of length 384.
    draws : int
        Independent draws of every projection.
    levels : int
        Values of ε, up to four standard deviations of a Gaussian projection.
    file : str
        The real vectors, as `experiments.real_vectors` stores them; made if it is not there.
    seed : int
        Of everything drawn.
    """

    kinds: tuple[str, ...] = KINDS
    sets: tuple[str, ...] = tuple(LABELS)
    k: int = 64
    vectors: int = 16
    draws: int = 1000
    levels: int = 40
    file: str = str(real_vectors.DEFAULT_OUT / real_vectors.FILE)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("k", "vectors", "levels"):
            whole(name, getattr(self, name))
        whole("draws", self.draws, least=2)  # there are intervals over draws
        for kind in self.kinds:
            choice("kinds", kind, KINDS)
        for name in self.sets:
            choice("sets", name, LABELS)


PRESETS = {"quick": Config(), "full": Config(vectors=32, draws=10_000)}


@dataclass(frozen=True)
class Cell:
    """One ensemble on one set of vectors.

    Attributes
    ----------
    kind, set : str
        The ensemble and the vectors.
    k, vectors, draws, levels : int
        As in `Config`.
    file, digest : str
        The real vectors and their SHA-256; empty for synthetic ones.
    seed : int
        Of the vectors and of the draws.
    """

    kind: str
    set: str
    k: int
    vectors: int
    draws: int
    levels: int
    file: str
    digest: str
    seed: int


def cells(config: Config) -> list[Cell]:
    """Return one cell for each ensemble and set; real vectors that are not there are made."""
    digest = ""
    if set(config.sets) - set(SYNTHETIC):
        file = Path(config.file)
        if not file.is_file():
            real_vectors.run(real_vectors.Config(seed=config.seed), file.parent)
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
    sizes = (config.k, config.vectors, config.draws, config.levels)
    return [
        Cell(kind, name, *sizes, *(("", "") if name in SYNTHETIC else (config.file, digest)), seed)
        for seed in (config.seed,)
        for name in config.sets
        for kind in config.kinds
    ]


def vectors_of(cell: Cell) -> NDArray[Any]:
    """Return the vectors of a cell as rows."""
    if not cell.file:
        return synthetic_vectors(cell.set, cell.vectors, real_vectors.WIDTH, seed=cell.seed)
    return real_vectors.read(cell.file)[cell.set][: cell.vectors]


def compute(cell: Cell) -> list[dict[str, Any]]:
    """Measure the curve of a cell: one row for each ε."""
    X = vectors_of(cell)
    d = X.shape[1]
    ratios = jl_ratios(cell.kind, cell.k, X, draws=cell.draws, seed=cell.seed)
    # The mean ratio is known to be one, so the mean square deviation from it is unbiased.
    spread = mean_interval(((ratios - 1) ** 2).mean(axis=1))
    ensemble = ENSEMBLES[cell.kind]
    law = GramMoments(*ensemble.moments(cell.k, d)).norm_variance(fourth_power(X))
    eps = np.linspace(0, 4 * math.sqrt(2 / cell.k), cell.levels + 1)[1:]
    shared = {
        "vectors_of": LABELS[cell.set],
        "d": d,
        "variance": spread.value,
        "variance_low": max(spread.low, 0.0),
        "variance_high": spread.high,
        "variance_law": float(np.mean(law)),
    }
    rows = []
    laws = chi_square_failure(cell.k, eps), exact_failure(ensemble.norm_law, cell.k, d, eps)
    for level, gaussian, exact in zip(eps, *laws, strict=True):
        share = clustered_share(np.abs(ratios - 1) > level)
        row = {"eps": level, "probability": share.value, "ci_low": share.low, "ci_high": share.high}
        known = None if math.isnan(exact) else exact
        rows.append({**shared, **row, "chi_square": gaussian, "exact": known})
    return rows


def run(config: Config, **settings: Any) -> pd.DataFrame:
    """Measure all curves.

    Parameters
    ----------
    config : Config
        What is measured.
    **settings
        folder, jobs, dask, timeout, progress: as for `cosa_theory.ground.sweep.run_cells`.

    Returns
    -------
    pandas.DataFrame
        One row for each ensemble, set of vectors and ε: the settings of `Cell`; vectors_of (the
        set in words), d; eps, probability with ci_low and ci_high (95 %, over draws), chi_square
        (the law of a Gaussian projection), exact (the ensemble's own, where it is known);
        variance of ‖Ax‖²/‖x‖² over draws and vectors with its 95 % interval (variance_low,
        variance_high) and variance_law; and what `run_cells` adds.
    """
    return run_cells(compute, cells(config), name=NAME, version=VERSION, **settings)


def verdict(table: pd.DataFrame) -> str:
    """Return what the table says."""
    done = table[table["status"] == "done"]
    known = done.dropna(subset=["exact"])
    inside = int(((known["ci_low"] <= known["exact"]) & (known["exact"] <= known["ci_high"])).sum())
    curves = done.drop_duplicates(["kind", "set"])
    # An ensemble that keeps some vector exactly varies by rounding alone, where the law is zero.
    law, slack = curves["variance_law"], 1e-12
    held = (curves["variance_low"] - slack <= law) & (law <= curves["variance_high"] + slack)
    curves = curves.assign(spread=curves["variance"] * curves["k"] / 2).sort_values("spread")
    worst = curves.iloc[-1]
    return (
        f"The exact failure law of Gaussian and orthonormal projections lies in {inside} of "
        f"{len(known)} measured 95 % intervals, the variance law of all ensembles in "
        f"{int(held.sum())} of {len(curves)}. The largest variance is that of {worst['kind']} on "
        f"{worst['vectors_of']}: {worst['spread']:.2f} times that of a Gaussian projection."
    )


def main(arguments: list[str] | None = None) -> int:
    """Measure the curves from the command line; the result is the exit code."""
    description = "How often projections of every ensemble change squared norms by more than eps."
    return sweep_command(
        NAME, description, PRESETS, run, lambda table, config: verdict(table), arguments
    )


if __name__ == "__main__":
    sys.exit(main())
