"""Isometry of a layer or a matrix: brackets of δ_s against s, and the range over all cores."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator

from cosa_theory.page.panels import legend_above, panels_of
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import BLACK, PAGE_WIDTH, Style, ensemble_style, house_style, log_axis
from cosa_theory.studies.rip.in_words import cores_in_words, orders_in_words
from cosa_theory.studies.rip.operators import OPERATORS

__all__ = ["FIGURES", "mark_limits"]

_LINEAR = 0.1  # below it the axis of δ is linear, so that a constant of zero has a place
_SHARE = 0.7  # of the room between two orders that the ensembles of one take

Tables = Mapping[str, pd.DataFrame]


def mark_limits(ax: Axes, top: float) -> None:
    """Shade δ from 1 to `top`, where a bracket promises nothing, and draw a line at 1/√2.

    Below it δ_2s lets ℓ1 recover every s-sparse vector (Cai and Zhang 2014).
    """
    ax.axhspan(1.0, top, color="#EDEDED", lw=0, zorder=0, label="vacuous: δ may be 1 or more")
    ax.axhline(1 / math.sqrt(2), color=BLACK, ls=(0, (6, 2)), lw=0.7, zorder=1, label="1/√2")


def _style(kind: str) -> Style:
    return ensemble_style(kind) if kind else Style("δ_s", BLACK, "-", "o")


def _panels(count: int, height: float) -> tuple[Figure, list[Axes]]:
    layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.04)
    figure = Figure(figsize=(PAGE_WIDTH, height), layout=layout)
    return figure, panels_of(figure, count, count, sharey=True)


def _plot_orders(ax: Axes, table: pd.DataFrame, top: float) -> None:
    """Draw a bracket of δ_s for every order and ensemble, as an interval with its ends marked."""
    orders = sorted(int(s) for s in table["s"].unique())
    kinds = list(dict.fromkeys(table["kind"])) if "kind" in table else [""]
    mark_limits(ax, top)
    step = _SHARE / len(kinds)
    for place, kind in enumerate(kinds):
        rows = table[table["kind"] == kind] if kind else table
        style = _style(kind)
        x = np.array([orders.index(int(s)) for s in rows["s"]], dtype=float)
        x += (place - (len(kinds) - 1) / 2) * step
        lower, upper = (rows[end].to_numpy(dtype=float) for end in ("lower", "upper"))
        ax.vlines(x, lower, upper, color=style.colour, lw=1.6)
        for ends in (lower, upper):
            ax.plot(x, ends, style.marker, color=style.colour, ms=3.5, zorder=3, clip_on=False)
        ax.plot([], [], style.marker + "-", color=style.colour, label=style.label)
    ax.set_xticks(range(len(orders)), [str(s) for s in orders])
    ax.set_xlim(-0.5, len(orders) - 0.5)
    ax.set_yscale("symlog", linthresh=_LINEAR, linscale=0.5)
    ticks = [0.0, *(t for t in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0) if t < top)]
    ax.set_yticks(ticks, [f"{t:g}" for t in ticks])
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylim(0.0, top)
    ax.grid(axis="x", visible=False)
    ax.set_xlabel("order s")


def _plot_core_range(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the range of ‖L Y R‖²/‖Y‖² over all cores for every ensemble, and its limits.

    A range that begins at 0, which a logarithm can't show, goes to the left edge as an arrow.
    """
    kinds = list(table["kind"])
    drawn = table[["least", "bai_yin_least"]].to_numpy(float)
    edge = drawn[drawn > 0].min(initial=0.1) / 3.0
    for place, row in enumerate(table.to_dict("records")):
        style = _style(str(row["kind"]))
        ends = np.maximum([row["least"], row["greatest"]], edge)
        ax.plot(ends, [place, place], color=style.colour, lw=2.0)
        for end, value in zip(ends, (row["least"], row["greatest"]), strict=True):
            marker, size = (style.marker, 4.5) if value > 0 else (r"$\leftarrow$", 9.0)
            ax.plot([end], [place], marker=marker, color=style.colour, ms=size)
        limits = [row["bai_yin_least"], row["bai_yin_greatest"]]
        ax.plot(
            limits, [place, place], "|", color=BLACK, ms=9, mew=1.0,
            label="limits for independent entries (Bai and Yin)" if place == 0 else None,
        )  # fmt: skip
    ax.axvline(1.0, color=BLACK, lw=0.7, ls=(0, (6, 2)))
    log_axis(ax.xaxis)
    ax.set_yticks(range(len(kinds)), [_style(str(kind)).label for kind in kinds])
    ax.set_ylim(len(kinds) - 0.4, -0.6)
    ax.grid(axis="y", visible=False)


def _orders_figure(tables: Tables) -> Figure:
    """Draw the brackets, a panel for each operator."""
    table = tables["brackets"]
    top = max(2.0, 1.4 * float(table["upper"].max()))
    with house_style():
        figure, axes = _panels(table["about"].nunique(), 3.0)
        for ax, (about, rows) in zip(axes, table.groupby("about", sort=False), strict=True):
            _plot_orders(ax, rows, top)
            first = rows.iloc[0]
            title = OPERATORS[str(about)].title
            ax.set_title(f"{title}, {first['rows']:,} × {first['columns']:,}")
        axes[0].set_ylabel(r"restricted isometry constant $\delta_s$")
        legend_above(figure, axes[:1], 5)
    return figure


def _cores_figure(tables: Tables) -> Figure:
    """Draw the range over all cores, a panel for each scale."""
    table = tables["cores"]
    with house_style():
        figure, axes = _panels(table["scale"].nunique(), 2.6)
        for ax, (scale, rows) in zip(axes, table.groupby("scale", sort=False), strict=True):
            _plot_core_range(ax, rows)
            ax.set_title(f"{scale} scale")
            ax.set_xlabel(r"$\|LYR\|^2/\|Y\|^2$ over all cores $Y$")
        legend_above(figure, axes[:1], 1)
    return figure


def _drawable(name: str) -> Callable[[Tables], bool]:
    return lambda tables: name in tables and not tables[name].empty


FIGURES = {
    "brackets": Drawing(
        _orders_figure,
        "What is proven of δ_s",
        "Each interval lies between a proven lower and a proven upper end of the restricted "
        "isometry constant δ_s. Shaded: δ of 1 or more, where nothing is promised. Dashed: 1/√2, "
        "below which δ_2s lets ℓ1 recover every s-sparse vector. Below 0.1 the axis is linear.",
        _drawable("brackets"),
        lambda tables: orders_in_words(tables["brackets"]),
    ),
    "cores": Drawing(
        _cores_figure,
        "How far the dictionary stretches a core",
        "From the core whose norm shrinks most to the one whose norm grows most: exact, from the "
        "singular values of the factors. An isometry would be one point at 1. Orthonormal factors "
        "are one at synthesis scale; at analysis scale every value is mn/(ab) times as large. An "
        "arrow at the left end means 0: some core gives no update.",
        _drawable("cores"),
        lambda tables: cores_in_words(tables["cores"]),
    ),
}
"""The drawings of a document by file name."""
