"""Johnson-Lindenstrauss drawings: failure curves, and variances beside the Kronecker law."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cosa_theory.page.panels import keep_outer_labels, legend_above, panels_of
from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import (
    BLACK,
    GREY,
    PAGE_WIDTH,
    ensemble_style,
    house_style,
    label_text,
    log_axis,
)
from cosa_theory.projections import printed_name
from cosa_theory.studies.jl.in_words import failures_in_words, variances_in_words, varying

__all__ = ["CURVES_FIGURE", "FIGURES", "VARIANCE_FIGURE"]

_COLUMNS = 3
_LAW: dict[str, Any] = {"color": BLACK, "ls": (0, (6, 2)), "lw": 0.8}


def _plot_failure_curves(ax: Axes, curves: pd.DataFrame) -> None:
    """Draw P(| ‖Ax‖²/‖x‖² − 1 | > ε) against ε, one curve per ensemble, beside the χ² law.

    A point without a failure is left out, as a log axis cannot show it: the curve ends at the last
    one seen.
    """
    for kind, group in curves.groupby("kind", sort=False):
        style = ensemble_style(str(kind))
        rows = group[group["probability"] > 0].sort_values("eps").astype({"eps": float})
        if rows.empty:
            ax.plot([], [], color=style.colour, ls=style.line, label=printed_name(str(kind)))
            continue
        ax.plot(
            rows["eps"],
            rows["probability"],
            color=style.colour,
            ls=style.line,
            marker=style.marker,
            markeredgecolor=BLACK,
            markeredgewidth=0.4,
            markevery=max(1, len(rows) // 6),
            label=printed_name(str(kind)),
        )
        low, high = rows["ci_low"].clip(lower=1e-12), rows["ci_high"]
        ax.fill_between(rows["eps"], low, high, color=style.colour, alpha=0.18, lw=0)
    law = curves.drop_duplicates("eps").sort_values("eps")
    ax.plot(law["eps"], law["chi_square"], zorder=5, label="χ² law (Gaussian)", **_LAW)
    ax.set(yscale="log", xlim=(0, float(curves["eps"].max())))
    ax.set(xlabel="ε", ylabel="P(distortion > ε)")


def _error(rows: pd.DataFrame, scale: pd.Series) -> np.ndarray:
    below = (rows["variance"] - rows["ci_low"]) * scale
    above = (rows["ci_high"] - rows["variance"]) * scale
    return np.clip(np.vstack([below, above]).astype(float), 0, None)


def _points(ax: Axes, table: pd.DataFrame, x: pd.Series, scale: pd.Series) -> None:
    """Draw measured variances times a scale against x, with intervals; real deltas are hollow."""
    real = table["source"] == "real ΔW"
    for kind, group in table.groupby("kind", sort=False):
        style = ensemble_style(str(kind))
        for hollow in (False, True):
            rows = group[real.loc[group.index] == hollow]
            if rows.empty:
                continue
            ax.errorbar(
                x.loc[rows.index],
                rows["variance"] * scale.loc[rows.index],
                yerr=_error(rows, scale.loc[rows.index]),
                ls="none",
                marker=style.marker,
                color=style.colour,
                markerfacecolor="white" if hollow else style.colour,
                markeredgecolor=BLACK if not hollow else style.colour,
                markeredgewidth=0.9 if hollow else 0.4,
                elinewidth=0.7,
                zorder=3 if hollow else 2,
                label=printed_name(str(kind)) + (", real ΔW" if hollow else ""),
            )


def _plot_variance_law(ax: Axes, table: pd.DataFrame) -> None:
    """Draw measured variances against their law: points on the dashed line agree with it."""
    ends = np.array([table["law"].min() * 0.7, table["law"].max() * 1.4], dtype=float)
    ax.plot(ends, ends, zorder=1, **_LAW)
    _points(ax, table, table["law"], pd.Series(1.0, index=table.index))
    for axis in (ax.xaxis, ax.yaxis):
        log_axis(axis)
    ax.set(xlabel="variance, law", ylabel="variance, measured")


def _plot_inflation(ax: Axes, table: pd.DataFrame) -> None:
    """Draw the variance over that of an unstructured map against PR/(a + b + 1)."""
    x = table["participation_ratio"] / (table["a"] + table["b"] + 1)
    line = np.geomspace(float(x.min()) * 0.7, float(x.max()) * 1.4, 200)
    ax.plot(line, 1 + 1 / line, zorder=1, label="law, Gaussian", **_LAW)
    ax.axhline(1.0, color=GREY, lw=0.6)
    _points(ax, table, x, table["a"] * table["b"] / 2)
    for axis in (ax.xaxis, ax.yaxis):
        log_axis(axis)
    ax.set(xlabel="participation ratio over a + b + 1", ylabel="variance × ab/2")


def _curves_figure(curves: pd.DataFrame) -> Figure:
    """Draw one panel per set of vectors."""
    sets = list(dict.fromkeys(curves["vectors_of"]))
    rows, columns = -(-len(sets) // _COLUMNS), min(_COLUMNS, len(sets))
    with house_style():
        width = PAGE_WIDTH if len(sets) > 1 else 0.7 * PAGE_WIDTH
        figure = Figure(figsize=(width, 0.6 + 2.3 * rows), layout="constrained")
        axes = panels_of(figure, len(sets), columns, sharey=True)
        for ax, name in zip(axes, sets, strict=True):
            panel = curves[curves["vectors_of"] == name]
            _plot_failure_curves(ax, panel)
            first = panel.iloc[0]
            ax.set_title(
                f"{label_text(str(name), 48)}\nk = {first['k']}, d = {first['d']}", linespacing=1.05
            )
        keep_outer_labels(axes, columns)
        seen = curves.loc[curves["probability"] > 0, "probability"]
        axes[0].set_ylim(0.4 * float(seen.min()) if len(seen) else 1e-4, 1.3)  # of all panels
        legend_above(figure, axes, 4 if len(sets) > 1 else 3)
    return figure


def _variance_figure(table: pd.DataFrame) -> Figure:
    table = varying(table)
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 3.7), layout="constrained")
        left, right = figure.subplots(1, 2)
        _plot_variance_law(left, table)
        left.set_title("measured against law")
        _plot_inflation(right, table)
        right.set_title("times the variance of an unstructured map")
        legend_above(figure, [right], 4)
    return figure


def _holds(tables: Mapping[str, pd.DataFrame], name: str) -> bool:
    return name in tables and len(tables[name]) > 0


def _varies(tables: Mapping[str, pd.DataFrame], name: str) -> bool:
    return _holds(tables, name) and len(varying(tables[name])) > 0


_FAILURES = Drawing(
    lambda tables: _curves_figure(tables["curves"]),
    "How often a projection fails",
    "Share of vectors whose squared norm is off by more than ε, over independent draws, with 95 % "
    "intervals over the draws (bands). Dashed: the exact χ² law of a Gaussian projection. A curve "
    "ends where no failure was seen.",
    lambda tables: _holds(tables, "curves"),
    lambda tables: failures_in_words(tables["curves"]),
)

_KRONECKER = Drawing(
    lambda tables: _variance_figure(tables["kronecker"].assign(source="real ΔW")),
    "Kronecker projections of the updates",
    "Left: the variance of ‖A ΔW Bᵀ‖²/‖ΔW‖² over draws against its law, one point per matrix, with "
    "95 % intervals. Right: the same over 2/(ab), the variance of an unstructured map with ab "
    "rows, against the participation ratio over a + b + 1; dashed, 1 + (a + b + 1)/PR, the law for "
    "Gaussian factors.",
    lambda tables: _varies(tables, "kronecker"),
    lambda tables: variances_in_words(varying(tables["kronecker"])),
)

CURVES_FIGURE = Drawing(
    lambda tables: _curves_figure(tables["jl_curves"]),
    "How often a projection fails, by ensemble and kind of vector",
    "Probability that the squared norm of a vector is off by more than ε, with 95 % intervals "
    "(bands). Dashed: the exact χ² law of a Gaussian projection. A curve ends where no failure was "
    "seen.",
    lambda tables: _holds(tables, "jl_curves"),
    lambda tables: failures_in_words(tables["jl_curves"]),
)

VARIANCE_FIGURE = Drawing(
    lambda tables: _variance_figure(tables["variance_law"]),
    "The Kronecker variance law",
    "Left: the measured variance of ‖A X Bᵀ‖² (‖X‖ = 1) against its law, with 95 % intervals, for "
    "synthetic spectra from rank one to flat and for real updates (hollow). Right: the same over "
    "2/(ab), the variance of an unstructured map with ab rows; dashed, the law for Gaussian "
    "factors, 1 + (a + b + 1)/PR. Points off that line belong to matrices aligned with the "
    "coordinates, which the other ensembles notice. Laws of zero are left out.",
    lambda tables: _varies(tables, "variance_law"),
    lambda tables: variances_in_words(varying(tables["variance_law"])),
)

FIGURES = {"failures": _FAILURES, "kronecker": _KRONECKER}
"""The drawings of a document by file name."""
