"""The linear layers of a model, from its configuration alone: built without memory, never loaded.

transformers builds the model on the meta device, where tensors have shapes and no values, so every
model type that it knows is read in one way.
"""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cosa_theory.deltas.architecture import oversized
from cosa_theory.deltas.opening import from_hub
from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import InputError, quoted, reason
from cosa_theory.ground.reading import decoded_floats, read_json
from cosa_theory.nn.targets import closest, linear_layers, replace_modules, stacked_experts

if TYPE_CHECKING:
    from torch import nn

__all__ = ["ModelLayers", "model_layers", "read_config"]

# What building or running a model of odd sizes can raise.
_UNUSABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    ImportError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True)
class ModelLayers:
    """The linear layers of a model that an adapter is put on, by their names in the model."""

    architecture: str  # the model's class, such as "LlamaForCausalLM"
    sizes: Mapping[str, tuple[int, int]]  # output and input size, (m, n)
    inputs: Mapping[str, str]  # the first layer with the same input: q_proj for v_proj
    notices: tuple[str, ...] = ()  # what the reader should know about the model
    parameters: int = 0  # of the whole model


def model_layers(
    source: str | os.PathLike[str] | Mapping[str, Any],
    target_modules: str | Sequence[str] = "all-linear",
) -> ModelLayers:
    """Find the layers that an adapter would be put on, without loading a weight.

    `source` is a config.json, a folder with one, the name of a model on the hub, or the fields
    themselves; `target_modules` as for `cosa_theory.nn.targets.linear_layers`, where GPT-2's
    `Conv1D` counts as linear. Raises InputError if the configuration cannot be read, its model type
    is unknown, the model cannot be built from it, or no layer matches.
    """
    model = _built(source if isinstance(source, Mapping) else read_config(source))
    layers = linear_layers(model, target_modules)
    inputs, problem = _shared_inputs(model, layers)
    sizes = {name: (layer.out_features, layer.in_features) for name, layer in layers.items()}
    empty = [name for name, size in sizes.items() if not all(size)]
    if empty:
        m, n = sizes[empty[0]]
        raise InputError(f"{empty[0]} would be {m} × {n}: its configuration has a size of zero")
    notices = [*_stacked_experts(model), *([problem] if problem else [])]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return ModelLayers(type(model).__name__, sizes, inputs, tuple(notices), parameters)


