"""The verdict on what is proven, in plain sentences on one line, and notices beside it."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cosa_theory.page.views import MISSING, count, number
from cosa_theory.projections import printed_name
from cosa_theory.studies.rip.operators import OPERATORS, operator_name

__all__ = ["notices", "small", "verdict"]

_ROUNDING = 1e-10


def small(value: Any) -> str:
    """Return a number; what is only rounding (an exact isometry) as 0."""
    if value is None or pd.isna(value):
        return MISSING
    return number(0.0 if abs(float(value)) < _ROUNDING else value)


def _at(row: Any) -> str:
    return f"(δ_{row['s']} in [{small(row['lower'])}, {small(row['upper'])}])"


def _of_orders(rows: pd.DataFrame) -> str:
    """Say up to which order a bracket promises something, and from which it is shown to fail."""
    rows = rows.sort_values("s")
    about, first = OPERATORS[rows["about"].iloc[0]], rows.iloc[0]
    shown, lost = rows[rows["upper"] < 1], rows[rows["lower"] >= 1]
    if len(lost) == len(rows):
        return f"{about.symbol} is proven to have δ_s ≥ 1 at every order asked {_at(first)}"
    if len(shown):
        best = shown.iloc[-1]
        sentence = (
            f"{about.symbol} is proven to have δ_s < 1 on {about.subject} with up to "
            f"{_entries(best['s'])} {_at(best)}"
        )
    else:
        sentence = f"{about.symbol} is not proven to have δ_s < 1 at any order asked {_at(first)}"
    if len(lost):
        worst = lost.iloc[0]
        sentence += f", and proven to have δ_s ≥ 1 from s = {worst['s']} on {_at(worst)}"
    return sentence


def _of_cores(cores: pd.DataFrame, scale: str) -> str:
    row = cores[cores["scale"] == scale].iloc[0]
    if abs(row["delta"]) < _ROUNDING:
        return "over all cores, dense ones included, it is an isometry to rounding"
    condition = "infinite" if math.isinf(row["condition"]) else number(row["condition"])
    return (
        f"over all cores, dense ones included, δ = {number(row['delta'])} and its condition "
        f"number is {condition}"
    )


def _of_recovery(guarantees: pd.DataFrame, subject: str) -> str:
    best = guarantees.sort_values("sparsity", kind="stable").iloc[-1]
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
    if limit == 0:
        return f", and no method recovers all {subject} of even one nonzero entry"
    return f", and no method recovers all {subject} with more than {_entries(limit)}"


def _entries(sparsity: float) -> str:
    """Return "4 nonzero entries"."""
    if math.isinf(sparsity):
        return "any number of nonzero entries"
    return f"{count(sparsity)} nonzero {'entry' if sparsity == 1 else 'entries'}"


def verdict(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what the tables say, in plain sentences; of several ensembles the first speaks."""
    kinds = list(dict.fromkeys(tables["brackets"].get("kind", ())))
    if kinds:  # of tables of which each has this column
        tables = {name: table[table["kind"] == kinds[0]] for name, table in tables.items()}
    sentences = []
    for about, rows in tables["brackets"].groupby("about", sort=False):
        sentences.append(_of_orders(rows))
        if about == "dictionary":
            sentences.append(_of_cores(tables["cores"], str(rows["scale"].iloc[0])))
        columns, guarantees = (
            table[table["about"] == about]
            for table in (tables["columns"], tables.get("guarantees", tables["columns"].iloc[:0]))
        )
        if len(guarantees):  # it is wide
            subject = OPERATORS[str(about)].subject
            sentences.append(_of_recovery(guarantees, subject) + _of_spark(columns, subject))
    text = " ".join(f"{sentence[0].upper()}{sentence[1:]}." for sentence in sentences)
    if not kinds:
        return text
    more = len(kinds) - 1
    others = f" ({more} other ensemble{'s' if more > 1 else ''} below)" if more else ""
    return f"With {printed_name(kinds[0])} factors{others}, {text}"


def notices(tables: Mapping[str, pd.DataFrame]) -> tuple[str, ...]:
    """Return what the bounds noted, and which columns are zero."""
    found = []
    for row in tables["columns"].to_dict("records"):
        if row["least_norm"] == 0:
            why = ": a sparse projection with so few rows misses some coordinates"
            found.append(
                f"{operator_name(row)} has zero columns, so δ_s ≥ 1 and no coherence"
                + (why if "kind" in row else ": vectors there are lost, leave such columns out")
            )
    for row in tables["brackets"].to_dict("records"):
        if row["note"]:
            found.append(f"{operator_name(row)}, s = {row['s']}: {row['note']}")
    return tuple(found)
