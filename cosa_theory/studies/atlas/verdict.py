"""What an atlas recommends, in plain words with its margin and its null."""

import pandas as pd

from cosa_theory.page.views import percent
from cosa_theory.spectrum.families.base import FAMILIES

__all__ = ["middle", "trained", "verdict"]

_WHOLE = 1e-9  # of the energy, the rounding of a family that holds everything


def middle(pooled: pd.DataFrame) -> int:
    """Return the budget that the verdict and small tables are about, the middle one."""
    budgets = sorted(pooled["budget"].unique())
    return int(budgets[len(budgets) // 2])


def trained(pooled: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of families that can be trained, best first; those without an update last."""
    rows = pooled[pooled["group"] != "stored"]
    return rows.sort_values("captured", ascending=False, na_position="last", kind="stable")


def verdict(pooled: pd.DataFrame) -> str:
    """Say which family holds most of the update at the middle budget, and what a core holds.

    Families whose places are chosen by looking at ΔW say what the best mask would hold, which
    training cannot know beforehand: they are compared in the tables.
    """
    budget = middle(pooled)
    rows = trained(pooled[pooled["budget"] == budget].dropna(subset=["captured"]))
    if rows.empty:
        return f"No family has an update of {budget:,} trainable parameters."
    whole = int((rows["captured"] > 1 - _WHOLE).sum())
    if whole > 1:
        return f"{whole} families hold the whole update at {budget:,} trainable parameters."
    best = rows.iloc[0]
    families = "1 family" if len(rows) == 1 else f"{len(rows)} families"
    text = f"Of {families} {_named(best)} holds most of the update's energy at {budget:,}"
    text += f" trainable parameters, {percent(best['captured'])}{_null(best)}"
    others = rows[rows["group"] != best["group"]]
    if len(others):
        second = others.iloc[0]
        text += f"; the best of another kind is {_named(second)} with {percent(second['captured'])}"
        text += _null(second)
    cores = rows[rows["group"] == "CoSA core"]
    if len(cores) and best["group"] != "CoSA core":
        core = cores.iloc[0]
        factor = best["captured"] / core["captured"]
        text += f"; CoSA's best core holds {percent(core['captured'])} (law {percent(core['law'])})"
        text += f", {factor:.2g} times less"
    unmet = int(pooled.loc[pooled["budget"] == budget, "captured"].isna().sum())
    if unmet:
        text += f"; {unmet} {'family has' if unmet == 1 else 'families have'} no update of so few"
    return text + "."


def _named(row: pd.Series) -> str:
    bound = " (found, perhaps not the best)" if row["certainty"] != "exact" else ""
    return f"{FAMILIES[row['family']].label}{bound}"


def _null(row: pd.Series) -> str:
    return "" if pd.isna(row["noise"]) else f" ({percent(row['noise'])} of noise)"
