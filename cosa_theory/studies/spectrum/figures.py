"""Whole figures: small multiples over the module types of a model, from its survey tables."""

import math
from dataclasses import dataclass

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from cosa_theory.page.document import Tables
from cosa_theory.page.panels import keep_outer_labels, legend_above, panels_of
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import COLUMN_WIDTH, PAGE_WIDTH, house_style, label_text
from cosa_theory.studies.spectrum.budgets import at_budget, common_budgets, middle_budget
from cosa_theory.studies.spectrum.curves import plot_cumulative_energy, plot_spectrum
from cosa_theory.studies.spectrum.family_curves import plot_captured_energy, plot_law_ratio
from cosa_theory.studies.spectrum.in_words import (
    captured_in_words,
    cumulative_in_words,
    heatmap_in_words,
    spectra_in_words,
)
from cosa_theory.studies.spectrum.maps import plot_excess_map, plot_flatness_map
from cosa_theory.studies.spectrum.pooling import pool_families

__all__ = [
    "FIGURES",
    "ModuleType",
    "captured_figure",
    "cumulative_figure",
    "heatmap_figure",
    "layer_figure",
    "module_types",
    "spectra_figure",
]

PANELS = 24  # of the small multiples: more would not be read, and every layer is in the tables
COLUMNS = 3


