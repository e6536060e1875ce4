"""The document of `cosa-theory recover`: its verdict, and how its tables are shown."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, number, percent
from cosa_theory.recovery import STATUSES

__all__ = ["ESTIMATE", "PRESENTATION", "recover_verdict"]

ESTIMATE = "estimate.safetensors"
"""Beside the tables: the update itself."""

_UNITS = {
    "coordinate": "entries",
    "dct": "cosine coefficients",
    "wavelet": "wavelet coefficients",
    "singular": "coefficients in the singular basis of W",
}
_LINEAR = ("least_norm", "best_core")
_DONE = ("optimal", "fitted")
_EXACT = (
    1e-4  # a relative residual up to which the core is explained, but for shrinkage and rounding
)
_REACHED = {
    "duality gap": "to a duality gap of {}",
    "residual": "to a residual of {}",
    "normal equations": "up to an error of {} in the normal equations",
}
_ANSWERS = {
    "estimate": "the estimate",
    "debiased": "least squares on its support",
    "least norm": "least norm, for comparison",
}


def recover_verdict(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what was found, to which certificate, and what to expect of it, on one line.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        As `cosa_theory.studies.recovery.tables.recovery_tables` makes them.
    """
    row = tables["result"].iloc[0].to_dict()
    sentences = [_found(row), _solved(row), _expected(row)]
    if "scores" in tables:
        sentences.append(_scored(tables["scores"]))
    return " ".join(sentence for sentence in sentences if sentence)


def _unit(row: Mapping[Any, Any]) -> str:
    return _UNITS.get(row["basis"], f"coefficients in the basis {row['basis']}")


def _nonzeros(row: Mapping[Any, Any]) -> str:
    if not row["sparse"]:
        return ""
    return f", with {count(row['nonzeros'])} of {count(row['m'] * row['n'])} {_unit(row)} nonzero"


def _fit(row: Mapping[Any, Any]) -> str:
    return f"fits the core to a relative residual of {number(row['residual'])}{_nonzeros(row)}"


def _found(row: Mapping[Any, Any]) -> str:
    """Say first whether there is an answer."""
    method, status = row["method"], row["status"]
    if status in _DONE and row["estimate_norm"] == 0:
        return f"{method} found nothing but the zero update."
    if status in _DONE:
        return f"{method} found an update that {_fit(row)}."
    plural = "s" * (row["iterations"] != 1)
    reached = (
        f"after {count(row['iterations'])} iteration{plural} its {row['certificate']} is "
        f"{number(row['relative'])} {_relative_to(row)}, above the tolerance of "
        f"{number(row['tolerance'])}"
    )
    remedies = {
        "iteration limit": (f"{method} did not converge", "; raise --max-iterations"),
        "stalled": (f"{method} stalled", ", and it makes no more progress as it was set"),
        "diverged": (f"{method} diverged", "; try another method"),
    }
    what, remedy = remedies[status]
    return f"{what}: {reached}{remedy}. Its best iterate {_fit(row)}."


def _solved(row: Mapping[Any, Any]) -> str:
    """Name the objective, and the certificate where it holds."""
    if row["status"] not in _DONE:
        return f"It was to minimise {row['formula']}."
    reached = (
        f"{_REACHED[row['certificate']].format(number(row['value']))} "
        f"({number(row['relative'])} {_relative_to(row).strip('()')}, tolerance "
        f"{number(row['tolerance'])})"
    )
    if row["status"] == "optimal":
        return f"It minimised {row['formula']}, {reached}."
    return (
        f"It sought to minimise {row['formula']}, and came {reached}; that no better update "
        "exists is not proved."
    )


def _relative_to(row: Mapping[Any, Any]) -> str:
    """Say what the relative certificate is measured in: σ, where a residual may reach it."""
    if row["certificate"] == "residual" and row["noise_level"] > 0:
        return "times the noise level"
    return "(relative)"


def _expected(row: Mapping[Any, Any]) -> str:
    """Say whether theory lets this answer be the update that was measured."""
    a, b, m, n = (row[name] for name in "abmn")
    every, random, s = row["limit_every"], row["limit_random"], row["nonzeros"]
    if math.isinf(every):
        return ""
    if row["method"] in _LINEAR:
        share = percent(min(a, m) * min(b, n) / (m * n))
        return f"A core of {a} × {b} keeps on average {share} of ‖ΔW‖², the share ab/(mn)."
    if row["method"] == "nuclear":
        return "A low rank alone does not identify ΔW: some rank-one updates have a zero core."
    if not row["sparse"]:
        return ""
    if s == 0:
        return "With so large a λ no other update is as good: take a smaller one."
    if s > random:
        return (
            f"So many nonzero {_unit(row)} are more than the about {count(random)} up to which ℓ1 "
            "can be expected to succeed: do not take it for the update that was measured, and make "
            "sure that basis, projections and noise level are the right ones."
        )
    if s > every:
        return (
            f"Beyond {count(every)} nonzero {_unit(row)} some updates share their core; ℓ1 finds "
            f"most that are spread at random, up to at most about {count(random)} (packed in one "
            f"column {_places(row['limit_column'])}, in one row {_places(row['limit_row'])})."
        )
    if row["noise_level"] == 0 and row["residual"] <= _EXACT:
        return (
            f"No two updates with at most {count(every)} nonzero {_unit(row)} share a core, if the "
            "factors are in general position, as Gaussian ones are."
        )
    return ""


