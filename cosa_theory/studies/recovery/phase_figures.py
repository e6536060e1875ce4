"""Phase transitions of ℓ1 recovery: maps of success, and lines of 50 % beside their theory."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure, SubFigure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import NullLocator

from cosa_theory.laws.recovery import l1_weak_threshold, packed_l1_threshold
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import (
    BLACK,
    BLUE,
    GREEN,
    ORANGE,
    PAGE_WIDTH,
    VERMILION,
    Style,
    house_style,
    log_axis,
)
from cosa_theory.projections import printed_name
from cosa_theory.studies.recovery.in_words import phase_in_words

__all__ = [
    "PHASE_FIGURE",
    "phase_figure",
    "plot_ensembles",
    "plot_packed_lines",
    "plot_success_map",
]

_STYLES = {
    ("plain", "random"): Style("plain, random support", BLUE, "-", "o"),
    ("kronecker", "random"): Style("Kronecker, random support", VERMILION, "--", "s"),
    ("kronecker", "block"): Style("Kronecker, block", GREEN, "-.", "D"),
    ("kronecker", "column"): Style("Kronecker, one column", ORANGE, "-", "^"),
    ("kronecker", "row"): Style("Kronecker, one row", BLACK, "-", "v"),
}
_UNDERSAMPLING, _SPARSITY = "undersampling $d = ab/(mn)$", r"sparsity $\rho = s/(ab)$"
_DOTTED: dict[str, Any] = {"ls": (0, (1, 1.5)), "lw": 1.0}
_LAW: dict[str, Any] = {"color": BLACK, "ls": (0, (6, 2)), "lw": 0.9}
_MAP: dict[str, Any] = {"cmap": "cividis", "vmin": 0, "vmax": 1, "edgecolors": "white", "lw": 0.4}
_CROSSING: dict[str, Any] = {
    **{"color": VERMILION, "marker": "o", "ms": 3.5, "elinewidth": 1.0, "lw": 1.1},
    **{"markeredgecolor": "white", "markeredgewidth": 0.5},
}


def plot_success_map(ax: Axes, table: pd.DataFrame, lines: pd.DataFrame) -> QuadMesh:
    """Draw the share of successes over (d, ρ), the fitted 50 % line and the weak threshold.

    The table has columns d, rho, share: each measured ρ colours the ground halfway to its
    neighbours, by the mean of the cores that have this d. The lines have d, rho50, rho50_low,
    rho50_high; one that is not crossed within the measured ρ (NaN) is left out. Returns the mesh of
    the last d, for a colour bar; the colours go from 0 to 1.
    """
    depths = np.sort(table["d"].unique())
    sides = _edges(depths, np.array([0.0, 1.0]))
    for place, d in enumerate(depths):
        column = table[table["d"] == d].groupby("rho", as_index=False)["share"].mean()
        heights = _edges(column["rho"].to_numpy())
        mesh = ax.pcolormesh(
            sides[place : place + 2],
            heights,
            column[["share"]].to_numpy(),
            **_MAP,
        )
    grid = np.linspace(1e-3, 1.0, 300)
    ax.plot(grid, l1_weak_threshold(grid), label="weak threshold (theory)", **_LAW)
    known = lines.dropna(subset=["rho50"]).sort_values("d")
    label = "50 % of trials, with 95 % interval"
    ax.errorbar(known["d"], known["rho50"], yerr=_errors(known), label=label, **_CROSSING)
    ax.set(xlim=(0.0, 1.0), ylim=(0.0, 0.8), xlabel=_UNDERSAMPLING, facecolor="#EFEFEF")
    ax.grid(visible=False)
    return mesh


def plot_packed_lines(ax: Axes, lines: pd.DataFrame) -> Axes:
    """Draw the 50 % lines of random and of packed supports against d, with what theory says.

    The lines are those of one ensemble: structure, packing, m, n, a, b, d, rho50, rho50_low,
    rho50_high; ρ is on a log axis. Dotted: the weak threshold for random supports, the threshold of
    one factor for a column or a row, and the upper bound of that of a block.
    """
    for (structure, packing), style in _STYLES.items():
        rows = lines[(lines["structure"] == structure) & (lines["packing"] == packing)]
        rows = rows.dropna(subset=["rho50"]).sort_values("d")
        if rows.empty:
            continue
        mark: dict[str, Any] = {"color": style.colour, "marker": style.marker, "ms": 3.5}
        mark |= {"ls": style.line, "lw": 1.1, "elinewidth": 0.8, "label": style.label}
        ax.errorbar(rows["d"], rows["rho50"], yerr=_errors(rows), **mark)
        law = _law(structure, packing, rows)
        if law is not None:
            ax.plot(*law, color=style.colour, zorder=1, **_DOTTED)
    ax.plot([], [], color=BLACK, label="theory of the same colour", **_DOTTED)
    log_axis(ax.yaxis)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set(xlim=(0.0, 1.0), xlabel=_UNDERSAMPLING, ylabel=_SPARSITY)
    return ax


def _law(structure: str, packing: str, rows: pd.DataFrame) -> tuple[np.ndarray, np.ndarray] | None:
    """Return d and ρ of a theory between the first and the last core, of the shape of the first."""
    if structure == "plain":
        grid = np.linspace(rows["d"].min() * 0.8, min(1.0, rows["d"].max() * 1.15), 200)
        return grid, l1_weak_threshold(grid)
    if packing == "random":
        return None
    m, n = rows[["m", "n"]].iloc[0]
    aspect = np.sqrt(rows["a"] * n / (rows["b"] * m)).iloc[0]
    root = np.sqrt(np.linspace(rows["d"].min() * 0.8, min(1.0, rows["d"].max() * 1.15), 200))
    a, b = np.clip(root * aspect * m, 1, m), np.clip(root / aspect * n, 1, n)
    return a * b / (m * n), packed_l1_threshold(m, n, a, b, packing)  # type: ignore[arg-type]


def plot_ensembles(ax: Axes, lines: pd.DataFrame) -> Axes:
    """Draw where each ensemble crosses 50 %, for every structure and packing, at one core.

    From the columns structure, kind, packing, weak_threshold, rho50, rho50_low, rho50_high; ρ is on
    a log axis, ensembles from top to bottom. A hollow triangle points from the end of the measured
    ρ to where the crossing is beyond it. Dashed: the weak threshold.
    """
    kinds = list(dict.fromkeys(lines["kind"]))
    for place, (key, style) in enumerate(_STYLES.items()):
        rows = lines[(lines["structure"] == key[0]) & (lines["packing"] == key[1])]
        heights = np.array([kinds.index(kind) for kind in rows["kind"]]) + 0.13 * (place - 2)
        mark: dict[str, Any] = {"color": style.colour, "ls": "none"}
        known = rows["rho50"].notna()
        if known.any():
            point = mark | {"marker": style.marker, "ms": 3.5, "elinewidth": 0.8}
            ax.errorbar(rows["rho50"][known], heights[known], xerr=_errors(rows[known]), **point)
        for marker, side in (("<", "rho50_high"), (">", "rho50_low")):
            beyond = ~known & np.isfinite(rows[side].astype(float))
            ax.plot(rows[side][beyond], heights[beyond], marker=marker, mfc="white", ms=4, **mark)
    ax.axvline(lines["weak_threshold"].iloc[0], zorder=1, **_LAW)
    log_axis(ax.xaxis)
    ax.xaxis.set_minor_locator(NullLocator())
    seen = lines[["rho50", "rho50_high", "weak_threshold"]].to_numpy(dtype=float)
    seen = seen[np.isfinite(seen)]
    ax.set_xlim(0.7 * float(seen.min()), 1.4 * float(seen.max()))
    ax.set_yticks(range(len(kinds)), [printed_name(kind) for kind in kinds])
    ax.set_ylim(len(kinds) - 0.5, -0.5)
    ax.set_xlabel(f"{_SPARSITY} at 50 %")
    ax.grid(visible=False, axis="y")
    return ax


def _edges(centres: np.ndarray, ends: np.ndarray | None = None) -> np.ndarray:
    """Return the edges halfway between centres, no further out than `ends`."""
    if len(centres) == 1:
        step = 0.05 if ends is not None else 0.1 * centres[0]
        edges = np.array([centres[0] - step, centres[0] + step])
    else:
        inner = (centres[1:] + centres[:-1]) / 2
        first, last = 2 * centres[0] - inner[0], 2 * centres[-1] - inner[-1]
        edges = np.array([first, *inner, last])
    return np.clip(edges, *ends) if ends is not None else np.clip(edges, 0.0, None)


def _errors(rows: pd.DataFrame) -> np.ndarray:
    """Return distances to the ends of the intervals, at most ρ itself: a log axis has no zero."""
    below = (rows["rho50"] - rows["rho50_low"]).clip(upper=0.999 * rows["rho50"])
    above = (rows["rho50_high"] - rows["rho50"]).clip(upper=rows["rho50"])
    return np.vstack([below, above]).astype(float)


def phase_figure(table: pd.DataFrame, lines: pd.DataFrame) -> Figure:
    """Draw maps of success, packed supports, and all ensembles at one core, page wide.

    The table is that of `experiments.phase_transition`, the lines its 50 % lines, as
    `experiments.phase_lines.crossings` computes them. Above: success over (d, ρ) of one ensemble,
    the one measured at most cores, for plain and for Kronecker projections. Below: its packed
    supports, and every ensemble at the core that most of them share.
    """
    done = table[table["status"] == "done"]
    kind = lines.groupby("kind", sort=False)["d"].nunique().idxmax()
    with house_style():
        layout = ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.05)
        figure = Figure(figsize=(PAGE_WIDTH, 5.8), layout=layout)
        halves: Any = figure.subfigures(2, 1, height_ratios=(1.0, 1.12))
        upper, lower = halves
        chosen, rows = done[done["kind"] == kind], lines[lines["kind"] == kind]
        _draw_maps(upper, chosen, rows, printed_name(str(kind)))
        left, right = lower.subplots(1, 2, width_ratios=(1.0, 1.0))
        plot_packed_lines(left, rows)
        left.set_title(f"packed supports, {printed_name(str(kind))}")
        shared = _at_most_shared_core(lines)
        a, b, d = shared[["a", "b", "d"]].iloc[0]
        plot_ensembles(right, shared)
        right.set_title(f"every ensemble, a = {a:g}, b = {b:g}, d = {d:.2f}")
        handles, labels = left.get_legend_handles_labels()
        lower.legend(handles, labels, loc="outside lower center", ncols=3, borderpad=0)
    return figure


def _at_most_shared_core(lines: pd.DataFrame) -> pd.DataFrame:
    """Return the lines at the core with most ensembles, of equals the one with d nearest 1/4."""
    cores = lines.groupby(["a", "b"]).agg(kinds=("kind", "nunique"), d=("d", "first"))
    a, b = min(cores.index, key=lambda core: (-cores["kinds"][core], abs(cores["d"][core] - 0.25)))
    return lines[(lines["a"] == a) & (lines["b"] == b)]


def _draw_maps(figure: SubFigure, table: pd.DataFrame, lines: pd.DataFrame, kind: str) -> None:
    """Draw success for random supports, plain beside Kronecker, with a legend and a colour bar."""
    axes = figure.subplots(1, 2, sharey=True)
    titles = {
        "plain": f"one plain {kind} projection",
        "kronecker": rf"Kronecker $L^\mathrm{{T}} \Delta W R^\mathrm{{T}}$, {kind}",
    }
    for ax, (structure, title) in zip(axes, titles.items(), strict=True):
        one, line = (
            part[(part["structure"] == structure) & (part["packing"] == "random")]
            for part in (table, lines)
        )
        mesh = plot_success_map(ax, one, line)
        ax.set_title(title)
    axes[0].set_ylabel(_SPARSITY)
    bar = figure.colorbar(mesh, ax=axes, pad=0.01, aspect=16, label="share of successes")
    bar.outline.set_visible(False)
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=2, borderpad=0)


PHASE_FIGURE = Drawing(
    lambda tables: phase_figure(tables["phase_transition"], tables["phase_lines"]),
    "Phase transitions of ℓ1 recovery",
    "How often minimising ‖ΔW‖₁ brings a sparse ΔW back from ab numbers. Above: the share of "
    "successes for random supports, with the fitted 50 % line and its 95 % intervals beside the "
    "weak threshold of Gaussian measurements. Below, left: supports packed in a block, one column "
    "or one row; dotted, the theory: the weak threshold for plain projections, that of one factor "
    "for a column or a row, an upper bound for a block. Right: the 50 % points of every ensemble; "
    "triangles point to crossings beyond what was measured, dashed is the weak threshold.",
    lambda tables: bool((tables["phase_transition"]["status"] == "done").any()),
    phase_in_words,
)
