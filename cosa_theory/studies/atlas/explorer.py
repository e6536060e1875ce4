"""The interactive part of an atlas: every family by budget and place, and who wins where."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from cosa_theory.ground.printable import printable
from cosa_theory.page.document import Tables
from cosa_theory.page.explorer import Chart, Choice, Explorer, short_records
from cosa_theory.page.heatmap import OUTSIDE, module_grid
from cosa_theory.page.linked import followed, layer_map
from cosa_theory.page.views import memory, percent
from cosa_theory.spectrum.families.base import FAMILIES
from cosa_theory.studies.atlas.figures import COLOURS, LEAST
from cosa_theory.studies.atlas.pooling import pool_atlas
from cosa_theory.studies.atlas.verdict import middle, trained
from cosa_theory.studies.atlas.winners import winners

__all__ = ["explorer"]

_ALL = "all matrices"


def explorer(tables: Tables) -> Explorer | None:
    """Return every family's share at a budget, along budgets, and a map of who wins.

    None where no family has an update.
    """
    shares = _shares(tables)
    if shares.empty:
        return None
    budgets = sorted(map(int, tables["pooled"]["budget"].unique()))
    budget = middle(tables["pooled"])
    best = shares[(shares["place"] == _ALL) & (shares["budget"] == budget)]
    if best.empty:
        return None
    families = list(dict.fromkeys(map(str, shares["family"])))
    modules = [printable(str(one)) for one in tables["layers"]["module"].unique()]
    places = [one for one in (_ALL, *modules) if (shares["place"] == one).any()]
    choices = (
        Choice("place", "Matrices", dict(zip(places, places, strict=True)), _ALL),
        Choice("budget", "Trainable parameters of the model", _named(budgets), budget),
        Choice(
            "family",
            "Family",
            dict(zip(families, families, strict=True)),
            str(best["family"].iloc[0]),
        ),
    )
    start = {one.name: one.chosen for one in choices}
    charts = [
        Chart(
            "What each family can express",
            "Share of ‖ΔW‖² at this budget, best first; lines are intervals over draws, crosses "
            "what independent noise of the same shapes gives. A click chooses a family.",
            _bars(shares, start),
            wide=True,
        ),
        Chart(
            "The same as the budget grows",
            "A line for each family, the chosen one bold; dashed: the law P/(mn).",
            _curves(shares, start),
        ),
    ]
    wins = _wins(tables, budgets)
    if len(wins):
        charts.append(
            Chart(
                "Who wins where",
                "The winner's share over that of the best CoSA core, layer by layer. A click "
                "chooses the layer's type of module.",
                _map(wins, module_grid(winners(tables), "captured"), start),
            )
        )
    data = {"shares": short_records(shares), "wins": short_records(wins)}
    return Explorer(choices, charts, data, told="shares")


def _named(budgets: list[int]) -> dict[int, str]:
    return {one: f"{one:,}" for one in budgets}


def _shares(tables: Tables) -> pd.DataFrame:
    """Return one row per place, budget and family that trains, the best first, in words too."""
    frames = [tables["pooled"].assign(place=_ALL)]
    modules = tables["layers"].loc[tables["layers"]["delta_norm"] > 0, "module"].unique()
    for module in modules if len(modules) > 1 else ():
        own = {
            name: tables[name][tables[name]["module"] == module] for name in ("families", "layers")
        }
        frames.append(pd.DataFrame(pool_atlas(**own)).assign(place=printable(str(module))))
    rows = trained(pd.concat(frames, ignore_index=True)).dropna(subset=["captured"])
    rows = rows[rows["captured"] > LEAST]
    rows["says"] = [_in_words(row) for row in rows.to_dict("records")]
    rows["kind"], rows["share"] = rows["group"], rows["captured"]
    rows["family"] = [_label(name) for name in rows["family"]]
    known = ["place", "budget", "family", "kind", "share", "ci_low", "ci_high", "noise", "law"]
    return rows[[*known, "parameters", "says"]]


def _label(name: Any) -> str:
    return printable(FAMILIES[name].label if name in FAMILIES else str(name))


def _in_words(row: Mapping[Any, Any]) -> str:
    found = "" if row["certainty"] == "exact" else ", the best that was found"
    noise = "" if pd.isna(row["noise"]) else f", of noise {percent(row['noise'])}"
    return (
        f"{_label(row['family'])} holds {percent(row['captured'])} of ‖ΔW‖² of {row['place']}"
        f"{found}{noise}, with {row['parameters']:,} trained numbers and "
        f"{memory(row['bits'] / 8)} stored."
    )


def _wins(tables: Tables, budgets: list[int]) -> pd.DataFrame:
    frames = [winners(tables, budget).assign(budget=budget) for budget in budgets]
    rows = pd.concat(frames, ignore_index=True).dropna(subset=["core"])
    rows["behind"] = rows["captured"] / rows["core"]
    rows["winner"] = [_label(name) for name in rows["family"]]
    rows["place"] = [printable(str(one)) for one in rows["module"]]
    rows["block"] = rows["block"].astype("string").fillna(OUTSIDE)
    return rows[["layer", "place", "block", "budget", "winner", "captured", "core", "behind"]]


def _colour(shares: pd.DataFrame) -> alt.Color:
    kinds = [kind for kind in COLOURS if kind in set(shares["kind"])]
    return (
        alt.Color("kind:N", title=None)
        .scale(domain=kinds, range=[COLOURS[kind] for kind in kinds])
        .legend(orient="top", columns=4)
    )


def _bars(shares: pd.DataFrame, start: Mapping[str, Any]) -> alt.LayerChart:
    height = 60 + 15 * int(shares.groupby(["place", "budget"]).size().max())
    where = "datum.place == place && datum.budget == budget"
    base = followed("shares", start, "place", "budget", "family", height=height)
    base = base.transform_filter(where).encode(
        alt.Y("family:N", title=None)
        .sort(field="share", order="descending")
        .axis(labelLimit=330, labelOverlap=False)
    )
    share = alt.X("share:Q", title="share of ‖ΔW‖² that can be expressed")
    share = share.scale(type="log", nice=False, padding=12).axis(format="~%", tickCount=6)
    points = base.mark_point(filled=True, opacity=1, cursor="pointer").encode(
        share,
        color=_colour(shares),
        size=alt.condition("datum.family == family", alt.value(170), alt.value(60)),
        stroke=alt.condition("datum.family == family", alt.value("currentColor"), alt.value(None)),
        tooltip=[
            alt.Tooltip("family:N"),
            alt.Tooltip("share:Q", format=".2%"),
            alt.Tooltip("noise:Q", format=".2%"),
            alt.Tooltip("law:Q", format=".2%"),
            alt.Tooltip("parameters:Q", format=","),
        ],
    )
    intervals = base.mark_rule().encode(alt.X("ci_low:Q"), alt.X2("ci_high:Q"))
    noise = (
        base.transform_filter(f"datum.noise > {LEAST}")
        .mark_point(shape="cross", size=28, opacity=0.7, filled=True)
        .encode(alt.X("noise:Q"), color=alt.value("currentColor"))
    )
    return alt.layer(intervals, noise, points)


def _curves(shares: pd.DataFrame, start: Mapping[str, Any]) -> alt.LayerChart:
    base = followed("shares", start, "place", "family", height=320)
    base = base.transform_filter("datum.place == place")
    numbers = alt.X("parameters:Q", title="trainable parameters")
    numbers = numbers.scale(type="log", nice=False, padding=12).axis(format="~s", tickCount=5)
    share = alt.Y("share:Q", title="share of ‖ΔW‖²")
    share = share.scale(type="log", nice=False, padding=12).axis(format="~%", tickCount=5)
    lines = base.mark_line(point=alt.OverlayMarkDef(cursor="pointer", size=30)).encode(
        numbers,
        share,
        detail="family:N",
        color=_colour(shares),
        opacity=alt.condition("datum.family == family", alt.value(1), alt.value(0.35)),
        strokeWidth=alt.condition("datum.family == family", alt.value(3.5), alt.value(1)),
        tooltip=[alt.Tooltip("family:N"), alt.Tooltip("share:Q", format=".2%")],
    )
    law = base.transform_filter("isValid(datum.law)")
    law = law.mark_line(strokeDash=[6, 3], color="currentColor").encode(numbers, alt.Y("law:Q"))
    return alt.layer(lines, law)


def _map(wins: pd.DataFrame, grid: pd.DataFrame, start: Mapping[str, Any]) -> alt.Chart:
    top = float(f"{max(10.0, float(np.nanmax(wins['behind']))):.3g}")
    return (
        layer_map("wins", grid, start, "place", "budget", module="place")
        .transform_filter("datum.budget == budget")
        .encode(
            color=alt.Color("behind:Q", title=None)
            .scale(type="log", scheme="cividis", domain=[1, top])
            .legend(orient="top", gradientLength=alt.ExprRef("min(width, 260)"), tickCount=4),
            opacity=alt.condition(
                f"place == '{_ALL}' || datum.place == place", alt.value(1), alt.value(0.25)
            ),
            tooltip=[
                alt.Tooltip("layer:N"),
                alt.Tooltip("winner:N"),
                alt.Tooltip("captured:Q", title="its share", format=".2%"),
                alt.Tooltip("core:Q", title="best core", format=".2%"),
                alt.Tooltip("behind:Q", title="ratio"),
            ],
        )
    )
