"""Brackets of restricted isometry constants against the order and the shape, for every ensemble.

Two kinds of matrices of the same sizes: Kronecker ones, the tall dictionary Ψ = L ⊗ Rᵀ (mn × ab)
and the wide sensing operator Φ = Lᵀ ⊗ R (ab × mn), and plain ones, a single projection of one
ensemble. Each with columns of unit norm, and at the scale at which columns have unit norm in the
mean: synthesis for tall matrices, analysis for wide ones.

    python -m experiments.rip_brackets --out results/rip_brackets
    python -m figures.rip_brackets results/rip_brackets --out results/figures
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory import CosaBasis
from cosa_theory.ground.checks import choice, refuse, whole
from cosa_theory.ground.sweep import run_cells
from cosa_theory.isometry import RipBracket, rip_bracket
from cosa_theory.linear.operators import Factor, KroneckerOperator
from cosa_theory.projections import KINDS, make_projection
from experiments.command import sweep_command

__all__ = ["PRESETS", "Cell", "Config", "cells", "compute", "matrix_of", "run"]

NAME, VERSION = "rip_brackets", 1

SCALES = {"tall": ("unit-norm", "synthesis"), "wide": ("unit-norm", "analysis")}
STRUCTURES = ("plain", "kronecker")
WORDS = {
    ("kronecker", "tall"): "the tall dictionary Ψ = L ⊗ Rᵀ",
    ("kronecker", "wide"): "the wide sensing operator Φ = Lᵀ ⊗ R",
    ("plain", "tall"): "a plain tall matrix",
    ("plain", "wide"): "a plain wide matrix",
}
_UPPER = ("coherence", "babel", "spectrum")

Shape = tuple[int, int, int, int]


@dataclass(frozen=True)
class Config:
    """What is swept.

    Attributes
    ----------
    shape : tuple of int
        (m, n, a, b) of the sweep over orders.
    orders : tuple of int
        Its orders s; those above the number of columns are left out.
    shapes : tuple of tuple of int
        The (m, n, a, b) of the sweep over shapes.
    order : int
        Its order s.
    kinds : tuple of str
        Ensembles.
    draws : int
        Independent matrices of each.
    semidefinite : int
        Columns up to which plain matrices get the semidefinite upper bound too; 0 for none.
    seed : int
        Of the draws and of the searches.
    """

    shape: Shape = (16, 16, 8, 8)
    orders: tuple[int, ...] = (1, 2, 3, 4, 6, 8)
    shapes: tuple[Shape, ...] = ((8, 8, 4, 4), (16, 16, 8, 8), (24, 24, 12, 12), (32, 32, 16, 16))
    order: int = 4
    kinds: tuple[str, ...] = KINDS
    draws: int = 1
    semidefinite: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        for shape in (self.shape, *self.shapes):
            m, n, a, b = shape if len(shape) == 4 else (0, 0, 0, 0)
            if not (1 <= a <= m and 1 <= b <= n):
                raise refuse("shape", shape, "(m, n, a, b) with 1 ≤ a ≤ m, 1 ≤ b ≤ n")
        for order in (self.order, *self.orders):
            whole("order", order)
        whole("draws", self.draws)
        for kind in self.kinds:
            choice("kinds", kind, KINDS)


PRESETS = {
    "quick": Config(),
    "full": Config(
        shape=(32, 32, 16, 16),
        orders=(1, 2, 3, 4, 6, 8, 12, 16),
        shapes=(
            *((8, 8, 4, 4), (16, 16, 8, 8), (24, 24, 12, 12), (32, 32, 16, 16)),
            *((48, 48, 24, 24), (64, 64, 32, 32)),
        ),
        draws=3,
        semidefinite=64,
    ),
}


@dataclass(frozen=True)
class Cell:
    """One matrix and the orders of which its constants are bracketed.

    Attributes
    ----------
    structure : {"plain", "kronecker"}
        One projection, or the product of two.
    about : {"tall", "wide"}
        mn × ab (the dictionary's sizes) or ab × mn (the sensing operator's).
    kind : str
        The ensemble.
    scale : {"unit-norm", "synthesis", "analysis"}
        Columns divided by their norms (zero columns stay), or as drawn.
    m, n, a, b : int
        Sizes.
    orders : tuple of int
        The orders s.
    semidefinite : bool
        Whether the semidefinite bound is among the upper ones.
    draw, seed : int
        Which draw, and of which seed.
    """

    structure: str
    about: str
    kind: str
    scale: str
    m: int
    n: int
    a: int
    b: int
    orders: tuple[int, ...]
    semidefinite: bool
    draw: int
    seed: int


def cells(config: Config) -> list[Cell]:
    """Return the cells of a sweep: all orders at one shape, one order at the other shapes."""
    swept: dict[Shape, tuple[int, ...]] = dict.fromkeys(config.shapes, (config.order,))
    both = config.orders + swept.get(config.shape, ())
    swept[config.shape] = tuple(sorted(set(both)))
    every = (
        _cell(config, structure, about, kind, scale, shape, orders, draw)
        for shape, orders in swept.items()
        for structure in STRUCTURES
        for about, scales in SCALES.items()
        for kind in config.kinds
        for scale in scales
        for draw in range(config.draws)
    )
    return [cell for cell in every if cell.orders]


def _cell(
    config: Config,
    structure: str,
    about: str,
    kind: str,
    scale: str,
    shape: Shape,
    orders: Sequence[int],
    draw: int,
) -> Cell:
    m, n, a, b = shape
    columns = a * b if about == "tall" else m * n
    return Cell(
        *(structure, about, kind, scale, m, n, a, b),
        orders=tuple(order for order in orders if order <= columns),
        semidefinite=structure == "plain" and columns <= config.semidefinite,
        draw=draw,
        seed=config.seed,
    )


def matrix_of(cell: Cell) -> Any:
    """Draw the matrix of a cell: an ndarray, or a `KroneckerOperator` that is never formed."""
    scale = SCALES[cell.about][1]
    settings: dict[str, Any] = {"seed": cell.seed, "scale": scale, "key": (NAME, cell.draw)}
    if cell.structure == "plain":
        drawn = make_projection(cell.kind, cell.a * cell.b, cell.m * cell.n, **settings)
        return _scaled(drawn.T if cell.about == "tall" else drawn, cell.scale)
    basis = CosaBasis.sample(cell.m, cell.n, cell.a, cell.b, kind=cell.kind, **settings)
    operator = basis.dictionary() if cell.about == "tall" else basis.sensing()
    # The columns of a Kronecker product have the products of the factors' norms.
    left, right = (_scaled(factor, cell.scale) for factor in operator.factors)
    return KroneckerOperator(left, right, operator.name)


def _scaled(matrix: Any, scale: str) -> np.ndarray:
    dense = Factor(matrix, "matrix").dense(np.dtype(np.float64))
    if scale != "unit-norm":
        return dense
    norms = np.linalg.norm(dense, axis=0)
    return dense / np.where(norms > 0, norms, 1.0)


def compute(cell: Cell) -> list[dict[str, Any]]:
    """Bracket δ_s of one matrix at every order; one row for each."""
    matrix = matrix_of(cell)
    methods = (*_UPPER, "sdp") if cell.semidefinite else _UPPER
    brackets = (rip_bracket(matrix, s, seed=cell.seed, methods=methods) for s in cell.orders)
    return [_row(cell, matrix, bracket) for bracket in brackets]


def _row(cell: Cell, matrix: Any, bracket: RipBracket) -> dict[str, Any]:
    low, high = bracket.scale_free
    return {
        "matrix": _name(cell),
        "rows": matrix.shape[0],
        "columns": matrix.shape[1],
        "s": bracket.s,
        "lower": bracket.lower,
        "upper": bracket.upper,
        "exact": bracket.exact,
        "vacuous": bracket.vacuous,
        "scale_free_lower": low,
        "scale_free_upper": high,
        "lower_method": bracket.lower_bound.method,
        "upper_method": bracket.upper_bound.method,
        "bracket_seconds": bracket.seconds,
    }


def _name(cell: Cell) -> str:
    long, short = cell.m * cell.n, cell.a * cell.b
    sizes = f"({long} × {short})" if cell.about == "tall" else f"({short} × {long})"
    return f"{WORDS[cell.structure, cell.about]} {sizes}"


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
        One row for each matrix and order: the settings of `Cell`; matrix (in words), rows,
        columns, s; lower and upper (proven ends of δ_s) with lower_method and upper_method,
        exact, vacuous (the upper end reaches 1), scale_free_lower and scale_free_upper (after the
        best rescaling), bracket_seconds; and what `run_cells` adds.
    """
    return run_cells(compute, cells(config), name=NAME, version=VERSION, **settings)


