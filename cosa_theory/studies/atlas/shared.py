"""Families whose numbers are shared by layers, or spread over them."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import __version__
from cosa_theory.deltas import DeltaPair
from cosa_theory.spectrum.families.base import FAMILIES, VALUE_BITS, Fit, Update
from cosa_theory.spectrum.families.joint import JOINT, Together
from cosa_theory.studies.atlas.layer import Noise
from cosa_theory.studies.layers import Pair

__all__ = ["Charting", "Group"]

Row = dict[str, Any]

_FEW = 1 << 24  # entries of layers that are kept: 128 MiB
# Raised when the content of a stored cell changes meaning, so that older ones are computed anew.
_CELL_FORMAT = 1


@dataclass(frozen=True)
class Group:
    """Layers that a joint family takes together, at one budget of the whole model.

    Parameters
    ----------
    family : str
        A key of `JOINT`.
    budget : int
        Of the whole model.
    part : mapping
        From the name of each layer, in the order of the pair, to what it may train of the budget.
    """

    family: str
    budget: int
    part: Mapping[str, int]


@dataclass
class Charting:
    """Measures groups of layers of a pair, from what `chart_layer` gave of each.

    Parameters
    ----------
    pair : Pair
        The stream of updates.
    known : mapping
        From the name of a layer to its result, with `sigma` and `digest`.
    seed : int
        Of noise.
    """

    pair: Pair
    known: Mapping[str, Mapping[str, Any]]
    seed: int
    _found: dict[tuple[str, int, str], tuple[int, Together]] = field(default_factory=dict)

    def identity(self, group: Group) -> tuple[dict[str, Any], list[NDArray[Any]]]:
        """Return what decides the result of `rows`, as `cell_name` takes it."""
        described = {
            "format": _CELL_FORMAT,
            "version": __version__,
            "family": group.family,
            "budget": group.budget,
            "part": dict(group.part),
            "layers": [self.known[name]["digest"] for name in group.part],
            "seed": self.seed,
        }
        return described, []

    def rows(self, group: Group) -> dict[str, Any]:
        """Fit a group; return a `name` for it, and each layer's row of the table `families`.

        Numbers that are shared are divided evenly; the first layers get what is left over. The null
        is that of a layer alone, with its part of the budget.
        """
        family, part = FAMILIES[group.family], group.part
        layers = _Layers(self.pair, part, self.known)
        found = JOINT[group.family].best(layers, sum(part.values()))
        rows: dict[str, Row] = {}
        for place, (layer, update) in enumerate(zip(part, layers, strict=True)):
            alone = family.size(*update.shape, max(1, part[layer]))
            noise = Noise(self.seed).share(group.family, *update.shape, alone)
            row = _row(group.family, found, place, len(part), update)
            rows[layer] = row | {"budget": group.budget, "noise": noise}
            if isinstance(found, Together):
                self._found[group.family, group.budget, layer] = place, found
        return {"name": f"{family.label}, {group.budget:,} numbers", "rows": rows}

    def fit(self, family: str, budget: int, layer: str, delta: NDArray[Any]) -> Fit | None:
        """Return the fit of a layer whose group has its `rows`; None where it has none."""
        known = self._found.get((family, budget, layer))
        if known is None:
            return None
        place, found = known
        return found.fit(place, Update(delta.astype(np.float64), None, np.empty(0)))


@dataclass
class _Layers:
    """Some layers of a pair, walked through many times: few are kept, of many one is held."""

    pair: Pair
    names: Mapping[str, Any]
    known: Mapping[str, Mapping[str, Any]]
    _kept: list[Update] | None = None

    def __iter__(self) -> Iterator[Update]:
        if self._kept is None and self._are_few():
            self._kept = list(self._read())
        return self._read() if self._kept is None else iter(self._kept)

    def _are_few(self) -> bool:
        shapes = [one.shape for one in getattr(self.pair, "layers", ()) if one.name in self.names]
        return 0 < sum(m * n for m, n in shapes) <= _FEW

    def _read(self) -> Iterator[Update]:
        walk = self.pair.only(self.names) if isinstance(self.pair, DeltaPair) else self.pair
        for layer in walk:
            if layer.name in self.names:
                delta = layer.delta.astype(np.float64, copy=False)
                yield Update(delta, None, np.array(self.known[layer.name]["sigma"]))
                del layer, delta


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
