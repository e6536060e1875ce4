"""Saving a model's adapter into a folder, and loading one: PEFT's format, checked both ways."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cosa_theory.deltas.cosa_adapters import (
    ADAPTER_WEIGHTS,
    WRAPPER,
    CosaFolder,
    read_cosa_folder,
)
from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import choice
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.progress import progress_bar
from cosa_theory.nn.folder import (
    common_settings,
    layer_entry,
    layer_specs,
    projection_tensors,
    read_cores,
    whole_problems,
    write_adapter,
)
from cosa_theory.nn.linear import CosaLinear, check_options
from cosa_theory.nn.model import (
    SavedWhole,
    build_layer,
    install_layers,
    layers_or_error,
    refuse_adapted,
    saved_whole,
)
from cosa_theory.nn.pairs import Placement, layer_pairs
from cosa_theory.nn.targets import (
    closest,
    linear_problem,
    minimal_targets,
    named_places,
    unwrapped_name,
    within_attention,
)

__all__ = ["load_cosa", "save_cosa"]

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
    `adapter_config.json` the settings, and for every layer the fingerprints of its projections,
    which come back from the seed.

    Parameters
    ----------
    model : nn.Module
        With CoSA layers, merged or not.
    folder : path
        Created if it is missing; an adapter in it is replaced, other files stay.
    save_projections : bool, default False
        Whether L and R are stored too, in float32: the file is much larger and needs no draws.
        Projections that were read from a file and have no seed are stored in any case.
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
    model = _unwrapped(model)
    layers = layers_or_error(model, "save")
    if task_type is not None:
        choice("task_type", task_type, TASK_TYPES)
    specs = {name: layer.spec for name, layer in layers.items()}
    whole = saved_whole(model)
    unseeded = any(p.spec is None for one in layers.values() for p in (one.left, one.right))
    stored = save_projections or unseeded
    state = model.state_dict() if state_dict is None else state_dict
    values = _values(layers, whole, {unwrapped_name(name): one for name, one in state.items()})
    if stored:
        values |= projection_tensors(
            {name: (one.spec.key, one.left, one.right) for name, one in layers.items()}
        )
    settings = _peft_settings(model, base_model_name_or_path, task_type) | {
        **common_settings(specs),
        "clip": True,
        "save_projections": stored,
        "dropout": _common_dropout(layers),
        "target_modules": minimal_targets(list(layers), _all_names(model)),
        "exclude_modules": None,
        "modules_to_save": list(whole.modules) or None,
        "bias": whole.bias,
        "layers": {
            name: layer_entry(one.spec.key, (one.spec.m, one.spec.n), one.left, one.right)
            for name, one in layers.items()
        },
    }
    write_adapter(folder, settings, values)


def load_cosa(
    model: nn.Module,
    folder: str | Path,
    *,
    trainable: bool = False,
    core_dtype: torch.dtype = torch.float32,
    order: str = "auto",
    threads: int = 2,
    progress: bool = False,
) -> nn.Module:
    """Put a saved adapter on the base model it was trained on.

    Reads what `save_cosa` and PEFT write, and adapters of the code released with the paper if they
    carry L and R. Everything is checked before the model is touched: names and sizes of the layers,
    the tensors of the file, and the fingerprint of every projection that is drawn.

    Parameters
    ----------
    model : nn.Module
        The base model, without CoSA layers; changed in place.
    folder : path
        With adapter_config.json and adapter_model.safetensors.
    trainable : bool, default False
        Whether the cores, and the modules saved whole, train on; everything else is frozen in any
        case.
    core_dtype, order
        As for `cosa_theory.nn.CosaLinear`.
    threads, progress
        As for `add_cosa`.

    Returns
    -------
    nn.Module
        The model itself.

    Raises
    ------
    InputError
        Naming every problem found; the model is then as it was.
    """
    refuse_adapted(model)
    _refuse_pickle(Path(folder))
    adapter = read_cosa_folder(folder)
    dropout = adapter.settings.get("dropout") or 0.0
    check_options(dropout, order, core_dtype)
    places, state = named_places(model), model.state_dict()
    whole = _whole_in(adapter, model, state)
    problems = [*_layer_problems(adapter, places), *_whole_problems(adapter, whole, state)]
    if problems:
        raise InputError(*problems)
    linears = {
        name: module for name in adapter.layers if isinstance(module := places[name], nn.Linear)
    }
    specs, cores = layer_specs(adapter), read_cores(adapter)
    with progress_bar("Projections drawn", progress) as advance:
        pairs = layer_pairs(
            specs,
            {name: Placement.of(linear) for name, linear in linears.items()},
            adapter=adapter,
            fingerprints={name: record.fingerprints for name, record in adapter.layers.items()},
            threads=threads,
            progress=advance,
        )
    replacements = {
        name: torch.from_numpy(adapter.stored.load(tensor))
        for name, tensor in _others(adapter).items()
    }
    layers = {}
    for name, spec in specs.items():
        layer = build_layer(spec, linears[name], pairs[name], dropout=dropout, order=order)
        place = linears[name].weight.device
        core = cores[name].to(core_dtype)
        layer.Y = nn.Parameter(core if place.type == "meta" else core.to(place))
        layers[name] = layer
    with torch.no_grad():
        for name, value in replacements.items():
            state[_base_name(name, state)].copy_(value)
    install_layers(model, layers, whole, trainable=trainable)
    return model


def _refuse_pickle(folder: Path) -> None:
    """Refuse a folder whose tensors are pickled: opening such a file can run any code."""
    pickled = folder / "adapter_model.bin"
    if pickled.is_file() and not (folder / ADAPTER_WEIGHTS).is_file():
        raise InputError(
            f"{pickled} is a pickle, which can run any code when it is loaded; save the adapter "
            "again as safetensors (PEFT: save_pretrained with safe_serialization=True)"
        )


def _layer_problems(adapter: CosaFolder, places: Mapping[str, nn.Module]) -> list[str]:
    """Say which layers of the adapter the model does not have as the adapter knows them."""
    label, records = adapter.label, adapter.layers
    missing = [name for name in records if name not in places]
    problems = []
    if missing:
        linears = [name for name, module in places.items() if isinstance(module, nn.Linear)]
        problems.append(
            f"{label}: {len(missing)} of {len(records)} layers are not in the model "
            f"({first_few(missing, 3)}); {closest(missing[0], linears)}: load it into the model "
            "that it was trained on"
        )
    seen: dict[int, str] = {}
    sizes = []
    for name, record in records.items():
        module = places.get(name)
        if module is None:
            continue
        problem = linear_problem(module)
        if problem is None and within_attention(name, places):
            problem = "used by nn.MultiheadAttention without being called"
        if seen.setdefault(id(module), name) != name:
            problem = f"the same module as {seen[id(module)]}, which the adapter adapts too"
        if problem is not None:
            problems.append(f"{label}: {name} is {problem}")
        elif isinstance(module, nn.Linear) and tuple(module.weight.shape) != (record.m, record.n):
            m, n = module.weight.shape
            sizes.append(f"{name} ({m} × {n} in the model, {record.m} × {record.n} in the adapter)")
    if sizes:
        problems.append(
            f"{label}: {len(sizes)} of {len(records)} layers have another size: "
            f"{first_few(sizes, 3)}; load it into the model that it was trained on"
        )
    return problems


def _whole_in(adapter: CosaFolder, model: nn.Module, state: Mapping[str, Tensor]) -> SavedWhole:
    """Return what the adapter holds besides cores, by its names in the model."""
    names, others = adapter.settings.get("modules_to_save") or [], _others(adapter)
    modules = [
        name
        for name, _ in model.named_modules()
        if any(name == end or name.endswith(f".{end}") for end in names)
        and any(tensor.startswith(f"{name}.") for tensor in others)
    ]
    tensors = {
        _base_name(name, state): tensor
        for name, tensor in others.items()
        if not any(name.startswith(f"{module}.") for module in modules)
    }
    return SavedWhole(tuple(modules), tensors, adapter.settings.get("bias") or "none")


def _others(adapter: CosaFolder) -> dict[str, str]:
    """Return the tensors besides cores and projections, without those that nothing uses.

    With trained biases PEFT also writes those of a module that its trained copy stands for.
    """
    return {
        name: tensor for name, tensor in adapter.whole.items() if ".original_module." not in name
    }


def _base_name(name: str, state: Mapping[str, Tensor]) -> str:
    """Return a tensor's name in the base model: PEFT names a bias as the adapted model has it."""
    return name if name in state else name.replace(".base_layer.", ".")


