"""Captured energy against trainable parameters, one curve per update family."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter, NullLocator

from cosa_theory.page.style import BLACK, family_style

__all__ = ["plot_captured_energy", "plot_law_ratio"]


def _readable_count(value: float, _position: int) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g} {unit}"
    return f"{value:g}"


def _percent(value: float, _position: int) -> str:
    return f"{100 * value:g} %"


def plot_captured_energy(ax: Axes, shares: pd.DataFrame) -> None:
    """Draw the captured share of ‖ΔW‖²_F against trainable parameters, both on log axes.

    `shares` is the result of `pool_families`, or the rows of one layer. Vertical bars are the
    confidence intervals of the draws; the dashed line is the law ab/(mn).
    """
    for family, group in shares.groupby("family", sort=False):
        style = family_style(str(family))
        rows = group.sort_values("parameters").astype({"captured": float})
        error = np.vstack([rows["captured"] - rows["ci_low"], rows["ci_high"] - rows["captured"]])
        ax.errorbar(
            rows["parameters"],
            rows["captured"],
            yerr=np.clip(error.astype(float), 0, None),
            color=style.colour,
            ls=style.line,
            marker=style.marker,
            markeredgecolor=BLACK,
            markeredgewidth=0.4,
            elinewidth=0.8,
            label=style.label,
        )
    law = shares.dropna(subset=["law"]).drop_duplicates("parameters").sort_values("parameters")
    if len(law):
        ax.plot(law["parameters"], law["law"], color=BLACK, ls=(0, (6, 2)), lw=0.8, zorder=5)
        ax.errorbar([], [], [], color=BLACK, ls=(0, (6, 2)), lw=0.8, label="law ab/(mn)")
    ax.set(xscale="log", yscale="log")
    ax.set_ylim(top=1.0)
    ax.set_xticks(sorted(shares["parameters"].groupby(shares["rank_budget"]).max()))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda v, p: _readable_count(float(f"{v:.2g}"), p)))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(_percent))
    ax.set(xlabel="trainable parameters", ylabel="captured share of ‖ΔW‖²")


def plot_law_ratio(ax: Axes, shares: pd.DataFrame) -> None:
    """Draw measured captured energy over the law ab/(mn), with its confidence interval.

    Families without a law are left out. Points at one budget are set side by side, in the order of
    the table.
    """
    rows = shares.dropna(subset=["law"])
    families = list(dict.fromkeys(rows["family"]))
    budgets = sorted(rows["rank_budget"].unique())
    for place, family in enumerate(families):
        style = family_style(family)
        group = rows[rows["family"] == family].sort_values("rank_budget")
        offset = 0.8 * ((place + 0.5) / len(families) - 0.5)
        x = np.array([budgets.index(rank) for rank in group["rank_budget"]]) + offset
        ratio, low, high = (
            (group[column] / group["law"]).to_numpy(dtype=float)
            for column in ("captured", "ci_low", "ci_high")
        )
        ax.errorbar(
            x,
            ratio,
            yerr=np.clip([ratio - low, high - ratio], 0, None),
            ls="none",
            color=style.colour,
            ecolor=BLACK,
            marker=style.marker,
            markeredgecolor=BLACK,
            markeredgewidth=0.4,
            elinewidth=0.7,
            label=style.label,
        )
    ax.axhline(1.0, color=BLACK, ls=(0, (6, 2)), lw=0.8)
    ax.set_xticks(range(len(budgets)), [f"r = {rank}" for rank in budgets])
    ax.set_xlim(-0.5, len(budgets) - 0.5)
    ax.grid(axis="x", visible=False)
    ax.set(xlabel="budget: that of rank r, r(m + n)", ylabel="captured share / law ab/(mn)")
