"""Sums of adapters that share their projections: their cores add."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import torch
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.peft.injection import Injection
from cosa_theory.nn.peft.layer import CosaLayer
from cosa_theory.nn.peft.targeting import name_targets
from cosa_theory.nn.projection import FrozenProjection
from cosa_theory.nn.wrappers import plain_names

__all__ = ["combined_config", "combined_injections", "set_combined_cores"]

SHARED = (
    "seed",
    "kind",
    "left",
    "options",
    "scale",
    "a",
    "b",
    "clip",
    "shape_pattern",
    "share_projections",
)


def combined_config(
    model: nn.Module,
    configs: Mapping[str, CosaConfig],
    adapters: Sequence[str],
    weights: Sequence[float],
    adapter_name: str,
) -> CosaConfig:
    """Return the configuration of a weighted sum of adapters, after checking that it exists.

    An InputError names everything that stands in the way.
    """
    problems = _term_problems(configs, adapters, weights, adapter_name)
    if not problems:
        # Settings that differ say why the projections do.
        problems = _setting_problems(configs, adapters) or _projection_problems(model, adapters)
        problems += _module_problems(model, adapters)
    if problems:
        raise InputError(*problems)
    config = dataclasses.replace(
        configs[adapters[0]],
        alpha=1.0,
        alpha_pattern={},
        exclude_modules=None,
        modules_to_save=None,
        bias="none",
        init_weights=True,
        layers=None,
    )
    name_targets(model, config, [name for name, _ in _layers(model, adapters)])
    return config


def _term_problems(
    configs: Mapping[str, CosaConfig],
    adapters: Sequence[str],
    weights: Sequence[float],
    adapter_name: str,
) -> list[str]:
    if isinstance(adapters, str):
        return [f"adapters is {adapters!r}; give a list of names, such as [{adapters!r}]"]
    problems = [f"Adapter {name} does not exist" for name in adapters if name not in configs]
    if not adapters:
        problems.append("adapters is empty; name at least one")
    if len(adapters) != len(weights):
        problems.append(f"there are {len(adapters)} adapters and {len(weights)} weights")
    if adapter_name in configs:
        problems.append(f"adapter_name is {adapter_name!r}, which exists already; choose another")
    problems += [
        f"weights has {weight!r}; it must be a finite number"
        for weight in weights
        if isinstance(weight, str) or not math.isfinite(weight)
    ]
    return problems


def _setting_problems(configs: Mapping[str, CosaConfig], adapters: Sequence[str]) -> list[str]:
    first = configs[adapters[0]]
    problems = [
        f"{field} is {getattr(first, field)!r} for {adapters[0]} and "
        f"{getattr(configs[name], field)!r} for {name}; only adapters with the same projections "
        "can be added"
        for name in adapters[1:]
        for field in SHARED
        if getattr(configs[name], field) != getattr(first, field)
    ]
    problems += [
        f"bias is {configs[name].bias!r} for {name}; biases cannot be added, only cores"
        for name in adapters
        if configs[name].bias != "none"
    ]
    return problems


def _projection_problems(model: nn.Module, adapters: Sequence[str]) -> list[str]:
    """Say in one sentence in how many layers the projections differ."""
    different = []
    for name, layer in _layers(model, adapters):
        for projection in (layer.left, layer.right):
            own = [projection(adapter) for adapter in adapters if adapter in layer.cosa_Y]
            if any(not _same(own[0], other) for other in own[1:]):
                different.append(name)
    names = list(dict.fromkeys(different))
    if not names:
        return []
    return [
        f"the adapters have different projections in {len(names)} layers ({first_few(names, 3)}); "
        "only adapters with the same projections can be added"
    ]


def _module_problems(model: nn.Module, adapters: Sequence[str]) -> list[str]:
    problems = []
    wrapped = sum(
        any(adapter in module.modules_to_save for adapter in adapters)
        for module in model.modules()
        if isinstance(module, ModulesToSaveWrapper)
    )
    if wrapped:
        problems.append(
            "Cannot add weighted adapters if they target the same module with modules_to_save, "
            f"but found {wrapped} such instance(s)."
        )
    return problems


def _same(one: FrozenProjection, other: FrozenProjection) -> bool:
    if one.spec is None or other.spec is None:
        return one.fingerprint == other.fingerprint
    return one.spec == other.spec


def _layers(model: nn.Module, adapters: Sequence[str]) -> list[tuple[str, CosaLayer]]:
    plain = plain_names(model)
    return [
        (plain[name], module)
        for name, module in model.named_modules()
        if isinstance(module, CosaLayer) and any(name in module.cosa_Y for name in adapters)
    ]


def combined_injections(model: nn.Module, adapters: Sequence[str]) -> dict[str, Injection]:
    """Return the layers of a sum: the projections are those of its terms."""
    prepared = {}
    for name, layer in _layers(model, adapters):
        adapter = next(adapter for adapter in adapters if adapter in layer.cosa_Y)
        prepared[name] = Injection(1.0, layer.left(adapter), layer.right(adapter))
    return prepared


@torch.no_grad()
def set_combined_cores(
    model: nn.Module, adapters: Sequence[str], weights: Sequence[float], adapter_name: str
) -> None:
    """Set the cores of a sum to Σ wᵢ αᵢ Yᵢ."""
    for _, layer in _layers(model, adapters):
        core = layer.cosa_Y[adapter_name]
        total = torch.zeros_like(core, dtype=torch.float64)
        for adapter, weight in zip(adapters, weights, strict=True):
            if adapter in layer.cosa_Y:
                total += weight * layer.cosa_alpha[adapter] * layer.cosa_Y[adapter].double()
        core.copy_(total)
        core.requires_grad_(False)
