"""The document of `cosa-theory rip`: its verdict, and how its tables are shown."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, number
from cosa_theory.projections import printed_name

__all__ = ["PRESENTATION", "operator_name", "rip_verdict"]

_SYMBOLS = {"dictionary": "Ψ", "sensing": "Φ", "matrix": "A"}
_SUBJECTS = {"dictionary": "cores", "sensing": "updates", "matrix": "vectors"}
_ROUNDING = 1e-10
_COLUMNS_SHOWN = 8


def _small(value: Any) -> str:
    """Return a number; what is only rounding (an exact isometry) as 0."""
    if value is None or pd.isna(value):
        return MISSING
    if math.isinf(value):
        return "∞"
    return number(0.0 if abs(float(value)) < _ROUNDING else value)


def _bracket(row: Any) -> str:
    return f"[{_small(row['lower'])}, {_small(row['upper'])}]"


def _of_orders(rows: pd.DataFrame) -> str:
    """Say up to which order a bracket promises something, and from which it is shown to fail."""
    rows = rows.sort_values("s")
    symbol, subject = (names[rows["about"].iloc[0]] for names in (_SYMBOLS, _SUBJECTS))
    shown, lost = rows[rows["upper"] < 1], rows[rows["lower"] >= 1]
    if len(shown):
        best = shown.iloc[-1]
        sentence = (
            f"{symbol} is proven to have δ_s < 1 on {subject} with up to {_entries(best['s'])} "
            f"(δ_{best['s']} in {_bracket(best)})"
        )
    elif len(lost) == len(rows):
        first = rows.iloc[0]
        return (
            f"{symbol} is proven to have δ_s ≥ 1 at every order asked (δ_{first['s']} in "
            f"{_bracket(first)})"
        )
    else:
        first = rows.iloc[0]
        sentence = (
            f"{symbol} is not proven to have δ_s < 1 at any order asked (δ_{first['s']} in "
            f"{_bracket(first)})"
        )
    if len(lost):
        worst = lost.iloc[0]
        sentence += (
            f", and proven to have δ_s ≥ 1 from s = {worst['s']} on (δ_{worst['s']} in "
            f"{_bracket(worst)})"
        )
    return sentence


def _of_cores(cores: pd.DataFrame, kind: str, scale: str) -> str:
    row = cores[(cores["kind"] == kind) & (cores["scale"] == scale)].iloc[0]
    if abs(row["delta"]) < _ROUNDING:
        return "over all cores, dense ones included, it is an isometry to rounding"
    condition = "infinite" if math.isinf(row["condition"]) else number(row["condition"])
    return (
        f"over all cores, dense ones included, δ = {number(row['delta'])} and its condition "
        f"number is {condition}"
    )


def _of_recovery(guarantees: pd.DataFrame, kind: str | None, subject: str) -> str:
    rows = guarantees if kind is None else guarantees[guarantees["kind"] == kind]
    best = rows.sort_values("sparsity", kind="stable").iloc[-1]
    if best["sparsity"] < 1:
        return f"at no sparsity is an algorithm guaranteed to recover all {subject}"
    return (
        f"all {subject} with at most {_entries(best['sparsity'])} are guaranteed to be recovered "
        f"by {best['algorithm']}"
    )


def _of_spark(columns: pd.DataFrame, subject: str) -> str:
    """Say what no method can do, where the spark is known to end."""
    upper = float(columns["spark_upper"].iloc[0])
    if math.isinf(upper):
        return ""
    limit = math.floor((upper - 1) / 2)
    return f", and no method recovers all {subject} with more than {_entries(limit)}"


def _entries(sparsity: float) -> str:
    """Return "4 nonzero entries"."""
    if math.isinf(sparsity):
        return "any number of nonzero entries"
    return f"{count(sparsity)} nonzero {'entry' if sparsity == 1 else 'entries'}"


def rip_verdict(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what the tables say, in plain sentences on one line.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        As `cosa_theory.studies.rip.tables` makes them. Of several ensembles the first speaks.
    """
    brackets = tables["brackets"]
    kinds = list(dict.fromkeys(brackets["kind"])) if "kind" in brackets else []
    kind = kinds[0] if kinds else None
    sentences = []
    for about in dict.fromkeys(brackets["about"]):
        rows = brackets[brackets["about"] == about]
        rows = rows if kind is None else rows[rows["kind"] == kind]
        sentences.append(_of_orders(rows))
        if about == "dictionary" and kind is not None:
            sentences.append(_of_cores(tables["cores"], kind, str(rows["scale"].iloc[0])))
        elif "guarantees" in tables:
            subject = _SUBJECTS[about]
            found = tables["columns"][tables["columns"]["about"] == about]
            found = found if kind is None else found[found["kind"] == kind]
            recovery = _of_recovery(tables["guarantees"], kind, subject)
            sentences.append(recovery + _of_spark(found, subject))
    text = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    if kind is None:
        return text
    others = "" if len(kinds) == 1 else f" ({len(kinds) - 1} other ensembles below)"
    return f"With {printed_name(kind)} factors{others}, {text}"


