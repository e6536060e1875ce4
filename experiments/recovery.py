"""How much of ΔW comes back from its core: compression, sparsity, noise, ensemble, basis, solver.

Synthetic updates (sparse, low rank, power law, flat) are swept along one axis at a time around a
centre; real updates are solved at several compressions, by least norm and by ℓ1 in every basis.

    python -m experiments.recovery --out results/recovery
    python -m figures.recovery results/recovery --out results/figures
"""

import hashlib
import math
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory import CosaBasis, laws
from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.ground.sweep import run_cells
from cosa_theory.projections import stream
from cosa_theory.recovery import RecoveryProblem, RecoveryResult, recover
from experiments.command import sweep_command
from experiments.recovery_config import LEFT_OUT, PRESETS, Config, Options, Solver
from experiments.recovery_verdict import verdict
from experiments.synthetic_updates import synthetic_update, synthetic_weight, transform

__all__ = ["LEFT_OUT", "PRESETS", "Cell", "Config", "cells", "compute", "problem_of", "run"]

NAME, VERSION = "recovery", 1

FOUND = 1e-3
"""Coefficients above this share of the largest count as found."""


@dataclass(frozen=True)
class Cell:
    """One recovery.

    Attributes
    ----------
    sweep : {"compression", "sparsity", "noise", "ensemble", "basis", "real"}
        The axis it belongs to.
    update : str
        A kind of `experiments.synthetic_updates.UPDATES`, or a layer of the pair.
    parameter : float
        Of the kind; 0 for a layer.
    sparse_in : str
        Basis in which a synthetic update has its sparse part; empty for a layer.
    m, n, a, b : int
        Sizes.
    kind : str
        Ensemble of both factors.
    noise : float
        ‖noise‖/‖Φ vec(ΔW)‖.
    basis : str
        The sparsifying basis of the solver.
    method : str
        The solver.
    options : tuple of (str, value)
        Given to it.
    draw, seed : int
        Which draw, and of which seed.
    base, tuned, digest : str
        For a layer: the checkpoints, and the SHA-256 of its weight and update.
    """

    sweep: str
    update: str
    parameter: float
    sparse_in: str
    m: int
    n: int
    a: int
    b: int
    kind: str
    noise: float
    basis: str
    method: str
    options: Options
    draw: int
    seed: int
    base: str = ""
    tuned: str = ""
    digest: str = ""


def cells(config: Config) -> list[Cell]:
    """Return the cells: every synthetic sweep around the centre, then the real updates."""
    swept = [
        replace(cell, draw=draw) for cell in _synthetic(config) for draw in range(config.draws)
    ]
    return swept + list(_real(config))


def _synthetic(config: Config) -> Iterator[Cell]:
    """Yield draw 0 of every synthetic cell, one axis after the other."""
    m, n = config.shape
    a, b = _core(m, n, config.share)
    (kind, parameter), ensemble = config.updates[0], config.kinds[0]
    centre = Cell(
        *("compression", kind, parameter, "coordinate", m, n, a, b, ensemble, 0.0),
        *("coordinate", "least_norm", (), 0, config.seed),
    )
    for share in config.shares:
        a, b = _core(m, n, share)
        for kind, parameter in config.updates:
            start = replace(centre, update=kind, parameter=parameter, a=a, b=b)
            yield from _solved(start, config.few)
            if kind == "low rank":
                yield from _solved(start, (("nuclear", ()),))
    for s in config.sparsities:
        yield from _solved(replace(centre, sweep="sparsity", parameter=s), config.solvers)
    for noise in config.noises:
        yield from _solved(replace(centre, sweep="noise", noise=noise), config.solvers)
    sparse_solvers = [solver for solver in config.few if solver[0] != "least_norm"]
    for ensemble in config.kinds:
        for s in config.sparsities:
            start = replace(centre, sweep="ensemble", kind=ensemble, parameter=s)
            yield from _solved(start, sparse_solvers)
    for truth in config.bases:
        for basis in config.bases:
            start = replace(centre, sweep="basis", sparse_in=truth, basis=basis)
            yield from _solved(start, sparse_solvers)


