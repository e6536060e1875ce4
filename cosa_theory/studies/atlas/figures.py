"""Figures of an atlas: energy against parameters and against bits, and who wins where."""

from functools import partial
from typing import TYPE_CHECKING

import pandas as pd

from cosa_theory.page.document import Tables
from cosa_theory.page.heatmap import draw_cells, module_grid
from cosa_theory.page.panels import keep_outer_labels, legend_above, panels_of
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import (
    BLACK,
    BLUE,
    BROWN,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    PURPLE,
    SKY,
    VERMILION,
    house_style,
    label_text,
)
from cosa_theory.page.views import percent
from cosa_theory.spectrum.families.base import GROUPS
from cosa_theory.studies.atlas.pooling import pool_atlas
from cosa_theory.studies.atlas.verdict import middle
from cosa_theory.studies.atlas.winners import winners

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOURS", "FIGURES", "LEAST", "curves_figure", "function_figure", "winners_figure"]

COLOURS = dict(zip(GROUPS, (VERMILION, GREEN, BLUE, SKY, ORANGE, PURPLE, BROWN, GREY), strict=True))
"""Of each kind of families."""
_MODULES = 9  # panels of one figure
LEAST = 1e-4
"""Share of the energy, below which none is drawn."""


def curves_figure(tables: Tables) -> "Figure":
    """Draw a curve per family, in the colour of its kind: energy against numbers, and bits."""
    from matplotlib.figure import Figure

    pooled = tables["pooled"].dropna(subset=["captured"])
    pooled = pooled[pooled["captured"] > LEAST]
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for axes, column, label in (
            (left, "parameters", "trainable parameters"),
            (right, "bits", "bits stored"),
        ):
            rows = pooled if column == "bits" else pooled[pooled["group"] != "stored"]
            _curves(axes, rows, column)
            axes.set(xscale="log", yscale="log", xlabel=label)
        left.set_ylabel("share of ‖ΔW‖² that can be expressed")
        _law(left, pooled)
        handles, labels = right.get_legend_handles_labels()
        more, named = left.get_legend_handles_labels()
        legend = {**dict(zip(labels, handles, strict=True)), **dict(zip(named, more, strict=True))}
        figure.legend(legend.values(), legend.keys(), loc="outside lower center", ncols=5)
    return figure


def _curves(axes: "Axes", rows: pd.DataFrame, column: str) -> None:
    drawn: set[str] = set()
    for _, group in rows.groupby("family", sort=False):
        kind = str(group["group"].iloc[0])
        points = group.sort_values(column)
        axes.plot(
            points[column],
            points["captured"],
            color=COLOURS.get(kind, GREY),
            marker="o",
            ms=2.5,
            lw=0.9,
            alpha=0.8,
            zorder=4 if kind == "CoSA core" else 3,  # most others that follow the law hide it
            label=None if kind in drawn else kind,
        )
        drawn.add(kind)
    last = rows[rows["budget"] == rows["budget"].max()].sort_values("captured", ascending=False)
    for _, row in last.groupby("group", sort=False).head(1).iterrows():
        axes.annotate(
            str(row["family"]).replace("_", " "),
            (row[column], row["captured"]),
            xytext=(3, 0),
            textcoords="offset points",
            fontsize=6,
            va="center",
            color=COLOURS.get(str(row["group"]), GREY),
        )
    axes.margins(x=0.18)


def _law(axes: "Axes", pooled: pd.DataFrame) -> None:
    law = pooled.dropna(subset=["law"]).drop_duplicates("parameters").sort_values("parameters")
    if len(law):
        axes.plot(
            law["parameters"], law["law"], color=BLACK, ls=(0, (6, 2)), lw=0.8, label="law P/(mn)"
        )


def modules_figure(tables: Tables) -> "Figure":
    """Draw a panel per module type, those of most energy: a curve per family as in the atlas."""
    from matplotlib.figure import Figure

    chosen = _heaviest(tables["layers"])
    columns = min(3, len(chosen))
    rows = -(-len(chosen) // columns)
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 0.7 + 2.2 * rows), layout="constrained")
        panels = panels_of(figure, len(chosen), columns, sharex=True, sharey=True)
        for axes, module in zip(panels, chosen, strict=True):
            of_module = {
                name: tables[name][tables[name]["module"] == module]
                for name in ("families", "layers")
            }
            pooled = pd.DataFrame(pool_atlas(**of_module)).dropna(subset=["captured"])
            trains = pooled[(pooled["group"] != "stored") & (pooled["captured"] > LEAST)]
            _curves(axes, trains, "parameters")
            _law(axes, pooled)
            axes.set(xscale="log", yscale="log", title=label_text(module, 40))
            axes.set(xlabel="trainable parameters in these layers", ylabel="share of their ‖ΔW‖²")
        keep_outer_labels(panels, columns)
        legend_above(figure, panels, 5)
    return figure


def _heaviest(layers: pd.DataFrame) -> list[str]:
    """Return the modules whose updates have most energy, at most nine, in the order of layers."""
    live = layers[layers["delta_norm"] > 0]
    energy = (live["delta_norm"] ** 2).groupby(live["module"], sort=False).sum()
    most = energy.nlargest(_MODULES).index
    return [str(name) for name in energy.index if name in most]


