"""Every pair at hand, a row each: what low rank and CoSA hold of its update, and what they return.

By energy, beside what noise of the same shape gives; by function, for the pairs of models that read
texts; and whether what was predicted of further pairs (`configs/function_predictions.toml`) came.

    python -m experiments.pairs --get encoder_r8_100
    python -m experiments.real_updates
"""

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.deltas import open_pair
from cosa_theory.ground.checks import choice
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.ground.progress import progress_bar
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View, count, number, percent
from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.families import crossover
from cosa_theory.studies.audit.pair import audit_pair
from cosa_theory.studies.audit.verdict import counts
from cosa_theory.studies.spectrum.budgets import at_budget
from experiments.command import (
    check_table,
    command_parser,
    run_command,
    write_reference,
    write_table,
)
from experiments.function_predictions import judge
from experiments.pairs import PAIRS

__all__ = ["Config", "assumptions_of", "energy_of", "function_of", "returned", "run"]

NAME = "real_updates"
TABLES = ("energy", "assumptions", "function", "prediction")


@dataclass(frozen=True)
class Config:
    """What is measured.

    Attributes
    ----------
    pairs : tuple of str
        Names of `experiments.pairs.PAIRS`; all that are at hand where none is given.
    rank : int
        The budget of the table of energies, as a rank of LoRA.
    seed : int
        Of projections, masks, noise and resampled texts.
    """

    pairs: tuple[str, ...] = ()
    rank: int = 8
    seed: int = 0

    def chosen(self) -> list[str]:
        """Return the names of the pairs that are measured."""
        for name in self.pairs:
            choice("pairs", name, tuple(PAIRS))
        return list(self.pairs) or [name for name, pair in PAIRS.items() if pair.ready()]


def run(config: Config, cells: Path | None = None) -> dict[str, pd.DataFrame]:
    """Measure the pairs.

    Parameters
    ----------
    config : Config
        Which, and how.
    cells : path, optional
        A folder where finished approximations are kept: an interrupted run resumes.

    Returns
    -------
    dict of str to pandas.DataFrame
        ``energy``, see `energy_of`; ``assumptions``, see `assumptions_of`; ``function`` and
        ``prediction``, see `function_of`.
    """
    found: dict[str, list[pd.DataFrame]] = {name: [] for name in TABLES}
    for name in config.chosen():
        paths = PAIRS[name].paths()
        kept = None if cells is None else cells / name
        tables = {
            "energy": pd.DataFrame([energy_of(*paths, config.rank)]),
            "assumptions": assumptions_of(*paths, config.seed, kept),
        }
        if PAIRS[name].domain is not None:
            tables |= function_of(name, seed=config.seed, cells=kept)
        for kind, table in tables.items():
            table.insert(0, "pair", name)
            found[kind].append(table)
    return {
        kind: pd.concat(tables, ignore_index=True) if tables else pd.DataFrame()
        for kind, tables in found.items()
    }