def _core(m: int, n: int, share: float) -> tuple[int, int]:
    root = math.sqrt(share)
    return max(1, round(m * root)), max(1, round(n * root))


def _solved(start: Cell, solvers: Iterable[Solver]) -> Iterator[Cell]:
    for method, options in solvers:
        yield replace(start, method=method, options=options)


def _real(config: Config) -> Iterator[Cell]:
    """Yield the cells of the layers that moved: least norm once, the others in every basis."""
    if not config.layers or not _pair_is_there(config):
        return
    for layer in open_pair(config.base, config.tuned, include=list(config.layers)):
        if not layer.delta.any():
            continue
        m, n = layer.shape
        for share in config.real_shares:
            a, b = _core(m, n, share)
            if a * m * n > config.largest_product:
                continue
            start = Cell(
                *("real", layer.name, 0, "", m, n, a, b, config.kinds[0], 0.0),
                *("coordinate", "least_norm", (), 0, config.seed),
                *(config.base, config.tuned, _digest(layer)),
            )
            yield start
            for basis in config.bases:
                yield from _solved(replace(start, basis=basis), config.real_solvers)


def _pair_is_there(config: Config) -> bool:
    """Whether to read the pair: only the default one may be missing."""
    given = config.base, config.tuned
    return given != (Config.base, Config.tuned) or all(Path(path).is_file() for path in given)


def _digest(layer: LayerDelta) -> str:
    digest = hashlib.sha256()
    for matrix in (layer.base, layer.delta):
        digest.update(f"{matrix.shape} {matrix.dtype}".encode())
        digest.update(np.ascontiguousarray(matrix).data)
    return digest.hexdigest()


def truth_of(cell: Cell) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """Return ΔW of a cell, of unit norm, and the weight W whose singular basis is asked for."""
    needed = "singular" in (cell.basis, cell.sparse_in)
    if cell.sweep == "real":
        (layer,) = open_pair(cell.base, cell.tuned, include=f"^{re.escape(cell.update)}$")
        delta = layer.delta / np.abs(layer.delta).max()
        return delta / np.linalg.norm(delta), layer.base if needed else None
    key = (NAME, cell.draw)
    weight = synthetic_weight(cell.m, cell.n, seed=cell.seed, key=key) if needed else None
    delta = synthetic_update(
        *(cell.update, cell.m, cell.n, cell.parameter),
        seed=cell.seed,
        key=key,
        basis=transform(cell.sparse_in, weight),
    )
    return delta, weight


def problem_of(cell: Cell) -> RecoveryProblem:
    """Return the problem of a cell: factors at analysis scale, keyed by draw and layer."""
    delta, weight = truth_of(cell)
    key = (NAME, cell.update if cell.sweep == "real" else "", cell.draw)
    factors = CosaBasis.sample(
        *(cell.m, cell.n, cell.a, cell.b),
        kind=cell.kind,
        seed=cell.seed,
        scale="analysis",
        key=key,
        dtype=delta.dtype,
    )
    core = factors.encode(delta)
    size = cell.noise * float(np.linalg.norm(core))
    noise = stream(cell.seed, *key, "noise").standard_normal(core.shape)
    return RecoveryProblem(
        operator=factors.sensing(),
        measurements=core + (noise * (size / np.linalg.norm(noise))).astype(core.dtype),
        truth=delta,
        noise_level=size,
        basis=cell.basis,
        weight=weight if cell.basis == "singular" else None,
    )


