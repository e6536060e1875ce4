"""How many paired seeds a comparison needs."""

import itertools
import math

import pandas as pd

from cosa_theory.ground.estimates import student_quantile

__all__ = ["half_width", "paired_spread", "seeds_needed"]


def paired_spread(table: pd.DataFrame) -> float:
    """Return the largest standard deviation of the paired differences of any two arms.

    Parameters
    ----------
    table : pandas.DataFrame
        `arm`, `seed` and `loss` of a pilot, every arm with the same seeds.
    """
    losses = table.pivot(index="seed", columns="arm", values="loss").astype(float)
    return max(
        float((losses[one] - losses[other]).std(ddof=1))
        for one, other in itertools.combinations(losses, 2)
    )


def half_width(spread: float, seeds: int, confidence: float = 0.95) -> float:
    """Return the expected half-width of Student's interval of a mean of paired differences."""
    return student_quantile(seeds, confidence) * spread / math.sqrt(seeds)


def seeds_needed(spread: float, goal: float, confidence: float = 0.95) -> int:
    """Return the fewest seeds, at least two, whose interval is expected within ± goal."""
    seeds = 2
    while half_width(spread, seeds, confidence) > goal:
        seeds += 1
    return seeds
