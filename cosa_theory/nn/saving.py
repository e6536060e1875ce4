"""Saving a model's adapter into a folder, in PEFT's format."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosa_theory.deltas.cosa_adapters import WRAPPER
from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import choice
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.folder import (
    common_settings,
    layer_entry,
    projection_tensors,
    stored_sides,
    write_adapter,
)
from cosa_theory.nn.linear import CosaLinear
from cosa_theory.nn.model import SavedWhole, layers_or_error, saved_whole
from cosa_theory.nn.targets import minimal_targets
from cosa_theory.nn.wrappers import plain_names, plain_tensors
from cosa_theory.projections import ENSEMBLES

__all__ = ["save_cosa"]

TASK_TYPES = (
    "SEQ_CLS",
    "SEQ_2_SEQ_LM",
    "CAUSAL_LM",
    "TOKEN_CLS",
    "QUESTION_ANS",
    "FEATURE_EXTRACTION",
)
"""What PEFT knows as `task_type`."""


def save_cosa(
    model: nn.Module,
    folder: str | Path,
    *,
    save_projections: bool = False,
    base_model_name_or_path: str | None = None,
    task_type: str | None = None,
    state_dict: Mapping[str, Tensor] | None = None,
) -> None:
    """Write the adapter into a folder that `load_cosa` and Hugging Face PEFT read.

    `adapter_model.safetensors` holds the cores and the modules of `modules_to_save`;
    `adapter_config.json` the settings, and for every layer the fingerprints of its projections.
    Those come back from the seed; what was made from moments of the data is stored with the cores.

    Parameters
    ----------
    model : nn.Module
        With CoSA layers, merged or not.
    folder : path
        Created if it is missing; an adapter in it is replaced, other files stay.
    save_projections : bool, default False
        Whether all L and R are stored, in float32: the file is much larger and needs no draws.
        So they are in any case if some that a seed could draw were read from a file.
    base_model_name_or_path : str, optional
        What the adapter belongs to; by default the model's own `name_or_path`, if it has one.
    task_type : str, optional
        One of PEFT's, such as "CAUSAL_LM".
    state_dict : mapping, optional
        The model's gathered state dict, where its own parameters are sharded (FSDP) or offloaded.

    Raises
    ------
    InputError
        If there are no CoSA layers, their settings do not fit into one folder, or a parameter's
        values are not here. An adapter in the folder is then as it was.
    """
    layers = layers_or_error(model, "save")
    if task_type is not None:
        choice("task_type", task_type, TASK_TYPES)
    specs = {name: layer.spec for name, layer in layers.items()}
    whole = saved_whole(model)
    kinds = {name: (spec.left.kind, spec.right.kind) for name, spec in specs.items()}
    stored = save_projections or any(
        projection.spec is None and not ENSEMBLES[kind].data_dependent
        for name, layer in layers.items()
        for projection, kind in zip((layer.left, layer.right), kinds[name], strict=True)
    )
    state = model.state_dict() if state_dict is None else state_dict
    values = _values(layers, whole, plain_tensors(model, state))
    projections = projection_tensors(
        {
            name: (one.spec.key, *stored_sides(kinds[name], (one.left, one.right), stored))
            for name, one in layers.items()
        }
    )
    settings = _peft_settings(model, base_model_name_or_path, task_type) | {
        **common_settings(specs),
        "clip": True,
        "save_projections": stored,
        "projection_bytes": sum(one.nbytes for one in projections.values()),
        "dropout": _common_dropout(layers),
        "target_modules": minimal_targets(list(layers), _all_names(model, layers)),
        "exclude_modules": None,
        "modules_to_save": list(whole.modules) or None,
        "bias": whole.bias,
        "layers": {
            name: layer_entry(
                one.spec.key,
                (one.spec.m, one.spec.n),
                one.left,
                one.right,
                values[f"{WRAPPER}{name}.cosa_Y"],
            )
            for name, one in layers.items()
        },
    }
    write_adapter(folder, settings, values | projections)


def _values(
    layers: Mapping[str, CosaLinear], whole: SavedWhole, state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the cores, and the tensors saved whole, by their names in the file."""
    wanted = {f"{WRAPPER}{name}.cosa_Y": f"{name}.Y" for name in layers}
    for module in whole.modules:
        own = [name for name in state if name.startswith(f"{module}.")]
        wanted |= {f"{WRAPPER}{name}": name for name in own}
    for name, tensor in whole.tensors.items():
        module, _, last = name.rpartition(".")
        wanted[tensor] = f"{module}.base_layer.{last}" if module in layers else name
    values, absent = {}, []
    for tensor, name in wanted.items():
        value = state.get(name)
        layer = layers.get(name.removesuffix(".Y"))
        whole_core = layer is None or (
            value is not None and value.shape == (layer.spec.a, layer.spec.b)
        )
        sharded = hasattr(value, "full_tensor")  # a DTensor
        if value is None or value.device.type == "meta" or not whole_core or sharded:
            absent.append(name)
            continue
        value = value.detach().to("cpu")
        if layer is not None:
            value = value.to(torch.promote_types(value.dtype, torch.float32))
        values[tensor] = value.clone() if layer is None else value.contiguous()
    if absent:
        raise InputError(
            f"the values of {first_few(absent, 3)} are not here but sharded, offloaded or on the "
            "meta device; give the gathered values as state_dict"
        )
    return values


def _common_dropout(layers: Mapping[str, CosaLinear]) -> float:
    rates = {layer.dropout for layer in layers.values()}
    if len(rates) > 1:
        raise InputError(
            f"dropout differs between the layers ({', '.join(map(str, sorted(rates)))}); an "
            "adapter's folder has one: set layer.dropout alike in all"
        )
    return rates.pop()


def _all_names(model: nn.Module, layers: Iterable[str]) -> list[str]:
    """Return the names of all modules as the base model has them, without those inside `layers`."""
    inside = tuple(f"{name}." for name in layers)
    names = dict.fromkeys(plain_names(model).values())
    return [name for name in names if name and not name.startswith(inside)]


def _peft_settings(model: nn.Module, name: str | None, task_type: str | None) -> dict[str, Any]:
    """Return the fields of adapter_config.json that every PEFT method has."""
    own = getattr(model, "name_or_path", None)
    mapping = {"base_model_class": type(model).__name__, "parent_library": type(model).__module__}
    return {
        "peft_type": "COSA",
        "task_type": task_type,
        "auto_mapping": mapping if task_type is None else None,
        "base_model_name_or_path": name or (own if isinstance(own, str) and own else None),
        "revision": None,
        "inference_mode": True,
        "model_type": getattr(getattr(model, "config", None), "model_type", None),
    }
