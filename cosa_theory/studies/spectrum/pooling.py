"""The shares of all layers as shares of the whole update."""

from collections.abc import Iterable

import numpy as np
import pandas as pd

from cosa_theory.studies.spectrum.budgets import at_budget

__all__ = ["pool_families"]


def pool_families(
    families: pd.DataFrame, layers: pd.DataFrame, budgets: Iterable[int]
) -> pd.DataFrame:
    """Pool the shares of all layers into shares of the whole update's energy.

    captured = Σ_ℓ captured_ℓ ‖ΔW_ℓ‖² / Σ_ℓ ‖ΔW_ℓ‖², over the layers ℓ with a non-zero update.
    Draws of different layers are independent, so the half widths of their intervals add in
    squares; the law ab/(mn) is weighted in the same way. A layer without one of the rank budgets
    enters with its nearest (see `at_budget`).

    Columns family, rank_budget, parameters (sum over layers), captured, law (NaN where a family
    has none), ci_low, ci_high. A family that is missing in one of the layers is left out: its share
    would not compare.
    """
    weights = layers.set_index("layer")["delta_norm"].astype(float) ** 2
    weights = weights[weights > 0]
    rows = families[families["layer"].isin(weights.index)].copy()
    numbers = ["parameters", "captured", "ci_low", "ci_high", "law"]
    rows[numbers] = rows[numbers].astype(float)
    rows["weight"] = rows["layer"].map(weights) / weights.sum()
    pooled = []
    for rank in budgets:
        for family, group in at_budget(rows, rank).groupby("family", sort=False):
            if group["layer"].nunique() < len(weights):
                continue
            weight = group["weight"]
            captured = float((weight * group["captured"]).sum())
            widths = weight * (group["ci_high"] - group["ci_low"])
            half = float(np.sqrt((widths**2).sum())) / 2
            law = float((weight * group["law"]).sum(skipna=False))
            count = int(group["parameters"].sum())
            pooled.append((family, rank, count, captured, law, captured - half, captured + half))
    columns = ["family", "rank_budget", "parameters", "captured", "law", "ci_low", "ci_high"]
    return pd.DataFrame(pooled, columns=columns)
