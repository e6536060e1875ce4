"""The document of `cosa-theory jl`: its verdict, and how its tables are shown."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
from markupsafe import Markup

from cosa_theory.isometry.jl_costs import cheapest
from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, memory, number, percent
from cosa_theory.projections import printed_name

__all__ = ["PRESENTATION", "jl_verdict"]


_ROUNDING = 1e-10


def _time(seconds: Any) -> str:
    return MISSING if pd.isna(seconds) else f"{number(1e6 * float(seconds))} µs"


def _tolerance(eps: Any) -> str:
    return f"{100 * float(eps):g} %"


def _share(value: Any) -> str:
    """Return a share in per cent; what is only rounding (an exact isometry) as 0."""
    return percent(0.0 if abs(float(value)) < _ROUNDING else value)


def _interval(row: Mapping[Any, Any], name: str, low: str, high: str) -> str:
    """Return "1.2 % [1.0, 1.4]"; an infinite end as ∞."""
    if pd.isna(row[name]):
        return MISSING
    ends = [
        "∞" if math.isinf(row[end]) else _share(row[end]).removesuffix(" %") for end in (low, high)
    ]
    return f"{_share(row[name])} [{ends[0]}, {ends[1]}]"


def over_all_vectors(needed: pd.DataFrame) -> pd.DataFrame:
    """Return for every ensemble its row with the most dimensions (then the slowest), over all sets.

    An ensemble that fails on one set, or needs all d rows there, is left out: with all d rows a
    projection saves nothing.
    """
    rows = []
    for _, group in needed.groupby("kind", sort=False):
        if group["k"].notna().all() and (group["k"] < group["d"]).all():
            rows.append(group.sort_values(["k", "seconds"]).iloc[-1:])
    return pd.concat(rows) if rows else needed.iloc[:0]


def _rows(number: Any) -> str:
    return f"{count(number)} {'row' if number == 1 else 'rows'}"


def _of_points(row: Mapping[Any, Any], length: float) -> str:
    """Say what the lemma promises for points, and whether vectors so long gain by it."""
    if row["points"] == 1:
        return "A single point has no distances to keep and needs no dimension."
    if row["k"] >= length:
        return (
            f"The lemma promises {count(row['points'])} points of length {count(length)} no "
            f"shorter projection within {_tolerance(row['eps'])}: it asks for "
            f"{count(row['k'])} dimensions."
        )
    return (
        f"{count(row['points'])} points keep all squared distances within "
        f"{_tolerance(row['eps'])} in {count(row['k'])} dimensions (such an embedding exists; one "
        "draw may fail)."
    )


def _of_ensembles(needed: pd.DataFrame) -> str:
    whole = over_all_vectors(needed)
    d, eps = int(needed["d"].iloc[0]), float(needed["eps"].iloc[0])
    sets = " and ".join(dict.fromkeys(needed["vectors_of"]))
    goal = f"95 % of the squared norms of {sets}, of length {count(d)}, within {_tolerance(eps)}"
    best = cheapest(whole, eps)
    if best is None:
        return (
            f"No ensemble keeps {goal} with fewer than {count(d)} rows: projecting gains nothing."
        )
    sentence = (
        f"The cheapest ensemble that keeps {goal} is {printed_name(best['kind'])}: "
        f"{_rows(best['k'])}, "
        f"{_time(best['seconds'])} a vector, {memory(best['bytes'])}"
    )
    dense = whole[whole["kind"] == "gaussian"]
    if len(dense) and best["kind"] != "gaussian":
        row = dense.iloc[0]
        sentence += (
            f"; a Gaussian one needs {_rows(row['k'])}, {_time(row['seconds'])} and "
            f"{memory(row['bytes'])}"
        )
    return sentence + "."


def _of_kronecker(table: pd.DataFrame) -> str:
    a, b = int(table["a"].max()), int(table["b"].max())
    flat = int((table["participation_ratio"] > table["a"] + table["b"] + 1).sum())
    ratio = table["law"] / table["unstructured"]
    low, high = number(ratio.min()), number(ratio.max())
    spread = low if low == high else f"{number(ratio.median())} (median; range {low}–{high})"
    held = int(((table["ci_low"] <= table["law"]) & (table["law"] <= table["ci_high"])).sum())
    return (
        f"The Kronecker map with a core of {a} × {b} has {spread} times the variance of an "
        f"unstructured one with {a * b:,} rows; the participation ratio exceeds a + b + 1 = "
        f"{a + b + 1} in {flat} of {len(table)} matrices. The law lies in {held} of {len(table)} "
        "measured 95 % intervals."
    )


def jl_verdict(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what the tables say, in plain sentences on one line.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        Any of "dimension", "needed" and "kronecker".
    """
    sentences = []
    if "dimension" in tables:
        lengths = tables["needed"]["d"] if "needed" in tables else [math.inf]
        rows = tables["dimension"].to_dict("records")
        sentences += [_of_points(row, max(lengths)) for row in rows]
    if "needed" in tables:
        sentences.append(_of_ensembles(tables["needed"]))
    if "kronecker" in tables:
        sentences.append(_of_kronecker(tables["kronecker"]))
    return " ".join(sentences)


