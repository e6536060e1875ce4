"""What each family can express of real updates, and how far low rank is ahead of a core.

Example: `python -m figures.atlas results/atlas --out results/figures`
"""

import sys
from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import BLUE, GREY, PAGE_WIDTH, SKY, VERMILION, house_style
from cosa_theory.page.views import number, percent
from cosa_theory.spectrum.families.base import FAMILIES, GROUPS
from experiments.atlas import SHARES
from figures.command import draw_table

__all__ = ["DRAWING", "shown_families"]

_UPDATES = {
    "encoder_r8_gradient": "first gradient, R8",
    "encoder_r8_adam": "Adam's first step, R8",
    "encoder_r8_100": "encoder, R8, 100 steps",
    "encoder_r8_1000": "R8, 1,000",
    "encoder_r8_5000": "R8, 5,000",
    "encoder_r52_100": "encoder, R52, 100",
    "encoder_r52_1000": "R52, 1,000",
    "encoder_r52_5000": "R52, 5,000",
    "encoder_20newsgroups_100": "encoder, 20 Newsgroups, 100",
    "encoder_20newsgroups_1000": "20 Newsgroups, 1,000",
    "encoder_20newsgroups_5000": "20 Newsgroups, 5,000",
    "sre_encoder": "encoder, by others",
    "chgnet": "interatomic potential, by others",
    "decoder_functions_100": "SmolLM2, functions, 100",
}
_MOST_OF_A_KIND = 4
_LEAST = 1e-4  # share whose digits fit a cell
_COLOURS = (SKY, BLUE, VERMILION)  # of budgets, from the smallest


def shown_families(pooled: pd.DataFrame) -> list[str]:
    """Return, of each kind of family that trains, the four that hold most (median over updates)."""
    trains = pooled[pooled["group"] != "stored"].dropna(subset=["captured"])
    median = trains.groupby(["group", "family"])["captured"].median()
    order = list(FAMILIES)
    found = []
    for group in GROUPS:
        if group in median.index.get_level_values("group"):
            best = median[group].nlargest(_MOST_OF_A_KIND).index
            found += sorted(best, key=order.index)
    return found


def _middle(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Return the rows of updates that have a name here, at the middle budget."""
    pooled = tables["atlas"]
    return pooled[np.isclose(pooled["share"], SHARES[1]) & pooled["update"].isin(list(_UPDATES))]


def atlas(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """Draw shares of the energy, updates against families, and beside them low rank's lead."""
    pooled = _middle(tables)
    updates = [name for name in _UPDATES if name in set(pooled["update"])]
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, 1.6 + 0.22 * len(updates)), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True, width_ratios=[3.2, 1])
        _shares(left, pooled, updates)
        leads = tables.get("atlas_leads", pd.DataFrame())
        if len(leads):
            _leads(right, leads, updates)
        else:
            right.set_axis_off()
    return figure


def _shares(axes: Axes, pooled: pd.DataFrame, updates: list[str]) -> None:
    families = shown_families(pooled)
    grid = pooled.pivot_table(index="update", columns="family", values="captured")
    values = np.ma.masked_invalid(grid.reindex(updates)[families].to_numpy(dtype=float))
    norm = LogNorm(SHARES[1] / 2, 1.0)
    axes.pcolormesh(np.clip(values, norm.vmin, 1), norm=norm, cmap="cividis", edgecolors="white")
    for row, column in np.argwhere(~np.ma.getmaskarray(values)):
        share = float(values[row, column])
        axes.text(
            column + 0.5,
            row + 0.5,
            f"{100 * share:.2g}" if share > _LEAST else "0",
            ha="center",
            va="center",
            fontsize=5,
            color="black" if norm(share) > 0.6 else "white",
        )
    kinds = [FAMILIES[name].group for name in families]
    for place in range(1, len(families)):
        if kinds[place] != kinds[place - 1]:
            axes.axvline(place, color="black", lw=0.8)
    axes.set_xticks(
        np.arange(len(families)) + 0.5,
        [name.replace("_", " ") for name in families],
        rotation=60,
        ha="right",
        rotation_mode="anchor",
        fontsize=6,
    )
    axes.set_yticks(np.arange(len(updates)) + 0.5, [_UPDATES[name] for name in updates])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.set_title(f"% of ‖ΔW‖², one number for {round(1 / SHARES[1])} entries")
    axes.invert_yaxis()


def _leads(axes: Axes, leads: pd.DataFrame, updates: list[str]) -> None:
    for share, colour in zip(SHARES, _COLOURS, strict=True):
        rows = leads[np.isclose(leads["share"], share)].dropna(subset=["lead"]).set_index("update")
        rows = rows.loc[[name for name in updates if name in rows.index]]
        if rows.empty:  # below rank one
            continue
        places = [updates.index(str(name)) + 0.5 for name in rows.index]
        axes.plot(rows["lead"], places, "o", ms=3.5, color=colour, label=f"{100 * share:g} %")
    noise = leads[np.isclose(leads["share"], SHARES[1])].set_index("update")["noise"]
    noise = noise.reindex(updates).dropna()
    places = [updates.index(str(name)) + 0.5 for name in noise.index]
    axes.plot(noise, places, "|", ms=6, color=GREY, label="noise")
    axes.axvline(1, color="black", lw=0.8)
    axes.set(xscale="log", xlabel="low rank / best core")
    axes.figure.legend(loc="outside upper right", ncols=4, handletextpad=0.1, columnspacing=0.8)


def _in_words(tables: Mapping[str, pd.DataFrame]) -> str:
    """Say for every update which family holds most at the middle budget, and low rank's lead."""
    pooled, parts = _middle(tables), []
    leads = tables.get("atlas_leads", pd.DataFrame())
    for name in (one for one in _UPDATES if one in set(pooled["update"])):
        own = pooled[pooled["update"] == name].set_index("family")["captured"]
        shown = own[[one for one in shown_families(pooled) if one in own.index]].dropna()
        if shown.empty:
            continue
        best = str(shown.idxmax())
        text = f"{_UPDATES[name]}: {best.replace('_', ' ')} holds most, {percent(shown[best])}"
        if len(leads):
            row = leads[(leads["update"] == name) & np.isclose(leads["share"], SHARES[1])]
            if row["lead"].notna().any():
                text += f", low rank {number(row['lead'].iloc[0])} times the best core"
        parts.append(text)
    return f"With one number for {round(1 / SHARES[1])} entries. {'; '.join(parts)}."


DRAWING = Drawing(
    atlas,
    "What each family of updates can express of real ones",
    "Left: the share of each update's energy that the best update of a family holds with one "
    "trained number for a hundred entries; of each kind the four families that hold most. Right: "
    "how many times what the best CoSA core holds low rank does, at three budgets, and of noise at "
    "the middle one. Left of 1 a core would hold more.",
    lambda tables: bool(_middle(tables)["captured"].notna().any()),
    _in_words,
)


if __name__ == "__main__":
    sys.exit(draw_table("atlas", DRAWING, "atlas", beside=["atlas_leads"]))
