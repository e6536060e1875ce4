"""Figures of an audit: outcomes per matrix, participation ratios, decay of the coefficients."""

import math
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, StrMethodFormatter
from scipy.special import ndtri

from cosa_theory.page.document import Tables
from cosa_theory.page.heatmap import draw_cells, module_grid
from cosa_theory.page.panels import keep_outer_labels, legend_above, panels_of
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import (
    BLACK,
    BLUE,
    COLUMN_WIDTH,
    GREEN,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    VERMILION,
    Style,
    house_style,
)
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS, SUBJECTS
from cosa_theory.studies.audit.in_words import (
    decay_in_words,
    outcomes_in_words,
    participation_in_words,
)

__all__ = [
    "AUDIT_FIGURES",
    "OUTCOMES",
    "assumption_figure",
    "decay_figure",
    "participation_figure",
    "plot_decay",
    "plot_outcomes",
    "plot_participation",
]

OUTCOMES = {
    "holds": Style("holds", BLUE, "", "o"),
    "undecided": Style("undecided", GREY, "", "s"),
    "fails": Style("fails", VERMILION, "", "X"),
}
_TINTS = ("#CFE5F2", "#E4E4E4", "#FBDCCB")
_BASES = {
    "coordinate": Style("entries", BLUE, "-", ""),
    "dct": Style("cosine transform", ORANGE, "--", ""),
    "singular": Style("singular basis of W", GREEN, "-.", ""),
}
_LETTERS = {  # of what an assumption is about
    **{"admissible": "max(a/m, b/n)", "near_isometry": "(κ² − 1)/(κ² + 1)", "flat_spectrum": "PR"},
    **{"compressible": "p", "spark_wall": "s", "measurements": "s", "decodable": "error"},
}
# More blocks than this leave no room for a number in every cell.
_NUMBERED = 13


def plot_outcomes(ax: Axes, rows: pd.DataFrame) -> None:
    """Draw one assumption's outcome for every matrix, module type against block.

    Colour and mark say the outcome, the number is the value. Cells without a matrix stay white; of
    several matrices in one cell the middle outcome is shown. `rows` are those of one assumption and
    subject, with module, block (null outside the blocks), outcome, value (null for a zero update).
    """
    order = {name: place for place, name in enumerate(OUTCOMES)}
    codes = module_grid(rows.assign(code=rows["outcome"].map(order)), "code").round()
    found = codes.to_numpy(dtype=float)
    values = module_grid(rows, "value").reindex_like(codes).to_numpy(dtype=float)
    norm = BoundaryNorm([-0.5, 0.5, 1.5, 2.5], 3)
    draw_cells(ax, codes, norm, ListedColormap(_TINTS), most_labels=16)
    numbered = codes.shape[1] <= _NUMBERED
    for place, style in enumerate(OUTCOMES.values()):
        y, x = np.nonzero(found == place)
        lift = 0.25 if numbered else 0.5
        ax.plot(x + 0.5, y + lift, style.marker, color=style.colour, markersize=2.6, mew=0)
    if numbered:
        for (y, x), value in np.ndenumerate(values):
            if np.isfinite(value):
                ax.text(x + 0.5, y + 0.94, _compact(value), ha="center", va="bottom", fontsize=6)


def _compact(value: float) -> str:
    """Write a number with at most five characters: 0.95, 8.7, 158, 62k."""
    if value >= 1e6:
        return f"{value / 1e6:.0f}M" if value >= 1e7 else f"{value / 1e6:.1f}M"
    if value >= 1e4:
        return f"{value / 1e3:.0f}k"
    return f"{value:.0f}" if value >= 99.5 else f"{value:.3g}" if value >= 1 else f"{value:.2f}"


