"""What the figures of an audit show, in words, for readers who do not see them."""

from cosa_theory.page.document import Tables
from cosa_theory.page.views import number, percent
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS

__all__ = ["decay_in_words", "outcomes_in_words", "participation_in_words"]


def outcomes_in_words(tables: Tables, subject: str = "update") -> str:
    """Say in how many matrices each assumption holds, with the median of what was measured."""
    rows = tables["assumptions"][tables["assumptions"]["subject"] == subject]
    parts = []
    for name, one in ASSUMPTIONS.items():
        found = rows[rows["assumption"] == name]
        if len(found):
            holds = int((found["outcome"] == "holds").sum())
            value = number(found["value"].astype(float).median())
            parts.append(f"{one.title} holds in {holds} of {len(found)} matrices (median {value})")
    return f"{'; '.join(parts)}."


def participation_in_words(tables: Tables) -> str:
    """Say how large participation ratios are beside what is needed."""
    rows = tables["assumptions"]
    rows = rows[(rows["assumption"] == "flat_spectrum") & (rows["subject"] == "update")]
    ratio = rows["value"].astype(float)
    return (
        f"Participation ratios of {len(rows)} updates: median {number(ratio.median())}, from "
        f"{number(ratio.min())} to {number(ratio.max())}, where a median of "
        f"{number(rows['threshold'].astype(float).median())} is needed; enough in "
        f"{int((rows['outcome'] == 'holds').sum())}."
    )


def decay_in_words(tables: Tables) -> str:
    """Say how many coefficients hold most of the energy in each basis."""
    table = tables["sparsity"]
    names = {"coordinate": "entries", "dct": "cosine transform", "singular": "singular basis of W"}
    shares = (table["effective"] / table["entries"]).groupby(table["basis"]).median()
    parts = [
        f"{percent(shares[one])} in the {name}" for one, name in names.items() if one in shares
    ]
    return f"Median share of the coefficients that hold 90 % of the energy: {', '.join(parts)}."
