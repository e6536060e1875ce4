"""The verdict on how many dimensions points need, in plain sentences on one line."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cosa_theory.ground.printable import shortened
from cosa_theory.page.views import count, memory, number
from cosa_theory.projections import printed_name
from cosa_theory.studies.jl.comparison import cheapest
from cosa_theory.studies.jl.in_words import varying
from cosa_theory.studies.jl.views import duration, tolerance

__all__ = ["verdict"]


def _over_all_vectors(needed: pd.DataFrame) -> pd.DataFrame:
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
            f"shorter projection within {tolerance(row['eps'])}: it asks for "
            f"{count(row['k'])} dimensions."
        )
    return (
        f"{count(row['points'])} points keep all squared distances within "
        f"{tolerance(row['eps'])} in {count(row['k'])} dimensions (such an embedding exists; one "
        "draw may fail)."
    )


def _of_ensembles(needed: pd.DataFrame) -> str:
    whole = _over_all_vectors(needed)
    d, eps = int(needed["d"].iloc[0]), float(needed["eps"].iloc[0])
    sets = " and ".join(shortened(name, 60) for name in dict.fromkeys(needed["vectors_of"]))
    goal = f"95 % of the squared norms of {sets}, of length {count(d)}, within {tolerance(eps)}"
    best = cheapest(whole, eps)
    if best is None:
        return f"No ensemble keeps {goal} with fewer than {_rows(d)}: projecting gains nothing."
    sentence = (
        f"The cheapest ensemble that keeps {goal} is {printed_name(best['kind'])}: "
        f"{_rows(best['k'])}, "
        f"{duration(best['seconds'])} a vector, {memory(best['bytes'])}"
    )
    dense = whole[whole["kind"] == "gaussian"]
    if len(dense) and best["kind"] != "gaussian":
        row = dense.iloc[0]
        sentence += (
            f"; a Gaussian one needs {_rows(row['k'])}, {duration(row['seconds'])} and "
            f"{memory(row['bytes'])}"
        )
    return sentence + "."


def _of_kronecker(table: pd.DataFrame) -> str:
    sizes = table[["a", "b"]].drop_duplicates().to_numpy()
    if len(sizes) == 1:
        a, b = map(int, sizes[0])
        core, rows, least = f"a core of {a} × {b}", _rows(a * b), f"a + b + 1 = {a + b + 1}"
    else:
        core = "a core (a × b) cut to the smaller matrices"
        rows, least = "as many rows", "a + b + 1"
    flat = int((table["participation_ratio"] > table["a"] + table["b"] + 1).sum())
    ratio = table["law"] / table["unstructured"]
    low, high = number(ratio.min()), number(ratio.max())
    spread = low if low == high else f"{number(ratio.median())} (median; range {low}–{high})"
    return (
        f"The Kronecker map with {core} has {spread} times the variance of an unstructured one "
        f"with {rows}; the participation ratio exceeds {least} in {flat} of {len(table)} "
        f"{'matrix' if len(table) == 1 else 'matrices'}. {_of_law(table)}"
    )


def _of_law(table: pd.DataFrame) -> str:
    """Say in how many matrices the law is borne out, and which have no variance to measure."""
    rows = varying(table)
    held = int(((rows["ci_low"] <= rows["law"]) & (rows["law"] <= rows["ci_high"])).sum())
    exact = len(table) - len(rows)
    kept = f"By the law the map keeps the norm of {exact} of {len(table)} exactly." if exact else ""
    if rows.empty:
        return kept
    text = f"The law lies in {held} of {len(rows)} measured 95 % interval"
    return f"{text}{'' if len(rows) == 1 else 's'}. {kept}".rstrip()


def verdict(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what the tables "dimension", "needed", "kronecker" say, where they are there."""
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