def compute(cell: Cell) -> dict[str, Any]:
    """Recover one update, and by least norm from the same measurements."""
    problem = problem_of(cell)
    result = recover(problem, cell.method, **dict(cell.options))
    plain = result if cell.method == "least_norm" else recover(problem, "least_norm")
    delta = np.asarray(problem.truth, dtype=np.float64)
    error, least = result.relative_error(delta), plain.relative_error(delta)
    coefficients = problem.transform.forward(delta)
    return {
        "relative_error": error,
        "debiased_error": _debiased(result, delta),
        "least_norm_error": least,
        "share": 1 - error**2,
        "least_norm_share": 1 - least**2,
        "law": float(laws.energy_law(cell.m, cell.n, cell.a, cell.b)),
        "cosine": _cosine(result.estimate - plain.estimate, delta - plain.estimate),
        "density": float(np.abs(coefficients).sum() ** 2 / coefficients.size),
        **_support(cell, result, coefficients),
        "residual": result.residual,
        "solver_status": result.status,
        "certificate": result.certificate.kind,
        "certificate_value": result.certificate.relative,
        "iterations": result.iterations,
        "solver_seconds": result.seconds,
        "message": result.message,
    }


def _debiased(result: RecoveryResult, delta: NDArray[np.float64]) -> float | None:
    if result.debiased is None:
        return None
    return float(result.relative_error(delta, debiased=True))


def _cosine(guess: Any, missing: Any) -> float | None:
    """Return the cosine between what was added to the least-norm answer and what it lacks."""
    guess, missing = (np.asarray(X, dtype=np.float64) for X in (guess, missing))
    size = float(np.linalg.norm(guess) * np.linalg.norm(missing))
    return float(np.vdot(guess, missing)) / size if size > 0 else None


def _support(
    cell: Cell, result: RecoveryResult, coefficients: NDArray[np.float64]
) -> dict[str, Any]:
    """Count the coefficients that were found, and how many of them are true where ΔW is sparse."""
    found = np.abs(result.coefficients) > FOUND * np.abs(result.coefficients).max()
    row: dict[str, Any] = {"found": int(found.sum()), "precision": None, "recall": None}
    if cell.update == "sparse" and cell.basis == cell.sparse_in:
        true = np.abs(coefficients) > 1e-12  # a transform's rounding is no coefficient
        hits = int((found & true).sum())
        row["precision"] = hits / row["found"] if row["found"] else None
        row["recall"] = hits / int(true.sum())
    return row


def run(config: Config, **settings: Any) -> pd.DataFrame:
    """Run the sweeps.

    Parameters
    ----------
    config : Config
        What is swept.
    **settings
        folder, jobs, dask, timeout, progress: as for `cosa_theory.ground.sweep.run_cells`.

    Returns
    -------
    pandas.DataFrame
        One row for each recovery: the settings of `Cell`; relative_error ‖ΔŴ − ΔW‖/‖ΔW‖,
        debiased_error (least squares on the support; empty where there is none) and
        least_norm_error of the least-norm answer to the same measurements; share, 1 − error²,
        below zero where the answer is worse than none, and least_norm_share; law, ab/(mn), the
        mean of the latter without noise; cosine between what the solver added to the least-norm
        answer and what that lacks; density ‖C‖₁²/(mn‖C‖₂²) of the true coefficients in the
        solver's basis (1 for equal moduli, 2/π for Gaussian ones); found (coefficients above
        1/1000 of the largest), and their precision and recall where the truth is sparse; residual
        ‖Φx̂ − y‖/‖y‖; solver_status, certificate and certificate_value (relative), iterations,
        solver_seconds, message; and what `run_cells` adds.
    """
    return run_cells(compute, cells(config), name=NAME, version=VERSION, **settings)


def main(arguments: list[str] | None = None) -> int:
    """Run the sweeps from the command line; the result is the exit code."""
    description = "Share of an update that comes back from its core, synthetic and real."
    return sweep_command(NAME, description, PRESETS, run, verdict, arguments)


if __name__ == "__main__":
    sys.exit(main())
