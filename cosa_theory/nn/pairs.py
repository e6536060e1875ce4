"""The two projections of every layer: stored, made from data, drawn, or those the model has.

Both front ends get them here, so that a draw is compared with the training's in one place.
"""

import copy
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor, nn

from cosa_theory.deltas.cosa_adapters import CosaFolder, refuse_other_draws
from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.progress import Advance
from cosa_theory.nn.projection import (
    FrozenProjection,
    ProjectionSpec,
    draw_projections,
    given_projection,
)
from cosa_theory.nn.settings import LayerSpec
from cosa_theory.projections import ENSEMBLES

__all__ = ["Pair", "Placement", "layer_pairs"]

Pair = tuple[FrozenProjection, FrozenProjection]
"""The a × m transpose of L, and the b × n R."""

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class Placement:
    """Where a layer computes, and in which type."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, base: nn.Module) -> Self:
        """Return that of a base layer, quantised or not; the CPU where it has no memory yet."""
        tensors = (
            [getattr(base, name, None) for name in ("weight", "qweight", "W_q")]
            + list(base.parameters())
            + list(base.buffers())
        )
        weight = next((tensor for tensor in tensors if isinstance(tensor, torch.Tensor)), None)
        dtype = getattr(base, "compute_dtype", None) or (None if weight is None else weight.dtype)
        lost = weight is None or weight.device.type == "meta"
        return cls(
            torch.device("cpu") if weight is None or lost else weight.device,
            dtype if dtype in _FLOATS else torch.float32,
        )


Ready = dict[tuple[ProjectionSpec, Placement], FrozenProjection]


def layer_pairs(
    specs: Mapping[str, LayerSpec],
    places: Mapping[str, Placement],
    *,
    adapter: CosaFolder | None = None,
    fingerprints: Mapping[str, tuple[str | None, str | None]] | None = None,
    present: Mapping[tuple[ProjectionSpec, Placement], FrozenProjection] | None = None,
    made: Mapping[ProjectionSpec, Tensor] | None = None,
    threads: int = 2,
    progress: Advance | None = None,
) -> dict[str, Pair]:
    """Return both projections of every layer; equal ones in one place are one object.

    `specs` and `places` go by the layer's name in the base model. What `adapter` stores of these
    layers' projections is used as it is, and not drawn; what was `made` from data is by
    `cosa_theory.nn.informed`; what the model has already is `present`.
    `fingerprints` are those of L and R at the training: a draw that differs is refused. `threads`
    and `progress` are as for `draw_projections`. An InputError names the stored projections that
    hold NaN, those that were not made, or the draws that differ.
    """
    label = "the adapter" if adapter is None else adapter.label
    stored = {} if adapter is None else _stored_projections(adapter, places)
    drawn = {
        (name, role): (one, places[name])
        for name, spec in specs.items()
        for role, one in (("L", spec.left), ("R", spec.right))
        if (name, role) not in stored
    }
    informed = {at: one for at, one in drawn.items() if ENSEMBLES[one[0].kind].data_dependent}
    stored |= _made_projections(informed, made or {})
    drawn = {at: one for at, one in drawn.items() if at not in informed}
    ready = dict(present or {})
    try:
        _draw(ready, drawn.values(), threads, progress)
    except ValueError as error:  # an option, or a size, that the ensemble does not have
        raise InputError(f"{label}: the projections cannot be drawn: {error}") from error
    if fingerprints and drawn:
        (first, _), *_ = drawn.values()
        refuse_other_draws(
            label,
            first.seed,
            (
                (f"{role} of {name}", ready[key].fingerprint, fingerprints[name]["LR".index(role)])
                for (name, role), key in drawn.items()
                if name in fingerprints
            ),
        )
    found = stored | {place: ready[key] for place, key in drawn.items()}
    used = Counter(id(found[name, "R"]) for name in specs)
    for name in specs:
        found[name, "R"].shared |= used[id(found[name, "R"])] > 1
    return {name: (found[name, "L"], found[name, "R"]) for name in specs}


def _made_projections(
    wanted: Mapping[tuple[str, str], tuple[ProjectionSpec, Placement]],
    made: Mapping[ProjectionSpec, Tensor],
) -> dict[tuple[str, str], FrozenProjection]:
    """Return what was made from data, where it is wanted; equal values in one place are one."""
    missing = [
        f"{role} of {name}" for (name, role), (spec, _) in wanted.items() if spec not in made
    ]
    if missing:
        kind = next(spec.kind for spec, _ in wanted.values())
        raise InputError(
            f"kind is {kind!r}, and projections were not made from data with these settings "
            f"({first_few(missing, 3)}): call prepare_cosa(model, config, dataloader) first, or "
            "give add_cosa the moments"
        )
    placed: dict[tuple[int, Placement], FrozenProjection] = {}
    found = {}
    for at, (spec, place) in wanted.items():
        values = made[spec]
        if (id(values), place) not in placed:
            given = given_projection(values).to(place.device, place.dtype)
            placed[id(values), place] = given
        found[at] = placed[id(values), place]
    return found


def _draw(
    ready: Ready,
    wanted: Iterable[tuple[ProjectionSpec, Placement]],
    threads: int,
    progress: Advance | None,
) -> None:
    """Draw what is not there, on the CPU, and put it where it is wanted."""
    wanted = [key for key in wanted if key not in ready]
    missing: dict[torch.dtype, list[ProjectionSpec]] = {}
    for spec, place in wanted:
        if (spec, Placement(torch.device("cpu"), place.dtype)) not in ready:
            missing.setdefault(place.dtype, []).append(spec)
    for dtype, specs in missing.items():
        made = draw_projections(specs, dtype=dtype, threads=threads, progress=progress)
        for spec, projection in made.items():
            ready[spec, Placement(torch.device("cpu"), dtype)] = projection
    for spec, place in wanted:
        if (spec, place) not in ready:
            at_home = ready[spec, Placement(torch.device("cpu"), place.dtype)]
            ready[spec, place] = copy.deepcopy(at_home).to(place.device)


def _stored_projections(
    adapter: CosaFolder, places: Mapping[str, Placement]
) -> dict[tuple[str, str], FrozenProjection]:
    """Return the projections that the file holds, by layer and role; each tensor is read once."""
    read: dict[tuple[str, str, Placement], FrozenProjection] = {}
    found, bad = {}, []
    for name, record in adapter.layers.items():
        for role, tensor in (("L", record.left), ("R", record.right)):
            if tensor is None or name not in places:
                continue
            place = places[name]
            if (tensor, role, place) not in read:
                values = torch.from_numpy(adapter.stored_projection(name, role))
                if not torch.isfinite(values).all():
                    bad.append(tensor)
                one = given_projection(values).to(place.device, place.dtype)
                read[tensor, role, place] = one
            found[name, role] = read[tensor, role, place]
    if bad:
        raise InputError(
            f"{adapter.label}: {first_few(bad, 3)} holds NaN or infinite entries; the file is "
            "damaged: save the adapter again"
        )
    return found
