"""How much of an update comes back from its core: errors by every axis, and real updates."""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from cosa_theory.page import style
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
    YELLOW,
    Style,
    ensemble_style,
    house_style,
)
from cosa_theory.recovery import METHODS
from cosa_theory.studies.recovery.in_words import NOT_L1, recovery_in_words

__all__ = [
    "RECOVERY_FIGURE",
    "plot_bases",
    "plot_compression",
    "plot_curves",
    "plot_real",
    "recovery_figure",
]

_BASES = {
    "coordinate": Style("coordinates", VERMILION, "-", "o"),
    "dct": Style("cosines", BLUE, "--", "s"),
    "wavelet": Style("wavelets", GREEN, "-.", "^"),
    "singular": Style("singular vectors of W", ORANGE, ":", "D"),
}
_UPDATES = (
    *((VERMILION, "-", "o"), (BLUE, "--", "s"), (GREEN, "-.", "^"), (ORANGE, ":", "D")),
    *((PURPLE, "-", "v"), (SKY, "--", "P"), (BLACK, "-.", "X"), (YELLOW, "-", "<")),
    (GREY, ":", ">"),
)
_LAW: dict[str, Any] = {"color": BLACK, "ls": (0, (6, 2)), "lw": 0.8, "zorder": 4}
_FLOOR, _CEILING = 1e-7, 3.0  # of errors on a log axis; below the floor lie rounding errors


def _share(table: pd.DataFrame) -> "pd.Series[Any]":
    return (table["a"] * table["b"] / (table["m"] * table["n"])).astype(float)


def _method(name: str) -> Style:
    """Return the look of a solver, in the colours of the house."""
    known = METHODS.get(name)
    if known is None:  # in results of another version
        return Style(name.replace("_", " "), GREY, "-", ".")
    colour, *others = known.look
    return Style(known.label, getattr(style, colour.upper()), *others)


def _basis(name: str) -> Style:
    return _BASES.get(name, Style(name, GREY, "-", "."))


def plot_compression(ax: Axes, table: pd.DataFrame) -> Axes:
    """Draw the error of synthetic updates against the share ab/(mn) that is measured.

    From the columns update, parameter, method, a, b, m, n, relative_error. A curve for each update:
    the median over draws and over the ℓ1 methods; hollow points, the median of least norm; dashed,
    √(1 − ab/(mn)), the law of the least-norm answer.
    """
    grid = np.linspace(0.0, 1.0, 200)
    ax.plot(grid, np.sqrt(1 - grid), label="√(1 − ab/(mn))", **_LAW)
    groups = table.assign(x=_share(table)).groupby(["update", "parameter"], sort=False)
    for place, ((update, _), rows) in enumerate(groups):
        colour, line, marker = _UPDATES[place % len(_UPDATES)]
        plain = rows["method"] == "least_norm"
        solved = rows[~rows["method"].isin(NOT_L1)].groupby("x")["relative_error"].median()
        least = rows[plain].groupby("x")["relative_error"].median()
        label = _update_label(str(update), rows["parameter"].iloc[0])
        ax.plot(solved.index, solved, color=colour, ls=line, marker=marker, ms=3.5, label=label)
        hollow: dict[str, Any] = {"ms": 6.0, "markerfacecolor": "none", "markeredgewidth": 0.7}
        ax.plot(least.index, least, color=colour, ls="none", marker=marker, **hollow)
    ax.set(xlim=(0, 1), ylim=(0, 1.3), xlabel="ab/(mn)", ylabel="relative error")
    return ax


def _update_label(update: str, parameter: float) -> str:
    letter = {"sparse": "s", "low rank": "r", "power law": "α", "low rank + sparse": "r = s"}
    return f"{update}, {letter[update]} = {parameter:g}" if update in letter else update


def plot_curves(ax: Axes, table: pd.DataFrame, x: str, by: str) -> Axes:
    """Draw the median relative_error against column `x`, a curve for each method or ensemble.

    Errors are on a log axis, and those below 1e-7 at its lower end.
    """
    style_of = {"method": _method, "kind": ensemble_style}[by]
    for name, rows in table.groupby(by, sort=False):
        look = style_of(str(name))
        error = rows.groupby(x)["relative_error"].median().clip(lower=_FLOOR * 1.3)
        edge: dict[str, Any] = {"ms": 3.0, "markeredgecolor": BLACK, "markeredgewidth": 0.3}
        line: dict[str, Any] = {"color": look.colour, "ls": look.line, "marker": look.marker}
        ax.plot(error.index, error, label=look.label, **line, **edge)
    ax.set_yscale("log")
    ax.set_ylim(_FLOOR, _CEILING)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.set_ylabel("relative error")
    return ax