def verdict(table: pd.DataFrame, config: Config) -> str:
    """Return what the table says, in a sentence or two."""
    rows = table[(table["scale"] == "unit-norm") & (table["status"] == "done")]
    for name, size in zip("mnab", config.shape, strict=True):
        rows = rows[rows[name] == size]
    sure = rows[rows["upper"] < 1.0].groupby(["about", "structure", "kind"])["s"].max()
    everything = pd.MultiIndex.from_product([SCALES, STRUCTURES, config.kinds])
    reached = sure.reindex(everything, fill_value=0).groupby(level=[0, 1]).median()
    parts = [
        f"{WORDS['kronecker', about]} has δ_s < 1 proven up to s = {reached[about, 'kronecker']:g} "
        f"where {WORDS['plain', about]} of its size has up to s = {reached[about, 'plain']:g}"
        for about in SCALES
    ]
    m, n, a, b = config.shape
    return (
        f"With unit columns at (m, n, a, b) = ({m}, {n}, {a}, {b}), {', and '.join(parts)} "
        "(medians over the ensembles)."
    )


def main(arguments: list[str] | None = None) -> int:
    """Run the sweep from the command line; the result is the exit code."""
    description = "Brackets of restricted isometry constants for every ensemble, plain and product."
    return sweep_command(NAME, description, PRESETS, run, verdict, arguments)


if __name__ == "__main__":
    sys.exit(main())
