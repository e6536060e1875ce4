"""A grid of learning rates in quarter decades, which grows until the best is inside it."""

import math
from collections.abc import Sequence

import pandas as pd

__all__ = ["best_quarter", "grown"]


def best_quarter(table: pd.DataFrame) -> int:
    """Return the `quarter` of the least `loss`; a training that diverged, NaN or None, has none."""
    losses = table["loss"].astype(float).fillna(math.inf)
    return int(table["quarter"].iloc[int(losses.to_numpy().argmin())])


def grown(quarters: Sequence[int], best: int) -> list[int] | None:
    """Return the grid with one more rate beyond the best; None where the best is inside."""
    if min(quarters) < best < max(quarters):
        return None
    return [*quarters, best - 1 if best == min(quarters) else best + 1]
