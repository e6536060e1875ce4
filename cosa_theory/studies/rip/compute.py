"""Everything that is known of the isometry of a layer's basis or of one matrix, as tables."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.ground.checks import choice, pair, whole
from cosa_theory.ground.progress import Advance
from cosa_theory.isometry.certificates import RipBracket
from cosa_theory.isometry.coherence import babel, mutual_coherence, spark_bounds, welch_bound
from cosa_theory.isometry.cores import core_isometry
from cosa_theory.isometry.guarantees import recovery_guarantees
from cosa_theory.isometry.kronecker import kronecker_rip_bounds
from cosa_theory.isometry.rip import rip_bracket
from cosa_theory.laws.synthesis import scale_gain
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.linear.gram import DenseGram, as_gram
from cosa_theory.linear.operators import KroneckerOperator
from cosa_theory.page.document import Document
from cosa_theory.projections import ENSEMBLES, KINDS
from cosa_theory.studies.rip.operators import OPERATORS
from cosa_theory.studies.rip.verdict import notices, verdict

__all__ = ["isometry_document", "layer_isometry", "matrix_isometry"]

_ORDERS = (2, 4, 8, 16)
_CORE = (
    *("least", "greatest", "delta", "condition", "scale_free"),
    *("bai_yin_least", "bai_yin_greatest", "bai_yin_delta", "bai_yin_scale_free"),
)

Tables = dict[str, pd.DataFrame]
Rows = dict[str, list[dict[str, Any]]]


def _silent(done: int, total: int | None, note: str = "", /) -> None:
    """Show no progress."""


def layer_isometry(
    shape: tuple[int, int],
    core: tuple[int, int],
    sparsity: Sequence[int] | None = None,
    *,
    kinds: Sequence[str] = ("gaussian",),
    about: Sequence[str] = ("dictionary", "sensing"),
    scale: str | None = None,
    seed: int = 0,
    progress: Advance = _silent,
) -> Tables:
    """Bracket the isometry constants of a layer's dictionary Ψ and sensing operator Φ.

    Nothing larger than the factors' Gram matrices is computed.

    Parameters
    ----------
    shape, core : (int, int)
        Sizes of the update (m × n) and of the core (a × b).
    sparsity : sequence of int, optional
        The orders s of δ_s; by default 2, 4, 8 and 16, as far as each operator has so many columns.
    kinds : sequence of str
        Ensembles, from `cosa_theory.projections.KINDS`. The exact constants over all cores are
        listed for every ensemble, whichever are named here.
    about : sequence of str
        "dictionary", "sensing" or both, one at least.
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
        + j for entry (i, j)), seconds, note. "cores" (with the dictionary): kind, scale and the
        numbers of `CoreIsometry` at that scale, but its gain. "columns": about, kind, rows,
        columns, least_norm, greatest_norm, coherence, welch, babel_terms, babel,
        spark_lower, spark_upper, spark_how. "guarantees" (with the sensing operator): about, kind,
        and the fields of `Guarantee`.

    Raises
    ------
    InputError
        For sizes that an ensemble does not have, an unknown name, or an order outside its range.
    """
    (m, n), (a, b) = pair("shape", shape), pair("core", core)
    kinds = list(dict.fromkeys(choice("kind", kind, KINDS) for kind in kinds))
    columns = {"dictionary": a * b, "sensing": m * n}
    orders = _orders(sparsity, min(columns[choice("about", name, columns)] for name in about))
    cores = [
        kind
        for kind in KINDS
        if "dictionary" in about and ENSEMBLES[kind].has(a, m) and ENSEMBLES[kind].has(b, n)
    ]
    total, done = len(kinds) * len(about) + len(cores), 0
    parts: Rows = {name: [] for name in ("brackets", "cores", "columns", "guarantees")}
    for kind in kinds:
        for name in about:
            asked = OPERATORS[name]
            settings = {"kind": kind, "scale": scale or asked.scale}
            basis = CosaBasis.sample(m, n, a, b, seed=seed, **settings)
            operator = basis.dictionary() if name == "dictionary" else basis.sensing()
            brackets = kronecker_rip_bounds(*operator.factors, orders, seed=seed, about=asked.words)
            _describe(parts, {"about": name, **settings}, operator, brackets)
            done += 1
            progress(done, total, f"{kind}, {name}")
    for kind in cores:
        found = core_isometry(CosaBasis.sample(m, n, a, b, kind=kind, seed=seed))
        gain = float(scale_gain(m, n, a, b))
        for at, factor in (("synthesis", 1.0), ("analysis", gain)):
            numbers = {name: getattr(found.scaled(factor), name) for name in _CORE}
            parts["cores"].append({"kind": kind, "scale": at, **numbers})
        done += 1
        progress(done, total, f"{kind}, all cores")
    return _tables(parts)


def matrix_isometry(
    A: Any, sparsity: Sequence[int] | None = None, *, seed: int = 0, progress: Advance = _silent
) -> Tables:
    """Bracket the isometry constants of one matrix.

    Parameters
    ----------
    A : array, operator or DenseGram, shape (k, d)
        The matrix, as it is scaled.
    sparsity, seed, progress
        As in `layer_isometry`.

    Returns
    -------
    dict of str to pandas.DataFrame
        "brackets", "columns" and, where there are more columns than rows, "guarantees", as
        `layer_isometry`; kind and scale are absent.

    Raises
    ------
    InputError
        If A is not a real finite matrix, or an order is outside its range.
    """
    gram = A if isinstance(A, DenseGram) else DenseGram(A)
    orders = _orders(sparsity, gram.columns)
    brackets = []
    for done, s in enumerate(orders, 1):
        brackets.append(rip_bracket(gram, s, seed=seed, about=OPERATORS["matrix"].words))
        progress(done, len(orders), f"s = {s}")
    parts: Rows = {"brackets": [], "columns": [], "guarantees": []}
    _describe(parts, {"about": "matrix"}, gram.A, brackets)
    return _tables(parts)


def isometry_document(tables: Tables, provenance: Mapping[str, Any]) -> Document:
    """Return what `layer_isometry` or `matrix_isometry` found, with its verdict and notices."""
    return Document("rip", verdict(tables), notices(tables), tables, provenance)


def _orders(sparsity: Sequence[int] | None, columns: int) -> list[int]:
    if sparsity is None:
        return [s for s in _ORDERS if s <= columns] or [columns]
    return sorted({whole("sparsity", s, most=columns) for s in sparsity})


def _tables(parts: Rows) -> Tables:
    return {name: pd.DataFrame(rows) for name, rows in parts.items() if rows}


def _describe(
    parts: Rows, labels: dict[str, Any], operator: Any, brackets: Sequence[RipBracket]
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
    notes = dict.fromkeys((bracket.lower_bound.note, bracket.upper_bound.note))
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
        "note": " ".join(note for note in notes if note),
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
    gram = as_gram(operator)
    least, greatest = math.sqrt(gram.shortest), math.sqrt(gram.largest)
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
