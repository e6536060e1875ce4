"""What projections that know a layer's inputs hold of real updates, beside those that know nothing.

Moments of the base model's inputs, of random tokens, texts of another kind than the pair's and of
its kind, 8 to 1,024 of them; energies at budgets of rank 2, 8 and 32, beside the law ab/(mn), the
truncated SVD, singular vectors of W, another block's inputs, and two nulls. Whether what was
predicted came (`configs/informed_predictions.toml`) is judged.

    python -m experiments.informed --pairs sre_encoder encoder_r8_100
"""

import dataclasses
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.deltas import open_pair
from cosa_theory.ground.checks import choice, refuse
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.ground.sweep import run_cells
from cosa_theory.nn.moments import Moments
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View, count, number, percent
from cosa_theory.studies.informed.compute import layer_shares
from cosa_theory.studies.informed.pooling import pooled_shares
from experiments.calibration import calibrated, texts_of
from experiments.command import (
    check_table,
    command_parser,
    run_command,
    write_reference,
    write_table,
)
from experiments.informed_predictions import judge_energy
from experiments.pairs import PAIRS

__all__ = ["KINDS", "Cell", "Config", "cells_of", "pooled", "run"]

NAME, VERSION = "informed", 2
MOMENTS = Path("results/calibration")
RANKS = (2, 8, 32)
TEXTS = (8, 32, 128, 1024)
BESIDE = 128
"""Texts (or all there are, if fewer) beside whose moments baselines and nulls are measured."""

KINDS = {
    "sre_encoder": ("reuters", "sre_card"),
    "encoder_r8": ("newsgroups", "reuters"),
    "encoder_r52": ("newsgroups", "reuters_r52"),
    "encoder_20newsgroups": ("reuters", "newsgroups"),
    "decoder_functions": ("reuters", "functions"),
}
"""Where texts of another kind and of its own come from, by the beginning of a pair's name; "chgnet"
reads no texts."""


@dataclass(frozen=True)
class Cell:
    """One pair with moments from one source.

    Attributes
    ----------
    pair : str
        A key of `experiments.pairs.PAIRS`.
    calibration : {"random", "other", "same"}
        Random tokens, texts of another kind than the pair's, or of its kind.
    source : str
        Of the texts, a key of `experiments.calibration.SOURCES`.
    texts : int
        How many.
    beside : bool
        Whether baselines and nulls are measured too.
    gradients : str
        How gradients of the outputs are gathered, see `cosa_theory.nn.layer_moments`, or "".
    seed : int
        Of all draws.
    """

    pair: str
    calibration: str
    source: str
    texts: int
    beside: bool
    gradients: str = ""
    seed: int = 0


@dataclass(frozen=True)
class Config:
    """What is measured: `pairs`, all with texts that are at hand where none is given; `seed`."""

    pairs: tuple[str, ...] = ()
    seed: int = 0

    def chosen(self) -> list[str]:
        """Return the names of the pairs that are measured."""
        with_texts = [name for name, pair in PAIRS.items() if pair.domain is not None]
        for name in self.pairs:
            if choice("pairs", name, tuple(PAIRS)) not in with_texts:
                raise refuse("pairs", name, "one whose model reads texts")
        return list(self.pairs) or [name for name in with_texts if PAIRS[name].ready()]


def cells_of(config: Config) -> list[Cell]:
    """Return what is measured: several numbers of texts on the pairs that the goals are about.

    With gradients of the model's own samples it is once for each pair of encoders.
    """
    cells = []
    for pair in config.chosen():
        other, same = next(kinds for start, kinds in KINDS.items() if pair.startswith(start))
        for calibration, source in (("random", "random"), ("other", other), ("same", same)):
            most = max(TEXTS) if source == "random" else len(texts_of(source))
            listed = TEXTS if pair in ("sre_encoder", "encoder_r8_100") else (BESIDE,)
            for texts in dict.fromkeys(min(one, most) for one in listed):
                beside = texts == min(BESIDE, most)
                cells.append(Cell(pair, calibration, source, texts, beside, seed=config.seed))
        if not pair.startswith("decoder"):  # whose pass back takes minutes
            cells.append(Cell(pair, "other", other, BESIDE, False, "samples", config.seed))
    return cells


@lru_cache(maxsize=1)
def _moments(base: Path, source: str, texts: int, gradients: str) -> Moments:
    return calibrated(base, source, texts, MOMENTS, gradients=gradients or None)


def measure(cell: Cell) -> Iterator[dict[str, Any]]:
    """Yield the shares of every layer of a pair, see `layer_shares`, with its `energy`."""
    base, tuned = PAIRS[cell.pair].paths()
    moments = _moments(base, cell.source, cell.texts, cell.gradients)
    for layer in open_pair(base, tuned):
        own = moments.inputs.get(layer.name)
        if own is None or not layer.delta.any():
            continue
        known = {"layer": layer.name, "energy": float(np.vdot(layer.delta, layer.delta))}
        for row in layer_shares(
            layer,
            own,
            RANKS,
            gradients=moments.gradients.get(layer.name),
            other=moments.inputs.get(_three_on(layer.name, moments)) if cell.beside else None,
            beside=cell.beside,
            seed=cell.seed,
        ):
            yield known | row


