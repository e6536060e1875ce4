"""Function against energy, and against stored bits: one point per approximation and budget."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosa_theory.page.document import Tables
from cosa_theory.page.panels import legend_above
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import (
    BLACK,
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    SKY,
    VERMILION,
    house_style,
    log_axis,
)
from cosa_theory.studies.function.verdict import shown_texts

__all__ = ["FIGURES", "bits_figure", "energy_figure"]

# Colour, marker and label of what a point is; a core has two decoders.
_GROUPS: dict[str, dict[str, Any]] = {
    "low rank": {"color": VERMILION, "marker": "o", "label": "low rank"},
    "least squares": {"color": BLUE, "marker": "v", "label": "CoSA core, least squares"},
    "adjoint": {"color": SKY, "marker": "^", "label": "CoSA core, adjoint"},
    "entries": {"color": GREEN, "marker": "s", "label": "entries"},
    "rounding": {"color": ORANGE, "marker": "D", "label": "all entries, few bits"},
    "control": {"color": GREY, "marker": "x", "label": "controls"},
}
_LINEAR = 1.0  # the energy axis is linear down to minus this, then logarithmic


def _joined(tables: Tables) -> pd.DataFrame:
    """Return one row per approximation with its function on the texts that the verdict is about."""
    function = tables["function"]
    rows = function[function["texts"] == shown_texts(function)]
    table = tables["approximations"].copy()
    for name in ("recovered", "low", "high"):
        table[name] = rows[name].to_numpy()
    decoder = np.where(
        table["approximation"].str.startswith("adjoint_"), "adjoint", "least squares"
    )
    table["kind"] = np.where(table["group"] == "CoSA core", decoder, table["group"])
    return table


def _points(ax: Axes, table: pd.DataFrame, x: str) -> None:
    for kind, style in _GROUPS.items():
        rows = table[table["kind"] == kind]
        if rows.empty:
            continue
        error = [rows["recovered"] - rows["low"], rows["high"] - rows["recovered"]]
        ax.errorbar(
            rows[x],
            rows["recovered"],
            yerr=np.clip(np.vstack(error).astype(float), 0, None),
            ls="none",
            elinewidth=0.5,
            alpha=0.85,
            markeredgecolor=BLACK if style["marker"] != "x" else style["color"],
            markeredgewidth=0.3 if style["marker"] != "x" else 1.0,
            **style,
        )
    ax.set_ylim(*_limits(table["recovered"]))
    ax.axhline(1.0, color=GREY, lw=0.6)
    ax.axhline(0.0, color=GREY, lw=0.6)


def _limits(recovered: pd.Series) -> tuple[float, float]:
    """Return the range of the axis of function: what is far below zero is cut off."""
    return max(-0.4, min(float(recovered.min()) - 0.05, -0.08)), 1.08


def energy_figure(tables: Tables) -> Figure:
    """Draw function recovered against captured energy, one point per approximation and budget.

    The energy axis is linear from −1 to 1 and logarithmic below, where adjoints are.
    """
    table = _joined(tables)
    table = table[table["gain"] == 1.0]
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
        ax = figure.subplots()
        _points(ax, table, "energy")
        ax.set_xscale("symlog", linthresh=_LINEAR, linscale=1.6)
        lowest = float(table["energy"].min())
        ax.set_xlim(min(lowest * 2, -0.2) if lowest < 0 else -0.05, 1.15)
        ticks = [-(10.0**power) for power in range(6, -1, -1) if 10.0**power <= -2 * lowest]
        ax.set_xticks([*ticks, -0.5, 0.0, 0.5, 1.0])
        ax.set_xticklabels([f"{tick:g}".replace("-", "−") for tick in ax.get_xticks()])
        ax.minorticks_off()
        ax.set(xlabel="captured energy 1 − ‖Â − ΔW‖²/‖ΔW‖²", ylabel="function recovered")
        legend_above(figure, [ax], 3)
    return figure


def bits_figure(tables: Tables) -> Figure:
    """Draw function recovered against stored bits, page wide."""
    table = _joined(tables)
    table = table[(table["gain"] == 1.0) & (table["group"] != "control")]
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
        ax = figure.subplots()
        _points(ax, table.assign(megabytes=table["bits"] / 8e6), "megabytes")
        log_axis(ax.xaxis)
        ax.set(xlabel="stored, MB", ylabel="function recovered")
        legend_above(figure, [ax], 3)
    return figure


FIGURES = {
    "function": Drawing(
        energy_figure,
        "Function against energy",
        "Each point is an approximation of the update at one budget: how much of the change of the "
        "model it returns, against how much of the update's energy it holds. An adjoint's error is "
        "many times the update, and yet it returns most of the function.",
        lambda tables: not tables["function"].empty,
    ),
    "function_bits": Drawing(
        bits_figure,
        "Function against stored bits",
        "The same against what is stored: numbers at 16 bits, the places of chosen entries, or a "
        "few bits for every entry. What is drawn from a seed is free.",
        lambda tables: bool((tables["approximations"]["group"] != "control").any()),
    ),
}
"""The figures of the study."""