def _places(limit: float) -> str:
    return "any number" if math.isinf(limit) else count(limit)


def _scored(scores: pd.DataFrame) -> str:
    errors = scores.set_index("answer")["relative_error"]
    shares = scores.set_index("answer")["share"]
    debiased = f" ({number(errors['debiased'])} debiased)" if "debiased" in errors else ""
    share = shares["estimate"]
    back = f"{percent(share)} of ‖ΔW‖² comes back" if share > 0 else "nothing of ‖ΔW‖² comes back"
    plain = f"; least norm has {number(errors['least norm'])}" if "least norm" in errors else ""
    return (
        f"Against the truth the relative error is {number(errors['estimate'])}{debiased}, "
        f"{back}{plain}."
    )


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
        "nonzero": f"{count(row['nonzeros'])} of {count(m * n)} {_unit(row)}",
        "sizes": f"update {m} × {n}, core {a} × {b}: {percent(a * b / (m * n))} of the numbers",
        "norms": f"‖ΔW‖ {number(row['estimate_norm'])} of the estimate, core "
        f"{number(row['core_norm'])}",
        "projections": row["projections"],
        "computed": f"{row['dtype']}, {_effort(row['iterations'])}, {number(row['seconds'])} s",
    }
    if row["resumed_from"]:
        lines["resumed"] = f"from iteration {count(row['resumed_from'])} of an interrupted run"
    columns = (Column(None, "what", text=True), Column(None, "value", text=True))
    return View("The answer", columns, tuple(lines.items()))


def _effort(iterations: int) -> str:
    if iterations == 0:
        return "in closed form"
    return f"{count(iterations)} iteration{'' if iterations == 1 else 's'}"


def _limit_view(document: Document) -> View:
    """Return how many nonzeros a core of this size identifies, beside those found."""
    row = document.tables["result"].iloc[0].to_dict()
    limits = {
        "every update, by any method": ("every", "half of the spark, for sparse ΔW anywhere"),
        "ℓ1, entries at random places": (
            "random",
            "at most: ab·ρ(ab/(mn)), the weak threshold of unstructured Gaussian measurements",
        ),
        "ℓ1, packed in one column": ("column", "a·ρ(a/m): the left factor alone sees a column"),
        "ℓ1, packed in one row": ("row", "b·ρ(b/n): the right factor alone sees a row"),
    }
    columns = (
        Column(None, "what is found", text=True),
        Column(None, "nonzeros up to", "in the basis in which ΔW is sparse; fractions rounded"),
        Column(None, "why", text=True),
    )
    if not row["sparse"] or math.isinf(row["limit_every"]):
        return View("", columns, ())
    rows = [
        (what, MISSING if math.isinf(row[f"limit_{name}"]) else count(row[f"limit_{name}"]), why)
        for what, (name, why) in limits.items()
    ]
    rows.append(("this estimate has", count(row["nonzeros"]), ""))
    return View("How sparse an update must be for its core to tell", columns, tuple(rows))


def _score_view(document: Document) -> View:
    columns = (
        Column(None, "answer", text=True),
        Column(None, "relative error", "‖estimate − ΔW‖/‖ΔW‖ in the Frobenius norm"),
        Column(
            None, "comes back", "share of ‖ΔW‖² explained, 1 − error²; negative: worse than zero"
        ),
    )
    table = document.tables.get("scores", pd.DataFrame())
    rows = tuple(
        (_ANSWERS[row["answer"]], number(row["relative_error"]), percent(row["share"]))
        for row in table.to_dict("records")
    )
    return View("Against the truth, which the method did not see", columns, rows)


def _views(document: Document) -> list[View]:
    return [_score_view(document), _answer_view(document), _limit_view(document)]


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.recovery.figures import CONVERGENCE_FIGURE, ESTIMATE_FIGURE

    return {"convergence": CONVERGENCE_FIGURE, "estimate": ESTIMATE_FIGURE}


PRESENTATION = Presentation(
    title="An update recovered from its core",
    views=_views,
    figures=_figures,
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
