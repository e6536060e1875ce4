"""Loading an adapter's folder into a model: everything is checked before the model is touched."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from cosa_theory.deltas.cosa_adapters import CosaFolder, read_cosa_folder
from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import whole as whole_number
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.progress import progress_bar
from cosa_theory.nn.folder import layer_specs, read_cores, whole_problems
from cosa_theory.nn.linear import check_options
from cosa_theory.nn.model import SavedWhole, build_layer, install_layers, refuse_adapted
from cosa_theory.nn.pairs import Placement, layer_pairs
from cosa_theory.nn.restoring import restored_projections
from cosa_theory.nn.targets import closest, layer_problems
from cosa_theory.nn.ties import separate
from cosa_theory.nn.wrappers import named_places, named_tensors

__all__ = ["load_cosa"]


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
    the tensors of the file, and the fingerprint of every projection that is drawn. Where the folder
    holds a recipe instead of projections, the model runs once on random tokens; see
    `cosa_theory.nn.restoring`.

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
    adapter = read_cosa_folder(folder)
    dropout = adapter.settings.get("dropout") or 0.0
    check_options(dropout, order, core_dtype)
    whole_number("threads", threads)
    places, state = named_places(model), named_tensors(model)
    adapter = adapter.named_as(places)
    whole = _whole_in(adapter, model, state)
    problems = [*_layer_problems(adapter, model, places), *_whole_problems(adapter, whole, state)]
    if problems:
        raise InputError(*problems)
    linears = {
        name: module for name in adapter.layers if isinstance(module := places[name], nn.Linear)
    }
    specs, cores = layer_specs(adapter), read_cores(adapter)
    recipe, made = adapter.settings.get("recipe"), None
    sketches = {name: one.sketch for name, one in adapter.layers.items() if one.right is None}
    if recipe and any(sketches.values()):
        dtype = adapter.settings.get("projection_dtype") or "float32"
        made = restored_projections(model, linears, specs, sketches, recipe, dtype)
    with progress_bar("Projections drawn", progress) as advance:
        pairs = layer_pairs(
            specs,
            {name: Placement.of(linear) for name, linear in linears.items()},
            adapter=adapter,
            fingerprints={name: record.fingerprints for name, record in adapter.layers.items()},
            made=made,
            threads=threads,
            progress=advance,
        )
    replacements = {
        name: torch.from_numpy(adapter.stored.load(tensor))
        for name, tensor in adapter.others.items()
    }
    if not adapter.tied:
        separate(model, whole.modules)
    state = named_tensors(model)
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


def _layer_problems(
    adapter: CosaFolder, model: nn.Module, places: Mapping[str, nn.Module]
) -> list[str]:
    """Say which layers of the adapter the model does not have as the adapter knows them."""
    label, records = adapter.label, adapter.layers
    remedy = "load it into the model that it was trained on"
    missing = [name for name in records if name not in places]
    problems = []
    if missing:
        linears = [name for name, module in places.items() if isinstance(module, nn.Linear)]
        problems.append(
            f"{label}: {len(missing)} of {len(records)} layers are not in the model "
            f"({first_few(missing, 3)}); {closest(missing[0], linears)}: {remedy}"
        )
    seen: dict[int, str] = {}
    sizes = []
    unfit = layer_problems(model, {name: places[name] for name in records if name in places})
    for name, record in records.items():
        if name in missing:
            continue
        module = places[name]
        problem = unfit.get(name)
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
            f"{first_few(sizes, 3)}; {remedy}"
        )
    return problems


def _whole_in(adapter: CosaFolder, model: nn.Module, state: Mapping[str, Tensor]) -> SavedWhole:
    """Return what the adapter holds besides cores, by its names in the model."""
    names, others = adapter.settings.get("modules_to_save") or [], adapter.others
    modules = [
        name
        for name in named_places(model)
        if any(name == end or name.endswith(f".{end}") for end in names)
        and any(tensor.startswith(f"{name}.") for tensor in others)
    ]
    tensors = {
        _base_name(name, state): tensor
        for name, tensor in others.items()
        if not any(name.startswith(f"{module}.") for module in modules)
    }
    return SavedWhole(tuple(modules), tensors, adapter.settings.get("bias") or "none")


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
    for name, tensor in adapter.others.items():
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
            remedy = "load it into the model that it was trained on"
            if shape[1:] == tuple(own.shape[1:]) and "modules_to_save" not in tensor:
                remedy += f", or resize its vocabulary first (resize_token_embeddings({shape[0]}))"
            problems.append(
                f"{adapter.label}: {tensor} has shape {shape}, but {tuple(own.shape)} in the "
                f"model; {remedy}"
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
