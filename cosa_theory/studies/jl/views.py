"""How the document of `cosa-theory jl` is shown: rows needed, distortions, the Kronecker law."""

from collections.abc import Callable, Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, memory, number, percent
from cosa_theory.projections import printed_name

__all__ = ["PRESENTATION", "duration", "tolerance"]

Row = Mapping[Any, Any]

_ROUNDING = 1e-10


def duration(seconds: Any) -> str:
    """Return a short time in microseconds."""
    return MISSING if pd.isna(seconds) else f"{number(1e6 * float(seconds))} µs"


def tolerance(eps: Any) -> str:
    """Return a distortion that was asked for, with all its digits."""
    return f"{100 * float(eps):g} %"


def _share(value: Any) -> str:
    """Return a share in per cent; what is only rounding (an exact isometry) as 0."""
    return percent(0.0 if abs(float(value)) < _ROUNDING else value)


def _interval(name: str) -> Callable[[Row], str]:
    """Show "1.2 % [1.0, 1.4]", from an estimate and its ends; an infinite end as ∞."""

    def text(row: Row) -> str:
        if pd.isna(row[name]):
            return MISSING
        low, high = (
            _share(end).removesuffix(" %") for end in (row[f"{name}_low"], row[f"{name}_high"])
        )
        return f"{_share(row[name])} [{low}, {high}]"

    return text


_OF = (
    Column("vectors_of", "vectors", text=True),
    Column("kind", "ensemble", cell=printed_name, text=True),
)
_NEEDED = (
    *_OF,
    Column("k", "rows k", "least k (steps of 9 %, up to d) that meets the distortion", count),
    Column(
        None,
        "95 % distortion",
        "95 % quantile of |‖Ax‖²/‖x‖² − 1| at that k, with its interval",
        _interval("quantile"),
    ),
    Column("seconds", "time a vector", "warm, one thread, vectors projected together", duration),
    Column("bytes", "memory", "of the projection, in the form it is multiplied in", memory),
)
_ENSEMBLES = (
    *_OF,
    Column(
        None,
        "mean",
        "mean of |‖Ax‖²/‖x‖² − 1|, with its 95 % interval over draws",
        _interval("mean"),
    ),
    Column(
        None,
        "95 %",
        "95 % quantile over the vectors of a draw, mean over draws, with interval",
        _interval("quantile"),
    ),
    Column("max", "max", "largest of all draws and vectors", _share),
    Column(
        None,
        "failures",
        "share of vectors off by more than ε, with its 95 % interval",
        _interval("failure"),
    ),
    Column(
        "chi_square", "χ² law", "the exact failure probability of a Gaussian projection", percent
    ),
    Column("seconds", "time a vector", "warm, one thread", duration),
    Column("bytes", "memory", "of the projection", memory),
)
_KRONECKER = (
    Column("layer", "layer", text=True),
    Column(None, "shape", "m × n", lambda row: f"{row['m']} × {row['n']}"),
    Column("participation_ratio", "PR", "participation ratio (Σσ²)²/Σσ⁴ of ΔW", number),
    Column(
        None, "a + b + 1", "what PR must exceed by far", lambda row: count(row["a"] + row["b"] + 1)
    ),
    Column(
        None,
        "variance, measured",
        "of ‖A ΔW Bᵀ‖²/‖ΔW‖² over draws, with its 95 % interval",
        lambda row: (
            f"{number(row['variance'])} [{number(row['ci_low'])}, {number(row['ci_high'])}]"
        ),
    ),
    Column(
        "law", "law", "2/(ab) + (2/a + 2/b + 2/(ab))/PR, and its forms for other ensembles", number
    ),
    Column(
        None,
        "law × ab/2",
        "times the variance of an unstructured map with ab rows",
        lambda row: number(row["law"] / row["unstructured"]),
    ),
)


def _needed_title(table: pd.DataFrame) -> str:
    return f"Rows needed to keep 95 % of squared norms within {tolerance(table['eps'].iloc[0])}"


def _ensembles_title(table: pd.DataFrame) -> str:
    first = table.iloc[0]
    return (
        f"Distortion of squared norms at k = {count(first['k'])} of d = {count(first['d'])} "
        f"({count(first['draws'])} draws, {count(table['vectors'].max())} vectors, failures beyond "
        f"{tolerance(first['eps'])})"
    )


def _kronecker_title(table: pd.DataFrame) -> str:
    return f"Kronecker variance law, {printed_name(table['kind'].iloc[0])} factors"


_TABLES = {"needed": (_needed_title, _NEEDED), "ensembles": (_ensembles_title, _ENSEMBLES)}
_DETAILS = {"kronecker": (_kronecker_title, _KRONECKER)}

Shown = Mapping[str, tuple[Callable[[pd.DataFrame], str], tuple[Column, ...]]]


def _views(shown: Shown) -> Callable[[Document], list[View]]:
    """Return how those tables are shown that a document has."""

    def views(document: Document) -> list[View]:
        found = document.tables
        return [
            View.of(title(found[name]), columns, found[name])
            for name, (title, columns) in shown.items()
            if name in found
        ]

    return views


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.jl.figures import FIGURES

    return FIGURES


PRESENTATION = Presentation(
    title="Johnson-Lindenstrauss: what random projections keep",
    tables=("dimension", "needed", "ensembles", "curves", "kronecker"),
    views=_views(_TABLES),
    detail_views=_views(_DETAILS),
    figures=_figures,
    terms=(
        (
            "distortion",
            "|‖Ax‖²/‖x‖² − 1|, how much a projection A at analysis scale (E‖Ax‖² = ‖x‖²) "
            "changes a squared norm.",
        ),
        (
            "95 % distortion",
            "the value below which 95 % of the vectors lie; averaged over independent draws of A, "
            "with Student's 95 % interval over the draws.",
        ),
        (
            "failures, χ² law",
            Markup(
                "the share of vectors whose distortion exceeds ε. For Gaussian A, k‖Ax‖²/‖x‖² is "
                "exactly χ²<sub>k</sub>, which gives the law's column."
            ),
        ),
        (
            "dimension for n points",
            "k ≥ 4 ln n/(ε²/2 − ε³/3), rounded up (Dasgupta and Gupta 2003): then some draw keeps "
            "all squared distances; a given draw does so with positive probability.",
        ),
        (
            "Kronecker variance law",
            "Var‖A X Bᵀ‖² = 2/(ab) + (2/a + 2/b + 2/(ab))/PR(X) for Gaussian factors and "
            "‖X‖ = 1; an unstructured map with ab rows has 2/(ab), so that the two agree only "
            "where the participation ratio PR is much larger than a + b + 1.",
        ),
    ),
)
