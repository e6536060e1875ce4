"""Families whose numbers are shared by layers, or spread over them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.families.base import FAMILIES, VALUE_BITS, Update
from cosa_theory.spectrum.families.joint import JOINT, Together
from cosa_theory.studies.layers import Pair

__all__ = ["chart_shared"]

Row = dict[str, Any]


@dataclass(frozen=True)
class _Layers:
    """Some layers of a pair, read anew at each walk: one is held at a time."""

    pair: Pair
    names: frozenset[str]

    def __iter__(self) -> Iterator[Update]:
        for layer in self.pair:
            if layer.name in self.names:
                delta = layer.delta.astype(np.float64, copy=False)
                yield Update(delta, None, singular_values(delta))


def chart_shared(
    name: str, pair: Pair, groups: Sequence[Mapping[str, int]], budget: int
) -> dict[str, Row]:
    """Measure a joint family at one budget.

    Parameters
    ----------
    name : str
        A key of `JOINT`.
    pair : Pair
        The updates.
    groups : sequence of mappings
        Layers that share numbers: their names, and what each may train.
    budget : int
        The whole budget, which the rows name.

    Returns
    -------
    dict
        From a layer's name to its row of the table `families`. Numbers that are shared are divided
        evenly; the first layers get what is left over.
    """
    rows: dict[str, Row] = {}
    for group in groups:
        layers = _Layers(pair, frozenset(group))
        allowed = sum(group.values())
        found = JOINT[name].best(layers, allowed)
        for place, update in enumerate(layers):
            layer = list(group)[place]
            rows[layer] = _row(name, budget, found, place, len(group), update)
    return rows


def _row(
    name: str, budget: int, found: Together | str, place: int, count: int, update: Update
) -> Row:
    row: Row = {"family": name, "budget": budget, "law": None, "noise": None}
    if isinstance(found, str):
        nothing = dict.fromkeys(("captured", "ci_low", "ci_high"), float("nan"))
        costs = dict.fromkeys(("bits", "frozen", "multiply_adds"))
        return row | nothing | costs | {"parameters": 0, "size": found}
    size = found.rows[place]
    shared = found.parameters - sum(one.parameters for one in found.rows)
    own = size.parameters + shared // count + (place < shared % count)
    left = update.delta - found.fit(place, update).update()
    share = 1 - float(np.vdot(left, left)) / float(np.vdot(update.delta, update.delta))
    return row | {
        "parameters": own,
        "size": size.text,
        "captured": share,
        "ci_low": share,
        "ci_high": share,
        "bits": VALUE_BITS * own,
        "frozen": 0,
        "multiply_adds": FAMILIES[name].cost(*update.shape, size).multiply_adds,
    }
