"""How the isometry of a layer or a matrix is shown: brackets, cores, columns, guarantees."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, number
from cosa_theory.projections import printed_name
from cosa_theory.studies.rip.operators import OPERATORS
from cosa_theory.studies.rip.verdict import small

__all__ = ["PRESENTATION"]

Row = Mapping[Any, Any]

_COLUMNS_SHOWN = 8
_ENSEMBLE = (
    Column("kind", "ensemble", cell=printed_name, text=True),
    Column("scale", "scale", "of the factors", text=True),
)


def _about(explanation: str = "") -> Column:
    return Column("about", "about", explanation, lambda name: OPERATORS[name].symbol, text=True)


_OF_A_MATRIX = (_about(),)
_OF_A_LAYER = (
    _about(
        "Ψ = L ⊗ Rᵀ, the tall dictionary (mn × ab); Φ = Lᵀ ⊗ R, the wide sensing operator (ab × mn)"
    ),
    *_ENSEMBLE,
)


def _outcome(row: Row) -> str:
    return "exact" if row["exact"] else "vacuous" if row["vacuous"] else ""


def _interval(low: Any, high: Any) -> str:
    return MISSING if pd.isna(low) else f"[{small(low)}, {small(high)}]"


def _support(text: str) -> str:
    """Shorten a long list of columns; the table keeps it whole."""
    columns = text.split(", ")
    shown = ", ".join(columns[:_COLUMNS_SHOWN])
    return shown + (", …" if len(columns) > _COLUMNS_SHOWN else "")


def _babel(row: Row) -> str:
    return MISSING if pd.isna(row["babel"]) else f"{small(row['babel'])} ({row['babel_terms']})"


def _spark(row: Row) -> str:
    low, high = row["spark_lower"], row["spark_upper"]
    if math.isinf(low):
        return "no dependent set"
    return count(low) if low == high else f"{count(low)}–{count(high)}"


_BRACKETS = (
    Column("s", "s", "order: number of nonzero entries", count),
    Column("lower", "δ_s at least", "by a vector that proves it", small),
    Column("upper", "δ_s at most", "by a bound on all supports at once", small),
    Column(
        None,
        "that is",
        "vacuous where the upper end reaches 1 and nothing is promised; exact where both ends are "
        "the constant",
        _outcome,
        text=True,
    ),
    Column(
        None,
        "at the best scale",
        "bracket of (κ² − 1)/(κ² + 1) over s-sparse vectors",
        lambda row: _interval(row["scale_free_lower"], row["scale_free_upper"]),
    ),
    Column("lower_method", "lower end by", text=True),
    Column("upper_method", "upper end by", text=True),
    Column("worst_support", "worst support", "of the vector found", _support, text=True),
    Column("seconds", "seconds", cell=number, detail=True),
)
_CORES = (
    *_ENSEMBLE,
    Column("least", "least", "of ‖L Y R‖²/‖Y‖² over all cores: exact", number),
    Column("greatest", "greatest", "likewise", number),
    Column("delta", "δ", "isometry constant over all cores, max(greatest − 1, 1 − least)", small),
    Column("condition", "κ", "condition number of Ψ", small),
    Column("scale_free", "best scale", "(κ² − 1)/(κ² + 1), δ after the best rescaling", small),
    Column(
        None,
        "Bai-Yin range",
        "limits of least and greatest for large independent entries of the same mean square",
        lambda row: _interval(row["bai_yin_least"], row["bai_yin_greatest"]),
    ),
    Column("bai_yin_delta", "Bai-Yin δ", "and the constant they would give", small),
)
_COLUMNS = (
    Column(
        None,
        "size",
        "rows × columns",
        lambda row: f"{count(row['rows'])} × {count(row['columns'])}",
    ),
    Column(
        None,
        "column norms",
        "least to greatest",
        lambda row: f"{number(row['least_norm'])}–{number(row['greatest_norm'])}",
    ),
    Column("coherence", "coherence μ", "largest cosine of two columns", small),
    Column("welch", "Welch", "no coherence of as many columns is below", small),
    Column(None, "Babel", "largest sum of so many cosines with one column", _babel),
    Column(None, "spark", "bounds of the least number of dependent columns", _spark),
)
_GUARANTEES = (
    Column("algorithm", "algorithm", text=True),
    Column("condition", "condition", text=True),
    Column(
        "sparsity",
        "s",
        "largest sparsity for which the condition is shown",
        lambda s: "any" if math.isinf(s) else count(s),
    ),
    Column("threshold", "needs below", "threshold at that s (at s = 1 where it is 0)", number),
    Column("delta", "known", "upper bound of the constant, or μ", small),
    Column(
        "sharp",
        "sharp",
        "whether the condition is known to be the best of its kind",
        lambda sharp: "yes" if sharp else "no",
        text=True,
    ),
    Column("source", "source", text=True),
)
_TABLES = {
    "brackets": ("Restricted isometry constants: proven brackets", _BRACKETS),
    "cores": ("The dictionary Ψ over all cores, dense ones included", _CORES),
    "columns": ("Columns: coherence and spark", _COLUMNS),
    "guarantees": ("Guaranteed recovery of every s-sparse vector, without noise", _GUARANTEES),
}


def _views(document: Document) -> list[View]:
    shown = []
    for name, (title, columns) in _TABLES.items():
        if name in document.tables:
            table = document.tables[name]
            if "about" in table:
                columns = (*(_OF_A_LAYER if "kind" in table else _OF_A_MATRIX), *columns)
            shown.append(View.of(title, columns, table))
    return shown


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.rip.figures import FIGURES

    return FIGURES


PRESENTATION = Presentation(
    title="Restricted isometry: what is proven",
    tables=tuple(_TABLES),
    views=_views,
    figures=_figures,
    terms=(
        (
            Markup("restricted isometry constant δ<sub>s</sub>"),
            "the smallest δ with (1 − δ)‖x‖² ≤ ‖Ax‖² ≤ (1 + δ)‖x‖² for all x with at most s "
            "nonzero entries. Finding it is NP-hard, so both ends of a bracket are proven instead: "
            "the lower by a vector, the upper by a bound that covers all supports.",
        ),
        ("vacuous", "an upper end of 1 or more: some s-sparse vector might be lost altogether."),
        (
            "Ψ and Φ",
            "the tall dictionary Ψ = L ⊗ Rᵀ maps a core Y to the update L Y R; the wide sensing "
            "operator Φ = Lᵀ ⊗ R maps an update to Lᵀ ΔW Rᵀ. Ψ loses nothing; Φ must, and its "
            "constants say which sparse updates it still tells apart.",
        ),
        (
            "scale",
            "analysis: entries of variance 1/a and 1/b, so that Φ keeps norms on average; "
            "synthesis: 1/m and 1/n, so that Ψ does. δ depends on it; the value at the best scale "
            "does not.",
        ),
        (
            "worst support",
            "where the nonzero entries of the vector found lie in the core (Ψ) or in ΔW (Φ): "
            "packed in one row or column they meet one factor alone.",
        ),
        (
            "spark",
            "the least number of linearly dependent columns: only vectors with fewer than half as "
            "many nonzero entries are sure to be the sparsest with their measurements. Of a "
            "Kronecker product it is that of the worse factor, at most min(a, b) + 1 for Φ.",
        ),
    ),
)
