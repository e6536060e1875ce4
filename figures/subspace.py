"""What a random subspace costs: paired differences of the arms, and what predicts their losses.

Example: `python -m figures.subspace results/subspace --out results/figures`
"""

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cosa_theory.page.presentation import Drawing
from cosa_theory.page.style import (
    BLUE,
    GREEN,
    GREY,
    PAGE_WIDTH,
    PURPLE,
    VERMILION,
    house_style,
    label_text,
)
from experiments.subspace.arms import ARMS
from experiments.subspace.study import read_study
from figures.command import draw_table

__all__ = ["DRAWING"]

_TASKS = {
    "r8": "encoder, Reuters R8",
    "newsgroups": "encoder, 20 Newsgroups",
    "functions": "SmolLM2, functions",
}
_OUTCOMES = {"better": (GREEN, "^"), "worse": (VERMILION, "v"), "undecided": (GREY, "o")}
_MEASURES = {
    "energy": "energy of the full update",
    "weighted": "the same, weighted by inputs",
    "function": "function recovered",
    "gradients": "energy of the gradients",
}
_SUBSPACES = {
    "random": (GREY, "o"),
    "activations": (BLUE, "^"),
    "gradients": (PURPLE, "s"),
    "from W": (VERMILION, "D"),
}

Tables = Mapping[str, pd.DataFrame]


def subspace(tables: Tables) -> Figure:
    """Draw a panel of intervals for each task, and below it its predictors where they are known."""
    comparisons = tables["subspace_compared"]
    arms, measured = (
        tables.get(f"subspace_{name}", pd.DataFrame()) for name in ("arms", "measured")
    )
    tasks = [one for one in _TASKS if one in set(comparisons["task"])]
    known = [one for one in tasks if len(arms) and len(measured) and one in set(measured["task"])]
    pairs = comparisons[["arm", "against"]].drop_duplicates().apply(tuple, axis=1).tolist()
    heights = [0.19 * len(pairs) + 0.5, *([1.55] * len(known))]
    with house_style():
        figure = Figure(figsize=(PAGE_WIDTH, sum(heights) + 0.4), layout="constrained")
        rows = figure.subfigures(1 + len(known), 1, height_ratios=heights, squeeze=False)[:, 0]
        panels = rows[0].subplots(1, len(tasks), squeeze=False, sharex=True, sharey=True)[0]
        for task, ax in zip(tasks, panels, strict=True):
            _forest(ax, comparisons[comparisons["task"] == task], pairs)
            ax.set_title(_TASKS[task])
        panels[0].set_yticks(
            [-place for place in range(len(pairs))],
            [label_text(f"{ARMS[arm].label} − {ARMS[other].label}") for arm, other in pairs],
        )
        for task, row in zip(known, rows[1:], strict=True):
            both = measured[measured["task"] == task].merge(arms, on=["task", "arm"])
            _scatter(row.subplots(1, len(_MEASURES), sharey=True), both[both["arm"] != "full"])
            row.suptitle(
                f"{_TASKS[task]}: test loss against what was known before",
                x=0.01,
                ha="left",
                fontsize=9,
            )
    return figure


def _forest(ax: Axes, own: pd.DataFrame, pairs: Sequence[tuple[str, str]]) -> None:
    """Draw an interval for every comparison of a task, each pair in the same row of all panels."""
    effect = read_study().smallest_effect
    ax.axvspan(-effect, effect, color=GREY, alpha=0.15, lw=0)
    ax.axvline(0, color=GREY, lw=0.8)
    for _, one in own.iterrows():
        place = pairs.index((one["arm"], one["against"]))
        colour, marker = _OUTCOMES[one["outcome"]]
        error = [[one["difference"] - one["low"]], [one["high"] - one["difference"]]]
        ax.errorbar(
            one["difference"], -place, xerr=error, color=colour, marker=marker, elinewidth=1
        )
    ax.tick_params(axis="y", labelsize=6.5, length=0)
    ax.set_ylim(-len(pairs) + 0.4, 0.6)
    ax.set_xlabel("first − second, nats")
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 4, 10]))  # so that none touch
    ax.grid(visible=False, axis="y")


def _scatter(axes: Any, both: pd.DataFrame) -> None:
    for ax, (name, label) in zip(axes, _MEASURES.items(), strict=True):
        for subspace_of, (colour, marker) in _SUBSPACES.items():
            part = both[both["subspace"] == subspace_of]
            ax.plot(part[name], part["loss"], marker, color=colour, label=subspace_of)
        ax.set_xlabel(label, fontsize=7.5)
    axes[0].set_ylabel("test loss, nats")
    axes[-1].legend(fontsize=6.5, handletextpad=0.2, loc="best")


def _in_words(tables: Tables) -> str:
    """Say every comparison with its interval and outcome, task by task."""
    comparisons, parts = tables["subspace_compared"], []
    for task in (one for one in _TASKS if one in set(comparisons["task"])):
        own = comparisons[comparisons["task"] == task]
        told = [
            f"{ARMS[one['arm']].label} minus {ARMS[one['against']].label} "
            f"{one['difference']:+.3f} ({one['low']:+.3f} to {one['high']:+.3f}), {one['outcome']}"
            for _, one in own.iterrows()
        ]
        parts.append(f"{_TASKS[task]}: {'; '.join(told)}")
    return f"Difference of the held-out loss in nats. {'. '.join(parts)}."


DRAWING = Drawing(
    draw=subspace,
    title="What a fixed random subspace costs",
    caption="Above: mean difference of the held-out loss, in nats, of two arms of equal trainable "
    "parameters, paired on seeds, with 95 % intervals over seeds and items; negative is better for "
    "the first. Triangles: decided; circles: undecided. Grey: the smallest effect of interest. "
    "Below: the mean test loss of each arm against what was measured before it was trained.",
    drawable=lambda tables: bool(set(tables["subspace_compared"]["task"]) & set(_TASKS)),
    says=_in_words,
)

if __name__ == "__main__":
    beside = ("subspace_arms", "subspace_measured")
    sys.exit(draw_table("subspace", DRAWING, "subspace_compared", beside=beside))
