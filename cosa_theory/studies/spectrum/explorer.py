"""The interactive part of a survey's page: every layer's place, spectrum and shares, linked."""

from collections.abc import Iterator, Mapping
from typing import Any

import altair as alt
import numpy as np
import pandas as pd

from cosa_theory.ground.printable import printable
from cosa_theory.page.document import Tables
from cosa_theory.page.explorer import Chart, Choice, Explorer, short_records
from cosa_theory.page.heatmap import OUTSIDE, module_grid
from cosa_theory.page.linked import CHOSEN_LAYER, followed, layer_map
from cosa_theory.page.style import BLACK, MATRIX_STYLES, family_style
from cosa_theory.page.views import number, percent
from cosa_theory.studies.spectrum.budgets import at_budget, common_budgets, middle_budget
from cosa_theory.studies.spectrum.verdict import LARGEST_MISFIT

__all__ = ["explorer"]

_POINTS = 64  # of a spectrum that are shown: its curve is smooth between them
_MEASURES = {"excess": "excess over noise", "crossover_ratio": "crossover ratio"}


def explorer(tables: Tables) -> Explorer | None:
    """Return a heat map of the layers beside the spectrum and the shares of the chosen one.

    None where no layer has an update.
    """
    cells = _cells(tables)
    budget = middle_budget(tables["crossover"])
    live = cells[cells["excess"].notna()]
    if budget is None or live.empty:
        return None
    layers = tables["layers"]
    names = [printable(name) for name in layers["layer"]]
    modules = [printable(name) for name in layers["module"]]
    chosen = str(live["layer"].iloc[int(live["excess"].astype(float).argmax())])
    choices = (
        Choice("budget", "Budget, as the rank of a LoRA", _ranks(tables), budget),
        Choice("module", "Module type", {"": "all", **{one: one for one in modules}}, ""),
        Choice(
            "layer",
            "Layer",
            dict(zip(names, names, strict=True)),
            printable(chosen),
            within="module",
            places=modules,
        ),
        Choice("measure", "Colour", _MEASURES, "excess"),
    )
    start = {one.name: one.chosen for one in choices}
    return Explorer(
        choices,
        (
            Chart(
                "Where low rank is ahead, and by how much",
                "Each cell is a layer; a click chooses it. Brown: above 1, violet: below.",
                _map(cells, layers, start),
            ),
            Chart(
                "Singular values of the chosen layer",
                "Horizontals: what rounding, or the noise in its tail, would give at most.",
                _spectrum(start),
            ),
            Chart(
                "Energy that its largest singular values hold",
                "Dashed: a CoSA core with as many trainable parameters, i(m + n)/(mn). Crosses: "
                "independent noise of this shape.",
                _held(start),
            ),
            Chart(
                "What each family can express of it",
                "Share of ‖ΔW‖² at the chosen budget; lines are intervals of the mean over draws.",
                _families(tables["families"], start),
            ),
        ),
        {
            "cells": short_records(cells),
            "spectra": short_records(_spectra(tables)),
            "edges": short_records(_edges(tables)),
            "laws": short_records(_laws(layers)),
            "families": short_records(_shares(tables)),
        },
        told="cells",
    )


def _ranks(tables: Tables) -> dict[int, str]:
    return {rank: str(rank) for rank in common_budgets(tables["crossover"])}


def _cells(tables: Tables) -> pd.DataFrame:
    """Return one row per layer and common budget, in words too."""
    frames = [
        at_budget(tables["crossover"], rank).assign(budget=rank)
        for rank in common_budgets(tables["crossover"])
    ]
    columns = ["layer", "module", "block", "budget", "top_share", "law", "noise_share"]
    if not frames:
        return pd.DataFrame(columns=[*columns, *_MEASURES, "says"])
    rows = pd.concat(frames, ignore_index=True)
    rows["noise_share"] = rows["noise_ratio"] * rows["law"]
    rows["says"] = [_in_words(row) for row in rows.to_dict("records")]
    rows["block"] = rows["block"].astype("string").fillna(OUTSIDE)
    return rows[[*columns, "rank_budget", *_MEASURES, "noise_ratio", "says"]]


def _in_words(row: Mapping[Any, Any]) -> str:
    name, rank = printable(row["layer"]), row["rank_budget"]
    if pd.isna(row["top_share"]):
        return f"{name}: its update is zero."
    return (
        f"{name}, {row['m']} × {row['n']}: its {rank} largest singular values hold "
        f"{percent(row['top_share'])} of ‖ΔW‖², a CoSA core of as many parameters "
        f"{percent(row['law'])} on average. The ratio is {number(row['crossover_ratio'])}, that of "
        f"noise {number(row['noise_ratio'])}, the excess {number(row['excess'])}."
    )


