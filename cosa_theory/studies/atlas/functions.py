"""What every family returns of the model's function: its fits, put into the model."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from cosa_theory.deltas import LayerDelta
from cosa_theory.deltas.gradients import Gradients
from cosa_theory.spectrum.approximations import Approximation
from cosa_theory.spectrum.approximations.base import Given, Matrix, Stored
from cosa_theory.spectrum.approximations.of_family import from_storage, made
from cosa_theory.spectrum.families.base import FAMILIES
from cosa_theory.spectrum.families.fitted import Fitted
from cosa_theory.spectrum.families.joint import JOINT
from cosa_theory.studies.atlas.shared import Charting

__all__ = ["Parts", "family_approximations", "function_of_families"]

Parts = Mapping[int, Mapping[str, int]]
"""From a budget of the whole model to what every layer may train of it."""


def family_approximations(
    families: Sequence[str],
    parts: Parts,
    shared: Charting,
    slopes: Gradients | None = None,
) -> Iterator[tuple[str, int, Approximation]]:
    """Yield family, budget and what puts its fits into a model.

    Parameters
    ----------
    families : sequence of str
        Keys of `FAMILIES`.
    parts : mapping
        From a budget to what every layer may train of it.
    shared : Charting
        What has the fits of joint families.
    slopes : Gradients, optional
        What the mask of the largest gradients is chosen by.
    """
    for name in families:
        for budget, part in parts.items():
            if name in JOINT:
                make: Any = partial(_shared, name=name, budget=budget, shared=shared)
            else:
                make = partial(_alone, name=name, part=part, slopes=slopes)
            yield (
                name,
                budget,
                Approximation(
                    name=f"{name} at {budget}",
                    label=f"{FAMILIES[name].label} at {budget:,}",
                    group=FAMILIES[name].group,
                    make=make,
                    stored=lambda m, n, rank: Stored(0, 0.0),  # told by the atlas's own tables
                    budgeted=False,
                ),
            )


def _alone(given: Given, name: str, part: Mapping[str, int], slopes: Gradients | None) -> Matrix:
    """Return the fit of one layer, zero where the budget leaves it none."""
    layer, family, slope = str(given.key[0]), FAMILIES[name], None
    if slopes is not None and isinstance(family, Fitted) and family.needs_slope:
        assert given.base is not None  # every matrix of a pair has one
        slope = slopes.of(LayerDelta(layer, given.delta, given.base))
    return made(given, name, part[layer], None if slope is None else slope.delta)


def _shared(given: Given, name: str, budget: int, shared: Charting) -> Matrix:
    fit = shared.fit(name, budget, str(given.key[0]), given.delta)
    if fit is None:
        return np.zeros_like(given.delta)
    return from_storage(fit, given)


def function_of_families(
    table: pd.DataFrame, chosen: Sequence[tuple[str, int, Approximation]]
) -> pd.DataFrame:
    """Return family, budget and function recovered with its interval, of the first set of texts.

    Parameters
    ----------
    table : pandas.DataFrame
        The table `function` of the study of function, of `chosen`.
    chosen : sequence
        What `family_approximations` yields.
    """
    table = table[table["gain"] == 1]
    first = table[table["texts"] == table["texts"].iloc[0]].set_index("approximation")
    rows = [
        {
            "family": family,
            "budget": budget,
            "recovered": first.at[one.name, "recovered"],
            "recovered_low": first.at[one.name, "low"],
            "recovered_high": first.at[one.name, "high"],
        }
        for family, budget, one in chosen
    ]
    return pd.DataFrame(rows)