def assumption_figure(tables: Tables, subject: str = "update") -> Figure:
    """Draw the outcome of every assumption on every update, or gradient.

    One map per assumption, two side by side, page wide.
    """
    rows = tables["assumptions"]
    rows = rows[rows["subject"] == subject]
    present = [name for name in ASSUMPTIONS if (rows["assumption"] == name).any()]
    lines = math.ceil(len(present) / 2)
    height = 0.55 + 0.185 * max(3, rows["module"].nunique())
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 0.35 + lines * height), layout="constrained")
        axes = panels_of(figure, len(present), 2)
        for ax, name in zip(axes, present, strict=True):
            plot_outcomes(ax, rows[rows["assumption"] == name])
            one = ASSUMPTIONS[name]
            ax.set_title(f"{one.title}: {_LETTERS[name]} {one.sign} {one.bound}")
        for ax in axes[1::2]:
            ax.set_yticklabels([])
        keep_outer_labels(axes, 2)
        marks = [
            Line2D([], [], color=one.colour, marker=one.marker, linestyle="", label=one.label)
            for one in OUTCOMES.values()
        ]
        figure.legend(handles=marks, loc="outside upper left", ncols=3, borderpad=0)
    return figure


def plot_participation(ax: Axes, layers: pd.DataFrame) -> None:
    """Draw participation ratios against those needed, a + b + 1, both on logarithmic scales.

    On and above the line the variance of ‖ΦX‖² is at most twice that of an unstructured Gaussian
    map with as many rows.
    """
    styles = {"update": (BLUE, "o"), "gradient": (VERMILION, "X")}
    live = layers[layers["participation_ratio"].notna()]
    needed = live["participation_needed"].astype(float)
    for subject, (colour, marker) in styles.items():
        chosen = live["subject"] == subject
        if chosen.any():
            ratio, low, high = (
                live.loc[chosen, f"participation_ratio{end}"].astype(float)
                for end in ("", "_low", "_high")
            )
            ax.errorbar(
                needed[chosen],
                ratio,
                # Rounding may put the end of an interval a hair on the wrong side of its value.
                yerr=(np.maximum(ratio - low, 0), np.maximum(high - ratio, 0)),
                fmt=marker,
                color=colour,
                elinewidth=0.7,
                markeredgewidth=0,
                alpha=0.75,
                label=SUBJECTS[subject],
            )
    reach = np.array([0.7 * needed.min(), 1.4 * needed.max()])
    ax.plot(reach, reach, color=BLACK, linewidth=0.9, label="needed: variance doubled")
    ax.plot(reach, reach / 10, color=GREY, linestyle="--", linewidth=0.9, label="a tenth of that")
    ax.set(xscale="log", yscale="log", xlim=reach)
    ax.set_ylim(bottom=0.8)  # a participation ratio is at least 1
    # Plain numbers: a decade or less is shown, in which 2 × 10² is hard to read.
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    ax.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))
    ax.xaxis.set_minor_formatter(StrMethodFormatter("{x:,g}"))
    ax.set(xlabel="participation ratio needed, a + b + 1", ylabel="participation ratio")


def participation_figure(tables: Tables) -> Figure:
    """Draw participation ratios against the condition of the Kronecker variance law.

    One panel, wider than a column.
    """
    with house_style():
        figure = Figure(figsize=(1.35 * COLUMN_WIDTH, 3.3), layout="constrained")
        ax = figure.subplots()
        plot_participation(ax, tables["layers"])
        legend_above(figure, [ax], 2)
    return figure


def plot_decay(ax: Axes, decay: pd.DataFrame) -> None:
    """Draw the best s-term error against the share of coefficients kept, for each basis.

    A line for the median matrix, a band for the middle half of them, and the curve 1 −
    exp(−z²/2), 2Q(z) = s/N, of independent Gaussian entries. The rows are those of one subject.
    """
    grid = np.geomspace(1e-4, 1.0, 121)
    for basis, style in _BASES.items():
        rows = decay[decay["basis"] == basis]
        curves = [
            np.interp(np.log(grid), np.log(one["fraction"]), one["error"], left=np.nan)
            for _, one in rows.groupby("layer", sort=False)
        ]
        if curves:
            stacked = np.array(curves)
            seen = ~np.isnan(stacked).all(axis=0)
            low, middle, high = np.nanquantile(stacked[:, seen], (0.25, 0.5, 0.75), axis=0)
            ax.fill_between(grid[seen], low, high, color=style.colour, alpha=0.18, linewidth=0)
            ax.plot(grid[seen], middle, style.line, color=style.colour, label=style.label)
    gaussian = 1 - np.exp(-np.square(ndtri(grid / 2)) / 2)
    ax.plot(grid, gaussian, ":", color=GREY, label="Gaussian noise")
    ax.set(xscale="log", xlim=(1e-4, 1), ylim=(0, 1.02))
    ax.set_xlabel("share s/(mn) of the coefficients kept")
    ax.set_ylabel(r"best $s$-term error $\sigma_s(x)_1/\Vert x\Vert_1$")


