"""The atlas of real updates: what each family can express of every one at hand.

Of the pairs that others and we trained, and of the first gradient and Adam's first step.

Budgets are shares of all entries, so that models of different size compare. Whether longer training
flattens an update, whether any layer crosses to where a core holds more than low rank, and what was
expected (`configs/atlas_predictions.toml`) is judged from the same tables.

    python -m experiments.atlas --pairs sre_encoder encoder_r8_100 encoder_r8_gradient
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.assets import asset_folder
from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.ground.checks import choice
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import program
from cosa_theory.ground.progress import progress_bar
from cosa_theory.page.text import render_view
from cosa_theory.page.views import Column, View, count, number, percent
from cosa_theory.spectrum.families.base import FAMILIES
from cosa_theory.studies.atlas.pair import Atlas, atlas_pair
from cosa_theory.studies.layers import Pair
from experiments import finetune_delta, first_gradient
from experiments.atlas_predictions import judge
from experiments.command import (
    REFERENCE,
    check_table,
    command_parser,
    run_command,
    write_reference,
    write_table,
)
from experiments.pairs import PAIRS

__all__ = ["SHARES", "UPDATES", "leads", "measure"]

NAME = "atlas"
SHARES = (0.001, 0.01, 0.1)
"""Budgets, as shares of all entries of the matrices."""
GRADIENT = Path("results/finetune_delta/gradient.safetensors")
_EPSILON = 1e-8  # of Adam
# The matrices inside the blocks; without embeddings, of which few rows are met in a training.
_INSIDE = {"sre": r"\.layer\.", "encoder": r"\.layer\.", "decoder": r"\.layers\."}
_KEPT = [
    *("update", "share", "family", "group", "certainty", "budget", "parameters", "captured"),
    *("ci_low", "ci_high", "law", "noise", "bits", "frozen", "multiply_adds", "met", "layers"),
    "reason",
]
_RETURNED = [
    *("update", "share", "family", "group", "captured"),
    *("recovered", "recovered_low", "recovered_high"),
]
_TEXTS = 64


def _opened(name: str) -> Pair:
    paths = PAIRS[name].paths()
    return open_pair(*paths, include=_INSIDE.get(name.split("_")[0]))


def _slopes() -> dict[str, Any]:
    """Return the gradient of the first step on R8, taken where it is not stored yet."""
    if GRADIENT.is_file():
        from safetensors.numpy import load_file

        return dict(load_file(GRADIENT))
    return first_gradient.run(finetune_delta.Config(), GRADIENT)


def _first_step(step: Callable[[Any], Any]) -> list[LayerDelta]:
    """Return minus a function of the first gradient, beside the weights where it was taken."""
    slopes = _slopes()
    encoder = asset_folder("encoder")
    return [
        LayerDelta(layer.name, -step(slopes[layer.name]), layer.base)
        for layer in open_pair(encoder, encoder, include=_INSIDE["encoder"])
    ]


def _adam(slope: Any) -> Any:
    """Return Adam's first step for a gradient, without its rate: both averages are corrected."""
    return slope / (np.abs(slope) + _EPSILON)


UPDATES: dict[str, Callable[[], Pair]] = {
    **{name: lambda name=name: _opened(name) for name in PAIRS},  # type: ignore[misc]
    "encoder_r8_gradient": lambda: _first_step(lambda slope: slope),
    "encoder_r8_adam": lambda: _first_step(_adam),
}
"""What opens every update by its name: the pairs of `experiments.pairs`, and two first steps."""


def measure(
    name: str, cells: Path | None = None, *, function: bool = False, **settings: Any
) -> Atlas:
    """Measure one update; finished layers are kept in `cells`.

    With `function` every fit is put into the model, with texts of the update's domain. Further
    settings are those of `cosa_theory.studies.atlas.pair.atlas_pair`.
    """
    pair = UPDATES[name]()
    entries = sum(int(np.prod(layer.shape)) for layer in getattr(pair, "layers", pair))
    gradients = _slopes() if name.startswith("encoder_r8_1") else None
    if function:
        beside = None if cells is None else cells.with_name(f"{cells.name}_function")
        settings["function"] = partial(_function, name, cells=beside)
    with progress_bar(f"matrices of {name}", notes=True) as advance:
        return atlas_pair(
            pair,
            budgets=[round(share * entries) for share in SHARES],
            gradients=gradients,
            draws=2,
            cells=cells,
            progress=advance,
            **settings,
        )