def operator_name(row: Mapping[Any, Any]) -> str:
    """Return what a row of a table is about, as in "Φ (Rademacher)"."""
    symbol = _SYMBOLS[row["about"]]
    return f"{symbol} ({printed_name(row['kind'])})" if "kind" in row else symbol


def _kind_cells(row: Mapping[Any, Any]) -> tuple[str, ...]:
    cells = [_SYMBOLS[row["about"]]]
    if "kind" in row:
        cells += [printed_name(row["kind"]), row["scale"]]
    return tuple(cells)


def _kind_columns(table: pd.DataFrame) -> tuple[Column, ...]:
    about = Column(
        None,
        "about",
        "Ψ = L ⊗ Rᵀ, the tall dictionary (mn × ab); Φ = Lᵀ ⊗ R, the wide sensing operator "
        "(ab × mn)",
        text=True,
    )
    if "kind" not in table:
        return (Column(None, "about", text=True),)
    return (
        about,
        Column(None, "ensemble", text=True),
        Column(None, "scale", "of the factors", text=True),
    )


def _range(low: Any, high: Any) -> str:
    return MISSING if pd.isna(low) else f"[{_small(low)}, {_small(high)}]"


def _support(text: str) -> str:
    """Shorten a long list of columns; the table keeps it whole."""
    columns = text.split(", ")
    shown = ", ".join(columns[:_COLUMNS_SHOWN])
    return shown + (", …" if len(columns) > _COLUMNS_SHOWN else "")


def _bracket_view(document: Document) -> View:
    table = document.tables["brackets"]
    columns = (
        *_kind_columns(table),
        Column(None, "s", "order: number of nonzero entries"),
        Column(None, "δ_s at least", "by a vector that proves it"),
        Column(None, "δ_s at most", "by a bound on all supports at once"),
        Column(
            None,
            "that is",
            "vacuous where the upper end reaches 1 and nothing is promised; exact where both ends "
            "are the constant",
            text=True,
        ),
        Column(None, "at the best scale", "bracket of (κ² − 1)/(κ² + 1) over s-sparse vectors"),
        Column(None, "lower end by", text=True),
        Column(None, "upper end by", text=True),
        Column(None, "worst support", "of the vector found", text=True),
        Column(None, "seconds", detail=True),
    )
    rows = tuple(
        (
            *_kind_cells(row),
            count(row["s"]),
            _small(row["lower"]),
            _small(row["upper"]),
            "exact" if row["exact"] else "vacuous" if row["vacuous"] else "",
            f"[{_small(row['scale_free_lower'])}, {_small(row['scale_free_upper'])}]",
            row["lower_method"],
            row["upper_method"],
            _support(row["worst_support"]),
            number(row["seconds"]),
        )
        for row in table.to_dict("records")
    )
    return View("Restricted isometry constants: proven brackets", columns, rows)


