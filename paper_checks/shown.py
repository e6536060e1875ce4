"""How verdicts are shown: one figure per claim, of its own numbers against their threshold."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from cosa_theory.page.document import FIGURES, PAGE, Document, Tables
from cosa_theory.page.panels import panels_of
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.style import (
    BLACK,
    BLUE,
    GREY,
    PAGE_WIDTH,
    VERMILION,
    house_style,
    label_text,
)
from cosa_theory.page.views import Column, View, count, number

__all__ = ["claim_figure", "page_files", "shown"]

_OUTCOMES = {"holds": (BLUE, "o"), "fails": (VERMILION, "X"), "undecided": (GREY, "s")}
_NAMED = 14  # cases of a panel, up to which each has its name beside it
_DECADES = 2  # over which positive numbers are drawn on a logarithmic axis


def claim_figure(tables: Tables, claim: str) -> Figure:
    """Draw the cases of a claim with their intervals: a panel for each threshold, page wide.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        `cases`, as `paper_checks.run.claims` makes it.
    claim : str
        Its identifier.
    """
    cases = tables["cases"][tables["cases"]["id"] == claim]
    # A threshold that only controls have to meet is told in words, and not drawn.
    panels = [
        rows for _, rows in cases.groupby("threshold", sort=False) if not rows["control"].all()
    ] or [cases]
    columns = min(2, len(panels))
    tallest = max(len(rows) if len(rows) <= _NAMED else 12 for rows in panels)
    lines = -(-len(panels) // columns)
    with house_style():
        height = 0.35 + lines * (0.85 + 0.15 * max(4, tallest))
        figure = Figure(figsize=(PAGE_WIDTH, height), layout="constrained")
        for ax, rows in zip(panels_of(figure, len(panels), columns), panels, strict=True):
            _plot(ax, rows, alone=len(panels) == 1)
        marks = [
            Line2D([], [], color=colour, marker=marker, ls="", label=word)
            for word, (colour, marker) in _OUTCOMES.items()
        ]
        bound = Line2D([], [], color=BLACK, ls="--", lw=0.9, label="threshold")
        figure.legend(handles=[*marks, bound], loc="outside upper left", ncols=4, borderpad=0)
    return figure


def _plot(ax: Axes, rows: pd.DataFrame, alone: bool) -> None:
    """Draw the cases of one threshold, many sorted; controls are hollow."""
    first = rows.iloc[0]
    ordered = rows if len(rows) <= _NAMED else rows.sort_values("value")
    places = np.arange(len(ordered))
    for (outcome, control), part in ordered.assign(place=places).groupby(["outcome", "control"]):
        colour, marker = _OUTCOMES[str(outcome)]
        low, high = part["value"] - part["low"], part["high"] - part["value"]
        ax.errorbar(
            part["value"],
            part["place"],
            xerr=np.clip(np.nan_to_num(np.vstack([low, high]).astype(float)), 0, None),
            ls="none",
            color=colour,
            marker=marker,
            markerfacecolor="white" if control else colour,
            elinewidth=0.8,
        )
    ax.axvline(first["bound"], color=BLACK, ls="--", lw=0.9)
    values = np.concatenate(
        [rows[["value", "low", "high"]].to_numpy(float).ravel(), [first["bound"]]]
    )
    values = values[np.isfinite(values)]
    if values.min() > 0 and np.log10(values.max() / values.min()) > _DECADES:
        ax.set_xscale("log")
    names = [label_text(str(name), 60 if alone else 30) for name in ordered["name"]]
    if len(rows) <= _NAMED:
        ax.set_yticks(places, names)
    else:
        ax.set_yticks([])
        ax.set_ylabel(f"{len(rows)} cases, sorted")
    ax.invert_yaxis()
    ax.set_title(label_text(f"{first['relation']} {first['bound']:g} (set on {first['date']})"))
    ax.set_xlabel(label_text(str(first["quantity"]), 72 if alone else 44))


def _in_words(tables: Tables, claim: str) -> str:
    """Say how many cases are on which side of each threshold, and what their numbers are."""
    cases = tables["cases"][tables["cases"]["id"] == claim]
    parts = []
    for _, rows in cases.groupby("threshold", sort=False):
        first, found = rows.iloc[0], rows["outcome"].value_counts()
        outcomes = ", ".join(f"{found[word]} {word}" for word in _OUTCOMES if word in found)
        parts.append(
            f"{first['quantity']}, {first['relation']} {first['bound']:g}: {len(rows)} cases "
            f"from {number(rows['value'].min())} to {number(rows['value'].max())} ({outcomes})"
        )
    return f"{claim}: {'; '.join(parts)}."


_GLANCE = (
    Column("id", "claim", text=True),
    Column("verdict", "verdict", text=True, outcome=True),
    Column("holds", "holds", "cases that are on the right side of their threshold", count),
    Column("fails", "fails", "on the wrong side", count),
    Column("undecided", "undecided", "the threshold is inside the interval", count),
    Column("claim", "in our words", text=True),
    Column("summary", "found", text=True),
    Column("criterion", "criterion, with its day", text=True),
)
_CASES = (
    Column("id", "claim", text=True),
    Column("name", "case", text=True),
    Column("group", "condition", text=True),
    Column("value", "measured", "", number),
    Column("low", "from", "95 % interval", number),
    Column("high", "to", "95 % interval", number),
    Column(None, "threshold", "", lambda row: f"{row['relation']} {row['bound']:g}"),
    Column("date", "set on", "the day on which the threshold was committed", text=True),
    Column(
        "control", "control", "shows that the measurement works", lambda one: "yes" if one else ""
    ),
    Column("outcome", "outcome", text=True, outcome=True),
)


def shown(document: Document) -> Presentation:
    """Return how verdicts are shown: a figure for each claim that was measured."""
    checks, cases = document.tables["verdicts"], document.tables["cases"]
    claims = checks["id"][checks["id"].isin(cases["id"])]

    def drawn() -> dict[str, Drawing]:
        return {claim: _drawing(claim, checks) for claim in map(str, claims)}

    return Presentation(
        title="The paper's claims, checked",
        tables=("verdicts", "cases"),
        views=lambda found: [View.of("Every claim", _GLANCE, checks)],
        detail_views=lambda found: [View.of("Every case", _CASES, cases)],
        figures=drawn,
        terms=(
            (
                "Holds, holds under conditions, fails, undecided",
                "A case holds or fails where its whole interval lies on one side of the threshold. "
                "A claim holds or fails where all its cases agree, and holds under conditions "
                "where some hold and some fail. Failed controls leave it undecided.",
            ),
            (
                "Threshold",
                "It was committed before the first result that it judges, on the day it states; a "
                "test reads that day from the history.",
            ),
        ),
        headings=("Verdicts", "Cases"),
    )


def _drawing(claim: str, checks: pd.DataFrame) -> Drawing:
    row = checks[checks["id"] == claim].iloc[0]
    draw: Callable[[Tables], Figure] = partial(claim_figure, claim=claim)
    return Drawing(
        draw,
        f"{claim} {row['verdict']}",
        f"{row['claim']} Each mark is a case with its interval, each dashed line a threshold; "
        "hollow marks are controls.",
        lambda tables: True,
        partial(_in_words, claim=claim),
    )


def page_files(claims: Sequence[str]) -> set[str]:
    """Return the files of the page of these claims."""
    return {PAGE, *(f"{FIGURES}/{claim}.{kind}" for claim in claims for kind in ("pdf", "png"))}