def winners_figure(tables: Tables) -> "Figure":
    """Draw, layer by layer, the kind of family that holds most, and how far a core is behind."""
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    rows = winners(tables)
    rows = rows.assign(behind=rows["captured"] / rows["core"])
    with house_style():
        grid = module_grid(rows, "behind")
        figure = Figure(figsize=(PAGE_WIDTH, 1.2 + 0.24 * len(grid)), layout="constrained")
        axes = figure.subplots()
        top = max(10.0, float(rows["behind"].max()))
        mesh = draw_cells(axes, grid, LogNorm(1.0, top), "cividis", most_labels=24)
        bar = figure.colorbar(mesh, ax=axes, pad=0.015, aspect=12)
        bar.set_label("winner's share / best core's")
        wins = rows["family"].str.replace("_", " ").value_counts()
        told = ", ".join(f"{name} {number}" for name, number in wins.head(5).items())
        axes.set_title(f"matrices won: {told}{', …' if len(wins) > 5 else ''}")
    return figure


def function_figure(tables: Tables) -> "Figure":
    """Draw function recovered against parameters and against bits, a curve per family."""
    from matplotlib.figure import Figure

    pooled = tables["pooled"].dropna(subset=["recovered", "captured"])
    pooled = pooled[pooled["recovered"] > 0]
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 3.6), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        trains = pooled[pooled["group"] != "stored"]
        for axes, rows, column, label in (
            (left, trains, "parameters", "trainable parameters"),
            (right, pooled, "bits", "bits stored"),
        ):
            _curves(axes, rows.assign(captured=rows["recovered"]), column)
            axes.set(xscale="log", xlabel=label, ylim=(0, 1))
        left.set_ylabel("function recovered")
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=5)
    return figure


def _best_in_words(tables: Tables, column: str, what: str) -> str:
    """Say what the best family of each kind has at the middle budget."""
    pooled, budget = tables["pooled"], middle(tables["pooled"])
    rows = pooled[pooled["budget"] == budget].dropna(subset=[column])
    best = rows.sort_values(column, ascending=False).drop_duplicates("group")
    shares = ", ".join(
        f"{row['group']} {percent(row[column])} ({str(row['family']).replace('_', ' ')})"
        for row in best.to_dict("records")
    )
    return f"{what} at {budget:,} trainable parameters, the best of each kind: {shares or 'none'}."


def _modules_in_words(tables: Tables) -> str:
    """Say which family holds most of each module at the middle budget, and what a core holds."""
    rows = winners(tables)
    told = []
    for module in _heaviest(tables["layers"]):
        own = rows[rows["module"] == module]
        best = str(own["family"].mode()[0]).replace("_", " ")
        shares = percent(own["captured"].median()), percent(own["core"].median())
        told.append(f"{module} {shares[0]} ({best}), a core {shares[1]}")
    return f"Share of the energy, medians over the layers of a module: {'; '.join(told)}."


def _winners_in_words(tables: Tables) -> str:
    """Say how often each family wins, and how far a core is behind."""
    rows = winners(tables)
    counts = rows["family"].str.replace("_", " ").value_counts()
    behind = (rows["captured"] / rows["core"]).median()
    told = ", ".join(f"{name} in {number}" for name, number in counts.items())
    return f"Of {len(rows)} layers: {told}. The winner holds {behind:.3g} times the best core's."


FIGURES: dict[str, Drawing] = {
    "atlas": Drawing(
        curves_figure,
        "What each family can express, per parameter and per bit",
        "One curve for each family of updates, in the colour of its kind; the best of each kind is "
        "named. Left: against trainable parameters, for families that train; dashed: the law "
        "P/(mn) of what knows nothing of W or ΔW. Right: against the bits that are stored, with "
        "chosen places, for all.",
        lambda tables: bool((tables["pooled"]["captured"] > LEAST).any()),
        partial(_best_in_words, column="captured", what="Share of the energy"),
    ),
    "atlas_function": Drawing(
        function_figure,
        "What each family returns of the model's function",
        "One curve for each family, in the colour of its kind, as above: the share of the change "
        "of the model's answers that its best update brings back, on texts of the domain.",
        lambda tables: bool((tables["pooled"]["recovered"] > 0).any()),
        partial(_best_in_words, column="recovered", what="Function recovered"),
    ),
    "atlas_modules": Drawing(
        modules_figure,
        "What each family can express of each type of module",
        "As above, a panel for the layers of one module type, those that hold most of the update's "
        "energy; families that only store an update are left out.",
        lambda tables: tables["layers"]["module"].nunique() > 1,
        _modules_in_words,
    ),
    "atlas_winners": Drawing(
        winners_figure,
        "Who wins where",
        "For each layer, at the middle budget: the share of the family that holds most of it, over "
        "that of the best CoSA core. At 1 no family holds more than a core.",
        lambda tables: bool(winners(tables)["core"].notna().any()),
        _winners_in_words,
    ),
}
