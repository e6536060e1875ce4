"""Captured energy against budget: informed projections between the law and low rank."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import FuncFormatter, NullLocator

from cosa_theory.page.panels import legend_above, panels_of
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
    house_style,
)
from cosa_theory.page.views import percent

__all__ = ["INFORMED_FIGURE"]

_TITLES = {
    "sre_encoder": "by others, one epoch",
    "encoder_r8_100": "on Reuters R8, 100 steps",
    "encoder_r8_1000": "on Reuters R8, 1,000 steps",
}
"""The pairs that are drawn, and what of the encoder was trained."""

_CURVES = (
    ("top", "one_sided", "same", "texts of its kind", BLUE, "-", "o"),
    ("top", "one_sided", "other", "texts of another kind", PURPLE, "-", "s"),
    ("top", "two_sided", "other", "the same, a·m = b·n", PURPLE, ":", "s"),
    ("top", "one_sided", "random", "random tokens", GREEN, "-", "^"),
    ("block", "one_sided", "other", "another block's inputs", ORANGE, "--", "v"),
    ("weights", "one_sided", "", "singular vectors of W", SKY, "--", "D"),
    ("shuffled", "one_sided", "other", "null: shuffled ΔW", GREY, "none", "x"),
    ("rotated", "one_sided", "other", "null: random directions", GREY, "none", "+"),
)
_TEXTS = 128  # or as many as there are

Tables = Mapping[str, pd.DataFrame]


def _drawn(table: pd.DataFrame) -> list[str]:
    present = set(table["pair"])
    return [pair for pair in _TITLES if pair in present]


def _chosen(own: pd.DataFrame, basis: str, shape: str, calibration: str) -> pd.DataFrame:
    """Return the rows of a curve, with as many texts as there are up to `_TEXTS`."""
    rows = own[
        (own["basis"] == basis) & (own["shape"] == shape) & (own["calibration"] == calibration)
    ]
    rows = rows[rows["texts"] <= _TEXTS]
    return rows[rows["texts"] == rows["texts"].max()].sort_values("rank")


def _of_all(own: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each budget with the law and the SVD of the most matrices."""
    known = own[(own["basis"] == "top") & (own["shape"] == "one_sided")]
    return known.sort_values(["rank", "matrices"], ascending=[True, False]).drop_duplicates("rank")


def _plot(ax: Axes, own: pd.DataFrame) -> None:
    """Draw every curve of a pair with its intervals over matrices."""
    law = _of_all(own)
    ax.plot(law["rank"], law["svd"], "o-", color=VERMILION, label="low rank (SVD)")
    for basis, shape, calibration, label, colour, line, marker in _CURVES:
        rows = _chosen(own, basis, shape, calibration)
        error = [rows["share"] - rows["share_low"], rows["share_high"] - rows["share"]]
        style: dict[str, Any] = {
            "color": colour,
            "ls": line,
            "marker": marker,
            "elinewidth": 0.8,
            "ms": 4,
        }
        ax.errorbar(rows["rank"], rows["share"], yerr=error, label=label, **style)
    ax.plot(law["rank"], law["law"], color=BLACK, ls=(0, (6, 2)), lw=0.8, label="law ab/(mn)")
    ax.set(xscale="log", yscale="log", xlabel="budget: that of rank r, r(m + n)")
    ranks = sorted(law["rank"])
    ax.set_xticks(ranks, [f"r = {rank}" for rank in ranks])
    ax.xaxis.set_minor_locator(NullLocator())
    ticks = [0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    ax.set_yticks(ticks)
    ax.yaxis.set_minor_locator(NullLocator())
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, place: f"{100 * value:g} %"))
    ax.set_ylim(top=1.0)


def _draw(tables: Tables) -> Figure:
    table = tables["informed"]
    pairs = _drawn(table)
    with house_style():
        layout = ConstrainedLayoutEngine(h_pad=0.03, w_pad=0.04)
        figure = Figure(figsize=(PAGE_WIDTH, 3.9), layout=layout)
        panels = panels_of(figure, len(pairs), len(pairs), sharey=True)
        for ax, pair in zip(panels, pairs, strict=True):
            _plot(ax, table[table["pair"] == pair])
            ax.set_title(_TITLES[pair])
        panels[0].set_ylabel("captured share of ‖ΔW‖²")
        legend_above(figure, panels, columns=4)
    return figure


def _in_words(tables: Tables) -> str:
    """Say what every curve holds of every pair that is drawn, at the middle budget."""
    table = tables["informed"]
    parts = []
    for pair in _drawn(table):
        own = table[table["pair"] == pair]
        rank = sorted(own["rank"].unique())[(own["rank"].nunique() - 1) // 2]
        own = own[own["rank"] == rank]
        curves = [(_chosen(own, *curve[:3]), curve[3]) for curve in _CURVES]
        held = [f"{label} {percent(rows['share'].iloc[0])}" for rows, label in curves if len(rows)]
        first = _of_all(own).iloc[0]
        parts.append(
            f"{_TITLES[pair]}, budget of rank {rank}: low rank {percent(first['svd'])}, "
            f"{', '.join(held)}, law {percent(first['law'])}"
        )
    return f"Captured share of ‖ΔW‖². {'; '.join(parts)}."


INFORMED_FIGURE = Drawing(
    draw=_draw,
    title="Captured energy of informed projections",
    caption="Share of the update's energy in the leading directions of the layers' inputs, of the "
    "base model on random tokens and on texts, one-sided (L the identity) unless said otherwise; "
    "all matrices together, 95 % intervals over matrices.",
    drawable=lambda tables: bool(_drawn(tables["informed"])),
    says=_in_words,
)
