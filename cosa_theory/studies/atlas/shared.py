"""Families whose numbers are shared by layers, or spread over them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.spectrum.families.base import FAMILIES, VALUE_BITS, Fit, Update
from cosa_theory.spectrum.families.joint import JOINT, Together
from cosa_theory.studies.atlas.layer import noise_share
from cosa_theory.studies.layers import Pair

__all__ = ["SharedFits", "chart_shared", "share_fits"]

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
                yield Update(delta, None, np.empty(0))


@dataclass(frozen=True)
class SharedFits:
    """What a joint family makes of the layers at one budget.

    Parameters
    ----------
    groups : tuple
        Of each group the names of its layers, and what was found.
    """

    groups: tuple[tuple[tuple[str, ...], Together | str], ...]

    def of(self, layer: str, delta: NDArray[Any]) -> Fit | None:
        """Return the fit of a layer; None where there is none."""
        for names, found in self.groups:
            if layer in names and isinstance(found, Together):
                update = Update(delta.astype(np.float64), None, np.empty(0))
                return found.fit(names.index(layer), update)
        return None


def share_fits(name: str, pair: Pair, groups: Sequence[Mapping[str, int]]) -> SharedFits:
    """Fit a joint family: each group of layers, by what each layer may train.

    Layers of a group are in the order of the pair.
    """
    return SharedFits(
        tuple(
            (
                tuple(group),
                JOINT[name].best(_Layers(pair, frozenset(group)), sum(group.values())),
            )
            for group in groups
        )
    )


def chart_shared(
    name: str, pair: Pair, fits: SharedFits, part: Mapping[str, int], budget: int, seed: int
) -> dict[str, Row]:
    """Return, from a layer's name, its row of the table `families`.

    Numbers that are shared are divided evenly; the first layers get what is left over. The null is
    that of a layer alone, with its `part` of the budget.
    """
    rows: dict[str, Row] = {}
    for names, found in fits.groups:
        layers = _Layers(pair, frozenset(names))
        for place, (layer, update) in enumerate(zip(names, layers, strict=True)):
            alone = FAMILIES[name].size(*update.shape, max(1, part[layer]))
            noise = noise_share(name, *update.shape, alone, seed)
            row = _row(name, found, place, len(names), update)
            rows[layer] = row | {"budget": budget, "noise": noise}
    return rows


def _row(name: str, found: Together | str, place: int, count: int, update: Update) -> Row:
    row: Row = {"family": name, "law": None}
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