def _whole_problems(
    adapter: CosaFolder, whole: SavedWhole, state: Mapping[str, Tensor]
) -> list[str]:
    """Say which of the other tensors the model cannot take, and which are missing."""
    problems = []
    wanted: dict[str, tuple[str | None, Tensor | None]] = {
        name: (None, None)
        for name in state
        if any(name.startswith(f"{module}.") for module in whole.modules)
    }
    for name, tensor in _others(adapter).items():
        base = _base_name(name, state)
        own = state.get(base)
        wanted[base] = tensor, own
        shape = adapter.stored.infos[tensor].shape
        if own is None:
            problems.append(
                f"{adapter.label}: the tensor {tensor} is none of the model's; "
                f"{closest(name, list(state)).replace('linear layers', 'tensors')}"
            )
        elif tuple(own.shape) != shape:
            problems.append(
                f"{adapter.label}: {tensor} has shape {shape}, but {tuple(own.shape)} in the "
                "model; load it into the model that it was trained on"
            )
        elif own.device.type == "meta":
            problems.append(
                f"{adapter.label}: {tensor} replaces a tensor of the model that is on the meta "
                "device; load the model's weights first"
            )
        elif base.removesuffix(".weight") in adapter.layers:
            problems.append(
                f"{adapter.label}: {tensor} is the weight of a layer that the adapter adapts, and "
                "does not belong to an adapter; save the adapter again"
            )
    return problems + whole_problems(adapter, wanted)


def _unwrapped(model: nn.Module) -> nn.Module:
    """Return the model within DistributedDataParallel, whose names begin with "module."."""
    return model.module if isinstance(model, nn.parallel.DistributedDataParallel) else model


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
        if value is None or value.device.type == "meta" or not whole_core or _sharded(value):
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


def _sharded(value: Tensor) -> bool:
    return hasattr(value, "full_tensor")  # a DTensor


def _common_dropout(layers: Mapping[str, CosaLinear]) -> float:
    rates = {layer.dropout for layer in layers.values()}
    if len(rates) > 1:
        raise InputError(
            f"dropout differs between the layers ({', '.join(map(str, sorted(rates)))}); an "
            "adapter's folder has one: set layer.dropout alike in all"
        )
    return rates.pop()


def _all_names(model: nn.Module) -> list[str]:
    """Return the names of all modules as the base model has them."""
    inside = re.compile(r"\.(base_layer|left|right)$")
    return [
        unwrapped_name(name)
        for name, _ in model.named_modules(remove_duplicate=False)
        if name and not inside.search(name)
    ]


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
    }
