"""The interactive part of an audit: where an assumption holds, and by how much in each layer."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from cosa_theory.ground.printable import printable
from cosa_theory.page.document import Tables
from cosa_theory.page.explorer import Chart, Choice, Explorer, short_records
from cosa_theory.page.heatmap import OUTSIDE, module_grid
from cosa_theory.page.linked import CHOSEN_LAYER, followed, layer_map, module_axis
from cosa_theory.page.views import number
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS, SUBJECTS
from cosa_theory.studies.audit.figures import OUTCOMES

__all__ = ["explorer"]

_REACH = 1e6  # of margins that are drawn: beyond, a point lies at the edge


def explorer(tables: Tables) -> Explorer | None:
    """Return a map of an assumption, its margins, and all assumptions of the chosen layer.

    None where nothing was judged.
    """
    rows = _rows(tables["assumptions"])
    if rows.empty:
        return None
    layers = rows.drop_duplicates("layer")
    names, modules = list(layers["layer"]), list(layers["module"])
    subjects = {one: SUBJECTS.get(one, one) for one in rows["subject"].unique()}
    asked = {one: ASSUMPTIONS[one].title for one in ASSUMPTIONS if one in set(rows["assumption"])}
    failing = [
        one for one in asked if one in set(rows.loc[rows["outcome"] == "fails", "assumption"])
    ]
    choices = (
        *([Choice("subject", "Of", subjects, next(iter(subjects)))] if len(subjects) > 1 else []),
        Choice("assumption", "Assumption", asked, failing[0] if failing else next(iter(asked))),
        Choice("module", "Module type", {"": "all", **{one: one for one in modules}}, ""),
        Choice(
            "layer",
            "Layer",
            dict(zip(names, names, strict=True)),
            names[0],
            within="module",
            places=modules,
        ),
    )
    start = {one.name: one.chosen for one in choices}
    grid = module_grid(tables["assumptions"].assign(one=1.0), "one")
    return Explorer(
        choices,
        (
            Chart(
                "Where the assumption holds",
                "Each cell is a layer; a click chooses it.",
                _map(grid, start),
            ),
            Chart(
                "All assumptions of the chosen layer",
                "Margins: how many times better the number is than its threshold asks, with its "
                "interval. Left of 1 the assumption fails.",
                _margins(asked, start),
            ),
            Chart(
                "The assumption in every layer",
                "The same margins of the chosen assumption, by type of module; the chosen layer is "
                "outlined.",
                _strip(grid, start),
                wide=True,
            ),
        ),
        {"outcomes": short_records(rows)},
        told="outcomes",
    )


def _rows(table: pd.DataFrame) -> pd.DataFrame:
    """Return one row per layer, subject and assumption, with margins, in words too."""
    rows = table[table["value"].notna()].copy()
    if rows.empty:
        return rows
    least = rows["relation"] == "at least"
    with np.errstate(divide="ignore", invalid="ignore"):
        for name in ("value", "low", "high"):
            ratio = rows[name].astype(float) / rows["threshold"].astype(float)
            rows[f"margin_{name}"] = ratio.where(least, 1 / ratio).clip(1 / _REACH, _REACH)
    rows["says"] = [_in_words(row) for row in rows.to_dict("records")]
    rows["title"] = [ASSUMPTIONS[str(name)].title for name in rows["assumption"]]
    for name in ("layer", "module"):
        rows[name] = [printable(str(one)) for one in rows[name]]
    rows["block"] = rows["block"].astype("Int64").astype("string").fillna(OUTSIDE)
    shown = ["layer", "module", "block", "subject", "assumption", "title", "outcome", "says"]
    return rows[[*shown, "margin_value", "margin_low", "margin_high", "value", "threshold"]]


def _in_words(row: Mapping[Any, Any]) -> str:
    one = ASSUMPTIONS[row["assumption"]]
    verb = "is undecided" if row["outcome"] == "undecided" else row["outcome"]
    return (
        f"{printable(str(row['layer']))}: {one.title} {verb}. {one.quantity} is "
        f"{number(row['value'])} ({number(row['low'])} to {number(row['high'])}), and has to be "
        f"{row['relation']} {number(row['threshold'])}."
    )


def _subject(chart: alt.Chart, start: Mapping[str, Any]) -> alt.Chart:
    """Keep the rows of the chosen subject, where there are several."""
    if "subject" not in start:
        return chart
    chosen = chart.add_params(alt.param(name="subject", value=start["subject"]))
    return chosen.transform_filter("datum.subject == subject")


def _colour() -> alt.Color:
    return (
        alt.Color("outcome:N", title=None)
        .scale(domain=list(OUTCOMES), range=[one.colour for one in OUTCOMES.values()])
        .legend(orient="top")
    )


_SHAPE = alt.Shape("outcome:N", title=None).scale(
    domain=list(OUTCOMES), range=["circle", "square", "cross"]
)
_TOLD = [
    alt.Tooltip("layer:N"),
    alt.Tooltip("title:N", title="assumption"),
    alt.Tooltip("outcome:N"),
    alt.Tooltip("value:Q"),
    alt.Tooltip("threshold:Q"),
]


def _map(grid: pd.DataFrame, start: Mapping[str, Any]) -> alt.Chart:
    chart = layer_map("outcomes", grid, start, "assumption", "module", "layer")
    chart = _subject(chart, start).transform_filter("datum.assumption == assumption")
    return chart.encode(color=_colour(), **CHOSEN_LAYER, tooltip=_TOLD)


def _margin() -> alt.X:
    scale = alt.X("margin_value:Q", title="margin (1: at the threshold)")
    return scale.scale(type="log", nice=False, padding=14).axis(format="~g", tickCount=5)


def _margins(asked: Mapping[str, str], start: Mapping[str, Any]) -> alt.LayerChart:
    height = 60 + 26 * len(asked)
    base = _subject(followed("outcomes", start, "layer", "assumption", height=height), start)
    base = base.transform_filter("datum.layer == layer").encode(
        alt.Y("title:N", sort=list(asked.values()), title=None).axis(labelLimit=190)
    )
    points = base.mark_point(filled=True, opacity=1, cursor="pointer").encode(
        _margin(),
        color=_colour(),
        shape=_SHAPE,
        size=alt.condition("datum.assumption == assumption", alt.value(180), alt.value(70)),
        tooltip=_TOLD,
    )
    intervals = base.mark_rule().encode(alt.X("margin_low:Q"), alt.X2("margin_high:Q"))
    return alt.layer(intervals, points, _one())


def _one() -> alt.Chart:
    """Return the line at which the threshold lies: of all rows one."""
    rows = alt.Chart(alt.NamedData("outcomes")).transform_aggregate(rows="count()")
    return rows.mark_rule(strokeDash=[6, 3]).encode(x=alt.datum(1))


def _strip(grid: pd.DataFrame, start: Mapping[str, Any]) -> alt.LayerChart:
    height = max(160, 22 * len(grid) + 40)
    base = _subject(followed("outcomes", start, "assumption", "layer", height=height), start)
    is_chosen = "datum.layer == layer"
    points = (
        base.transform_filter("datum.assumption == assumption")
        .mark_point(filled=True, opacity=0.8, cursor="pointer")
        .encode(
            _margin(),
            module_axis(grid),
            color=_colour(),
            shape=_SHAPE,
            size=alt.condition(is_chosen, alt.value(180), alt.value(50)),
            stroke=alt.condition(is_chosen, alt.value("currentColor"), alt.value(None)),
            tooltip=_TOLD,
        )
    )
    return alt.layer(points, _one())