def plot_real(ax: Axes, table: pd.DataFrame) -> Axes:
    """Draw the share of real updates that comes back: ℓ1 in every basis beside least norm.

    From the columns update, method, basis, a, b, m, n, share, least_norm_share. A point for every
    update, compression (to the nearest per cent) and basis: the best of the ℓ1 solvers, filled
    where it brings back more than least norm. Lines are medians over the updates; dashed, the law
    ab/(mn).
    """
    table = table.assign(x=_share(table).round(2))
    shares = sorted(table["x"].unique())
    grid = np.geomspace(shares[0] * 0.75, shares[-1] * 1.3, 100)
    ax.plot(grid, grid, label="ab/(mn)", **_LAW)
    plain = table["method"] == "least_norm"
    least = table[plain]
    bar: dict[str, Any] = {"ls": "none", "marker": "_", "ms": 12, "markeredgewidth": 1.0}
    ax.plot(least["x"], least["share"], color=GREY, label="least norm", **bar)
    best = table[~plain].groupby(["basis", "x", "update"], sort=False, as_index=False)
    for place, (basis, rows) in enumerate(best.max(numeric_only=True).groupby("basis", sort=False)):
        look = _basis(str(basis))
        won = rows["share"] > rows["least_norm_share"]
        x = rows["x"] * 1.07 ** (place - 1.5)  # beside each other, so that none hides another
        for filled in (False, True):
            chosen = won == filled
            point: dict[str, Any] = {"color": look.colour, "marker": look.marker, "ms": 3.2}
            point["markerfacecolor"] = look.colour if filled else "white"
            point |= {"ls": "none", "markeredgewidth": 0.6, "zorder": 5 if filled else 3}
            ax.plot(x[chosen], rows["share"][chosen], **point)
        median = rows["share"].groupby(x).median()
        ax.plot(median.index, median, color=look.colour, ls=look.line, label=look.label)
    ax.axhline(0.0, color=GREY, lw=0.5)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(FixedLocator(shares))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.2g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    ax.set(xlabel="ab/(mn)", ylabel="share that comes back")
    return ax


def plot_bases(ax: Axes, table: pd.DataFrame) -> Axes:
    """Draw the median error of every pair of bases, the truth's and the solver's, as a table.

    From the columns sparse_in, basis, relative_error; darker is a smaller error.
    """
    rows, columns = (list(dict.fromkeys(table[name])) for name in ("sparse_in", "basis"))
    error = table.groupby(["sparse_in", "basis"])["relative_error"].median()
    values = np.array([[error.get((row, column), np.nan) for column in columns] for row in rows])
    ax.imshow(values, cmap="Blues_r", vmin=0.0, vmax=1.2, aspect="auto")
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value < 0.5 else BLACK
            text = f"{value:.2f}" if value >= 0.005 else f"{value:.0e}"
            ax.text(j, i, text, ha="center", va="center", color=colour, size=8)
    short = {"coordinate": "coord.", "singular": "singular"}
    ax.set_xticks(range(len(columns)), [short.get(name, name) for name in columns])
    ax.set_yticks(range(len(rows)), [short.get(name, name) for name in rows])
    ax.set(xlabel="basis of the solver", ylabel="sparse in")
    ax.grid(False)
    return ax


