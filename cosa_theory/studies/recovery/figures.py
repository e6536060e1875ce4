"""One recovered update: how its solver converged, and its singular values and coefficients."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullLocator

from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import (
    BLACK,
    BLUE,
    GREY,
    ORANGE,
    PAGE_WIDTH,
    VERMILION,
    Style,
    house_style,
)
from cosa_theory.studies.recovery.in_words import convergence_in_words, estimate_in_words

__all__ = [
    "CONVERGENCE_FIGURE",
    "ESTIMATE_FIGURE",
    "plot_certificate",
    "plot_magnitudes",
    "plot_objective",
    "plot_singular_values",
]

# The truth is wide and behind, so that an estimate that lies on it leaves both to be seen.
_CURVES = {
    "truth": Style("truth", ORANGE, "-", "o"),
    "estimate": Style("estimate", BLUE, "-", "^"),
    "error": Style("their difference", VERMILION, ":", "x"),
}
_LIMITS = {
    "limit_every": ("half of the spark", (0, (6, 2))),
    "limit_random": (r"weak $\ell_1$ threshold", (0, (1, 2))),
}
_DEPTH = 1e-12  # of the largest value that is drawn: below it there is rounding
_FEW = 15  # points of a curve up to which each is marked


def _marker(style: Style, points: int) -> str:
    return style.marker if points <= _FEW else ""


def plot_certificate(ax: Axes, history: pd.DataFrame, result: Mapping[Any, Any]) -> Axes:
    """Draw the certificate against the iteration on a log axis, with its tolerance dashed.

    The history has the columns iteration and certificate (relative), of which only what is positive
    is drawn; the result has the certificate's name and the tolerance.
    """
    values = history["certificate"].to_numpy(dtype=float)
    shown = np.where(values > 0, values, np.nan)
    style = Style("certificate", BLUE, "-", "o")
    ax.plot(history["iteration"], shown, style.line, color=BLUE, marker=_marker(style, len(values)))
    tolerance = float(result["tolerance"])
    if tolerance > 0:
        ax.axhline(tolerance, color=BLACK, lw=0.8, ls=(0, (6, 2)), label="tolerance")
        ax.legend(loc="best")
    ax.set_title(f"{result['certificate']}, relative")
    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    return _iterations(ax)


def plot_objective(ax: Axes, history: pd.DataFrame) -> Axes:
    """Draw the objective against the iteration, on a log axis if it spans decades."""
    values = history["objective"].to_numpy(dtype=float)
    style = Style("objective", BLUE, "-", "o")
    ax.plot(
        history["iteration"], values, style.line, color=BLUE, marker=_marker(style, len(values))
    )
    known = values[np.isfinite(values)]
    if known.size and known.min() > 0 and known.max() > 30 * known.min():
        ax.set_yscale("log")
        ax.yaxis.set_minor_locator(NullLocator())
    return _iterations(ax)


def _iterations(ax: Axes) -> Axes:
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_xlabel("iteration")
    return ax


def _plot_curves(ax: Axes, table: pd.DataFrame, x: str, y: str) -> float:
    """Draw y against x for the truth, the estimate and their difference; return the largest y."""
    top = float(table[y].max())
    for name, style in _CURVES.items():
        rows = table[table["of"] == name]
        values = rows[y].to_numpy(dtype=float)
        if "resolved" in rows:
            values = np.where(rows["resolved"], values, 0.0)
        shown = np.where(values > _DEPTH * top, values, np.nan)
        if np.isnan(shown).all():
            continue
        ax.plot(
            rows[x], shown, style.line, color=style.colour, label=style.label,
            lw=3.0 if name == "truth" else 1.3, marker=_marker(style, np.isfinite(shown).sum()),
            ms=3.0,
        )  # fmt: skip
    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    return top


def plot_singular_values(ax: Axes, table: pd.DataFrame) -> Axes:
    """Draw σ against its index for the estimate, and the truth and the error if they are there.

    From the columns of ("estimate", "truth", "error"), index, sigma (units of the weights) and
    resolved: values below the numerical resolution are left out.
    """
    _plot_curves(ax, table, "index", "sigma")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=6, integer=True))
    ax.set_xlim(0, float(table["index"].max()) + 1)
    ax.set_xlabel("index i of the singular value")
    ax.set_ylabel(r"$\sigma_i$ (units of the weights)")
    return ax


def plot_magnitudes(ax: Axes, table: pd.DataFrame, result: Mapping[Any, Any]) -> Axes:
    """Draw the sorted sizes of the coefficients on log axes, with the sparsities a core identifies.

    From the columns of, rank (from 1) and magnitude; limit_every and limit_random of the result are
    vertical lines where they are finite.
    """
    _plot_curves(ax, table, "rank", "magnitude")
    ax.set_xscale("log")
    ax.xaxis.set_minor_locator(NullLocator())
    for name, (label, dashes) in _LIMITS.items():
        if math.isfinite(result[name]) and result[name] >= 1:
            ax.axvline(result[name], color=GREY, lw=1.0, ls=dashes, label=label)
    ax.set_xlabel("rank of the coefficient")
    ax.set_ylabel("size of the coefficient")
    return ax


def convergence_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw objective and certificate against the iteration, of tables "history" and "result"."""
    history, result = tables["history"], tables["result"].iloc[0].to_dict()
    with house_style():
        layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.04)
        figure = Figure(figsize=(PAGE_WIDTH, 2.5), layout=layout)
        drawn = [name for name in ("objective", "certificate") if name in history]
        for ax, name in zip(figure.subplots(1, len(drawn), squeeze=False)[0], drawn, strict=True):
            if name == "objective":
                plot_objective(ax, history)
                ax.set_title("objective")
            else:
                plot_certificate(ax, history, result)
    return figure


def estimate_figure(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw the singular values and the sorted coefficients of the estimate.

    From the tables "spectrum", "magnitudes" and "result".
    """
    with house_style():
        layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.04)
        figure = Figure(figsize=(PAGE_WIDTH, 2.9), layout=layout)
        left, right = figure.subplots(1, 2)
        plot_singular_values(left, tables["spectrum"])
        plot_magnitudes(right, tables["magnitudes"], tables["result"].iloc[0].to_dict())
        handles, labels = right.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside upper left", ncols=5, borderpad=0)
    return figure


CONVERGENCE_FIGURE = Drawing(
    convergence_figure,
    "How the solver converged",
    "What was minimised, and the certificate that bounds how far it is from its minimum, at every "
    "check. Dashed: the tolerance at which the certificate holds.",
    lambda tables: (
        len(tables["history"]) > 1
        and {"objective", "certificate"} & set(tables["history"]) != set()
    ),
    convergence_in_words,
)
ESTIMATE_FIGURE = Drawing(
    estimate_figure,
    "The estimate",
    "Singular values, and coefficients in the basis in which ΔW was taken to be sparse, sorted by "
    "size; the truth behind them where it is known. Vertical lines: up to half of the spark a core "
    "identifies every update, and up to the weak threshold ℓ1 finds updates with entries at random "
    "places.",
    lambda tables: bool((tables["magnitudes"]["magnitude"] > 0).any()),
    estimate_in_words,
)