def decay_figure(tables: Tables) -> Figure:
    """Draw how fast the sorted coefficients fall, per basis, for updates and gradients.

    One panel per subject; the vertical line is the median of the spark wall min(a, b)/(2mn).
    """
    decay = tables["decay"]
    subjects = [name for name in SUBJECTS if (decay["subject"] == name).any()]
    wall = _wall_share(tables)
    with house_style():
        width = PAGE_WIDTH if len(subjects) > 1 else 1.35 * COLUMN_WIDTH
        figure = Figure(figsize=(width, 3.1), layout="constrained")
        axes = panels_of(figure, len(subjects), len(subjects), sharey=True)
        for ax, subject in zip(axes, subjects, strict=True):
            plot_decay(ax, decay[decay["subject"] == subject])
            ax.axvline(wall, color=BLACK, linewidth=0.8, label="spark wall, median")
            ax.set_title(SUBJECTS[subject])
        keep_outer_labels(axes, len(axes))
        legend_above(figure, axes[:1], 3)
    return figure


def _wall_share(tables: Tables) -> float:
    """Return the median over matrices of the spark wall as a share of the entries."""
    rows = tables["assumptions"]
    walls = rows[(rows["assumption"] == "spark_wall") & (rows["subject"] == "update")]
    sizes = tables["layers"].loc[tables["layers"]["subject"] == "update", ["layer", "m", "n"]]
    joined = walls.merge(sizes, on="layer")
    return float((joined["threshold"] / (joined["m"] * joined["n"])).median())


def _has(subject: str, tables: Tables) -> bool:
    return bool((tables["assumptions"]["subject"] == subject).any())


_READING = (
    "One map per assumption, module type against block. Blue circle: it holds; vermilion cross: "
    "it fails; grey square: undecided, the threshold lies inside the interval or the update is "
    "zero. The number is the measured value, the heading the threshold."
)

AUDIT_FIGURES: dict[str, Drawing] = {
    "assumptions": Drawing(
        assumption_figure,
        "Which assumption holds where",
        _READING,
        partial(_has, "update"),
        outcomes_in_words,
    ),
    "assumptions_gradient": Drawing(
        partial(assumption_figure, subject="gradient"),
        "Which assumption holds for the gradient of the first step",
        _READING,
        partial(_has, "gradient"),
        partial(outcomes_in_words, subject="gradient"),
    ),
    "participation": Drawing(
        participation_figure,
        "Participation ratios, and what a Kronecker projection needs",
        "Each mark is one matrix: the participation ratio of its singular values against the one "
        "needed, a + b + 1 (n/2 where b = n, m/2 where a = m). The variance of ‖ΦX‖² is "
        "1 + (a + b + 1)/PR times that of an unstructured Gaussian map with as many rows: twice "
        "on the line, less above it. Bars, where they can be seen, are what rounding of the "
        "stored weights leaves open.",
        lambda tables: bool(tables["layers"]["participation_ratio"].notna().any()),
        participation_in_words,
    ),
    "decay": Drawing(
        decay_figure,
        "How fast the coefficients fall",
        "The share of the ℓ1 norm outside the s largest coefficients, against s over the number of "
        "entries: median matrix and middle half of them, in three bases. Dotted: independent "
        "Gaussian entries, which are not sparse in any basis. The vertical line is the largest s "
        "that a core could tell apart, min(a, b)/2.",
        lambda tables: bool(tables["layers"]["participation_ratio"].notna().any()),
        decay_in_words,
    ),
}
"""The figures of an audit by file name."""
