"""Every pair at hand, a row each: what low rank and CoSA hold of its update, and what they return.

By energy, beside what noise of the same shape gives; by function, for the pairs of models that read
texts; and whether what was predicted of further pairs (`configs/function_predictions.toml`) came.

    python -m experiments.pairs --get encoder_r8_100
    python -m experiments.real_updates
"""

import dataclasses
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.deltas import open_pair
from cosa_theory.ground.checks import choice
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.ground.progress import progress_bar
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View, count, number, percent
from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.families import crossover
from cosa_theory.studies.spectrum.budgets import at_budget
from experiments.command import check_table, command_parser, run_command, write_table
from experiments.pairs import PAIRS

__all__ = ["Config", "energy_of", "function_of", "judge", "run"]

NAME = "real_updates"
REFERENCE = Path(__file__).parent / "reference"
PREDICTIONS = Path(__file__).parent / "configs" / "function_predictions.toml"
SEEN_BEFORE = ("sre_encoder",)
"""Pairs measured before the predictions were stated: they judge nothing."""


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
        ``energy``, see `energy_of`; ``function`` and ``prediction``, see `function_of`.
    """
    energies, functions, predictions = [], [], []
    for name in config.chosen():
        energies.append({"pair": name, **energy_of(*PAIRS[name].paths(), config.rank)})
        if PAIRS[name].domain is None:
            continue
        kept = None if cells is None else cells / name
        function, prediction = function_of(name, seed=config.seed, cells=kept)
        functions.append(function)
        predictions.append(prediction)
    return {
        "energy": pd.DataFrame(energies),
        "function": pd.concat(functions, ignore_index=True) if functions else pd.DataFrame(),
        "prediction": pd.concat(predictions, ignore_index=True) if predictions else pd.DataFrame(),
    }


def energy_of(base: Path, tuned: Path, rank: int = 8) -> dict[str, Any]:
    """Return what low rank and CoSA hold of an update's energy at equal parameters.

    Returns
    -------
    dict
        `matrices` (with an update), `relative_change` ‖ΔW‖/‖W‖ over all of them together; medians
        over the matrices of `top_share` (top r singular values), `law` ab/(mn), `crossover_ratio`,
        `noise_ratio` (what noise of the same shape gives) and `excess`; of the last three also at
        r = min(m, n)/16, which compares models of different width, and the `least_excess` there.
    """
    rows, relative, change, weights = [], [], 0.0, 0.0
    for layer in open_pair(base, tuned):
        if not layer.delta.any():
            continue
        change += float(np.vdot(layer.delta, layer.delta))
        weights += float(np.vdot(layer.base, layer.base))
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


def function_of(
    name: str, *, seed: int = 0, cells: Path | None = None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return function and energy of every approximation of a pair, and what predicts function.

    The language model is measured at the budget of rank 8 alone, on half as many, shorter texts:
    a pass of it takes as long as thirty of the encoder.

    Returns
    -------
    (pandas.DataFrame, pandas.DataFrame)
        A row per approximation, budget and gain, with `domain` and `general`, the function
        recovered on either set of texts, and their intervals; a row per predictor and set of texts.
    """
    from cosa_theory.studies.function.pair import function_pair
    from cosa_theory.studies.function.texts import general_texts

    pair = PAIRS[name]
    causal = name.startswith("decoder")
    most = 32 if causal else 64
    texts = (pair.domain or list)()
    step = max(1, len(texts) // most)
    settings: dict[str, Any] = {"ranks": (8,), "max_tokens": 64} if causal else {}
    base, tuned = pair.paths()
    with progress_bar(f"approximations of {name}", notes=True) as advance:
        found = function_pair(
            base,
            tuned,
            texts=texts[::step][:most],
            general=general_texts(most),
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
    return table.assign(pair=name), found.prediction.assign(pair=name)


def judge(tables: Mapping[str, pd.DataFrame], stated: Mapping[str, Any]) -> pd.DataFrame:
    """Judge what was predicted of pairs that had not been measured.

    Parameters
    ----------
    tables : mapping
        As `run` returns them.
    stated : mapping
        The file of predictions.

    Returns
    -------
    pandas.DataFrame
        `pair`, `prediction` in words, `value`, `low`, `high` and `outcome`: "holds", "fails", or
        "undecided" where the interval holds the bound.
    """
    new = stated["new_pairs"]
    rows = []
    for name, correlations in _each(tables["prediction"]):
        domain = correlations[correlations["texts"] == "domain"].set_index("predictor")
        for predictor, bound, above in (
            (new["predictor"], stated["prediction"]["least_correlation"], True),
            ("energy", new["energy_correlation_at_most"], False),
        ):
            one: Any = domain.loc[predictor]
            ends = [float(one[column]) for column in ("correlation", "low", "high")]
            words = f"rank correlation of {predictor} {'at least' if above else 'at most'} {bound}"
            rows.append(_row(name, words, ends, bound, above))
    functions = dict(_each(tables["function"]))
    for name, table in functions.items():
        at = table[(table["gain"] == 1) & table["rank"].isin([8])].set_index("approximation")
        for first, second in zip(new["order"], new["order"][1:], strict=False):
            gap = _gap(at.loc[first], at.loc[second])
            rows.append(_row(name, f"{first} above {second}", gap, 0.0, above=True))
        for control in ("noise", "shuffled"):
            one = table[table["approximation"] == control].iloc[0]
            most = new["null_at_most"]
            rows.append(_row(name, f"{control} returns nothing", _ends(one), most, above=False))
    rows += _falls(functions)
    columns = ["pair", "prediction", "value", "low", "high", "outcome"]
    return pd.DataFrame(rows, columns=columns)


def _each(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name, rows in table.groupby("pair", sort=False) if len(table) else ():
        if name not in SEEN_BEFORE:
            yield str(name), rows


def _falls(functions: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Yield whether the adjoint returns less after the longest training than after the shortest."""
    for corpus in ("r8", "r52", "20newsgroups"):
        ends = []
        for steps in (100, 5000):
            table = functions.get(f"encoder_{corpus}_{steps}")
            if table is None:
                break
            at = table[(table["approximation"] == "adjoint_haar") & table["rank"].isin([8])]
            ends.append(at[at["gain"] == 1].iloc[0])
        if len(ends) == 2:
            words = "Haar adjoint returns less after 5,000 steps"
            yield _row(f"encoder_{corpus}", words, _gap(*ends), 0.0, above=True)


def _ends(one: Any) -> list[float]:
    return [float(one[name]) for name in ("domain", "domain_low", "domain_high")]


def _gap(first: Any, second: Any) -> list[float]:
    """Return a difference with the ends of both intervals: wider than it has to be."""
    (value, low, high), (less, least, most) = _ends(first), _ends(second)
    return [value - less, low - most, high - least]


def _row(pair: str, words: str, ends: Sequence[float], bound: float, above: bool) -> dict[str, Any]:
    value, low, high = ends
    inside = low > bound if above else high <= bound
    outside = high <= bound if above else low > bound
    outcome = "holds" if inside else "fails" if outside else "undecided"
    row = {"pair": pair, "prediction": words, "value": value, "low": low, "high": high}
    return row | {"outcome": outcome}


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
        counts = judged["outcome"].value_counts()
        text += (
            f"; of {len(judged)} predictions {counts.get('holds', 0)} hold, "
            f"{counts.get('fails', 0)} fail and {counts.get('undecided', 0)} are undecided"
        )
    return text + "."


def write_reference(tables: Mapping[str, pd.DataFrame], folder: Path = REFERENCE) -> None:
    """Write the tables as CSV with six digits, for review."""
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        with atomic_path(folder / f"{NAME}_{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


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
    )
    parser.add_argument("--pairs", nargs="*", default=(), help="default: all that are at hand")
    parser.add_argument(
        "--reference", action="store_true", help="also write the tables of experiments/reference"
    )
    chosen = parser.parse_args(arguments)

    def body() -> None:
        config = Config(tuple(chosen.pairs), chosen.rank, chosen.seed)
        beside = ("function", "prediction", "judged")
        check_table(chosen.out, NAME, beside=beside)
        tables = run(config, chosen.out / "cells")
        judged = judge(tables, tomllib.loads(PREDICTIONS.read_text(encoding="utf-8")))
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
            write_reference(tables)
        print(printable(text))
        title = f"Real updates at the budget of rank {config.rank}"
        print(render_view(View.of(title, _COLUMNS, tables["energy"])))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
