"""What the drawings of projections' distortions show, in words, for readers who do not see them."""

import numpy as np
import pandas as pd

from cosa_theory.page.views import number, percent
from cosa_theory.projections import printed_name

__all__ = ["failures_in_words", "variances_in_words", "varying"]

_ROUNDING = 1e-6  # of the variance of an unstructured map


def varying(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out maps that keep a matrix exactly, whose law is 0: what is measured is rounding."""
    return table[table["law"] > _ROUNDING * table["unstructured"]]


def failures_in_words(curves: pd.DataFrame) -> str:
    """Say how often every ensemble fails at one ε, on each set of vectors, beside the χ² law.

    Of the distances that are drawn it is the one at which the law is nearest to one in twenty.
    """
    law = curves.drop_duplicates("eps").set_index("eps")["chi_square"].astype(float)
    eps = float((np.log(law.clip(lower=1e-300)) - np.log(0.05)).abs().idxmin())
    parts = []
    for name, rows in curves[curves["eps"] == eps].groupby("vectors_of", sort=False):
        shares = ", ".join(
            f"{printed_name(str(row['kind']))} {percent(row['probability'])}"
            for row in rows.to_dict("records")
        )
        first = rows.iloc[0]
        parts.append(
            f"of {name} (k = {first['k']}, d = {first['d']}) {shares}, where the χ² law gives "
            f"{percent(first['chi_square'])}"
        )
    return f"Squared norms that are off by more than ε = {eps:.3g}: {'; '.join(parts)}."


def variances_in_words(table: pd.DataFrame) -> str:
    """Say how the measured variances compare with their law, and with an unstructured map's."""
    ratio = (table["variance"] / table["law"]).astype(float)
    inside = ((table["ci_low"] <= table["law"]) & (table["law"] <= table["ci_high"])).sum()
    times = (table["variance"] / table["unstructured"]).astype(float)
    return (
        f"Of {len(table)} measured variances {inside} have their law in the 95 % interval; "
        f"measured over law is {_spread(ratio)}. Over that of an unstructured map with as many "
        f"rows the variance is {_spread(times)}."
    )


def _spread(values: pd.Series) -> str:
    low, high = number(values.min()), number(values.max())
    return f"{number(values.median())} in the median, from {low} to {high}"
