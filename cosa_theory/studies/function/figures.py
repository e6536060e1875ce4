"""Function against energy, and against stored bits: one point per approximation and budget."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

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
    PURPLE,
    SKY,
    VERMILION,
    house_style,
    log_axis,
)
from cosa_theory.page.views import memory, percent
from cosa_theory.studies.function.verdict import middle_rank, shown_texts

__all__ = ["FIGURES", "GROUPS", "bits_figure", "energy_figure", "limits", "on_texts"]

# Colour, marker and label of what a point is; a core has two decoders.
GROUPS: dict[str, dict[str, Any]] = {
    "low rank": {"color": VERMILION, "marker": "o", "label": "low rank"},
    "least squares": {"color": BLUE, "marker": "v", "label": "CoSA core, least squares"},
    "adjoint": {"color": SKY, "marker": "^", "label": "CoSA core, adjoint"},
    "informed core": {"color": PURPLE, "marker": "P", "label": "CoSA core, informed"},
    "entries": {"color": GREEN, "marker": "s", "label": "entries"},
    "rounding": {"color": ORANGE, "marker": "D", "label": "all entries, few bits"},
    "control": {"color": GREY, "marker": "x", "label": "controls"},
}
# Which points have their name beside them, and how many points right and up of them it is.
_BY_ENERGY = {"svd": (0, 9), "mask_rescaled": (-6, 0), "remainder": (6, 2), "shuffled": (-6, 5)}
_BY_BITS = {
    "svd": (0, 9),
    "mask_rescaled": (6, -6),
    "range_finder": (6, -4),
    "nystroem": (6, -4),
    "lora_xs": (6, 6),
    "top_entries": (6, -4),
    "dct": (6, -4),
    "signs": (6, -6),
}
_LINEAR = 1.0  # the energy axis is linear down to minus this, then logarithmic


def _joined(tables: Tables) -> pd.DataFrame:
    """Return one row per approximation with its function on the texts that the verdict is about."""
    return on_texts(tables, shown_texts(tables["function"]))


def on_texts(tables: Tables, texts: str) -> pd.DataFrame:
    """Return one row per approximation with its function on some texts, and its `kind`."""
    function = tables["function"]
    rows = function[function["texts"] == texts]
    table = tables["approximations"].copy()
    for name in ("recovered", "low", "high"):
        table[name] = rows[name].to_numpy()
    decoder = np.where(
        table["approximation"].str.startswith("adjoint_"), "adjoint", "least squares"
    )
    table["kind"] = np.where(table["group"] == "CoSA core", decoder, table["group"])
    return table


def _points(ax: Axes, table: pd.DataFrame, x: str, joined: bool = False) -> None:
    for kind, style in GROUPS.items():
        rows = table[table["kind"] == kind]
        if rows.empty:
            continue
        if joined:  # an approximation's budgets are one curve
            for _, curve in rows.sort_values(x).groupby("approximation"):
                ax.plot(curve[x], curve["recovered"], color=style["color"], lw=0.6, alpha=0.6)
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
    ax.set_ylim(*limits(table["recovered"]))
    ax.yaxis.set_major_formatter(FuncFormatter(_as_percent))
    for level in (0.0, 1.0):
        ax.axhline(level, color=GREY, lw=0.6)


def limits(recovered: pd.Series) -> tuple[float, float]:
    """Return the range of the axis of function: what is far below zero is cut off."""
    return max(-0.4, min(float(recovered.min()) - 0.05, -0.08)), 1.08


def _as_percent(value: float, _place: int) -> str:
    return f"{100 * value:,.0f} %".replace("-", "−")


def _name_points(
    ax: Axes, table: pd.DataFrame, x: str, named: Mapping[str, tuple[int, int]]
) -> None:
    """Write their names beside some points at the verdict's budget."""
    rank = middle_rank(table)
    shown = table[table["rank"].isna() | (table["rank"] == rank)].set_index("approximation")
    for name, (right, up) in named.items():
        if name in shown.index:
            row = shown.loc[name]
            ax.annotate(
                re.split(r",| \(", str(row["label"]))[0].replace("top r", f"top {rank}"),
                (row[x], row["recovered"]),
                xytext=(right, up),
                textcoords="offset points",
                ha="left" if right > 0 else "right" if right < 0 else "center",
                va="center",
                fontsize=6.5,
            )


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
        _name_points(ax, table, "energy", _BY_ENERGY)
        ax.set_xscale("symlog", linthresh=_LINEAR, linscale=1.6)
        lowest = float(table["energy"].min())
        ax.set_xlim(min(lowest * 2, -0.2) if lowest < 0 else -0.05, 1.15)
        ticks = [-(10.0**power) for power in range(6, -1, -1) if 10.0**power <= -2 * lowest]
        ax.set_xticks([*ticks, -0.5, 0.0, 0.5, 1.0])
        ax.xaxis.set_major_formatter(FuncFormatter(_as_percent))
        ax.minorticks_off()
        ax.set(xlabel="captured energy 1 − ‖Â − ΔW‖²/‖ΔW‖²", ylabel="function recovered")
        legend_above(figure, [ax], 3)
    return figure


