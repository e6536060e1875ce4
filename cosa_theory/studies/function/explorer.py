"""The interactive part of a study of function: approximations by energy and by stored bits."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from cosa_theory.ground.printable import printable
from cosa_theory.page.document import Tables
from cosa_theory.page.explorer import Chart, Choice, Explorer, short_records
from cosa_theory.page.views import memory, percent
from cosa_theory.studies.function.figures import GROUPS, limits, on_texts
from cosa_theory.studies.function.verdict import middle_rank, shown_texts

__all__ = ["explorer"]


def explorer(tables: Tables) -> Explorer | None:
    """Return function against energy and against bits, where an approximation can be chosen."""
    if tables["function"].empty:
        return None
    points = _points(tables)
    ranks = sorted(int(rank) for rank in tables["approximations"]["rank"].dropna().unique())
    middle = middle_rank(tables["approximations"])
    texts = {one: printable(one) for one in map(str, tables["function"]["texts"].unique())}
    names = [printable(str(name)) for name in points["approximation"].unique()]
    choices = (
        Choice("texts", "Texts", texts, shown_texts(tables["function"])),
        Choice(
            "rank",
            "Budget, as the rank of a LoRA",
            {"": "all", **{rank: str(rank) for rank in ranks}},
            "" if middle is None else middle,
        ),
        Choice("approximation", "Approximation", {name: name for name in names}, names[0]),
    )
    start = {one.name: one.chosen for one in choices}
    return Explorer(
        choices,
        (
            Chart(
                "Function against energy",
                "The axis of energy is linear between −1 and 1 and logarithmic beyond. A click on "
                "a point chooses its approximation at every budget; lines are its 95 % intervals.",
                _chart("energy", points, start),
            ),
            Chart(
                "Function against stored bits",
                "Numbers at 16 bits and the places of chosen entries; what a seed gives is free.",
                _chart("megabytes", points, start),
            ),
        ),
        {"points": short_records(points)},
        told="points",
    )


def _points(tables: Tables) -> pd.DataFrame:
    """Return one row per approximation, budget and set of texts, in words too."""
    rows = pd.concat(
        [on_texts(tables, name).assign(texts=name) for name in tables["function"]["texts"].unique()]
    )
    rows["megabytes"] = rows["bits"] / 8e6
    rows["approximation"] = rows["label"]
    rows["kind"] = [GROUPS.get(kind, {"label": kind})["label"] for kind in rows["kind"]]
    rows["says"] = [_in_words(row) for row in rows.to_dict("records")]
    shown = ["approximation", "kind", "rank", "texts", "energy", "weighted", "megabytes"]
    return rows[[*shown, "recovered", "low", "high", "says"]]


def _in_words(row: Mapping[Any, Any]) -> str:
    at = "" if pd.isna(row["rank"]) else f" at the budget of rank {row['rank']}"
    return (
        f"{printable(str(row['label']))}{at}: returns {percent(row['recovered'])} of the change on "
        f"{printable(str(row['texts']))} texts ({percent(row['low'])} to {percent(row['high'])}), "
        f"with {percent(row['energy'])} of the energy of ΔW and {memory(row['bits'] / 8)} stored."
    )


def _chart(x: str, rows: pd.DataFrame, start: Mapping[str, Any]) -> alt.LayerChart:
    styles = {
        one["label"]: one["color"] for one in GROUPS.values() if one["label"] in set(rows["kind"])
    }
    is_chosen = "datum.approximation == approximation"
    horizontal = {
        "energy": alt.X("energy:Q", title="captured energy 1 − ‖Â − ΔW‖²/‖ΔW‖²")
        .scale(type="symlog", constant=1, padding=12)
        .axis(format="~%", values=[-1000, -100, -10, -1, 0, 1]),
        "megabytes": alt.X("megabytes:Q", title="stored, MB")
        .scale(type="log", nice=False, padding=12)
        .axis(format="~g", tickCount=6),
    }[x]
    base = (
        alt.Chart(alt.NamedData("points"), width="container", height=320)
        .transform_filter(
            "datum.texts == texts && (rank == '' || !isValid(datum.rank) || datum.rank == rank)"
        )
        .encode(
            horizontal,
            color=alt.Color("kind:N", title=None)
            .scale(domain=list(styles), range=list(styles.values()))
            .legend(orient="top", columns=2),
        )
    )
    recovered = alt.Y("recovered:Q", title="function recovered").axis(format="~%", tickCount=6)
    shown = recovered.scale(domain=limits(rows["recovered"]), nice=False)
    points = (
        base.mark_point(filled=True, opacity=0.9, cursor="pointer", clip=True)
        .encode(
            shown,
            shape=alt.Shape("kind:N", title=None).scale(domain=list(styles)),
            size=alt.condition(is_chosen, alt.value(190), alt.value(55)),
            stroke=alt.condition(is_chosen, alt.value("currentColor"), alt.value(None)),
            tooltip=[
                alt.Tooltip("approximation:N"),
                alt.Tooltip("rank:Q"),
                alt.Tooltip("recovered:Q", title="function", format=".1%"),
                alt.Tooltip("energy:Q", format=".1%"),
                alt.Tooltip("weighted:Q", title="weighted energy", format=".1%"),
                alt.Tooltip("megabytes:Q", title="MB", format=".3~g"),
            ],
        )
        .add_params(*(alt.param(name=name, value=value) for name, value in start.items()))
    )
    intervals = base.mark_rule(clip=True).encode(alt.Y("low:Q"), alt.Y2("high:Q"))
    return alt.layer(intervals, points)
