"""How an atlas is shown: one row per family, by budget and by cost, and who wins where."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from cosa_theory.page.document import Document, Tables
from cosa_theory.page.explorer import Explorer
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, percent
from cosa_theory.spectrum.families.base import FAMILIES
from cosa_theory.studies.atlas.verdict import middle, trained
from cosa_theory.studies.atlas.winners import winners

__all__ = ["PRESENTATION"]


def _label(row: Mapping[Any, Any]) -> str:
    name = str(row["family"])
    return FAMILIES[name].label if name in FAMILIES else name


def _share(row: Mapping[Any, Any]) -> str:
    """Return the share, marked where it is the best that was found, or why there is none."""
    if pd.isna(row["captured"]):
        return str(row["reason"])
    return ("≥ " if row["certainty"] != "exact" else "") + percent(row["captured"])


def _bytes(row: Mapping[Any, Any]) -> str:
    return MISSING if pd.isna(row["captured"]) else f"{row['bits'] / 8192:,.1f}"


def _number(column: str) -> Any:
    return lambda row: MISSING if pd.isna(row["captured"]) else count(row[column])


_FUNCTION = Column(
    None,
    "function",
    "what the model does again of its change (95 % over texts)",
    lambda row: (
        MISSING
        if pd.isna(row["captured"])
        else f"{percent(row['recovered'])} "
        f"({percent(row['recovered_low'])} to {percent(row['recovered_high'])})"
    ),
)
_FAMILY = (
    Column(None, "family", "", _label, text=True),
    Column("group", "kind", text=True),
    Column(None, "energy", "share of ‖ΔW‖²; ≥: the best that was found", _share),
    Column("noise", "noise", "what independent noise of the same shapes gives", percent),
    Column("law", "law", "P/(mn), where a family knows nothing of W or ΔW", percent),
    Column(None, "parameters", "trained", _number("parameters")),
    Column(None, "kB", "stored, with the places that were chosen", _bytes),
    Column(None, "frozen", "numbers held besides, unmerged", _number("frozen"), detail=True),
    Column(
        None,
        "multiply-adds",
        "of an unmerged forward pass, for each token",
        _number("multiply_adds"),
        detail=True,
    ),
    Column(
        None,
        "by",
        "where it was proposed",
        lambda row: FAMILIES[row["family"]].reference if row["family"] in FAMILIES else MISSING,
        text=True,
        detail=True,
    ),
)


def family_table(tables: Tables) -> View:
    """Return one row per family at the middle budget, best first, those that only store last."""
    pooled = tables["pooled"]
    budget = middle(pooled)
    chosen = pooled[pooled["budget"] == budget]
    stored = chosen[chosen["group"] == "stored"]
    rows = pd.concat([trained(chosen), stored.sort_values("captured", ascending=False)])
    columns = (*_FAMILY[:3], _FUNCTION, *_FAMILY[3:]) if _has_function(pooled) else _FAMILY
    return View.of(f"Every family at {budget:,} trainable parameters", columns, rows)


def _has_function(pooled: pd.DataFrame) -> bool:
    return bool(pooled["recovered"].notna().any())


def budget_table(tables: Tables) -> View:
    """Return one row per family, one column for each budget."""
    pooled = tables["pooled"]
    budgets = sorted(int(one) for one in pooled["budget"].unique())
    columns = [Column("label", "family", text=True)]
    columns += [Column(one, f"{one:,}", "trainable parameters") for one in budgets]
    lines = []
    for family, rows in pooled.groupby("family", sort=False):
        cells = {row["budget"]: _share(row) for row in rows.to_dict("records")}
        lines.append(
            {"label": _label({"family": family}), **dict.fromkeys(budgets, MISSING), **cells}
        )
    return View.of("Share of the update's energy at each budget", columns, lines)


_WINNER = (
    Column("layer", "layer", text=True),
    Column(None, "wins", "of the families that train", _label, text=True),
    Column("captured", "energy", "its share of ‖ΔW‖²", percent),
    Column("core", "CoSA's best core", "of all ensembles", percent),
)


def winner_table(tables: Tables) -> View:
    """Return one row per layer: who holds most of it, beside CoSA's best core."""
    return View.of("Who wins where", _WINNER, winners(tables))


def _views(document: Document) -> Sequence[View]:
    return family_table(document.tables), budget_table(document.tables)


def _explorer(tables: Tables) -> Explorer | None:
    from cosa_theory.studies.atlas.explorer import explorer

    return explorer(tables)


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.atlas.figures import FIGURES

    return FIGURES


_TERMS = (
    (
        "Budget",
        "Trainable parameters of all matrices together, spread over them in proportion to m + n, "
        "as a LoRA of one rank would. No family gets more; one that has no update of so few is "
        "listed with the reason.",
    ),
    (
        "Share of the energy",
        "1 − ‖ΔW − Â‖²/‖ΔW‖² of the best update Â that the family has at that size, all matrices "
        "together. It is what could be expressed, not what training finds. Marked ≥ where the "
        "best was searched for by alternating least squares, and may not have been found.",
    ),
    (
        "Function",
        "With the texts of a file: 1 − Σ‖f(W + Â) − f(W + ΔW)‖²/Σ‖f(W) − f(W + ΔW)‖² over three "
        "quarters of them, every layer exchanged at once (docs/theory.md, 6.1). It can be high "
        "where the energy is negative: an error without direction averages out.",
    ),
    (
        "Noise",
        "The same of independent entries of one variance, W too. What exceeds it speaks of the "
        "update's structure.",
    ),
    (
        "Stored",
        "16 bits for each number, and log₂ of the ways to choose the places where they were chosen "
        "by looking at ΔW or at a gradient. What a seed or W gives back is free. Families that "
        "only store an update train nothing; their parameters are the numbers that take as many "
        "bits. Those that keep the mean of ΔW (DARE, the adjoint of a core) have an error far "
        "above ΔW, and a negative share.",
    ),
)

PRESENTATION = Presentation(
    title="Atlas of update families",
    tables=("pooled", "families", "layers"),
    views=_views,
    detail_views=lambda document: (winner_table(document.tables),),
    figures=_figures,
    terms=_TERMS,
    explorer=_explorer,
    headings=("Families", "Layers"),
)
"""How documents of the command atlas are shown."""
