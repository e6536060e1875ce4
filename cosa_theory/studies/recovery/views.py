"""How the tables of `cosa-theory recover` are shown."""

import math
from collections.abc import Mapping

import pandas as pd

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import Column, View, count, number, percent
from cosa_theory.recovery import STATUSES
from cosa_theory.studies.recovery.verdict import places, unit_of

__all__ = ["ESTIMATE", "PRESENTATION"]

ESTIMATE = "estimate.safetensors"
"""Beside the tables: the update itself."""

_ANSWERS = {
    "estimate": "the estimate",
    "debiased": "least squares on its support",
    "least norm": "least norm, for comparison",
}


def _answer_view(document: Document) -> View:
    """Return the one answer, one line for each thing there is to know."""
    row = document.tables["result"].iloc[0].to_dict()
    m, n, a, b = (row[name] for name in "mnab")
    lines = {
        "method": row["method"],
        "what it minimises": row["formula"],
        "its value": number(row["objective"]),
        "status": f"{row['status']}: {STATUSES[row['status']]}",
        row["certificate"]: f"{number(row['value'])}, {number(row['relative'])} relative "
        f"(tolerance {number(row['tolerance'])})",
        "residual ‖Φx̂ − y‖/‖y‖": number(row["residual"]),
        "noise level σ": number(row["noise_level"]),
        "nonzero": f"{count(row['nonzeros'])} of {count(m * n)} {unit_of(row)}",
        "sizes": f"update {m} × {n}, core {a} × {b}: {percent(a * b / (m * n))} of the numbers",
        "norms": f"‖ΔW‖ {number(row['estimate_norm'])} of the estimate, core "
        f"{number(row['core_norm'])}",
        "projections": row["projections"],
        "computed": f"{row['dtype']}, {_effort(row['iterations'])}, {number(row['seconds'])} s",
    }
    if row["resumed_from"]:
        lines["resumed"] = f"from iteration {count(row['resumed_from'])} of an interrupted run"
    columns = (Column(0, "what", text=True), Column(1, "value", text=True))
    return View.of("The answer", columns, lines.items())


def _effort(iterations: int) -> str:
    if iterations == 0:
        return "in closed form"
    return f"{count(iterations)} iteration{'' if iterations == 1 else 's'}"


_LIMITS = (
    ("every update, by any method", "limit_every", "half of the spark, for sparse ΔW anywhere"),
    (
        "ℓ1, entries at random places",
        "limit_random",
        "at most: ab·ρ(ab/(mn)), the weak threshold of unstructured Gaussian measurements",
    ),
    ("ℓ1, packed in one column", "limit_column", "a·ρ(a/m): the left factor alone sees a column"),
    ("ℓ1, packed in one row", "limit_row", "b·ρ(b/n): the right factor alone sees a row"),
    ("this estimate has", "nonzeros", ""),
)
_LIMIT_COLUMNS = (
    Column("what", "what is found", text=True),
    Column(
        "upto",
        "nonzeros up to",
        "in the basis in which ΔW is sparse",
        places,
    ),
    Column("why", "why", text=True),
)


def _limit_view(document: Document) -> View:
    """Return how many nonzeros a core of this size identifies, beside those found."""
    row = document.tables["result"].iloc[0].to_dict()
    told = row["sparse"] and not math.isinf(row["limit_every"])
    rows = [{"what": what, "upto": row[name], "why": why} for what, name, why in _LIMITS]
    title = "How sparse an update must be for its core to tell" if told else ""
    return View.of(title, _LIMIT_COLUMNS, rows if told else ())


_SCORE_COLUMNS = (
    Column("answer", "answer", "", _ANSWERS.__getitem__, text=True),
    Column(
        "relative_error", "relative error", "‖estimate − ΔW‖/‖ΔW‖ in the Frobenius norm", number
    ),
    Column(
        "share",
        "comes back",
        "share of ‖ΔW‖² explained, 1 − error²; negative: worse than zero",
        percent,
    ),
)


def _score_view(document: Document) -> View:
    table = document.tables.get("scores", pd.DataFrame())
    return View.of("Against the truth, which the method did not see", _SCORE_COLUMNS, table)


def _views(document: Document) -> list[View]:
    return [_score_view(document), _answer_view(document), _limit_view(document)]


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.recovery.figures import CONVERGENCE_FIGURE, ESTIMATE_FIGURE

    return {"convergence": CONVERGENCE_FIGURE, "estimate": ESTIMATE_FIGURE}


PRESENTATION = Presentation(
    title="An update recovered from its core",
    tables=("result", "history", "spectrum", "magnitudes", "scores"),
    views=_views,
    figures=_figures,
    beside=(ESTIMATE,),
    terms=(
        (
            "core and measurements",
            "the measurements are Lᵀ ΔW Rᵀ (a × b), Φ maps ΔW to them; the best core L⁺ ΔW R⁺ "
            "holds the same information. The estimate's own best core is stored beside it.",
        ),
        (
            "certificate",
            "the number that proves how good an answer is. A duality gap bounds how far the "
            "objective is from its minimum; a residual says how well the measurements are "
            "explained; the normal equations vanish at a least-squares solution. A certificate "
            "is about the problem solved: whether its solution is ΔW depends on how sparse ΔW is.",
        ),
        (
            "debiased",
            "least squares on the support of the estimate, which undoes the shrinkage of ℓ1. "
            "It is stored as the tensor “debiased”, where the support is small enough.",
        ),
        (
            "weak threshold",
            "the number of nonzeros up to which ℓ1 minimisation finds most vectors with random "
            "supports and signs, as sizes grow (Donoho and Tanner). Of a Kronecker operator, "
            "supports packed in one column or row see one factor alone.",
        ),
        (
            "spark",
            "the least number of linearly dependent columns, at most min(a, b) + 1 for Φ: no "
            "method tells apart all updates with more than half as many nonzeros.",
        ),
    ),
)