@dataclass(frozen=True)
class ModuleType:
    """Matrices of one kind, as in "attention.self.query", and shape: spectra of one length."""

    module: str
    m: int
    n: int
    layers: tuple[str, ...]

    @property
    def title(self) -> str:
        """Two lines for a panel."""
        count = f", {len(self.layers)} layers" if len(self.layers) > 1 else ""
        return f"{label_text(self.module, 32)}\n{self.m} × {self.n}{count}"

    def rows(self, table: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of a table that belong to these layers."""
        return table[table["layer"].isin(self.layers)]


def module_types(layers: pd.DataFrame) -> list[ModuleType]:
    """Return the distinct module types of a survey, in the order of the model.

    Matrices of one module that differ in shape are different entries.
    """
    found: dict[tuple[str, int, int], list[str]] = {}
    for row in layers[["layer", "module", "m", "n"]].to_dict("records"):
        found.setdefault((row["module"], row["m"], row["n"]), []).append(row["layer"])
    return [ModuleType(*key, tuple(names)) for key, names in found.items()]


def _panels(types: list[ModuleType], height: float) -> tuple[Figure, list[Axes]]:
    """Return a page-wide figure with one panel per type and room for a legend above them."""
    rows = math.ceil(len(types) / COLUMNS)
    width = PAGE_WIDTH if len(types) > 1 else COLUMN_WIDTH
    layout = ConstrainedLayoutEngine(h_pad=0.04, w_pad=0.04)
    figure = Figure(figsize=(width, 0.55 + height * rows), layout=layout)
    return figure, panels_of(figure, len(types), min(COLUMNS, len(types)), sharey=True)


def spectra_figure(tables: Tables) -> Figure:
    """Draw σ against index for every module type: base, tuned and ΔW, median and range.

    One panel per module type and shape, at most 24 of them, page wide.
    """
    types = module_types(tables["layers"])[:PANELS]
    with house_style():
        figure, axes = _panels(types, 1.75)
        for ax, kind in zip(axes, types, strict=True):
            plot_spectrum(ax, kind.rows(tables["spectra"]), kind.rows(tables["layers"]))
            ax.set_title(kind.title, linespacing=1.05)
        keep_outer_labels(axes, COLUMNS)
        legend_above(figure, axes, min(3, len(axes)))
    return figure


def layer_figure(tables: Tables, layer: str) -> Figure:
    """Draw σ against index for one layer, at the width of a column.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        `layers` and `spectra` are read.
    layer : str
        A name in the column layer; `ValueError` if it is not there.

    Returns
    -------
    matplotlib.figure.Figure
        One panel with its legend.
    """
    layers = tables["layers"][tables["layers"]["layer"] == layer]
    if layers.empty:
        raise ValueError(f"no layer is named {layer!r}")
    with house_style():
        figure = Figure(figsize=(COLUMN_WIDTH, 2.9), layout="constrained")
        ax = figure.subplots()
        plot_spectrum(ax, tables["spectra"][tables["spectra"]["layer"] == layer], layers)
        shape = f"{layers['m'].iloc[0]} × {layers['n'].iloc[0]}"
        ax.set_title(f"{label_text(layer, 48)}\n{shape}", linespacing=1.05)
        legend_above(figure, [ax], 2)
    return figure


def cumulative_figure(tables: Tables) -> Figure:
    """Draw the cumulative energy of every layer's ΔW, one panel per module type and shape.

    At most 24 panels, page wide; a colour bar maps colour to the depth of the block.
    """
    types = module_types(tables["layers"])[:PANELS]
    # Without the light end of the map, which fades on white paper.
    colours = ListedColormap(matplotlib.colormaps["viridis"](np.linspace(0, 0.88, 256)))
    blocks = tables["layers"]["block"].dropna()
    with house_style():
        figure, axes = _panels(types, 1.75)
        for ax, kind in zip(axes, types, strict=True):
            plot_cumulative_energy(ax, kind.rows(tables["spectra"]), kind.m, kind.n, colours)
            ax.set_title(kind.title, linespacing=1.05)
        keep_outer_labels(axes, COLUMNS)
        legend_above(figure, axes, 3)
        if blocks.nunique() > 1:
            norm = Normalize(int(blocks.min()), int(blocks.max()))
            mappable = ScalarMappable(norm, colours)
            bar = figure.colorbar(mappable, ax=axes, label="block", aspect=40, pad=0.01)
            bar.outline.set_visible(False)
    return figure


def captured_figure(tables: Tables) -> Figure:
    """Draw captured energy against trainable parameters, pooled over all layers.

    Left: the share of the whole update's energy, one curve per family. Right: measured share
    over the law ab/(mn), where a family has one.
    """
    budgets = common_budgets(tables["crossover"])
    shares = pool_families(tables["families"], tables["layers"], budgets)
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 3.5), layout="constrained")
        if shares["law"].notna().any():
            left, right = figure.subplots(1, 2, width_ratios=(1.25, 1.0))
            plot_law_ratio(right, shares)
            right.set_title("measured over law, with confidence intervals")
        else:
            left = figure.subplots()
        plot_captured_energy(left, shares)
        left.set_title("all layers together")
        legend_above(figure, [left], 4)
    return figure


def heatmap_figure(tables: Tables) -> Figure:
    """Draw flatness and excess over noise of every layer: module type against block.

    Two heat maps, one above the other, page wide.
    """
    budget = middle_budget(tables["crossover"])
    modules = tables["layers"]["module"].nunique()
    maps = 1 if budget is None else 2
    with house_style():
        height = maps * (0.75 + 0.2 * max(modules, 4))
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        axes = list(figure.subplots(maps, 1, squeeze=False).flat)
        plot_flatness_map(axes[0], tables["layers"])
        axes[0].set_title("flatness of ΔW: geometric over arithmetic mean of σ²")
        if budget is not None:
            plot_excess_map(axes[1], at_budget(tables["crossover"], budget))
            axes[1].set_title(f"excess of the crossover ratio over noise, budget of rank {budget}")
    return figure


FIGURES: dict[str, Drawing] = {
    "cumulative_energy": Drawing(
        cumulative_figure,
        "How fast the energy of the update piles up",
        "Each curve is one layer: the share of ‖ΔW‖² held by its i largest singular values. The "
        "dashed line is what a CoSA core with the parameters of rank i captures on average, "
        "i(m + n)/(mn); where the curve lies above it, low rank wins. So it does on independent "
        "noise of the same shape (dash-dotted). Dotted: a perfectly flat spectrum.",
        lambda tables: not tables["spectra"].query("matrix == 'delta' and sigma > 0").empty,
        cumulative_in_words,
    ),
    "captured_energy": Drawing(
        captured_figure,
        "Captured energy at equal trainable parameters",
        "Left: the share of the energy of all compared layers together that each family can "
        "express at a given number of trainable parameters. Right: the measured shares of the CoSA "
        "ensembles over their law ab/(mn), with confidence intervals of the mean over draws.",
        lambda tables: bool(tables["families"]["captured"].notna().any()),
        captured_in_words,
    ),
    "heatmap": Drawing(
        heatmap_figure,
        "Layer by layer",
        "Flatness is the geometric over the arithmetic mean of σ² (1 for a flat spectrum). The "
        "excess is the crossover ratio (the share of ‖ΔW‖² in the top r singular values over the "
        "share ab/(mn) of a CoSA core of equal size) over that of independent noise of the same "
        "shape and rank: at 1 the update is as flat as noise, and low rank still ahead where noise "
        "has a ratio above 1; CoSA can only win below.",
        lambda tables: bool(tables["layers"]["flatness"].notna().any()),
        heatmap_in_words,
    ),
    "spectra": Drawing(
        spectra_figure,
        "Singular values of base, tuned and update",
        "Line: median over the layers of a module type; band: their range. Shaded: values "
        "of ΔW below the resolution of the float64 Gram matrix. Dashed and dotted horizontals, "
        "where they matter: the Marchenko-Pastur edge of the noise floor fitted to ΔW, if its tail "
        "is like noise, and the edge of pure rounding noise of the stored type.",
        lambda tables: bool((tables["spectra"]["sigma"] > 0).any()),
        spectra_in_words,
    ),
}
