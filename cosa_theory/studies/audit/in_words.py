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
    """Say how large the ratios of updates, and of gradients, are beside what is needed."""
    rows = tables["assumptions"]
    rows = rows[(rows["assumption"] == "flat_spectrum") & rows["value"].notna()]
    parts = []
    for subject in rows["subject"].unique():
        own = rows[rows["subject"] == subject]
        ratio, needed = own["value"].astype(float), own["threshold"].astype(float)
        parts.append(
            f"Participation ratios of {len(own)} {subject}{'' if len(own) == 1 else 's'}: median "
            f"{number(ratio.median())}, from {number(ratio.min())} to {number(ratio.max())}, where "
            f"a median of {number(needed.median())} is needed; enough in "
            f"{int((own['outcome'] == 'holds').sum())}."
        )
    return " ".join(parts)


def decay_in_words(tables: Tables) -> str:
    """Say how many coefficients hold most of the energy of each subject in each basis."""
    table = tables["sparsity"]
    names = {"coordinate": "entries", "dct": "cosine transform", "singular": "singular basis of W"}
    shares = (table["effective"] / table["entries"]).groupby([table["subject"], table["basis"]])
    medians = shares.median()
    told = []
    for subject in table["subject"].unique():
        of_subject = medians[subject]
        parts = [
            f"{percent(of_subject[one])} in the {name}"
            for one, name in names.items()
            if one in of_subject
        ]
        told.append(f"of {subject}s {', '.join(parts)}")
    return f"Median share of the coefficients that hold 90 % of the energy: {'; '.join(told)}."
