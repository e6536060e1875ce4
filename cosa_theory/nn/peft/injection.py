"""What an injection will do, settled and checked before the model is touched."""

import itertools
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from peft.tuners.tuners_utils import _get_in_out_features
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from cosa_theory.deltas.cosa_adapters import CosaRecord
from cosa_theory.deltas.cosa_released import TENSOR, WRAPPER, base_name
from cosa_theory.deltas.wrapped_names import known_name
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.expressions import by_pattern
from cosa_theory.nn.folder import layer_specs, read_cores, whole_problems
from cosa_theory.nn.pairs import Pair, Placement, layer_pairs
from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.peft.targeting import adapters_off, base_of, is_quantised_linear
from cosa_theory.nn.projection import FrozenProjection, ProjectionSpec
from cosa_theory.nn.restoring import restored_projections
from cosa_theory.nn.settings import SHARED_KEY, LayerSpec
from cosa_theory.nn.targets import closest, warn_of_idle_patterns
from cosa_theory.nn.wrappers import named_places

__all__ = ["Injection", "layer_sizes", "prepare_injections", "refuse_unusable_values"]

SMALL = 1000
"""Entries below which a sparse projection may by chance have none that is not zero."""


@dataclass(frozen=True)
class Injection:
    """An adapter's part in one layer: alpha, Lᵀ (a × m) and R (b × n) where the layer computes."""

    alpha: float
    left: FrozenProjection
    right: FrozenProjection


def prepare_injections(
    targets: Mapping[str, nn.Module],
    config: CosaConfig,
    present: Mapping[tuple[ProjectionSpec, Placement], FrozenProjection],
    state_dict: Mapping[str, torch.Tensor] | None = None,
    model: nn.Module | None = None,
) -> dict[str, Injection]:
    """Check an adapter against a model, and draw or read its projections.

    `targets` are the modules to adapt, by their names in the base model. If the configuration was
    read from a folder, its stored projections are used, and what it says of its layers must be true
    of the model. `present` are the projections of adapters that the model has already, `state_dict`
    an adapter's, which may hold what was made from data; what a recipe makes again takes a pass of
    the `model`. An InputError names every setting, layer or tensor that does not fit.
    """
    config.check()
    bases = {name: base_of(module) for name, module in targets.items()}
    sizes = layer_sizes(bases)
    folder = config.stored()
    folder = folder and folder.named_as(targets)
    records = {} if folder is None else folder.layers
    described = {known_name(name, targets): one for name, one in (config.layers or {}).items()}
    if folder is not None and (config.modules_to_save, config.bias) in (
        (None, "none"),
        ([], "none"),
    ):
        config._renamed = renamed_layers(folder.layers, sizes)
        folder = folder.renamed(config._renamed)
        records = folder.layers
        described = {config._renamed.get(name, name): one for name, one in described.items()}
        for field in ("shape_pattern", "alpha_pattern"):
            patterns = _patterns(getattr(config, field), config._renamed, sizes)
            setattr(config, field, patterns)
    _raise_if(_misfits(sizes, described, records))
    drawn = config.settings().layers(
        {
            name: size
            for name, size in sizes.items()
            if name not in records or not (records[name].left and records[name].right)
        }
    )
    drawn = _keyed(drawn, described)
    _raise_if(_other_cores(drawn, described, records))
    warn_of_idle_patterns("shape_pattern", config.shape_pattern, sizes)  # PEFT does of alphas
    specs = ({} if folder is None else layer_specs(folder)) | drawn
    made = config._made | _made_in(state_dict or {}, specs)
    stored = {name for name, record in records.items() if record.right}
    sketches = {name: one.get("sketch") for name, one in described.items() if name not in stored}
    if config.recipe and model is not None and not made and any(sketches.values()):
        with adapters_off(model):
            made = restored_projections(
                model, bases, specs, sketches, config.recipe, config.projection_dtype
            )
    pairs = layer_pairs(
        {name: specs[name] for name in sizes},
        {name: Placement.of(base) for name, base in bases.items()},
        adapter=folder,
        fingerprints={name: (entry.get("L"), entry.get("R")) for name, entry in described.items()},
        present=present,
        made=made,
    )
    _warn_of_zeros(pairs)
    return {
        name: Injection(by_pattern(config.alpha_pattern, name, config.alpha), *pair)
        for name, pair in pairs.items()
    }


