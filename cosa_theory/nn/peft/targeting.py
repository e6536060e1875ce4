"""Which modules of a model an adapter is put on: PEFT's rules, and only what can be adapted."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, check_target_module_exists
from peft.utils import (
    TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING,
    resolve_quantization_backend,
)
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cosa_theory.deltas.cosa_released import WRAPPER
from cosa_theory.deltas.wrapped_names import unwrapped_name
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.adaptable import layer_obstacles
from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.peft.registration import PREFIX
from cosa_theory.nn.targets import (
    is_all_linear,
    minimal_targets,
    output_heads,
    refuse_layers,
    refuse_unmatched,
)
from cosa_theory.nn.wrappers import plain_names

__all__ = [
    "adapters_off",
    "base_of",
    "is_quantised_linear",
    "name_targets",
    "plain_check",
    "plain_name",
    "plain_places",
    "target_layers",
]

Check = Callable[[CosaConfig, str], Any]
"""PEFT's test whether a configuration means a module, by its name in the model's tree."""


def target_layers(
    model: nn.Module, config: CosaConfig, state_dict: Mapping[str, Tensor] | None = None
) -> dict[str, nn.Module]:
    """Return the modules that a configuration adapts, by their plain names.

    Without `target_modules` the configuration gets those of PEFT's LoRA in a model of this type.
    Layers of an adapter that was saved need not be asked for: it says itself which it has.
    """
    asked = config.target_modules is not None and config.layers is None
    if config.target_modules is None:
        known = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
        named = known.get(BaseTuner.get_model_config(model)["model_type"])
        if named is None:
            raise ValueError("Please specify `target_modules` in `peft_config`")
        setattr(config, "target_modules", named if isinstance(named, str) else set(named))  # noqa: B010
    if config.target_modules == DUMMY_TARGET_MODULES:
        return {}
    check = plain_check(plain_places(model))
    if state_dict is None and is_all_linear(config.target_modules):
        return all_linear(model, config, check)
    listed = None
    if state_dict is not None:
        listed = {plain_name(key.rsplit(f".{PREFIX}", 1)[0]) for key in state_dict}
    return matched(model, config, check, listed, asked=asked)


def plain_check(plain: Mapping[str, str]) -> Check:
    """Match modules by their plain names; of a wrapper and what it wraps, only the latter."""

    def check(config: CosaConfig, key: str) -> Any:
        name = plain.get(key)
        return name is not None and check_target_module_exists(config, name)

    return check


def plain_name(name: str) -> str:
    """Return a module's name in the base model, free of what compilers and FSDP put around it."""
    return unwrapped_name(name).removeprefix(WRAPPER)


@contextmanager
def adapters_off(model: nn.Module) -> Iterator[None]:
    """Let a model compute what it does without adapters; they are as they were afterwards."""
    on = [one for one in model.modules() if getattr(one, "_disable_adapters", True) is False]
    for module in on:
        setattr(module, "_disable_adapters", True)  # noqa: B010
    try:
        yield
    finally:
        for module in on:
            setattr(module, "_disable_adapters", False)  # noqa: B010


def base_of(module: nn.Module) -> nn.Module:
    """Return what a tuner layer wraps, or the module itself."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def is_quantised_linear(base: nn.Module) -> bool:
    """Return whether PEFT knows a module as a quantised linear layer."""
    backend = resolve_quantization_backend(base, get_apply_tensor_subclass=lambda: None)
    return backend is not None and backend.layer_type == "linear"


def plain_places(model: nn.Module) -> dict[str, str]:
    """Return the plain names in a model's tree, without wrappers: what they wrap has their name."""
    plain = plain_names(model)
    wrappers = {
        parent
        for name, one in plain.items()
        if plain[parent := name.rpartition(".")[0]] == one and name != parent
    }
    return {name: one for name, one in plain.items() if name not in wrappers}