def _places(count: int) -> np.ndarray:
    """Return the indices, from 1, at which a spectrum of so many values is shown."""
    if count <= _POINTS:
        return np.arange(1, count + 1)
    half = _POINTS // 2
    ends = np.geomspace(1, count, half), np.linspace(1, count, half)
    return np.unique(np.concatenate(ends).round().astype(int))


def _spectra(tables: Tables) -> Iterator[dict[str, Any]]:
    """Yield one row per layer and matrix, its curves in lists; values below resolution are gaps."""
    for (layer, matrix), rows in tables["spectra"].groupby(["layer", "matrix"], sort=False):
        ordered = rows.sort_values("index")
        sigma = ordered["sigma"].to_numpy(dtype=float)
        shown = _places(len(sigma))
        resolved = ordered["resolved"].to_numpy(dtype=bool) & (sigma > 0)
        row = {
            "layer": layer,
            "matrix": MATRIX_STYLES[str(matrix)].label,
            "i": shown.tolist(),
            "sigma": np.where(resolved, sigma, np.nan)[shown - 1].tolist(),
        }
        energy = np.cumsum(sigma**2)
        if matrix == "delta" and energy[-1] > 0:
            row["held"] = (energy / energy[-1])[shown - 1].tolist()
        yield row


def _edges(tables: Tables) -> Iterator[dict[str, Any]]:
    """Yield the edges of noise that are not far below every value."""
    spectra = tables["spectra"][tables["spectra"]["resolved"].astype(bool)]
    lowest = spectra.groupby("layer")["sigma"].min()
    for row in tables["layers"].to_dict("records"):
        edges = {"rounding": row["rounding_edge"]}
        if pd.notna(row["noise_misfit"]) and row["noise_misfit"] <= LARGEST_MISFIT:
            edges["fitted noise"] = row["mp_edge"]
        for name, edge in edges.items():
            if pd.notna(edge) and edge > 0 and edge >= lowest.get(row["layer"], 0) / 100:
                yield {"layer": row["layer"], "of": f"edge of {name}", "edge": edge}


