"""What a row of the tables can be about: the two operators of a layer, or one matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cosa_theory.projections import printed_name

__all__ = ["OPERATORS", "Operator", "operator_name"]


@dataclass(frozen=True)
class Operator:
    """One thing whose isometry is bracketed: its letter, and what it and its panel are called.

    `subject` is what it maps, in the plural; `scale` that of the factors by default, at which
    E‖Ax‖² = ‖x‖², empty where there are none to draw.
    """

    symbol: str
    words: str
    subject: str
    title: str
    scale: str = ""


OPERATORS = {
    "dictionary": Operator(
        *("Ψ", "the tall dictionary Ψ = L ⊗ Rᵀ (mn × ab)", "cores"),
        *("tall Ψ: s-sparse cores", "synthesis"),
    ),
    "sensing": Operator(
        *("Φ", "the wide sensing operator Φ = Lᵀ ⊗ R (ab × mn)", "updates"),
        *("wide Φ: s-sparse updates", "analysis"),
    ),
    "matrix": Operator("A", "the matrix", "vectors", "the matrix"),
}
"""By the name in the column "about" of every table."""


def operator_name(row: Mapping[Any, Any]) -> str:
    """Return what a row is about, as in "Φ (Rademacher)"."""
    symbol = OPERATORS[row["about"]].symbol
    return f"{symbol} ({printed_name(row['kind'])})" if "kind" in row else symbol