def _needed_view(document: Document) -> View:
    columns = (
        Column(None, "vectors", text=True),
        Column(None, "ensemble", text=True),
        Column(None, "rows k", "least k (steps of 9 %, below d) that meets the distortion"),
        Column(
            None,
            "95 % distortion",
            "95 % quantile of |‖Ax‖²/‖x‖² − 1| at that k, with its interval",
        ),
        Column(None, "time a vector", "warm, one thread, vectors projected together"),
        Column(None, "memory", "of the projection, in the form it is multiplied in"),
    )
    rows = tuple(
        (
            row["vectors_of"],
            printed_name(row["kind"]),
            count(row["k"]),
            _interval(row, "quantile", "quantile_low", "quantile_high"),
            _time(row["seconds"]),
            memory(row["bytes"]),
        )
        for row in document.tables["needed"].to_dict("records")
    )
    eps = _tolerance(document.tables["needed"]["eps"].iloc[0])
    return View(f"Rows needed to keep 95 % of squared norms within {eps}", columns, rows)


def _ensemble_view(document: Document) -> View:
    table = document.tables["ensembles"]
    columns = (
        Column(None, "vectors", text=True),
        Column(None, "ensemble", text=True),
        Column(None, "mean", "mean of |‖Ax‖²/‖x‖² − 1|, with its 95 % interval over draws"),
        Column(
            None, "95 %", "95 % quantile over the vectors of a draw, mean over draws, with interval"
        ),
        Column(None, "max", "largest of all draws and vectors"),
        Column(None, "failures", "share of vectors off by more than ε, with its 95 % interval"),
        Column(None, "χ² law", "the exact failure probability of a Gaussian projection"),
        Column(None, "time a vector", "warm, one thread"),
        Column(None, "memory", "of the projection"),
    )
    rows = tuple(
        (
            row["vectors_of"],
            printed_name(row["kind"]),
            _interval(row, "mean", "mean_low", "mean_high"),
            _interval(row, "quantile", "quantile_low", "quantile_high"),
            _share(row["max"]),
            _interval(row, "failure", "failure_low", "failure_high"),
            percent(row["chi_square"]),
            _time(row["seconds"]),
            memory(row["bytes"]),
        )
        for row in table.to_dict("records")
    )
    first = table.iloc[0]
    title = (
        f"Distortion of squared norms at k = {count(first['k'])} of d = {count(first['d'])} "
        f"({count(first['draws'])} draws, {count(table['vectors'].max())} vectors, failures beyond "
        f"{_tolerance(first['eps'])})"
    )
    return View(title, columns, rows)


def _kronecker_view(document: Document) -> View:
    table = document.tables["kronecker"]
    columns = (
        Column(None, "layer", text=True),
        Column(None, "shape", "m × n"),
        Column(None, "PR", "participation ratio (Σσ²)²/Σσ⁴ of ΔW"),
        Column(None, "a + b + 1", "what PR must exceed by far"),
        Column(
            None, "variance, measured", "of ‖A ΔW Bᵀ‖²/‖ΔW‖² over draws, with its 95 % interval"
        ),
        Column(None, "law", "2/(ab) + (2/a + 2/b + 2/(ab))/PR, and its forms for other ensembles"),
        Column(None, "law × ab/2", "times the variance of an unstructured map with ab rows"),
    )
    rows = tuple(
        (
            row["layer"],
            f"{row['m']} × {row['n']}",
            number(row["participation_ratio"]),
            count(row["a"] + row["b"] + 1),
            f"{number(row['variance'])} [{number(row['ci_low'])}, {number(row['ci_high'])}]",
            number(row["law"]),
            number(row["law"] / row["unstructured"]),
        )
        for row in table.to_dict("records")
    )
    title = f"Kronecker variance law, {printed_name(table['kind'].iloc[0])} factors"
    return View(title, columns, rows)


def _views(document: Document) -> list[View]:
    shown = (("needed", _needed_view), ("ensembles", _ensemble_view))
    return [view(document) for name, view in shown if name in document.tables]


def _detail_views(document: Document) -> list[View]:
    return [_kronecker_view(document)] if "kronecker" in document.tables else []


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.jl.figures import ENSEMBLE_FIGURE, KRONECKER_FIGURE

    return {"failures": ENSEMBLE_FIGURE, "kronecker": KRONECKER_FIGURE}


PRESENTATION = Presentation(
    title="Johnson-Lindenstrauss: what random projections keep",
    views=_views,
    detail_views=_detail_views,
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