def _laws(layers: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield the ends of the law of a core as large as rank i, where it reaches all or the side."""
    for row in layers.to_dict("records"):
        m, n = row["m"], row["n"]
        end = min(m * n / (m + n), min(m, n))
        yield {"layer": row["layer"], "i": 0, "law": 0}
        yield {"layer": row["layer"], "i": end, "law": end * (m + n) / (m * n)}


def _shares(tables: Tables) -> pd.DataFrame:
    frames = [
        at_budget(tables["families"], rank).assign(budget=rank)
        for rank in common_budgets(tables["crossover"])
    ]
    rows = pd.concat(frames, ignore_index=True)
    rows["family"] = [family_style(str(name)).label for name in rows["family"]]
    return rows[["layer", "budget", "family", "captured", "ci_low", "ci_high", "parameters"]]


def _map(cells: pd.DataFrame, layers: pd.DataFrame, start: Mapping[str, Any]) -> alt.Chart:
    grid = module_grid(layers.assign(one=1.0), "one")
    values = cells[list(_MEASURES)].to_numpy(dtype=float)
    values = values[np.isfinite(values) & (values > 0)]
    # The same distance on both sides of 1, so that the neutral colour means noise.
    reach = float(f"{max(2.0, float(np.exp(np.abs(np.log(values)).max()))):.3g}")
    return (
        layer_map("cells", grid, start, "budget", "module", "layer", "measure")
        .transform_filter("datum.budget == budget && isValid(datum.excess)")
        .transform_calculate(value="datum[measure]")
        .encode(
            color=alt.Color("value:Q", title=None)
            .scale(type="log", scheme="purpleorange", domain=[1 / reach, reach])
            .legend(orient="top", gradientLength=alt.ExprRef("min(width, 260)"), tickCount=5),
            **CHOSEN_LAYER,
            tooltip=[
                alt.Tooltip("layer:N"),
                alt.Tooltip("top_share:Q", title="low rank holds", format=".1%"),
                alt.Tooltip("law:Q", title="CoSA core, law", format=".1%"),
                alt.Tooltip("crossover_ratio:Q", title="ratio"),
                alt.Tooltip("noise_ratio:Q", title="that of noise"),
                alt.Tooltip("excess:Q"),
            ],
        )
    )


def _spectrum(start: Mapping[str, Any]) -> alt.LayerChart:
    styles = {one.label: _ink(one.colour) for one in MATRIX_STYLES.values()}
    lines = (
        followed("spectra", start, "layer")
        .transform_filter("datum.layer == layer")
        .transform_flatten(["i", "sigma"])
        .mark_line(point={"size": 18})
        .encode(
            alt.X("i:Q", title="index i of the singular value"),
            alt.Y("sigma:Q", title="σᵢ (units of the weights)")
            .scale(type="log", nice=False)
            .axis(format="~g", tickCount=6),
            color=alt.Color("matrix:N", title=None)
            .scale(domain=list(styles), range=list(styles.values()))
            .legend(orient="top"),
            strokeDash=alt.StrokeDash("matrix:N", title=None).scale(
                domain=list(styles), range=[[1, 0], [2, 2], [1, 0]]
            ),
            tooltip=["matrix:N", "i:Q", alt.Tooltip("sigma:Q", title="σᵢ", format=".3~g")],
        )
    )
    edges = (
        alt.Chart(alt.NamedData("edges"))
        .transform_filter("datum.layer == layer")
        .mark_rule(strokeDash=[5, 3])
        .encode(alt.Y("edge:Q"), tooltip=["of:N", alt.Tooltip("edge:Q", format=".3~g")])
    )
    return alt.layer(lines, edges)


def _held(start: Mapping[str, Any]) -> alt.LayerChart:
    share = alt.Axis(format="%", tickCount=5)
    low = MATRIX_STYLES["delta"].colour
    line = (
        followed("spectra", start, "layer")
        .transform_filter("datum.layer == layer && isValid(datum.held)")
        .transform_flatten(["i", "held"])
        .mark_line(color=low, point={"size": 18, "color": low})
        .encode(
            alt.X("i:Q", title="number i of singular values"),
            alt.Y("held:Q", title="share of ‖ΔW‖²", axis=share).scale(domain=[0, 1]),
            tooltip=["i:Q", alt.Tooltip("held:Q", title="share", format=".1%")],
        )
    )
    law = (
        alt.Chart(alt.NamedData("laws"))
        .transform_filter("datum.layer == layer")
        .mark_line(strokeDash=[5, 3], color="currentColor")
        .encode(alt.X("i:Q"), alt.Y("law:Q"))
    )
    noise = (
        alt.Chart(alt.NamedData("cells"))
        .transform_filter("datum.layer == layer && isValid(datum.noise_share)")
        .mark_point(shape="cross", filled=True, color="currentColor")
        .encode(
            alt.X("rank_budget:Q"),
            alt.Y("noise_share:Q"),
            tooltip=[
                alt.Tooltip("rank_budget:Q", title="i"),
                alt.Tooltip("noise_share:Q", title="noise", format=".1%"),
            ],
        )
    )
    return alt.layer(line, law, noise)


def _families(families: pd.DataFrame, start: Mapping[str, Any]) -> alt.LayerChart:
    found = [family_style(str(family)) for family in families["family"].unique()]
    styles = {one.label: _ink(one.colour) for one in found}
    base = (
        followed("families", start, "budget", "layer", height=max(160, 22 * len(styles)))
        .transform_filter(
            "datum.layer == layer && datum.budget == budget && isValid(datum.captured)"
        )
        .encode(alt.Y("family:N", sort=list(styles), title=None).axis(labelLimit=200))
    )
    bars = base.mark_bar().encode(
        alt.X("captured:Q", title="share of ‖ΔW‖²")
        .axis(format="~%", values=[0, 0.2, 0.4, 0.6, 0.8, 1])
        .scale(domain=[0, 1.12]),
        color=alt.Color("family:N", legend=None).scale(
            domain=list(styles), range=list(styles.values())
        ),
        tooltip=[
            "family:N",
            alt.Tooltip("captured:Q", format=".2%"),
            alt.Tooltip("ci_low:Q", title="from", format=".2%"),
            alt.Tooltip("ci_high:Q", title="to", format=".2%"),
            alt.Tooltip("parameters:Q", format=","),
        ],
    )
    intervals = base.mark_rule().encode(alt.X("ci_low:Q"), alt.X2("ci_high:Q"))
    shares = base.mark_text(align="left", dx=5).encode(
        alt.X("captured:Q"), text=alt.Text("captured:Q", format=".3~p")
    )
    return alt.layer(bars, intervals, shares)


def _ink(colour: str) -> str:
    """Return a colour of the house style for a page that may be dark."""
    return "currentColor" if colour == BLACK else colour
