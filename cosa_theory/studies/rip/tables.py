"""Everything that is known of the isometry of a layer's basis or of one matrix, as tables."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from cosa_theory.isometry.certificates import RipBracket
from cosa_theory.isometry.coherence import babel, mutual_coherence, spark_bounds, welch_bound
from cosa_theory.isometry.cores import CoreIsometry, core_isometry
from cosa_theory.isometry.guarantees import recovery_guarantees
from cosa_theory.isometry.kronecker import kronecker_rip_bounds
from cosa_theory.isometry.rip import rip_bracket
from cosa_theory.laws.synthesis import scale_gain
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.linear.gram import DenseGram
from cosa_theory.linear.operators import KroneckerOperator
from cosa_theory.projections import ENSEMBLES, KINDS

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["ABOUT", "NATURAL_SCALE", "layer_isometry", "matrix_isometry"]

ABOUT = {
    "dictionary": "the tall dictionary Ψ = L ⊗ Rᵀ (mn × ab)",
    "sensing": "the wide sensing operator Φ = Lᵀ ⊗ R (ab × mn)",
    "matrix": "the matrix",
}
"""What a row is about: its name in the tables, and in words."""

NATURAL_SCALE = {"dictionary": "synthesis", "sensing": "analysis"}
"""The scale at which E‖Ax‖² = ‖x‖² for either operator."""

Advance = Callable[[int, int, str], None]


def layer_isometry(
    m: int,
    n: int,
    a: int,
    b: int,
    orders: Sequence[int],
    *,
    kinds: Sequence[str] = ("gaussian",),
    about: Sequence[str] = ("dictionary", "sensing"),
    scale: str | None = None,
    seed: int = 0,
    progress: Advance = lambda done, total, name: None,
) -> dict[str, pd.DataFrame]:
    """Bracket the isometry constants of a layer's dictionary Ψ and sensing operator Φ.

    Nothing larger than the factors' Gram matrices is computed.

    Parameters
    ----------
    m, n, a, b : int
        Sizes of the update (m × n) and of the core (a × b).
    orders : sequence of int
        The s of δ_s.
    kinds : sequence of str
        Ensembles, from `cosa_theory.projections.KINDS`. The exact constants over all cores are
        listed for every ensemble, whichever are named here.
    about : sequence of str
        "dictionary", "sensing" or both.
    scale : {"synthesis", "analysis"}, optional
        By default the one at which norms are kept on average: synthesis for Ψ, analysis for Φ.
    seed : int
        Of the projections and of the search.
    progress : callable
        Called with the steps done, their number and what was done.

    Returns
    -------
    dict of str to pandas.DataFrame
        "brackets": about, kind, scale, rows, columns, s, lower, upper, vacuous, exact,
        lower_method, upper_method, scale_free_lower, scale_free_upper, worst_support,
        witness_columns and witness_values (the unit vector that attains the lower end, column i·n
        + j for entry (i, j)), seconds, note. "cores" (with the dictionary): kind, scale, least,
        greatest, delta, condition, scale_free, bai_yin_least, bai_yin_greatest, bai_yin_delta,
        bai_yin_scale_free. "columns":
        about, kind, rows, columns, least_norm, greatest_norm, coherence, welch, babel_terms, babel,
        spark_lower, spark_upper, spark_how. "guarantees" (with the sensing operator): about, kind,
        and the fields of `Guarantee`.

    Raises
    ------
    ValueError
        For sizes that an ensemble does not have, or an order outside its range.
    """
    cores = [
        kind
        for kind in KINDS
        if "dictionary" in about and ENSEMBLES[kind].has(a, m) and ENSEMBLES[kind].has(b, n)
    ]
    total, done = len(kinds) * len(about) + len(cores), 0
    parts: dict[str, list[dict[str, Any]]] = {name: [] for name in ("brackets", "cores", "columns")}
    parts["guarantees"] = []
    for kind in kinds:
        for name in about:
            settings = {"kind": kind, "scale": scale or NATURAL_SCALE[name]}
            basis = CosaBasis.sample(m, n, a, b, seed=seed, **settings)
            operator = basis.dictionary() if name == "dictionary" else basis.sensing()
            brackets = kronecker_rip_bounds(*operator.factors, orders, seed=seed, about=ABOUT[name])
            _describe(parts, {"about": name, **settings}, operator, brackets)
            done += 1
            progress(done, total, f"{kind}, {name}")
    for kind in cores:
        found = core_isometry(CosaBasis.sample(m, n, a, b, kind=kind, seed=seed))
        gain = float(scale_gain(m, n, a, b))
        for at, factor in (("synthesis", 1.0), ("analysis", gain)):
            parts["cores"].append({"kind": kind, "scale": at, **_core_row(found.scaled(factor))})
        done += 1
        progress(done, total, f"{kind}, all cores")
    return _tables(parts)


def matrix_isometry(
    A: Any,
    orders: Sequence[int],
    *,
    seed: int = 0,
    progress: Advance = lambda done, total, name: None,
) -> dict[str, pd.DataFrame]:
    """Bracket the isometry constants of one matrix.

    Parameters
    ----------
    A : array, operator or DenseGram, shape (k, d)
        The matrix, as it is scaled.
    orders : sequence of int
        The s of δ_s.
    seed, progress
        As in `layer_isometry`.

    Returns
    -------
    dict of str to pandas.DataFrame
        "brackets", "columns" and, where there are more columns than rows, "guarantees", as
        `layer_isometry`; kind and scale are absent.

    Raises
    ------
    ValueError
        If A is not a real finite matrix, or an order is outside its range.
    """
    gram = A if isinstance(A, DenseGram) else DenseGram(A)
    brackets = []
    for done, s in enumerate(orders, 1):
        brackets.append(rip_bracket(gram, s, seed=seed, about=ABOUT["matrix"]))
        progress(done, len(orders), f"s = {s}")
    parts: dict[str, list[dict[str, Any]]] = {"brackets": [], "columns": [], "guarantees": []}
    _describe(parts, {"about": "matrix"}, gram.A, brackets)
    return _tables(parts)


def _tables(parts: dict[str, list[dict[str, Any]]]) -> dict[str, pd.DataFrame]:
    import pandas as pd

    return {name: pd.DataFrame(rows) for name, rows in parts.items() if rows}


def _describe(
    parts: dict[str, list[dict[str, Any]]],
    labels: dict[str, Any],
    operator: Any,
    brackets: Sequence[RipBracket],
) -> None:
    """Add the rows of one operator to every table."""
    rows, columns = operator.shape
    sizes = {**labels, "rows": rows, "columns": columns}
    parts["brackets"] += [{**sizes, **_bracket_row(found, operator)} for found in brackets]
    described = _column_row(operator, max(bracket.s for bracket in brackets))
    parts["columns"].append({**sizes, **described})
    if rows < columns:
        known = {bracket.s: bracket for bracket in brackets}
        guarantees = recovery_guarantees(known, coherence=described["coherence"])
        parts["guarantees"] += [{**labels, **vars(row)} for row in guarantees]


def _bracket_row(bracket: RipBracket, operator: Any) -> dict[str, Any]:
    low, high = bracket.scale_free
    witness = bracket.lower_bound.witness
    return {
        "s": bracket.s,
        "lower": bracket.lower,
        "upper": bracket.upper,
        "vacuous": bracket.vacuous,
        "exact": bracket.exact,
        "lower_method": bracket.lower_bound.method,
        "upper_method": bracket.upper_bound.method,
        "scale_free_lower": low,
        "scale_free_upper": high,
        "worst_support": _layout(bracket, operator),
        "witness_columns": [] if witness is None else witness.support.tolist(),
        "witness_values": [] if witness is None else witness.coefficients.tolist(),
        "seconds": bracket.seconds,
        "note": " ".join(
            dict.fromkeys(
                note for note in (bracket.lower_bound.note, bracket.upper_bound.note) if note
            )
        ),
    }


def _layout(bracket: RipBracket, operator: Any) -> str:
    """Return how the lower end's support lies in the matrix it is a support of."""
    support = bracket.support
    if support is None:
        return ""
    if not isinstance(operator, KroneckerOperator):
        return ", ".join(map(str, support))
    rows, columns = (len(set(part)) for part in np.divmod(support, operator.domain_shape[1]))
    if rows == columns == 1:
        return "one entry"
    if 1 in (rows, columns):
        return "one row" if rows == 1 else "one column"
    return f"{rows} rows, {columns} columns"


def _column_row(operator: Any, order: int) -> dict[str, Any]:
    factors = operator.factors if isinstance(operator, KroneckerOperator) else (operator,)
    norms = [DenseGram(factor).diagonal for factor in factors]
    least, greatest = (
        float(np.sqrt(np.prod([getattr(squares, end)() for squares in norms])))
        for end in ("min", "max")
    )
    rows, columns = operator.shape
    terms = min(order, columns) - 1
    spark = spark_bounds(operator)
    nonzero = least > 0  # a zero column has no angle to others
    return {
        "least_norm": least,
        "greatest_norm": greatest,
        "coherence": mutual_coherence(operator) if nonzero else None,
        "welch": float(welch_bound(rows, columns)),
        "babel_terms": terms,
        "babel": babel(operator, terms) if nonzero and terms else None,
        "spark_lower": spark.lower,
        "spark_upper": spark.upper,
        "spark_how": spark.how,
    }


def _core_row(found: CoreIsometry) -> dict[str, float]:
    names = (
        "least",
        "greatest",
        "delta",
        "condition",
        "scale_free",
        "bai_yin_least",
        "bai_yin_greatest",
        "bai_yin_delta",
        "bai_yin_scale_free",
    )
    return {name: getattr(found, name) for name in names}
