"""The shares of all layers as shares of the whole update's energy, for every family and budget."""

from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.spectrum.families.base import FAMILIES

__all__ = ["FUNCTION_COLUMNS", "POOLED_COLUMNS", "pool_atlas"]

FUNCTION_COLUMNS = dict.fromkeys(("recovered", "recovered_low", "recovered_high"), "float64")
POOLED_COLUMNS = {
    "family": "object",
    "group": "object",
    "certainty": "object",
    "budget": "int64",
    "parameters": "int64",
    "captured": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    **FUNCTION_COLUMNS,
    "law": "float64",
    "noise": "float64",
    "bits": "float64",
    "frozen": "Int64",
    "multiply_adds": "Int64",
    "met": "int64",
    "layers": "int64",
    "reason": "object",
}


def pool_atlas(families: pd.DataFrame, layers: pd.DataFrame) -> list[dict[str, Any]]:
    """Pool the shares of the layers' energies, weighted by ‖ΔW‖².

    captured = Σ_ℓ captured_ℓ ‖ΔW_ℓ‖² / Σ_ℓ ‖ΔW_ℓ‖² over the layers with a non-zero update; a layer
    that the budget leaves without an update of the family counts as 0. Half widths of intervals add
    in squares. Numbers, bits and multiply-adds are sums.

    Returns
    -------
    list of dict
        Rows with `POOLED_COLUMNS`: `met` layers of `layers` have an update; where none has,
        `captured` is null and `reason` says why. Function recovered (`FUNCTION_COLUMNS`) is null:
        it is measured of the whole model. A family that is missing in a layer, as an
        informed one where moments are, has no row.
    """
    weights = layers.set_index("layer")["delta_norm"].astype(float) ** 2
    weights = weights[weights > 0] / weights.sum()
    rows = families[families["layer"].isin(weights.index)]
    return [
        _row(str(group["family"].iloc[0]), int(group["budget"].iloc[0]), group, weights)
        for _, group in rows.groupby(["family", "budget"], sort=False)
        if group["layer"].nunique() == len(weights)
    ]


def _row(family: str, budget: int, group: pd.DataFrame, weights: pd.Series) -> dict[str, Any]:
    met = group[group["parameters"] > 0]
    weight = met["layer"].map(weights).astype(float)  # also where none is met

    def weighed(column: str) -> float:
        return float((weight * met[column]).sum(skipna=False)) if len(met) else float("nan")

    captured = weighed("captured")
    half = float(np.sqrt(((weight * (met["ci_high"] - met["ci_low"])) ** 2).sum())) / 2
    known = FAMILIES[family]
    return {
        "family": family,
        "group": known.group,
        "certainty": known.certainty,
        "budget": budget,
        "parameters": int(group["parameters"].sum()),
        "captured": captured,
        "ci_low": captured - half,
        "ci_high": captured + half,
        **dict.fromkeys(FUNCTION_COLUMNS),
        "law": weighed("law"),
        "noise": weighed("noise"),
        "bits": float(met["bits"].sum()),
        "frozen": int(met["frozen"].sum()),
        "multiply_adds": int(met["multiply_adds"].sum()),
        "met": len(met),
        "layers": len(weights),
        "reason": None if len(met) else str(group["size"].iloc[0]),
    }
