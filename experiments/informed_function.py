"""What informed cores return of a model's function, and random ones decoded with a prior.

On the pairs that were predicted (`configs/informed_predictions.toml`) and one trained longer, at
the budget of rank 8, with moments of 128 texts of random tokens or of words; those that function is
measured on are others. What takes no moments is measured by `experiments.real_updates`.

    python -m experiments.informed_function --out results/informed_function
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cosa_theory.ground.checks import choice, refuse
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View, percent
from experiments.calibration import calibrated_file
from experiments.command import (
    check_table,
    command_parser,
    run_command,
    write_reference,
    write_table,
)
from experiments.informed import BESIDE, KINDS, MOMENTS
from experiments.informed_predictions import judge_function
from experiments.pairs import PAIRS
from experiments.real_updates import function_of

__all__ = ["Config", "run"]

NAME = "informed_function"
INFORMED = ("best_core_activation", "one_sided_activation", "prior_haar", "prior_adjoint_haar")
RANK = 8


@dataclass(frozen=True)
class Config:
    """What is measured: `pairs` of the encoder; `seed` of projections and resampled texts."""

    pairs: tuple[str, ...] = ("sre_encoder", "encoder_r8_100", "encoder_r8_1000")
    seed: int = 0

    def __post_init__(self) -> None:
        for name in self.pairs:
            choice("pairs", name, tuple(one for one in PAIRS if "encoder" in one))
        if not self.pairs:
            raise refuse("pairs", self.pairs, "at least one name")


def run(config: Config, cells: Path) -> pd.DataFrame:
    """Measure the pairs; an interrupted run resumes from its cells.

    Returns
    -------
    pandas.DataFrame
        The rows of `experiments.real_updates.function_of` with the `pair` and its `calibration`:
        as in `experiments.informed.Cell`.
    """
    tables = []
    for pair in config.pairs:
        other, same = next(kinds for start, kinds in KINDS.items() if pair.startswith(start))
        sources = {"random": "random", "other": other, "same": same}
        if same == "sre_card":  # its sentences are those that are measured on
            del sources["same"]
        for calibration, source in sources.items():
            found = _measured(pair, source, config.seed, cells / pair / calibration)
            found.insert(0, "calibration", calibration)
            found.insert(0, "pair", pair)
            tables.append(found)
    return pd.concat(tables, ignore_index=True)


def _measured(pair: str, source: str, seed: int, cells: Path) -> pd.DataFrame:
    moments = calibrated_file(PAIRS[pair].paths()[0], source, BESIDE, MOMENTS)
    settings: dict[str, Any] = {"ranks": (RANK,), "approximations": INFORMED, "moments": moments}
    table = function_of(pair, seed=seed, cells=cells, **settings)["function"]
    at = table["rank"].isna() | (table["rank"] == RANK)
    return table[at & (table["gain"] == 1)]


def verdict(table: pd.DataFrame) -> str:
    """Say in words what informed cores return, over pairs and moments."""
    own = table.set_index("approximation")["domain"]
    parts = [
        f"{words} {own.loc[[name]].min():.0%} to {own.loc[[name]].max():.0%}"
        for name, words in (
            ("one_sided_activation", "one-sided informed cores"),
            ("best_core_activation", "those of a random core's shape"),
            ("prior_haar", "random cores decoded with a prior"),
        )
    ]
    return f"Function returned by least squares, budget of rank {RANK}: {', '.join(parts)}."


_COLUMNS = (
    Column("pair", "pair", text=True),
    Column("calibration", "moments", text=True),
    Column("label", "approximation", text=True),
    Column("energy", "energy", "", percent),
    Column("domain", "function", "on texts of its domain", percent),
    Column("domain_low", "from", "95 %, over texts", percent),
    Column("domain_high", "to", "95 %, over texts", percent),
    Column("general", "elsewhere", "on texts of another kind", percent),
)


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    parser = command_parser(
        f"experiments.{NAME}",
        "Measure what informed cores return of a model's function.",
        out=Path("results") / NAME,
        config=Config(),
        fields=("pairs", "seed"),
        example="--pairs sre_encoder",
        reference=True,
    )
    chosen = parser.parse_args(arguments)

    def body() -> None:
        config = Config(tuple(chosen.pairs), chosen.seed)
        beside = f"{NAME}_judged"
        check_table(chosen.out, NAME, beside=(beside,))
        table = run(config, chosen.out / "cells")
        judged = judge_function(table)
        settings: dict[str, Any] = {"arguments": dataclasses.asdict(config), "seed": config.seed}
        text = verdict(table)
        write_table(table, chosen.out, NAME, verdict=text, beside={beside: judged}, **settings)
        if chosen.reference:
            write_reference({NAME: table, beside: judged})
        print(printable(text))
        print(render_view(View.of(f"Function, budget of rank {RANK}", _COLUMNS, table)))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
