"""How the study of function is shown."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from cosa_theory.page.document import Document, Tables
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, memory, number, percent
from cosa_theory.studies.function.tables import PREDICTORS
from cosa_theory.studies.function.verdict import middle_rank

if TYPE_CHECKING:
    from cosa_theory.page.explorer import Explorer

__all__ = ["PRESENTATION"]

_KEY = ["approximation", "label", "group", "rank", "gain"]


def _interval(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["recovered"]):
        return MISSING
    low, high = percent(row["low"]).removesuffix(" %"), percent(row["high"])
    return f"{percent(row['recovered'])} ({low} to {high})"


def _wide(tables: Tables) -> pd.DataFrame:
    """Return one row per approximation, with a column of text for every set of texts."""
    table = tables["approximations"].copy()
    function = tables["function"]
    for texts, rows in function.groupby("texts", sort=False):
        cells = [_interval(row) for row in rows.to_dict("records")]
        table[f"on {texts}"] = cells  # in the order of the approximations
        if rows["divergence"].notna().any():
            table[f"divergence {texts}"] = rows["divergence"].to_numpy()
            table[f"loss {texts}"] = rows["loss_recovered"].to_numpy()
    return table


def _columns(tables: Tables, table: pd.DataFrame) -> list[Column]:
    columns = [
        Column("label", "approximation", text=True),
        Column("numbers", "numbers", "stored values that depend on ΔW", count),
        Column("bits", "stored", "values of 16 bits and what tells their places", _size),
        Column("energy", "energy", "1 − ‖Â − ΔW‖²/‖ΔW‖²", percent),
        Column("weighted", "weighted", "the same under the inputs' second moments", percent),
    ]
    if "energy_told" in table and table["energy_told"].notna().any():
        told = Column(None, "told", "energy as a sketch's own test vectors tell it", _told)
        columns.insert(4, told)
    for texts in tables["function"]["texts"].unique():
        explanation = f"function recovered on {texts} texts, with its 95 % interval over texts"
        columns.append(Column(f"on {texts}", f"function, {texts}", explanation))
        if f"loss {texts}" in table:
            columns += [
                Column(f"loss {texts}", f"loss, {texts}", "excess loss recovered", percent),
                Column(
                    f"divergence {texts}",
                    f"KL, {texts}",
                    "mean divergence from the tuned model's next-token distribution, nats",
                    number,
                ),
            ]
    return [*columns, Column("gain", "q", "factor of an unbiased approximation", number)]


def _told(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["energy_told"]):
        return MISSING
    return f"{percent(row['energy_told'])} ± {percent(row['energy_told_sd'])}"


def _size(bits: float) -> str:
    return memory(bits / 8)


def _at_budget(document: Document) -> Sequence[View]:
    """Return the approximations at the verdict's budget, and the predictors."""
    tables = document.tables
    rank = middle_rank(tables["approximations"])
    table = _wide(tables)
    chosen = table[table["rank"].isna() | (table["rank"] == rank)]
    at = "" if rank is None else f" at the budget of rank {rank}"
    view = View.of(f"What each approximation returns{at}", _columns(tables, table), chosen)
    return view, _prediction(tables)


def _prediction(tables: Tables) -> View:
    columns = (
        Column("predictor", "predictor", "", lambda name: PREDICTORS.get(name, name), text=True),
        Column("texts", "texts", text=True),
        Column("approximations", "approximations", "", count),
        Column(None, "rank correlation", "with function recovered; 95 % over texts", _correlation),
    )
    return View.of("What tells the function beforehand", columns, tables["prediction"])


def _correlation(row: Mapping[Any, Any]) -> str:
    if pd.isna(row["correlation"]):
        return MISSING
    return f"{row['correlation']:.2f} ({row['low']:.2f} to {row['high']:.2f})"


def _everything(document: Document) -> Sequence[View]:
    tables = document.tables
    table = _wide(tables)
    rank = Column("rank", "rank", "budget, as the rank of a LoRA", count)
    columns = _columns(tables, table)
    return (View.of("Every approximation and budget", [columns[0], rank, *columns[1:]], table),)


def _explorer(tables: Tables) -> "Explorer | None":
    from cosa_theory.studies.function.explorer import explorer

    return explorer(tables)


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.function.figures import FIGURES

    return FIGURES


_TERMS = (
    (
        "Function recovered",
        Markup(
            "1 − Σ‖f(W + Â) − f(W + ΔW)‖² / Σ‖f(W) − f(W + ΔW)‖² over texts, with f the embeddings "
            "or the logits: 1 is the tuned model, 0 what the base model does, negative worse than "
            "the base. Matrices of linear layers are exchanged; everything else stays the base's."
        ),
    ),
    (
        "Energy, and weighted energy",
        "The share of ‖ΔW‖² that an approximation holds, and the share of E‖ΔW x‖² over the inputs "
        "x of each layer. Both are negative where the error is larger than the update.",
    ),
    (
        "Least squares and adjoint",
        "Two decoders of the same core Y = Lᵀ ΔW Rᵀ. Least squares has the smallest error; the "
        "adjoint L Y R is right on average, with an error many times the update that is spread "
        "over all directions. Times q, the adjoint is shrunk to what serves held-out texts best.",
    ),
    (
        "Equal numbers, equal bits",
        "A budget is that of a LoRA of rank r: P = r(m + n) numbers. Bits count 16 for every "
        "number (which is rounded to as many), and what it takes to know the places of the largest "
        "entries; places and projections drawn from a seed are free.",
    ),
    (
        "Controls",
        "ΔW itself must return everything. Noise of the update's energy and the update with its "
        "entries shuffled must return nothing. Everything but the top r directions and ΔW with "
        "noise added show how far energy and function are apart.",
    ),
)

PRESENTATION = Presentation(
    title="Function, not only energy",
    views=_at_budget,
    tables=("approximations", "function", "prediction", "layers"),
    detail_views=_everything,
    figures=_figures,
    terms=_TERMS,
    headings=("At one budget", "All budgets"),
    explorer=_explorer,
)
"""How documents of the command function are shown."""
