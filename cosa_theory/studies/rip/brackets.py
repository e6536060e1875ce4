"""Brackets of restricted isometry constants: bands between their proven ends."""

from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from cosa_theory.page.panels import legend_above
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import BLUE, PAGE_WIDTH, VERMILION, Style, house_style
from cosa_theory.projections import printed_name
from cosa_theory.studies.rip.figures import mark_limits
from cosa_theory.studies.rip.in_words import brackets_in_words

__all__ = ["BRACKETS_FIGURE", "brackets_figure"]

_STRUCTURES = {
    "plain": Style("plain matrix", BLUE, "-", "o"),
    "kronecker": Style("Kronecker product", VERMILION, "--", "s"),
}
_SIDES = {"tall": "tall Ψ, {rows} × {columns}", "wide": "wide Φ, {rows} × {columns}"}
_TOP = 2.0  # of the vertical axis; more than 1 says no more than 1 does


def _plot(ax: Axes, table: pd.DataFrame, x: str) -> None:
    """Draw brackets against a column as bands between their ends, one for each structure.

    Where several draws share an x, the medians of their lower and of their upper ends are drawn.
    """
    mark_limits(ax, _TOP)
    for structure, style in _STRUCTURES.items():
        rows = table[table["structure"] == structure]
        ends = rows.groupby(x)[["lower", "upper"]].median()
        if ends.empty:
            continue
        ax.fill_between(
            ends.index, ends["lower"], ends["upper"], color=style.colour, alpha=0.3, lw=0
        )
        edge: dict[str, Any] = {"color": style.colour, "ls": style.line, "lw": 1.0}
        ax.plot(ends.index, ends["upper"], **edge)
        ax.plot(ends.index, ends["lower"], **edge, marker=style.marker, ms=2.5, label=style.label)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(sorted(table[x].unique())))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(0.0, _TOP)
    ax.set_yticks([0.0, 0.5, 1.0, 1.5, 2.0], ["0", "", "1", "", "2"])


def _sweeps(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame, int]:
    """Return the rows at the shape with most orders, those at the order with most shapes, and it.

    Of equals the largest shape and the smallest order are taken.
    """
    shapes = table.groupby(["m", "n", "a", "b"])["s"].nunique()
    shape = max(shapes.index, key=lambda index: (shapes[index], index))
    by_order = table
    for name, size in zip("mnab", shape, strict=True):
        by_order = by_order[by_order[name] == size]
    counts = table.drop_duplicates(["m", "n", "a", "b", "s"])["s"].value_counts()
    order = max(counts.index, key=lambda s: (counts[s], -s))
    return by_order, table[table["s"] == order], int(order)


def brackets_figure(table: pd.DataFrame) -> Figure:
    """Draw brackets against order and against shape: a row of panels for each ensemble, page wide.

    Of the table of `experiments.rip_brackets` the rows with columns of unit norm are drawn. Left:
    against s, for the tall and the wide matrices of one shape. Right: at one s, against the number
    of columns.
    """
    unit = table[(table["scale"] == "unit-norm") & (table["status"] == "done")]
    by_order, by_shape, order = _sweeps(unit)
    kinds = list(dict.fromkeys(unit["kind"]))
    with house_style():
        layout = ConstrainedLayoutEngine(h_pad=0.02, w_pad=0.03)
        figure = Figure(figsize=(PAGE_WIDTH, 0.9 + 1.05 * len(kinds)), layout=layout)
        axes = figure.subplots(len(kinds), 4, squeeze=False, sharey=True, sharex="col")
        for kind, panels in zip(kinds, axes, strict=True):
            for place, (rows, x) in enumerate(((by_order, "s"), (by_shape, "columns"))):
                chosen = rows[rows["kind"] == kind]
                for side, about in enumerate(_SIDES):
                    _plot(panels[2 * place + side], chosen[chosen["about"] == about], x)
            panels[0].set_ylabel(printed_name(kind))
        for side, (about, title) in enumerate(_SIDES.items()):
            first = by_order[by_order["about"] == about].iloc[0]
            axes[0, side].set_title(title.format(rows=first["rows"], columns=first["columns"]))
            axes[0, 2 + side].set_title(f"{about}, s = {order}")
            axes[-1, side].set_xlabel("order s")
            axes[-1, 2 + side].set_xlabel("columns")
        legend_above(figure, axes[0, :1], 4)
        figure.supylabel(r"restricted isometry constant $\delta_s$, columns of unit norm", size=9)
    return figure


BRACKETS_FIGURE = Drawing(
    lambda tables: brackets_figure(tables["rip_brackets"]),
    "What is proven of restricted isometry constants",
    "Each band lies between a proven lower and a proven upper end of δ_s, for columns of unit norm "
    "(medians over draws); where they meet the constant is exact. Kronecker products are the tall "
    "dictionary Ψ = L ⊗ Rᵀ and the wide sensing operator Φ = Lᵀ ⊗ R, plain matrices one projection "
    "of the same size and ensemble. Shaded: δ of 1 or more, where nothing is promised. Dashed: "
    "1/√2, below which δ_2s lets ℓ1 recover every s-sparse vector.",
    lambda tables: bool((tables["rip_brackets"]["scale"] == "unit-norm").any()),
    lambda tables: brackets_in_words(tables["rip_brackets"]),
)