def _function(name: str, approximations: Sequence[Any], cells: Path | None) -> pd.DataFrame:
    from cosa_theory.studies.function.pair import function_pair

    with progress_bar(f"families in the model of {name}", notes=True) as advance:
        return function_pair(
            *PAIRS[name].paths(),
            general=PAIRS[name].texts(_TEXTS),  # one set of texts
            approximations=approximations,
            cells=cells,
            progress=advance,
            include=_INSIDE.get(name.split("_")[0]),
        ).function


def tables_of(atlases: Mapping[str, Atlas]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the shares of all matrices together, and of each, with `update` and `share`."""
    found: tuple[list[pd.DataFrame], list[pd.DataFrame]] = [], []
    for name, atlas in atlases.items():
        budgets = dict(zip(sorted(atlas.pooled["budget"].unique()), SHARES, strict=True))
        for table, rows in zip((atlas.pooled, atlas.families), found, strict=True):
            rows.append(table.assign(update=name, share=table["budget"].map(budgets)))
    return pd.concat(found[0], ignore_index=True), pd.concat(found[1], ignore_index=True)


def leads(pooled: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return how far low rank is ahead of the best CoSA core, per update and budget.

    Returns
    -------
    pandas.DataFrame
        `update`, `share`; `svd` and `core`, their shares of the energy, all matrices together,
        `lead` = svd/core, `noise` the same of noise; `matrices` in which both have an update, in
        how many the core holds as much (`crossed`) and `least`, the smallest lead of one; `best`,
        the family that trains and holds most, and in how many matrices it is of the `core`'s kind.
        What is of low rank is null where the budget is below rank one.
    """
    return pd.DataFrame(
        [
            _lead(rows, layers[(layers["update"] == update) & (layers["share"] == share)])
            | {"update": update, "share": share}
            for (update, share), rows in pooled.groupby(["update", "share"], sort=False)
        ]
    )[_LEAD]


def _lead(pooled: pd.DataFrame, layers: pd.DataFrame) -> dict[str, Any]:
    cores = [name for name, family in FAMILIES.items() if family.group == "CoSA core"]
    together = pooled.set_index("family")
    core = together.loc[together.index.isin(cores)].nlargest(1, "captured").iloc[0]
    svd = together.loc["truncated_svd"]
    trains = together[together["group"] != "stored"]
    # A budget below rank one leaves a layer without a truncated SVD, and no lead.
    shares = layers.pivot(index="layer", columns="family", values="captured").astype(float)
    best = shares[[name for name in cores if name in shares]].max(axis=1)
    ratio = (shares["truncated_svd"] / best).dropna()
    trained = shares[[name for name in trains.index if name in shares]]
    winners = trained.dropna(how="all").idxmax(axis=1)
    return {
        "svd": svd["captured"],
        "core": core["captured"],
        "lead": svd["captured"] / core["captured"],
        "noise": svd["noise"] / core["law"],  # which is what a core holds of noise
        "matrices": len(ratio),
        "crossed": int((ratio <= 1).sum()),
        "least": float(ratio.min()),
        "best": trains["captured"].idxmax(),
        "cores_win": int(winners.isin(cores).sum()),
    }


def _with_committed(measured: Mapping[str, pd.DataFrame]) -> dict[str, pd.DataFrame]:
    """Return tables with the committed rows of updates that were not measured, and what follows."""
    order = {name: place for place, name in enumerate(UPDATES)}
    tables = {}
    for name, table in measured.items():
        path = REFERENCE / f"{name}.csv"
        if path.is_file():
            others = pd.read_csv(path)
            others = others[~others["update"].isin(table["update"])]
            if len(others):  # an empty table has no types
                table = pd.concat([others, table], ignore_index=True)
        tables[name] = table.sort_values(
            "update", key=lambda names: names.map(order), kind="stable"
        )
    tables["atlas_judged"] = judge(
        tables["atlas_leads"], tables["atlas"], tables.get("atlas_function")
    )
    return tables


def verdict(lead: pd.DataFrame, judged: pd.DataFrame) -> str:
    """Say in words how far low rank is ahead, where a core is, and what came of expectations."""
    middle = lead[lead["share"] == SHARES[1]]
    over = middle["lead"] / middle["noise"]
    came = judged["outcome"].value_counts()
    return (
        f"With one number for {round(1 / SHARES[1])} entries low rank holds "
        f"{middle['lead'].min():.2g} to {middle['lead'].max():.2g} times what the best CoSA core "
        f"does of {len(middle)} updates ({over.min():.2g} to {over.max():.2g} times what noise "
        f"gives); in {lead['crossed'].sum()} of {lead['matrices'].sum()} matrices and budgets a "
        f"core holds as much. Of {len(judged)} predictions {came.get('holds', 0)} hold and "
        f"{came.get('fails', 0)} fail."
    )


_LEAD = [
    *("update", "share", "svd", "core", "lead", "noise", "matrices", "crossed", "least"),
    *("best", "cores_win"),
]
_COLUMNS = (
    Column("update", "update", text=True),
    Column("share", "budget", "of all entries", percent),
    Column("svd", "low rank", "share of the energy, all matrices together", percent),
    Column("core", "best core", "", percent),
    Column("lead", "lead", "", number),
    Column("noise", "of noise", "the same of noise", number),
    Column("crossed", "crossed", "matrices of which a core holds as much", count),
    Column("matrices", "of", "", count),
    Column("best", "holds most", "of the families that train", text=True),
)
_JUDGED = (
    Column("prediction", "expected", text=True),
    Column("value", "measured", text=True),
    Column("outcome", "outcome", text=True),
)


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the result is the exit code."""
    parser = command_parser(
        f"experiments.{NAME}",
        "Measure what every family of updates can express of all updates at hand.",
        out=Path("results") / NAME,
        example="--pairs sre_encoder encoder_r8_gradient",
        reference=True,
    )
    parser.add_argument("--pairs", nargs="*", default=(), help="default: all that are at hand")
    parser.add_argument(
        "--function", action="store_true", help="also put every fit into the model, with texts"
    )
    chosen = parser.parse_args(arguments)

    def body() -> None:
        for name in chosen.pairs:
            choice("pairs", name, tuple(UPDATES))
        names = chosen.pairs or [
            name for name in UPDATES if name not in PAIRS or PAIRS[name].ready()
        ]
        if chosen.function:
            for name in names:
                if name not in PAIRS or PAIRS[name].domain is None:
                    raise InputError(f"--function: {name} has no texts: leave it out of --pairs")
        beside = ("atlas_layers", "atlas_leads", "atlas_judged", "atlas_function")
        check_table(chosen.out, NAME, beside=beside)
        given: dict[str, Any] = {"function": True} if chosen.function else {}
        atlases = {name: measure(name, chosen.out / "cells" / name, **given) for name in names}
        pooled, layers = tables_of(atlases)
        lead = leads(pooled, layers)
        returned = pooled.dropna(subset=["recovered"])[_RETURNED]
        judged = judge(lead, pooled, returned)
        text = verdict(lead, judged)
        tables = dict(zip(beside, (layers, lead, judged, returned), strict=True))
        arguments = {"pairs": names, "shares": list(SHARES)}
        write_table(
            pooled, chosen.out, NAME, arguments=arguments, verdict=text, seed=0, beside=tables
        )
        if chosen.reference:
            kept = {"atlas": pooled[_KEPT], "atlas_leads": lead, "atlas_function": returned}
            write_reference(_with_committed(kept))
        print(printable(text))
        print(render_view(View.of("Low rank beside the best CoSA core", _COLUMNS, lead)))
        print(render_view(View.of("What was expected", _JUDGED, judged)))

    return run_command(body)


if __name__ == "__main__":
    sys.exit(main())
