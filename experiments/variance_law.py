"""The Kronecker variance law: Var‖A X Bᵀ‖² measured over draws, against its closed form.

X has a synthetic spectrum, from rank one to flat, in a random basis or aligned with the
coordinates (which ensembles with a heavy or a light tail notice), or is a real weight update.

    python -m experiments.variance_law --out results/variance_law
    python -m figures.variance_law results/variance_law --out results/figures
"""

import hashlib
import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory.deltas import open_pair
from cosa_theory.ground.checks import choice, refuse, whole
from cosa_theory.ground.checks import pair as sized
from cosa_theory.ground.sweep import run_cells
from cosa_theory.isometry.jl_curves import kronecker_variance
from cosa_theory.projections import KINDS, make_projection
from cosa_theory.studies.jl.compute import variance_row
from experiments import finetune_delta
from experiments.command import sweep_command

__all__ = ["PRESETS", "Cell", "Config", "cells", "compute", "run"]

NAME, VERSION = "variance_law", 1

REAL = "real ΔW"
DECAYS = {"rank one": math.inf, "1/i²": 2.0, "1/i": 1.0, "1/√i": 0.5, "flat": 0.0}
"""Synthetic spectra: σ_i = i^(−p) for these p."""

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes
    ----------
    shapes : tuple of tuple of int
        (m, n, a, b) of the synthetic matrices.
    kinds : tuple of str
        Ensembles of both factors, for synthetic matrices.
    draws : int
        Independent draws of the factors.
    core : tuple of int
        (a, b) for real updates.
    real_kinds : tuple of str
        Ensembles for them.
    real_draws : int
        Draws for them.
    layers : tuple of str
        Regular expressions that choose the updates; none leaves real updates out.
    pair : str
        Folder of the two checkpoints, made by `experiments.finetune_delta` if it is not there.
    seed : int
        Of everything drawn.
    """

    shapes: tuple[Shape, ...] = ((48, 40, 12, 10), (24, 96, 6, 32), (64, 64, 2, 3))
    kinds: tuple[str, ...] = KINDS
    draws: int = 2000
    core: tuple[int, int] = (96, 48)
    real_kinds: tuple[str, ...] = ("gaussian", "rademacher", "sjlt")
    real_draws: int = 400
    layers: tuple[str, ...] = ("encoder.layer.[05]",)
    pair: str = str(finetune_delta.DEFAULT_OUT)
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("draws", "real_draws"):
            whole(name, getattr(self, name), least=2)  # for a variance
        sized("core", self.core)
        for m, n, a, b in self.shapes:
            if not (1 <= a <= m and 1 <= b <= n):
                raise refuse("shape", (m, n, a, b), "(m, n, a, b) with 1 ≤ a ≤ m, 1 ≤ b ≤ n")
        for kind in (*self.kinds, *self.real_kinds):
            choice("kinds", kind, KINDS)


PRESETS = {
    "quick": Config(),
    "full": Config(draws=20_000, real_kinds=KINDS, real_draws=2000, layers=("encoder.layer",)),
}


@dataclass(frozen=True)
class Cell:
    """One matrix and one ensemble.

    Attributes
    ----------
    source : {"synthetic", "real ΔW"}
        Where the matrix comes from.
    name : str
        A spectrum of `DECAYS`, or a layer.
    aligned : bool
        Whether the singular vectors of a synthetic matrix are unit vectors.
    kind : str
        Ensemble of both factors.
    m, n, a, b : int
        Sizes.
    draws, seed : int
        Number of draws, and the seed of everything.
    pair, digest : str
        Folder of the checkpoints and SHA-256 of both; empty for synthetic matrices.
    """

    source: str
    name: str
    aligned: bool
    kind: str
    m: int
    n: int
    a: int
    b: int
    draws: int
    seed: int
    pair: str = ""
    digest: str = ""


def cells(config: Config) -> list[Cell]:
    """Return one cell for each matrix and ensemble; a pair that is not there is made."""
    synthetic = [
        Cell("synthetic", name, aligned, kind, *shape, config.draws, config.seed)
        for shape in config.shapes
        for name in DECAYS
        for aligned in (False, True)
        for kind in config.kinds
    ]
    return synthetic + (_real_cells(config) if config.layers else [])


def _real_cells(config: Config) -> list[Cell]:
    pair = Path(config.pair)
    if not all((pair / f"{side}.safetensors").is_file() for side in ("base", "tuned")):
        finetune_delta.run(finetune_delta.Config(seed=config.seed), pair)
    files = (pair / f"{side}.safetensors" for side in ("base", "tuned"))
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    a, b = config.core
    return [
        Cell(
            source=REAL,
            name=layer.name,
            aligned=False,
            kind=kind,
            m=layer.shape[0],
            n=layer.shape[1],
            a=min(a, layer.shape[0]),
            b=min(b, layer.shape[1]),
            draws=config.real_draws,
            seed=config.seed,
            pair=config.pair,
            digest=digest,
        )
        for layer in _open(config.pair, config.layers)
        if layer.delta.any()
        for kind in config.real_kinds
    ]


def _open(pair: str, names: tuple[str, ...]) -> Any:
    folder = Path(pair)
    return open_pair(folder / "base.safetensors", folder / "tuned.safetensors", include=list(names))


def matrix_of(cell: Cell) -> NDArray[Any]:
    """Return the matrix X of a cell."""
    if cell.source == REAL:
        (layer,) = _open(cell.pair, (f"^{re.escape(cell.name)}$",))
        return layer.delta
    size = min(cell.m, cell.n)
    sigma = 1.0 / np.arange(1.0, size + 1) ** DECAYS[cell.name]
    if cell.aligned:
        X = np.zeros((cell.m, cell.n))
        np.fill_diagonal(X, sigma)
        return X
    left, right = (
        make_projection("haar", size, d, seed=cell.seed, scale="synthesis", key=(NAME, side))
        for d, side in ((cell.m, "left"), (cell.n, "right"))
    )
    return (left.T * sigma) @ right


def compute(cell: Cell) -> dict[str, Any]:
    """Measure one variance and compute its law."""
    X = matrix_of(cell)
    key = (cell.source, cell.name, int(cell.aligned))
    found = kronecker_variance(
        cell.kind, cell.a, cell.b, X, draws=cell.draws, seed=cell.seed, key=key
    )
    return {**variance_row(found), "z": found.z}


def run(config: Config, **settings: Any) -> pd.DataFrame:
    """Measure all variances.

    Parameters
    ----------
    config : Config
        What is measured.
    **settings
        folder, jobs, dask, timeout, progress: as for `cosa_theory.ground.sweep.run_cells`.

    Returns
    -------
    pandas.DataFrame
        One row for each matrix and ensemble: the settings of `Cell`; participation_ratio of X;
        variance of ‖A X Bᵀ‖²/‖X‖² with ci_low and ci_high (95 %), law, unstructured (2/(ab)), z
        (their difference in standard errors); and what `run_cells` adds.
    """
    return run_cells(compute, cells(config), name=NAME, version=VERSION, **settings)


def verdict(table: pd.DataFrame) -> str:
    """Return what the table says."""
    done = table[table["status"] == "done"]
    sentences = []
    for source, rows in done.groupby("source", sort=False):
        # A law of zero (an exact isometry) is met up to rounding.
        held = (rows["ci_low"] - 1e-12 <= rows["law"]) & (rows["law"] <= rows["ci_high"] + 1e-12)
        name = "synthetic matrices" if source == "synthetic" else "real updates"
        sentences.append(
            f"{int(held.sum())} of {len(rows)} measured 95 % intervals for {name} hold the law"
        )
    text = "; ".join(sentences) + "."
    real = done[(done["source"] == REAL) & (done["kind"] == "gaussian")]
    if len(real):
        ratio = real["law"] / real["unstructured"]
        flat = int((real["participation_ratio"] > real["a"] + real["b"] + 1).sum())
        text += (
            f" On real updates a Gaussian Kronecker map has {ratio.median():.1f} times the "
            f"variance of an unstructured one (median; range {ratio.min():.1f}–{ratio.max():.1f}); "
            f"the participation ratio exceeds a + b + 1 in {flat} of {len(real)}."
        )
    return text


def main(arguments: list[str] | None = None) -> int:
    """Measure the variances from the command line; the result is the exit code."""
    description = "Variance of Kronecker projections against its law, real updates included."
    return sweep_command(
        NAME, description, PRESETS, run, lambda table, config: verdict(table), arguments
    )


if __name__ == "__main__":
    sys.exit(main())