def _candidates(model: nn.Module) -> dict[str, nn.Module]:
    """Return the modules by their names in the tree, but for wrappers and what adapters hold."""
    modules, plain = dict(model.named_modules()), plain_places(model)
    inner = tuple(f"{name}." for name, one in modules.items() if isinstance(one, BaseTunerLayer))
    return {
        name: module
        for name, module in modules.items()
        if name and name in plain and not name.startswith(inner)
    }


def matched(
    model: nn.Module, config: CosaConfig, check: Check, listed: set[str] | None, *, asked: bool
) -> dict[str, nn.Module]:
    """Return the modules that a configuration, or a state dict, means, by their plain names.

    `listed` are the plain names that a state dict has, if that decides. What a user `asked` for
    must be there. Raises InputError for names and indices that match nothing, and for layers that
    do not compute W x + b from a weight of their own.
    """
    plain, modules = plain_places(model), _candidates(model)
    if listed is not None:
        found = {plain[name]: one for name, one in modules.items() if plain[name] in listed}
    else:
        if asked and config.target_modules is not None:
            wanted = config.target_modules
            refuse_unmatched(wanted if isinstance(wanted, str) else sorted(wanted), model)
        found = {plain[name]: one for name, one in modules.items() if check(config, name)}
        if asked:
            _refuse_unmatched_indices(config, list(found))
    linears = _linears(found)
    refuse_layers(layer_obstacles(model, linears, _quantised(linears)))
    return found


def all_linear(model: nn.Module, config: CosaConfig, check: Check) -> dict[str, nn.Module]:
    """Return what "all-linear" means in a model, by plain names.

    The same layers as for `cosa_theory.nn.add_cosa`, with those of Conv1D. An InputError if other
    settings leave none.
    """
    plain, modules = plain_places(model), _candidates(model)
    heads = output_heads(model)
    linears = _linears(
        {
            plain[name]: one
            for name, one in modules.items()
            if one not in heads and base_of(one) not in heads
        }
    )
    obstacles = layer_obstacles(model, linears, _quantised(linears))
    # By their ends, which PEFT also selects by index.
    named = copy.copy(config)
    named.target_modules = [name.rpartition(".")[2] for name in linears]
    found = {
        plain[name]: one
        for name, one in modules.items()
        if plain[name] in linears and plain[name] not in obstacles and check(named, name)
    }
    if not found:
        raise InputError(
            "target_modules is 'all-linear', which leaves no layer to adapt; loosen "
            "exclude_modules, modules_to_save or layers_to_transform"
        )
    return found


def name_targets(model: nn.Module, config: CosaConfig, names: Sequence[str]) -> None:
    """Let a configuration mean these layers and no others, by names that are as short as can be."""
    plain = plain_places(model)
    targets = minimal_targets(names, [plain[name] for name in _candidates(model)])
    setattr(config, "target_modules", targets if isinstance(targets, str) else set(targets))  # noqa: B010
    config.layers_to_transform = config.layers_pattern = None


def _linears(modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    bases = {name: base_of(module) for name, module in modules.items()}
    return {name: base for name, base in bases.items() if isinstance(base, (nn.Linear, Conv1D))}


def _quantised(linears: Mapping[str, nn.Module]) -> list[str]:
    return [name for name, base in linears.items() if is_quantised_linear(base)]


def _refuse_unmatched_indices(config: CosaConfig, found: Sequence[str]) -> None:
    """Raise InputError for indices of `layers_to_transform` that no block of the model has."""
    indices = config.layers_to_transform
    numbers = [indices] if isinstance(indices, int) else list(indices or ())
    here = {part for name in found for part in re.findall(r"\.(\d+)(?=\.)", f".{name}")}
    missing = [number for number in numbers if str(number) not in here]
    if missing and found:
        raise InputError(
            f"layers_to_transform has {missing[0]!r}, and no layer that target_modules matches is "
            "in a block of this index; the first index is 0"
        )