def _three_on(name: str, moments: Moments) -> str:
    """Return the name of the same module three blocks on, beginning again after the last."""
    numbers = re.compile(r"\.(\d+)\.")
    blocks = 1 + max(int(found[1]) for one in moments.inputs if (found := numbers.search(one)))
    return numbers.sub(lambda found: f".{(int(found[1]) + 3) % blocks}.", name, count=1)


def run(config: Config, cells: Path) -> pd.DataFrame:
    """Measure the pairs; an interrupted run resumes from its cells.

    Returns
    -------
    pandas.DataFrame
        A row per cell, layer, budget, basis and shape.
    """
    return run_cells(measure, cells_of(config), name=NAME, version=VERSION, folder=cells, jobs=1)


def pooled(table: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Return what all layers of a pair together hold, see `pooled_shares`."""
    at = ["pair", "layer", "rank"]
    of_svd = table[table["basis"] == "svd"].drop_duplicates(at).set_index(at)["share"]
    rows = table[table["basis"] != "svd"].join(of_svd.rename("svd"), on=at)
    # What does not depend on the moments was measured beside all of them.
    alone = rows["basis"] == "weights"
    blank = {"calibration": "", "source": "", "texts": 0}
    rows = rows.assign(**{name: rows[name].mask(alone, value) for name, value in blank.items()})
    by = ["pair", *blank, "basis", "shape", "rank"]
    return pooled_shares(rows.drop_duplicates([*by, "layer"]), by, seed)


_COLUMNS = (
    Column("pair", "pair", text=True),
    Column("calibration", "calibrated on", text=True),
    Column("texts", "texts", "", count),
    Column("basis", "directions", text=True),
    Column("shape", "core", text=True),
    Column("matrices", "matrices", "", count),
    Column("share", "share", "of ‖ΔW‖², all matrices together", percent),
    Column("law", "law", "ab/(mn)", percent),
    Column("ratio", "ratio", "share over law", number),
    Column("ratio_low", "from", "95 %, over matrices", number),
    Column("ratio_high", "to", "95 %, over matrices", number),
    Column("svd", "low rank", "share at the same budget", percent),
    Column("closed", "closed", "of low rank's lead over the law", percent),
)


def verdict(table: pd.DataFrame, judged: pd.DataFrame) -> str:
    """Say in words how far informed projections are above the law, and what came of predictions."""
    top = table[(table["basis"] == "top") & (table["shape"] == "one_sided") & (table["rank"] == 8)]
    parts = []
    for calibration, words in (
        ("random", "random tokens"),
        ("other", "texts of another kind"),
        ("same", "texts of its kind"),
    ):
        ratios = top[top["calibration"] == calibration].groupby("pair")["ratio"].last()
        if len(ratios):
            parts.append(f"{ratios.min():.2g} to {ratios.max():.2g} times with {words}")
    text = (
        "Projections on the leading directions of a layer's inputs hold, at the budget of rank 8 "
        f"and one-sided, over the law ab/(mn): {'; '.join(parts)}"
    )
    came = judged["outcome"].value_counts()
    return (
        f"{text}. Of {len(judged)} predictions {came.get('holds', 0)} hold, "
        f"{came.get('fails', 0)} fail and {came.get('undecided', 0)} are undecided."
    )


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    parser = command_parser(
        f"experiments.{NAME}",
        "Measure what informed projections hold of all pairs at hand.",
        out=Path("results") / NAME,
        config=Config(),
        fields=("seed",),
        example="--pairs sre_encoder encoder_r8_100",
        reference=True,
    )
    parser.add_argument("--pairs", nargs="*", default=(), help="default: all that are at hand")
    chosen = parser.parse_args(arguments)

    def body() -> None:
        config = Config(tuple(chosen.pairs), chosen.seed)
        beside = (f"{NAME}_layers", f"{NAME}_judged")
        check_table(chosen.out, NAME, beside=beside)
        layers = run(config, chosen.out / "cells")
        table = pooled(layers, config.seed)
        judged = judge_energy(table)
        text = verdict(table, judged)
        write_table(
            table,
            chosen.out,
            NAME,
            arguments=dataclasses.asdict(config),
            verdict=text,
            seed=config.seed,
            beside=dict(zip(beside, (layers, judged), strict=True)),
        )
        if chosen.reference:
            write_reference({NAME: table, f"{NAME}_judged": judged})
        print(printable(text))
        at = table[(table["rank"] == 8) & (table["shape"] == "one_sided")]
        print(render_view(View.of("Informed projections, budget of rank 8", _COLUMNS, at)))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