def _core_view(document: Document) -> View:
    columns = (
        Column(None, "ensemble", text=True),
        Column(None, "scale", "of the factors", text=True),
        Column(None, "least", "of ‖L Y R‖²/‖Y‖² over all cores: exact"),
        Column(None, "greatest", "likewise"),
        Column(None, "δ", "isometry constant over all cores, max(greatest − 1, 1 − least)"),
        Column(None, "κ", "condition number of Ψ"),
        Column(None, "best scale", "(κ² − 1)/(κ² + 1), δ after the best rescaling"),
        Column(
            None,
            "Bai-Yin range",
            "limits of least and greatest for large independent entries of the same mean square",
        ),
        Column(None, "Bai-Yin δ", "and the constant they would give"),
    )
    rows = tuple(
        (
            printed_name(row["kind"]),
            row["scale"],
            number(row["least"]),
            number(row["greatest"]),
            _small(row["delta"]),
            _small(row["condition"]),
            _small(row["scale_free"]),
            _range(row["bai_yin_least"], row["bai_yin_greatest"]),
            _small(row["bai_yin_delta"]),
        )
        for row in document.tables["cores"].to_dict("records")
    )
    return View("The dictionary Ψ over all cores, dense ones included", columns, rows)


def _column_view(document: Document) -> View:
    table = document.tables["columns"]
    columns = (
        *_kind_columns(table),
        Column(None, "size", "rows × columns"),
        Column(None, "column norms", "least to greatest"),
        Column(None, "coherence μ", "largest cosine of two columns"),
        Column(None, "Welch", "no coherence of as many columns is below"),
        Column(None, "Babel", "largest sum of so many cosines with one column"),
        Column(None, "spark", "bounds of the least number of dependent columns"),
    )
    rows = tuple(
        (
            *_kind_cells(row),
            f"{count(row['rows'])} × {count(row['columns'])}",
            f"{number(row['least_norm'])}–{number(row['greatest_norm'])}",
            _small(row["coherence"]),
            _small(row["welch"]),
            MISSING if pd.isna(row["babel"]) else f"{_small(row['babel'])} ({row['babel_terms']})",
            _spark(row),
        )
        for row in table.to_dict("records")
    )
    return View("Columns: coherence and spark", columns, rows)


def _spark(row: Mapping[Any, Any]) -> str:
    low, high = row["spark_lower"], row["spark_upper"]
    if math.isinf(low):
        return "no dependent set"
    return count(low) if low == high else f"{count(low)}–{count(high)}"


def _guarantee_view(document: Document) -> View:
    table = document.tables["guarantees"]
    columns = (
        *_kind_columns(table),
        Column(None, "algorithm", text=True),
        Column(None, "condition", text=True),
        Column(None, "s", "largest sparsity for which the condition is shown"),
        Column(None, "needs below", "threshold at that s (at s = 1 where it is 0)"),
        Column(None, "known", "upper bound of the constant, or μ"),
        Column(
            None, "sharp", "whether the condition is known to be the best of its kind", text=True
        ),
        Column(None, "source", text=True),
    )
    rows = tuple(
        (
            *_kind_cells(row),
            row["algorithm"],
            row["condition"],
            "any" if math.isinf(row["sparsity"]) else count(row["sparsity"]),
            number(row["threshold"]),
            _small(row["delta"]),
            "yes" if row["sharp"] else "no",
            row["source"],
        )
        for row in table.to_dict("records")
    )
    return View("Guaranteed recovery of every s-sparse vector, without noise", columns, rows)


_VIEWS = {
    "brackets": _bracket_view,
    "cores": _core_view,
    "columns": _column_view,
    "guarantees": _guarantee_view,
}


def _views(document: Document) -> list[View]:
    return [view(document) for name, view in _VIEWS.items() if name in document.tables]


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.rip.figures import CORES_FIGURE, ORDERS_FIGURE

    return {"brackets": ORDERS_FIGURE, "cores": CORES_FIGURE}


PRESENTATION = Presentation(
    title="Restricted isometry: what is proven",
    views=_views,
    figures=_figures,
    terms=(
        (
            Markup("restricted isometry constant δ<sub>s</sub>"),
            "the smallest δ with (1 − δ)‖x‖² ≤ ‖Ax‖² ≤ (1 + δ)‖x‖² for all x with at most s "
            "nonzero entries. Finding it is NP-hard, so both ends of a bracket are proven instead: "
            "the lower by a vector, the upper by a bound that covers all supports.",
        ),
        (
            "vacuous",
            "an upper end of 1 or more: some s-sparse vector might be lost altogether.",
        ),
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