def read_config(source: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the fields of a config.json: a file, a folder that holds one, or a hub id.

    Raises InputError if there is none, or it is no configuration of a transformers model.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        holds = {name: (path / name).is_file() for name in ("config.json", "adapter_config.json")}
        if holds["adapter_config.json"] and not holds["config.json"]:
            raise InputError(f"{path} is the folder of an adapter: give that of its base model")
        if not holds["config.json"]:
            raise InputError(f"{path} has no config.json: give the folder of a transformers model")
        path = path / "config.json"
    elif not path.exists() and path.suffix != ".json" and len(path.parts) <= 2:
        path = from_hub(os.fspath(source), "", ["config.json"]) / "config.json"
    if not path.is_file():
        raise InputError(
            f"no such file: {path}; give the config.json of a transformers model, its folder, or "
            "the model's name on the hub"
        )
    fields = read_json(path)
    if not isinstance(fields.get("model_type"), str):
        raise InputError(
            f"{path} has no model_type, so it is not the config.json of a transformers model"
        )
    return fields


def _built(fields: Mapping[str, Any]) -> "nn.Module":
    """Return the model on the meta device, with linear layers in place of GPT-2's `Conv1D`."""
    import torch

    try:
        import transformers
        from huggingface_hub.errors import StrictDataclassError
        from transformers.pytorch_utils import Conv1D
    except ImportError as error:
        raise InputError(
            "the layers of a model are found by building it with transformers, which is not "
            "installed: install cosa-theory[llm]"
        ) from error
    fields = decoded_floats(dict(fields))
    found = oversized(fields)
    if found:
        name, value, most = found
        raise refuse(name, value, f"at most {most:,}, or the model cannot be built to be planned")
    kind = fields.get("model_type")
    if not isinstance(kind, str):
        raise refuse("model_type", kind, "a name")
    if kind not in transformers.CONFIG_MAPPING:
        own = "it brings its own code, which is not run" if "auto_map" in fields else ""
        near = own or closest(kind, list(transformers.CONFIG_MAPPING))
        raise InputError(
            f"transformers {transformers.__version__} has no model type {quoted(kind)} ({near}), "
            "so its layers are unknown"
        )
    # Attention kernels may not be installed, and a model's own code is not run.
    left_out = ("model_type", "attn_implementation", "auto_map")
    kept = {name: value for name, value in fields.items() if name not in left_out}
    try:
        with torch.device("meta"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            config = transformers.AutoConfig.for_model(kind, **kept)
            model = _class_of(config)(config, **_plain_kernels(config)).eval()
    except (*_UNUSABLE, StrictDataclassError) as error:
        raise InputError(
            f"transformers cannot build a {kind} model from this configuration "
            f"({type(error).__name__}: {reason(error)})"
        ) from error
    replace_modules(
        model,
        {
            module: torch.nn.Linear(module.nx, module.nf, device="meta")
            for module in model.modules()
            if isinstance(module, Conv1D)
        },
    )
    return model


def _plain_kernels(config: Any) -> dict[str, str]:
    """Return implementations that are always installed and run without values."""
    experts = any("expert" in field for field in config.to_dict())
    return {"attn_implementation": "eager"} | (
        {"experts_implementation": "batched_mm"} if experts else {}
    )


def _class_of(config: Any) -> Any:
    """Return what builds the model: the class the configuration names, or that of its type."""
    import transformers

    named = (config.architectures or [None])[0]
    found = getattr(transformers, named, None) if isinstance(named, str) else None
    if isinstance(found, type) and issubclass(found, transformers.PreTrainedModel):
        chosen: Any = found
        return chosen._from_config
    return transformers.AutoModel.from_config


def _shared_inputs(
    model: "nn.Module", layers: "Mapping[str, nn.Module]"
) -> tuple[dict[str, str], str | None]:
    """Run the model without values, and see which layers are given the same tensor."""
    import torch

    readers: dict[int, str] = {}
    inputs: dict[str, str] = {}
    kept: list[Any] = []  # alive, so that no two of them have one id

    def watch(name: str) -> Any:
        def hook(module: "nn.Module", arguments: tuple[Any, ...]) -> None:
            if arguments and name not in inputs:
                kept.append(arguments[0])
                inputs[name] = readers.setdefault(id(arguments[0]), name)

        return hook

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    tokens = torch.ones(1, 4, dtype=torch.long, device="meta")
    arguments = {"input_ids": tokens}
    if getattr(model.config, "is_encoder_decoder", False):
        arguments["decoder_input_ids"] = tokens
    problem = None
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model(**arguments)
    except _UNUSABLE:
        problem = (
            "which layers share their input could not be found out by a run without values, so "
            "LoRA's saved activations count the input of every layer and are an upper bound"
        )
    finally:
        for handle in handles:
            handle.remove()
    return {name: inputs.get(name, name) for name in layers}, problem


def _stacked_experts(model: "nn.Module") -> list[str]:
    """Say how much of a mixture of experts lies in tensors that are no linear layers."""
    stacked = {name: parameter.numel() for name, parameter in stacked_experts(model).items()}
    if not stacked:
        return []
    share = sum(stacked.values()) / sum(parameter.numel() for parameter in model.parameters())
    return [
        f"the experts, {share:.0%} of the parameters, are stacked in {len(stacked)} tensors of "
        "three dimensions, which are no linear layers: CoSA does not adapt them, and they are not "
        "in this plan"
    ]