def bits_figure(tables: Tables) -> Figure:
    """Draw function recovered against stored bits, page wide: a curve for each approximation."""
    table = _joined(tables)
    table = table[(table["gain"] == 1.0) & (table["group"] != "control")].copy()
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 3.4), layout="constrained")
        ax = figure.subplots()
        table["megabytes"] = table["bits"] / 8e6
        _points(ax, table, "megabytes", joined=True)
        _name_points(ax, table, "megabytes", _BY_BITS)
        log_axis(ax.xaxis)
        ax.set(xlabel="stored, MB", ylabel="function recovered")
        legend_above(figure, [ax], 3)
    return figure


def energy_in_words(tables: Tables) -> str:
    """Say what every kind returns at the verdict's budget, beside the energy it holds."""
    table = _joined(tables)
    rank = middle_rank(table)
    shown = table[(table["gain"] == 1.0) & (table["rank"].isna() | (table["rank"] == rank))]
    at = "" if rank is None else f" at the budget of rank {rank}"
    parts = []
    for kind, rows in shown.groupby("kind", sort=False):
        best = rows.loc[[rows["recovered"].astype(float).idxmax()]].iloc[0]
        name = GROUPS.get(str(kind), {"label": kind})["label"]
        parts.append(
            f"{name} returns up to {percent(best['recovered'])} of the function with "
            f"{percent(best['energy'])} of the energy"
        )
    return f"Function recovered against captured energy{at}: {'; '.join(parts)}."


def bits_in_words(tables: Tables) -> str:
    """Say how many bits each kind needs for its most function."""
    table = _joined(tables)
    table = table[(table["gain"] == 1.0) & (table["group"] != "control")]
    parts = []
    for kind, rows in table.groupby("kind", sort=False):
        ordered = rows.sort_values("bits")
        name = GROUPS.get(str(kind), {"label": kind})["label"]
        parts.append(
            f"{name} from {percent(ordered['recovered'].iloc[0])} with "
            f"{memory(ordered['bits'].iloc[0] / 8)} to {percent(ordered['recovered'].iloc[-1])} "
            f"with {memory(ordered['bits'].iloc[-1] / 8)}"
        )
    return f"Function recovered against what is stored: {'; '.join(parts)}."


FIGURES = {
    "function": Drawing(
        energy_figure,
        "Function against energy",
        "Each point is an approximation of the update at one budget: how much of the change of the "
        "model it returns, against how much of the update's energy it holds. An adjoint's error is "
        "many times the update, and yet it returns most of the function. Names stand beside points "
        "of the verdict's budget.",
        lambda tables: not tables["function"].empty,
        energy_in_words,
    ),
    "function_bits": Drawing(
        bits_figure,
        "Function against stored bits",
        "The same against what is stored, a line for each approximation: numbers at 16 bits, the "
        "places of chosen entries, or a few bits for each. What is drawn from a seed is free.",
        lambda tables: bool((tables["approximations"]["group"] != "control").any()),
        bits_in_words,
    ),
}
"""The figures of the study."""