def refuse_unusable_values(model: nn.Module, config: CosaConfig) -> None:
    """Refuse an adapter whose file lacks trained modules, or holds values that are no numbers.

    An InputError names every tensor that cannot be used. Nothing is checked of a configuration that
    was not read from a folder.
    """
    folder = config.stored()
    if folder is None:
        return
    folder = folder.named_as(named_places(model))
    wanted: dict[str, tuple[str | None, torch.Tensor | None]] = {
        name: (tensor, None) for name, tensor in folder.others.items()
    }
    ends = tuple(config.modules_to_save or ())
    whole: list[str] = []
    for name, module in named_places(model).items() if ends else ():
        if name.endswith(ends) and not name.startswith(tuple(whole)):
            whole.append(f"{name}.")
            own = module.original_module if isinstance(module, ModulesToSaveWrapper) else module
            for key, value in own.state_dict().items():
                wanted[f"{name}.{key}"] = folder.whole.get(f"{name}.{key}"), value
    _raise_if(whole_problems(folder, wanted))
    inside = tuple(f"{WRAPPER}{name}" for name in whole)
    _raise_if(
        [
            f"{folder.label}: {tensor} has a name of before names were plain, which PEFT does not "
            "find; read the adapter with load_cosa, and save it again with save_cosa"
            for name, tensor in folder.others.items()
            if f"{WRAPPER}{name}".startswith(inside) and not tensor.startswith(inside)
        ]
    )
    read_cores(folder)


def _made_in(
    state_dict: Mapping[str, torch.Tensor], specs: Mapping[str, LayerSpec]
) -> dict[ProjectionSpec, torch.Tensor]:
    """Return what an adapter's state dict holds of the projections made from data."""
    found = {}
    for key, values in state_dict.items():
        match = TENSOR.fullmatch(base_name(key))
        role = match["role"] if match else "Y"
        name = known_name(match["module"] or "", specs) if match else ""
        if role != "Y" and name in specs:
            one = specs[name].left if role == "L" else specs[name].right
            values = values.T if role == "L" else values
            if tuple(values.shape) == (one.k, one.d):
                found[one] = values
    return found


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise InputError(*problems)


def layer_sizes(bases: Mapping[str, nn.Module]) -> dict[str, tuple[int, int]]:
    """Return (m, n) of every layer to adapt; an InputError names those that cannot be."""
    sizes, problems = {}, []
    for name, base in bases.items():
        if not isinstance(base, (nn.Linear, Conv1D)) and not is_quantised_linear(base):
            problems.append(
                f"Target module {name} is a {type(base).__name__}, which is not supported: CoSA "
                "adapts torch.nn.Linear (quantised or not) and transformers' Conv1D; change "
                "target_modules, or name it in exclude_modules"
            )
            continue
        n, m = _get_in_out_features(base)
        sizes[name] = (int(m), int(n))
    _raise_if(problems)
    return sizes


def _misfits(
    sizes: Mapping[str, tuple[int, int]],
    entries: Mapping[str, Any],
    records: Mapping[str, CosaRecord],
) -> list[str]:
    """Say where the layers of a saved adapter are not those of the model."""
    described = {name: entry["size"] for name, entry in entries.items()}
    described |= {name: [record.m, record.n] for name, record in records.items()}
    if not described:
        return []
    remedy = "load it into the model it was trained for"
    problems = []
    for name, (m, n) in described.items():
        if name not in sizes:
            problems.append(
                f"the adapter has a core for {name}, which is not among the layers that "
                f"target_modules selects in this model ({closest(name, list(sizes))}); {remedy}"
            )
        elif tuple(sizes[name]) != (m, n):
            problems.append(
                f"{name} is {sizes[name][0]} × {sizes[name][1]} in this model and {m} × {n} for "
                f"the adapter; {remedy}"
            )
    problems += [
        f"the adapter has no core for {name}, which target_modules selects in this model; {remedy}"
        for name in sizes
        if name not in described
    ]
    return _shortened(problems)


