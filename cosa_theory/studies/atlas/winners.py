"""Who holds most of each layer's update."""

import pandas as pd

from cosa_theory.page.document import Tables
from cosa_theory.spectrum.families.base import FAMILIES
from cosa_theory.studies.atlas.verdict import middle

__all__ = ["winners"]


def winners(tables: Tables, budget: int | None = None) -> pd.DataFrame:
    """Return, for each layer at a budget (the middle one), the trained family that holds most.

    Columns `layer`, `module`, `block`, `family`, `captured`, and `core`, the best CoSA core's.
    """
    budget = middle(tables["pooled"]) if budget is None else budget
    rows = tables["families"][tables["families"]["budget"] == budget].dropna(subset=["captured"])
    groups = rows["family"].map({name: one.group for name, one in FAMILIES.items()})
    cores = rows[groups == "CoSA core"].groupby("layer")["captured"].max().rename("core")
    best = rows[groups != "stored"].sort_values("captured", ascending=False)
    best = best.drop_duplicates("layer").sort_index()
    return best[["layer", "module", "block", "family", "captured"]].join(cores, on="layer")