def recovery_figure(table: pd.DataFrame) -> Figure:
    """Draw what comes back: real updates, and synthetic ones along every axis of the sweep.

    From the table that `experiments.recovery` stores; page wide, three rows of two panels, of which
    one whose sweep is not in the table is left out.
    """
    done = table[table["status"] == "done"]
    sweeps = {str(name): rows for name, rows in done.groupby("sweep", sort=False)}
    chosen = [name for name in _PANELS if name in sweeps]
    rows = -(-len(chosen) // 2)
    with house_style():
        layout = ConstrainedLayoutEngine(h_pad=0.05, w_pad=0.05)
        figure = Figure(figsize=(PAGE_WIDTH, 0.3 + 2.6 * rows), layout=layout)
        panels = list(figure.subplots(rows, 2, squeeze=False).flat)
        for ax, name in zip(panels, chosen, strict=False):
            _PANELS[name](ax, sweeps[name])
        for ax in panels[len(chosen) :]:
            ax.set_axis_off()
    return figure


def _legend(ax: Axes, **settings: Any) -> None:
    plain = {"fontsize": 7, "handlelength": 2.2, "labelspacing": 0.25, "borderpad": 0.1}
    ax.legend(**plain | settings)


def _sizes(rows: pd.DataFrame, names: Iterable[str]) -> str:
    first = rows.iloc[0]
    return ", ".join(f"{name} = {first[name]}" for name in names)


def _compression_panel(ax: Axes, rows: pd.DataFrame) -> None:
    plot_compression(ax, rows)
    solvers = [name for name in dict.fromkeys(rows["method"]) if name not in NOT_L1]
    names = " and ".join(_method(name).label for name in solvers)
    ax.set_title(f"synthetic, {_sizes(rows, 'mn')}: {names}; hollow, least norm")
    _legend(ax, loc="upper right", ncols=2)


def _real_panel(ax: Axes, rows: pd.DataFrame) -> None:
    plot_real(ax, rows)
    ax.set_title(rf"{rows['update'].nunique()} real updates, $\ell_1$ in each basis")
    _legend(ax, loc="upper left")


def _sparsity_panel(ax: Axes, rows: pd.DataFrame) -> None:
    plot_curves(ax, rows, "parameter", "method")
    ax.set_title(f"sparse, {_sizes(rows, 'mnab')}; solvers as on the right")
    ax.set_xlabel("nonzero entries s")


def _noise_panel(ax: Axes, rows: pd.DataFrame) -> None:
    plot_curves(ax, rows, "noise", "method")
    ax.set_title(f"sparse, s = {rows['parameter'].iloc[0]:g}, with noise")
    ax.set_xscale("log")
    noises = rows.loc[rows["noise"] > 0, "noise"]
    ends = np.array([noises.min(), noises.max()])
    ax.plot(ends, ends, label="error = noise", **_LAW)
    ax.set_xlabel("‖noise‖ / ‖Φ vec(ΔW)‖")
    _legend(ax, loc="lower right", ncols=2)


def _ensemble_panel(ax: Axes, rows: pd.DataFrame) -> None:
    solved = rows[rows["method"] != "least_norm"]
    plot_curves(ax, solved, "parameter", "kind")
    names = " and ".join(_method(name).label for name in dict.fromkeys(solved["method"]))
    ax.set_title(f"sparse, every ensemble: {names}")
    ax.set_xlabel("nonzero entries s")
    _legend(ax, loc="center left", bbox_to_anchor=(0.0, 0.42))


def _basis_panel(ax: Axes, rows: pd.DataFrame) -> None:
    plot_bases(ax, rows)
    ax.set_title(f"sparse, s = {rows['parameter'].iloc[0]:g}: relative error")


_PANELS = {
    "compression": _compression_panel,
    "real": _real_panel,
    "sparsity": _sparsity_panel,
    "noise": _noise_panel,
    "ensemble": _ensemble_panel,
    "basis": _basis_panel,
}

RECOVERY_FIGURE = Drawing(
    lambda tables: recovery_figure(tables["recovery"]),
    "What comes back of an update from its core",
    "Relative errors are medians over draws. Top left: error of synthetic updates against the "
    "share ab/(mn) that is measured; hollow points, the least-norm answer; dashed, its law "
    "√(1 − ab/(mn)). Top right: the share 1 − error² of real updates that ℓ1 brings back in each "
    "basis (the best of its solvers for each update, filled where it beats least norm; lines are "
    "medians), beside least norm and its law ab/(mn); below zero an answer is worse than none. "
    "Middle: sparse updates by solver, against the number of nonzero entries and against noise; "
    "errors below 1e-7 are drawn there. "
    "Bottom: by ensemble, and by the basis of the truth and of the solver.",
    lambda tables: bool((tables["recovery"]["status"] == "done").any()),
    recovery_in_words,
)