def renamed_layers(
    records: Mapping[str, CosaRecord], sizes: Mapping[str, tuple[int, int]]
) -> dict[str, str]:
    """Return which layers of an adapter have other names in a model, if that is certain.

    Of those that the model lacks, each must have one layer of its size that the adapter lacks, and
    whose name ends as no other does; together they must be all. `key_mapping` of PEFT renames the
    tensors only once the projections are there, and is compared with this.
    """
    missing = [name for name in records if name not in sizes]
    free = [name for name in sizes if name not in records]
    pairs: dict[str, str] = {}
    for name in missing if len(missing) == len(free) else ():
        one = records[name]
        alike = [other for other in free if sizes[other] == (one.m, one.n)]
        common = {other: _common_parts(name, other) for other in alike}
        most = max(common.values(), default=0)
        best = [other for other in alike if common[other] == most]
        if most and len(best) == 1:
            pairs[name] = best[0]
    return pairs if len(set(pairs.values())) == len(missing) else {}


def _patterns(
    patterns: Mapping[str, Any], renamed: Mapping[str, str], names: Iterable[str]
) -> dict[str, Any]:
    """Return patterns by which renamed layers have what they had; those of no layer are dropped."""
    if not renamed:
        return dict(patterns)
    had = {new: by_pattern(patterns, old, None) for old, new in renamed.items()}
    exact = {
        f"^{re.escape(name)}": value
        for name, value in had.items()
        if value is not None and value != by_pattern(patterns, name, None)
    }
    used = {
        pattern: value
        for pattern, value in patterns.items()
        if any(by_pattern({pattern: True}, name, False) for name in names)
    }
    return exact | used


def _common_parts(name: str, other: str) -> int:
    """Return how many parts two names have in common at their ends."""
    parts = zip(reversed(name.split(".")), reversed(other.split(".")), strict=False)
    return len(list(itertools.takewhile(lambda pair: pair[0] == pair[1], parts)))


def _keyed(drawn: Mapping[str, LayerSpec], described: Mapping[str, Any]) -> dict[str, LayerSpec]:
    """Draw layers for the names that they were trained with, if the model has others."""
    result = {}
    for name, spec in drawn.items():
        key = described[name]["key"] if name in described else spec.key
        if SHARED_KEY not in (key, spec.key) and key != spec.key:
            left, right = (replace(one, key=(key, *one.key[1:])) for one in (spec.left, spec.right))
            spec = replace(spec, left=left, right=right)
        result[name] = spec
    return result


def _shortened(problems: list[str], most: int = 5) -> list[str]:
    """Keep the first few of many problems of one cause."""
    if len(problems) <= most:
        return problems
    return [*problems[:most], f"and {len(problems) - most} more of this kind"]


def _other_cores(
    specs: Mapping[str, LayerSpec], described: Mapping[str, Any], records: Mapping[str, CosaRecord]
) -> list[str]:
    """Say where the settings lead to other cores or draws than those of the saved adapter."""
    problems = []
    for name, spec in specs.items():
        entry, core = described.get(name), (spec.a, spec.b)
        if name in records:
            core = records[name].a, records[name].b
        elif entry:
            core = tuple(entry["core"])
        if core != (spec.a, spec.b):
            problems.append(
                f"the core of {name} is {core[0]} × {core[1]} in the adapter, and {spec.a} × "
                f"{spec.b} by its settings a, b and shape_pattern; correct them, or set layers to "
                "None to start a new adapter"
            )
        elif entry and entry["key"] != spec.key:
            problems.append(
                f"{name} was drawn with the key {entry['key']!r}, not {spec.key!r}; correct "
                "share_projections, or load the adapter into the model it was trained for"
            )
    return _shortened(problems)


def _warn_of_zeros(pairs: Mapping[str, Pair]) -> None:
    """Warn of draws without an entry that is not zero, as small sparse ones may be."""
    idle = [
        f"{role} of {name} ({one.k} × {one.d})"
        for name, pair in pairs.items()
        for role, one in zip("LR", pair, strict=True)
        if one.k * one.d < SMALL and not one.matrix().any()
    ]
    if idle:
        warnings.warn(
            f"{', '.join(idle)}: all entries were drawn as zero, so that nothing can be "
            "learnt there; take another kind or seed, or exclude the module",
            stacklevel=4,
        )
