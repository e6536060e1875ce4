"""Every family on one layer, beside noise of the same shape, as plain JSON values."""

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import __version__
from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.cells import cell_name
from cosa_theory.ground.scales import frobenius_norm, in_safe_range
from cosa_theory.projections import stream
from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.families.base import FAMILIES, Captured, Draws, Family, Size, Update
from cosa_theory.spectrum.families.joint import JOINT
from cosa_theory.studies.known_layers import Known

__all__ = ["AtlasSettings", "Charted", "Noise", "allotted", "chart_layer", "identity"]

# Raised when the content of a stored cell changes meaning, so that older ones are computed anew.
_CELL_FORMAT = 2


@dataclass(frozen=True)
class AtlasSettings:
    """What the result for a layer depends on besides the layer: arguments of `atlas_pair`."""

    families: tuple[str, ...]
    draws: int
    seed: int


@dataclass(frozen=True)
class Charted:
    """A layer, what it may train of each budget, and what is known of it beforehand."""

    layer: LayerDelta
    budgets: tuple[int, ...]
    parameters: tuple[int, ...]
    known: Known | None = None
    slope: NDArray[Any] | None = None


def allotted(shapes: Iterable[tuple[int, int]], budget: int) -> list[int]:
    """Spread a budget over layers as a LoRA of one rank would: in proportion to m + n.

    At most mn for a layer; what is cut off there is not given to others.
    """
    sizes = list(shapes)
    total = sum(m + n for m, n in sizes)
    return [min(m * n, budget * (m + n) // total) for m, n in sizes]


def _update_of(charted: Charted) -> Update:
    """Return a layer as families take it."""
    layer, known = charted.layer, charted.known
    delta = in_safe_range(layer.delta)[0]
    return Update(
        delta,
        in_safe_range(layer.base)[0],
        singular_values(delta),
        inputs=None if known is None else known.inputs,
        gradients=None if known is None else known.gradients,
        transposed=known is not None and known.transposed,
        slope=charted.slope,
    )


def identity(
    charted: Charted, settings: AtlasSettings
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Return what decides a layer's result, as `cosa_theory.ground.cells.cell_name` takes it."""
    described = {
        "format": _CELL_FORMAT,
        "version": __version__,
        "atlas": dataclasses.asdict(settings),
        "name": charted.layer.name,
        "budgets": list(charted.budgets),
        "parameters": list(charted.parameters),
    }
    arrays = [charted.layer.delta, charted.layer.base]
    if charted.slope is not None:
        described["slope"] = True
        arrays.append(charted.slope)
    if charted.known is None:
        return described, arrays
    return described | charted.known.described, arrays + charted.known.arrays


def chart_layer(charted: Charted, settings: AtlasSettings) -> dict[str, Any]:
    """Measure the families that need no other layer.

    Returns `name`, rows of the tables `layers` and `families`, and what families of several layers
    go by: `sigma`, the singular values of ΔW, and `digest`, a hash of ΔW.
    """
    layer = charted.layer
    update = _update_of(charted)
    draws, noise = Draws(settings.draws, settings.seed, (layer.name,)), Noise(settings.seed)
    rows = []
    for name in settings.families:
        family = None if name in JOINT else FAMILIES[name].of(update)
        if family is not None:
            rows += _measured(family, update, charted, draws, noise)
    m, n = layer.shape
    return {
        "name": layer.name,
        "layers": [{"m": m, "n": n, "delta_norm": frobenius_norm(layer.delta)}],
        "families": rows,
        "sigma": (update.sigma / in_safe_range(layer.delta)[1]).tolist(),
        "digest": cell_name({}, [layer.delta]),
    }


def _measured(
    family: Family, update: Update, charted: Charted, draws: Draws, noise: "Noise"
) -> list[dict[str, Any]]:
    m, n = update.shape
    sides = (n, m) if family.sided and update.transposed else (m, n)
    sizes = [family.size(*sides, max(1, one)) for one in charted.parameters]
    if update.is_zero:
        found = [Captured.exact(float("nan"))] * len(sizes)
    else:
        found = family.capture(update, sizes, draws)
    rows = []
    for budget, size, captured in zip(charted.budgets, sizes, found, strict=True):
        cost = family.cost(*sides, size) if size.parameters else None
        law = not family.data_dependent and size.parameters
        rows.append(
            {
                "family": family.name,
                "budget": budget,
                "parameters": size.parameters,
                "size": size.text,
                "captured": captured.mean,
                "ci_low": captured.low,
                "ci_high": captured.high,
                "law": size.parameters / (m * n) if law else None,
                "noise": noise.share(family.name, *sides, size),
                "bits": cost.bits if cost else None,
                "frozen": cost.frozen if cost else None,
                "multiply_adds": cost.multiply_adds if cost else None,
            }
        )
    return rows


@dataclass(frozen=True)
class Noise:
    """What families capture of independent noise in the place of ΔW and W.

    Shares are kept for all layers of a shape; the noise itself goes with this object, since for a
    large layer it takes as much memory as the layer.

    Parameters
    ----------
    seed : int
        Of the noise.
    """

    seed: int
    _drawn: dict[tuple[int, int], Update] = field(default_factory=dict, repr=False)

    def share(self, name: str, m: int, n: int, size: Size) -> float | None:
        """Return the share of one size of a family; None where it takes more than ΔW and W.

        Families that know something of inputs have no such null.
        """
        if not size.parameters:
            return None
        key = (name, m, n, size, self.seed)
        if key not in _SHARES:
            _SHARES[key] = self._measured(name, m, n, size)
        return _SHARES[key]

    def _measured(self, name: str, m: int, n: int, size: Size) -> float | None:
        noise = self._of(m, n)
        family = FAMILIES[name].of(noise)
        if family is None:
            return None
        (captured,) = family.capture(noise, [size], Draws(2, self.seed, ("noise",)))
        return captured.mean if np.isfinite(captured.mean) else None

    def _of(self, m: int, n: int) -> Update:
        if (m, n) not in self._drawn:
            delta, base = (
                stream(self.seed, "noise", role, m, n).standard_normal((m, n)).astype(np.float32)
                for role in ("delta", "base")
            )
            self._drawn[m, n] = Update(delta, base, singular_values(delta))
        return self._drawn[m, n]


_SHARES: dict[tuple[str, int, int, Size, int], float | None] = {}