def energy_of(base: Path, tuned: Path, rank: int = 8) -> dict[str, Any]:
    """Return what low rank and CoSA hold of an update's energy at equal parameters.

    Returns
    -------
    dict
        `matrices` (with an update, and more than one row and column: either family holds those
        whole), `relative_change` ‖ΔW‖/‖W‖ over all of them together; medians
        over the matrices of `top_share` (top r singular values), `law` ab/(mn), `crossover_ratio`,
        `noise_ratio` (what noise of the same shape gives) and `excess`; of the last three also at
        r = min(m, n)/16, which compares models of different width, and the `least_excess` there.
    """
    rows, relative, change, weights = [], [], 0.0, 0.0
    for layer in open_pair(base, tuned):
        change += float(np.vdot(layer.delta, layer.delta))
        weights += float(np.vdot(layer.base, layer.base))
        if min(layer.shape) == 1 or not layer.delta.any():
            continue
        sigma = singular_values(layer.delta)
        rows.append(crossover(sigma, *layer.shape).assign(layer=layer.name))
        sixteenth = max(1, min(layer.shape) // 16)
        relative.append(crossover(sigma, *layer.shape, [sixteenth]))
    table, wide = at_budget(pd.concat(rows), rank), pd.concat(relative)
    columns = ("top_share", "law", "crossover_ratio", "noise_ratio", "excess")
    return {
        "matrices": len(rows),
        "relative_change": (change / weights) ** 0.5,
        **{name: float(table[name].median()) for name in columns},
        **{f"{name}_sixteenth": float(wide[name].median()) for name in columns[2:]},
        "least_excess": float(wide["excess"].min()),
    }


def assumptions_of(
    base: Path, tuned: Path, seed: int = 0, cells: Path | None = None
) -> pd.DataFrame:
    """Return in how many matrices each assumption of the theory holds, fails or is undecided."""
    audit = audit_pair(open_pair(base, tuned), draws=4, seed=seed, cells=cells)
    return counts(audit.assumptions).loc["update"].rename_axis("assumption").reset_index()


def function_of(
    name: str, *, seed: int = 0, cells: Path | None = None, **settings: Any
) -> dict[str, pd.DataFrame]:
    """Return function and energy of every approximation of a pair, and what predicts function.

    The language model is measured at the budget of rank 8 alone, on half as many, shorter texts:
    a pass of it takes as long as thirty of the encoder. Further settings are those of
    `cosa_theory.studies.function.pair.function_pair`.

    Returns
    -------
    dict of str to pandas.DataFrame
        ``function``, a row per approximation, budget and gain, with `domain` and `general`, the
        function recovered on either set of texts, and their intervals; ``prediction``, a row per
        predictor and set of texts.
    """
    from cosa_theory.studies.function.pair import function_pair
    from cosa_theory.studies.function.texts import general_texts

    pair = PAIRS[name]
    causal = name.startswith("decoder")
    most = 32 if causal else 64
    # News wires are another kind of text, except for a model that was trained on them.
    wires = name.startswith(("encoder_r8", "encoder_r52"))
    other = PAIRS["encoder_20newsgroups_100"].texts(most) if wires else general_texts(most)
    if causal:
        settings = {"ranks": (8,), "max_tokens": 64} | settings
    base, tuned = pair.paths()
    with progress_bar(f"approximations of {name}", notes=True) as advance:
        found = function_pair(
            base,
            tuned,
            texts=pair.texts(most),
            general=other,
            seed=seed,
            cells=cells,
            progress=advance,
            **settings,
        )
    key = ["approximation", "rank", "gain"]
    table = found.approximations
    for kind, rows in found.function.groupby("texts", sort=False):
        named = {"recovered": str(kind), "low": f"{kind}_low", "high": f"{kind}_high"}
        table = table.merge(rows[[*key, *named]].rename(columns=named), on=key, how="left")
    return {"function": table, "prediction": found.prediction}


def verdict(tables: Mapping[str, pd.DataFrame], judged: pd.DataFrame) -> str:
    """Say in words how far low rank is ahead by energy, and what came of the predictions."""
    energy = tables["energy"]
    text = (
        f"Low rank holds {energy['crossover_ratio'].min():.2g} to "
        f"{energy['crossover_ratio'].max():.2g} times what CoSA holds of {len(energy)} updates "
        f"(medians over matrices; {energy['excess'].min():.2g} to {energy['excess'].max():.2g} "
        "times what noise of their shape gives)"
    )
    if len(judged):
        came = judged["outcome"].value_counts()
        text += (
            f"; of {len(judged)} predictions {came.get('holds', 0)} hold, "
            f"{came.get('fails', 0)} fail and {came.get('undecided', 0)} are undecided"
        )
    return text + "."


def returned(tables: Mapping[str, pd.DataFrame], rank: int) -> pd.DataFrame:
    """Return a row per pair: the function on domain texts of some approximations at one budget.

    The columns are their names; `energy_correlation` and `prediction_correlation` are the rank
    correlations of captured energy and of "signal and noise" with function over all of them.
    """
    rows = []
    predicted = (
        dict(iter(tables["prediction"].groupby("pair"))) if len(tables["prediction"]) else {}
    )
    for name, correlations in predicted.items():
        table = tables["function"]
        at = table[(table["pair"] == name) & (table["gain"] == 1)]
        at = at[at["rank"].isna() | (at["rank"] == rank)].set_index("approximation")
        domain = correlations[correlations["texts"] == "domain"].set_index("predictor")
        rows.append(
            {
                "pair": name,
                **{column.name: at["domain"].get(column.name) for column in _RETURNED[1:-2]},
                "energy_correlation": domain["correlation"].get("energy"),
                "prediction_correlation": domain["correlation"].get("signal_and_noise"),
            }
        )
    return pd.DataFrame(rows, columns=[column.name for column in _RETURNED])


_RETURNED = (
    Column("pair", "pair", text=True),
    Column("svd", "low rank", "", percent),
    Column("best_core_haar", "core, least squares", "", percent),
    Column("adjoint_haar", "core, adjoint", "", percent),
    Column("mask_rescaled", "mask over p", "", percent),
    Column("remainder", "all but the top", "", percent),
    Column("shuffled", "shuffled", "a null", percent),
    Column("energy_correlation", "energy", "rank correlation with function", number),
    Column("prediction_correlation", "signal and noise", "rank correlation", number),
)
_COLUMNS = (
    Column("pair", "pair", text=True),
    Column("matrices", "matrices", "", count),
    Column("relative_change", "‖ΔW‖/‖W‖", "all matrices together", percent),
    Column("top_share", "low rank", "share of the energy, median over matrices", percent),
    Column("law", "CoSA", "the law ab/(mn), median", percent),
    Column("crossover_ratio", "ratio", "median", number),
    Column("noise_ratio", "noise", "ratio of i.i.d. noise of the same shape, median", number),
    Column("excess", "excess", "ratio over that of noise, median", number),
    Column("crossover_ratio_sixteenth", "ratio, r = min/16", "median", number),
    Column("noise_ratio_sixteenth", "noise", "of it", number),
)


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    parser = command_parser(
        f"experiments.{NAME}",
        "Compare all pairs at hand by energy and by function.",
        out=Path("results") / NAME,
        config=Config(),
        fields=("rank", "seed"),
        example="--pairs sre_encoder chgnet",
        reference=True,
    )
    parser.add_argument("--pairs", nargs="*", default=(), help="default: all that are at hand")
    chosen = parser.parse_args(arguments)

    def body() -> None:
        config = Config(tuple(chosen.pairs), chosen.rank, chosen.seed)
        beside = (*TABLES[1:], "judged")
        check_table(chosen.out, NAME, beside=beside)
        tables = run(config, chosen.out / "cells")
        judged = judge(tables)
        tables |= {"judged": judged}
        text = verdict(tables, judged)
        write_table(
            tables["energy"],
            chosen.out,
            NAME,
            arguments=dataclasses.asdict(config),
            verdict=text,
            seed=config.seed,
            beside={name: tables[name] for name in beside},
        )
        if chosen.reference:
            write_reference({f"{NAME}_{name}": table for name, table in tables.items()})
        print(printable(text))
        title = f"Real updates at the budget of rank {config.rank}"
        print(render_view(View.of(title, _COLUMNS, tables["energy"])))
        if len(tables["function"]):
            title = f"Function that they return on texts of their domain, at rank {config.rank}"
            print(render_view(View.of(title, _RETURNED, returned(tables, config.rank))))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
