"""An adapter's tensors between the model and the file: names, stored projections, records."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from cosa_theory.deltas.cosa_released import TENSOR, WRAPPER, base_name
from cosa_theory.deltas.wrapped_names import known_name
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.folder import layer_entry, projection_tensors, stored_sides
from cosa_theory.nn.pairs import Placement
from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.peft.layer import CosaLayer
from cosa_theory.nn.projection import FrozenProjection, given_projection
from cosa_theory.nn.restoring import sketch
from cosa_theory.nn.wrappers import plain_names, plain_tensors
from cosa_theory.projections import ENSEMBLES, left_projection

__all__ = [
    "adapter_tensors",
    "layer_records",
    "restore_stored",
    "stored_projections",
]


def adapted(model: nn.Module, adapter: str) -> Iterator[tuple[str, CosaLayer]]:
    """Yield the layers that an adapter has, with their plain names in `model`."""
    plain = plain_names(model)
    for name, module in model.named_modules():
        if isinstance(module, CosaLayer) and adapter in module.cosa_Y:
            yield plain[name], module


def adapter_tensors(
    model: nn.Module, adapter: str, state_dict: Mapping[str, Tensor], bias: str
) -> dict[str, Tensor]:
    """Return an adapter's cores and trained biases out of a model's state dict, by plain names."""
    state = plain_tensors(model, state_dict)
    names = [f"{name}.cosa_Y.{adapter}" for name, _ in adapted(model, adapter)]
    if bias == "all":
        names += [name for name in state if name.rpartition(".")[2] == "bias"]
    elif bias == "cosa_only":
        plain = plain_names(model)
        names += [
            f"{plain[name]}.base_layer.bias".removeprefix(".")
            for name, module in model.named_modules()
            if isinstance(module, BaseTunerLayer)
        ]
    return {name: state[name] for name in names if name in state}


def layer_records(
    model: nn.Module, adapter: str, config: CosaConfig, tensors: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return what `layers` of the configuration says of an adapter, by the layers' names.

    `tensors` are those of `adapter_tensors`. What the configuration says of layers whose
    projections were read from a file stands.
    """
    records = {}
    for name, layer in adapted(model, adapter):
        left, right = layer.left(adapter), layer.right(adapter)
        plain = name.removeprefix(WRAPPER)
        known = (config.layers or {}).get(plain, {})
        records[plain] = layer_entry(
            _key(plain, layer, adapter, config),
            (left.d, right.d),
            left,
            right,
            tensors.get(f"{name}.cosa_Y.{adapter}"),
        )
        if config.restored:
            records[plain]["sketch"] = sketch(right.matrix().float() * right.factor)
        # What was read from a file cannot be drawn: what was said of the draw stands.
        kinds = zip(_kinds(layer, adapter, config), "LR", (left, right), strict=True)
        for kind, role, projection in kinds:
            drawn = not ENSEMBLES[kind].data_dependent
            if drawn and projection.spec is None and role in known:
                records[plain][role] = known[role]
    return records


def _kinds(layer: CosaLayer, adapter: str, config: CosaConfig) -> tuple[str, str]:
    """Return the ensembles of a layer's L and R."""
    left = layer.left(adapter)
    ensemble, _ = left_projection(config.kind, left.k, left.d, dict(config.options), config.left)
    return ensemble, config.kind


def _key(plain: str, layer: CosaLayer, adapter: str, config: CosaConfig) -> str:
    """Return what a layer's projections were drawn for."""
    spec = layer.left(adapter).spec
    known = (config.layers or {}).get(plain, {})
    return str(known.get("key", plain) if spec is None else spec.key[0])


def stored_projections(model: nn.Module, adapter: str, config: CosaConfig) -> dict[str, Tensor]:
    """Return what is stored of L (m × a) and R (b × n) of every layer, at their true scale.

    That is all of them with `save_projections`, else what was made from data and is not made again
    by a recipe. By plain names, as in the model's state dict. A projection that several layers
    share is there for the first of them only.
    """
    names, layers = {}, {}
    for name, layer in adapted(model, adapter):
        plain = name.removeprefix(WRAPPER)
        key = _key(plain, layer, adapter, config)
        names[plain] = name
        pair = layer.left(adapter), layer.right(adapter)
        sides = (
            (None, None)
            if config.restored
            else stored_sides(_kinds(layer, adapter, config), pair, config.save_projections)
        )
        layers[plain] = key, *sides
    tensors = {}
    for key, values in projection_tensors(layers).items():
        plain, _, role = key.removeprefix(WRAPPER).rpartition(".")
        tensors[f"{names[plain]}.{role}.{adapter}"] = values
    return tensors


