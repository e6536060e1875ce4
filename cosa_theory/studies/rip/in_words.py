"""What the drawings of isometry show, in words, for readers who do not see them."""

import pandas as pd

from cosa_theory.page.style import ensemble_style
from cosa_theory.studies.rip.operators import OPERATORS
from cosa_theory.studies.rip.verdict import small

__all__ = ["brackets_in_words", "cores_in_words", "orders_in_words"]


def orders_in_words(table: pd.DataFrame) -> str:
    """Say between which ends δ_s lies at the first and the last order, for every ensemble."""
    parts = []
    for about, own in table.groupby("about", sort=False):
        lines = own.groupby("kind", sort=False) if "kind" in own else [("", own)]
        told = []
        for kind, rows in lines:
            ordered = rows.sort_values("s")
            ends = [ordered.iloc[0], *([ordered.iloc[-1]] if len(ordered) > 1 else [])]
            named = f"{ensemble_style(str(kind)).label} " if kind else ""
            told.append(named + ", ".join(_bracket(one) for one in ends))
        parts.append(f"{OPERATORS[str(about)].title}: {'; '.join(told)}")
    return f"Proven ends. {'. '.join(parts)}."


def _bracket(row: pd.Series) -> str:
    return f"δ_{row['s']} from {small(row['lower'])} to {small(row['upper'])}"


def cores_in_words(table: pd.DataFrame) -> str:
    """Say from where to where every ensemble stretches a core, at each scale."""
    parts = []
    for scale, rows in table.groupby("scale", sort=False):
        told = ", ".join(
            f"{ensemble_style(str(row['kind'])).label} {small(row['least'])} to "
            f"{small(row['greatest'])}"
            for row in rows.to_dict("records")
        )
        parts.append(f"at {scale} scale {told}")
    return f"‖L Y R‖²/‖Y‖² over all cores: {'; '.join(parts)}."


def brackets_in_words(table: pd.DataFrame) -> str:
    """Say how many brackets are exact, and how many below one, for plain and Kronecker matrices.

    Of a table of `experiments.rip_brackets`, what is finished and has columns of unit norm.
    """
    rows = table[(table["scale"] == "unit-norm") & (table["status"] == "done")]
    parts = []
    for (about, structure), own in rows.groupby(["about", "structure"], sort=False):
        exact = int((own["upper"] - own["lower"] <= 0.01 * own["upper"]).sum())
        proven = own[own["upper"] < 1]
        of_them = f"{len(proven)} of them, up to order {proven['s'].max()}"
        parts.append(
            f"{about} {structure}: {exact} of {len(own)} are exact to a hundredth, and δ_s is "
            f"proven to be below 1 in {of_them if len(proven) else 'none'}"
        )
    return f"Brackets for columns of unit norm. {'; '.join(parts)}."