def restore_stored(
    model: nn.Module, adapter: str, config: CosaConfig, state_dict: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Put the projections of a state dict into the layers, and check the cores.

    `state_dict` is as in a file, of this library or of the released code; returned is the rest, by
    the names that the model's own state dict has. Raises InputError if a core is missing or has the
    wrong shape, or a projection does not fit; the model is left as it was.
    """
    label = f"the adapter for {adapter!r}"
    layers = {name.removeprefix(WRAPPER): one for name, one in adapted(model, adapter)}
    tree = reversed(plain_names(model).items())  # the first of several places stands
    places = {plain.removeprefix(WRAPPER): name for name, plain in tree}
    rest: dict[str, Tensor] = {}
    found: dict[str, dict[str, Tensor]] = {}
    released = False
    for key, value in state_dict.items():
        match = TENSOR.fullmatch(base_name(key))
        name = known_name(match["module"] or "", layers) if match else ""
        name = config._renamed.get(name, name)
        if match is None or name not in layers:
            rest[_own_name(key, places)] = value
            continue
        released |= match["code"] == "lora"
        # As the layer holds them: a × b, a × m and b × n.
        swapped = (match["code"], match["role"]) in (("cosa", "L"), ("lora", "R"))
        found.setdefault(name, {})[match["role"]] = value.T if swapped else value
        if match["role"] == "Y":
            rest[_own_name(f"{name}.cosa_Y.{adapter}", places)] = value
    if released and not config.save_projections:
        raise InputError(
            f"{label}: these are tensors of the code released with the paper; load the folder with "
            "PeftModel.from_pretrained or load_adapter, which translate its settings too"
        )
    problems = _core_problems(layers, found, adapter, label)
    problems += _mapped_otherwise(config, found)
    changes = _changes(layers, found, adapter)
    problems += [
        f"{label}: {role} of {name} is {tuple(values.shape)}, and {(old.k, old.d)} is expected"
        for name, role, old, values in changes
        if tuple(values.shape) != (old.k, old.d)
    ]
    if problems:
        raise InputError(*problems)
    _install(layers, changes, adapter)
    return rest


def _own_name(tensor: str, places: Mapping[str, str]) -> str:
    """Return the name that a model's own state dict has for a tensor; `places` are in its tree."""
    place, _, last = tensor.rpartition(".")
    place = places.get(known_name(base_name(place), places), place)
    # The wrappers of FSDP and of checkpointing leave themselves out of a state dict.
    return f"{_LEFT_OUT.sub('', place)}.{last}".removeprefix(".")


_LEFT_OUT = re.compile(r"(_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")

Change = tuple[str, str, FrozenProjection, Tensor]


def _core_problems(
    layers: Mapping[str, CosaLayer],
    found: Mapping[str, Mapping[str, Tensor]],
    adapter: str,
    label: str,
) -> list[str]:
    problems = []
    for name, layer in layers.items():
        core = found.get(name, {}).get("Y")
        left, right = layer.left(adapter), layer.right(adapter)
        if core is None:
            problems.append(
                f"{label}: there is no core for {name}; load the adapter that was saved from a "
                "model with this layer"
            )
        elif tuple(core.shape) != (left.k, right.k):
            problems.append(
                f"{label}: the core of {name} is {tuple(core.shape)}, and {(left.k, right.k)} is "
                "expected; give the adapter the a and b it was saved with"
            )
        elif core.device.type != "meta" and not _is_finite(core):
            problems.append(
                f"{label}: the core of {name} holds NaN or infinite entries; the training diverged "
                "or the file is damaged: use an earlier checkpoint"
            )
    return problems


def _mapped_otherwise(config: CosaConfig, found: Mapping[str, Mapping[str, Tensor]]) -> list[str]:
    """Say where PEFT's `key_mapping` leads to another layer than the projections were put in."""
    folder = config.stored() if config._renamed else None
    if folder is None:
        return []
    return [
        f"key_mapping gives {new} another core than that of {old}, whose projections it has; map "
        f"the names so that {old} becomes {new}"
        for old, new in config._renamed.items()
        if "Y" in found.get(new, {})
        and not torch.equal(
            found[new]["Y"].cpu().float(), torch.from_numpy(folder.core(old)).float()
        )
    ]


def _is_finite(values: Tensor) -> bool:
    # A finite sum, which is soon formed, has finite terms.
    return bool(torch.isfinite(values.sum())) or bool(torch.isfinite(values).all())


def _changes(
    layers: Mapping[str, CosaLayer], found: Mapping[str, Mapping[str, Tensor]], adapter: str
) -> list[Change]:
    """Return the projections that differ from those the layers have."""
    shared: dict[tuple[str, Any], Tensor] = {}
    changes = []
    for name, layer in layers.items():
        for role, old in (("L", layer.left(adapter)), ("R", layer.right(adapter))):
            values = found.get(name, {}).get(role)
            if values is None:  # stored with the first layer that uses it
                values = shared.get((role, old.spec)) if old.spec is not None else None
            elif old.spec is not None:
                shared.setdefault((role, old.spec), values)
            if values is not None and not _equal(layer, old, values):
                changes.append((name, role, old, values))
    return changes


def _equal(layer: CosaLayer, projection: FrozenProjection, values: Tensor) -> bool:
    """Return whether stored values are those of a projection, in the type the layer computes in."""
    if tuple(values.shape) != (projection.k, projection.d):
        return False
    mine, dtype = projection.matrix(), Placement.of(layer.get_base_layer()).dtype
    return torch.equal((mine.float() * projection.factor).to(dtype), values.to(mine.device, dtype))


def _install(layers: Mapping[str, CosaLayer], changes: list[Change], adapter: str) -> None:
    made: dict[tuple[int, Placement], FrozenProjection] = {}
    for name, role, _, values in changes:
        layer = layers[name]
        place = Placement.of(layer.get_base_layer())
        if (id(values), place) not in made:
            given = given_projection(values).to(place.device, place.dtype)
            made[id(values), place] = given
        getattr(layer, f"cosa_{role}")[adapter] = made[id(values), place]
        layer.update_scaling(adapter)
