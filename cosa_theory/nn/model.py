"""CoSA on a whole model: put layers into their places, merge them, take them out again."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import whole as whole_number
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.program import note
from cosa_theory.ground.progress import progress_bar
from cosa_theory.nn.adaptable import tie_problems, warn_unmergeable
from cosa_theory.nn.informed import informed_projections, moments_of
from cosa_theory.nn.linear import CosaLinear, check_options
from cosa_theory.nn.moments import Moments
from cosa_theory.nn.pairs import Pair, Placement, layer_pairs
from cosa_theory.nn.settings import CosaSettings, LayerSpec
from cosa_theory.nn.targets import (
    call_encoder_layers,
    linear_layers,
    modules_by_ending,
    replace_modules,
    warn_of_idle_patterns,
)
from cosa_theory.nn.ties import separate
from cosa_theory.nn.wrappers import named_places, named_tensors, plain_names, uncompiled

__all__ = [
    "SavedWhole",
    "add_cosa",
    "build_layer",
    "cosa_layers",
    "install_layers",
    "layers_or_error",
    "merge_cosa",
    "refuse_adapted",
    "saved_whole",
    "unmerge_cosa",
]


@dataclass(frozen=True)
class SavedWhole:
    """What an adapter holds besides its cores: trained tensors of the model itself."""

    modules: tuple[str, ...] = ()  # that are trained and saved whole
    # Other tensors, such as biases: name in the base model to name in the file.
    tensors: dict[str, str] = field(default_factory=dict)
    bias: str = "none"  # PEFT's setting for trained biases


_ATTRIBUTE = "cosa_saved_whole"


def add_cosa(
    model: nn.Module,
    target_modules: str | Sequence[str],
    a: int = 1024,
    b: int = 256,
    *,
    alpha: float = 1.0,
    seed: int = 0,
    kind: str = "gaussian",
    options: Mapping[str, Any] | None = None,
    scale: str = "synthesis",
    dropout: float = 0.0,
    clip: bool = True,
    shape_pattern: Mapping[str, Sequence[int]] | None = None,
    alpha_pattern: Mapping[str, float] | None = None,
    exclude_modules: str | Sequence[str] | None = None,
    modules_to_save: Sequence[str] | None = None,
    share_projections: bool = False,
    left: str | None = None,
    projection_dtype: str = "float32",
    moments: Moments | str | os.PathLike[str] | None = None,
    init_weights: bool = True,
    core_dtype: torch.dtype = torch.float32,
    order: str = "auto",
    threads: int = 2,
    progress: bool = False,
) -> nn.Module:
    """Adapt linear layers of a model in place: y = W x + bias + alpha · L(Y(R x)) [1]_.

    Only the cores Y train afterwards, and the modules of `modules_to_save`; every other parameter
    is frozen. L and R of a layer are drawn for its name in the model, so that equal settings give
    equal projections in any process; those of the informed kinds are made from `moments`.

    Parameters
    ----------
    model : nn.Module
        Any model that contains `nn.Linear` layers and has no CoSA layers yet.
    target_modules : str or sequence of str
        Names of layers or their ends after a dot; a regular expression for the whole name; or
        "all-linear", every linear layer but the output head.
    a, b, alpha, seed, kind, options, scale, clip, shape_pattern, alpha_pattern, share_projections
        As for `cosa_theory.nn.settings.CosaSettings`.
    left, projection_dtype
        Likewise.
    moments : Moments or path, optional
        For kind "activation" or "gradient": the moments of the layers' inputs in this model (and
        of their output gradients), by `cosa_theory.nn.layer_moments` or in a file of
        `cosa_theory.nn.moments.write_moments`.
    dropout, init_weights, core_dtype, order
        As for `cosa_theory.nn.CosaLinear`.
    exclude_modules : str or sequence of str, optional
        Layers to leave out, named as in `target_modules`.
    modules_to_save : sequence of str, optional
        Modules that are trained whole and saved with the adapter, such as a new classifier. What
        shares its parameters with other modules becomes a copy, as in PEFT.
    threads : int, default 2
        How many projections are drawn at a time.
    progress : bool, default False
        Whether to show on standard error how many are drawn, see `progress_bar`, and how many
        bytes of projections the adapter will store (`layer.right.nbytes`, where R was made from
        moments).

    Returns
    -------
    nn.Module
        The model itself.

    Raises
    ------
    InputError
        For a setting out of range, a name that matches no layer (the closest are named), a layer
        that cannot be adapted, or moments that lack a layer or are of another model. The model is
        then as it was.

    Warns
    -----
    UserWarning
        Once, listing the layers for which (a, b) was reduced to the layer's size; once for layers
        whose weight is tied to another's, which are not merged as they are; for patterns that match
        no layer, and for experts that are no layers.

    References
    ----------
    .. [1] "CoSA: Compressed Sensing-Based Adaptation of Large Language Models", arXiv 2602.05148.

    Examples
    --------
    >>> model = nn.Sequential(nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 10))
    >>> model = add_cosa(model, ["0", "2"], a=8, b=4)
    >>> [name for name, p in model.named_parameters() if p.requires_grad]
    ['0.Y', '2.Y']
    """
    refuse_adapted(model)
    patterns = shape_pattern or {}, alpha_pattern or {}
    settings = CosaSettings(
        a,
        b,
        alpha,
        seed,
        kind,
        options or {},
        scale,
        clip,
        *patterns,
        share_projections,
        left,
        projection_dtype,
    )
    check_options(dropout, order, core_dtype, init_weights)
    whole_number("threads", threads)
    whole = modules_by_ending(model, modules_to_save)
    linears = linear_layers(
        model, target_modules, exclude_modules=exclude_modules, modules_to_save=whole
    )
    sizes = {name: (one.out_features, one.in_features) for name, one in linears.items()}
    specs = settings.layers(sizes)
    warn_of_idle_patterns("shape_pattern", settings.shape_pattern, sizes)
    warn_of_idle_patterns("alpha_pattern", settings.alpha_pattern, sizes)
    made = informed_projections(specs, moments_of(moments, model, kind), projection_dtype)
    with progress_bar("Projections drawn", progress) as advance:
        places = {name: Placement.of(linear) for name, linear in linears.items()}
        pairs = layer_pairs(specs, places, made=made, threads=threads, progress=advance)
    if made and progress:
        count = sum(map(torch.numel, made.values()))
        size = count * (2 if projection_dtype == "bfloat16" else 4)
        note(f"projections made from data, which are stored with the adapter: {size:,} bytes")
    layers = {
        name: build_layer(
            spec,
            linears[name],
            pairs[name],
            dropout=dropout,
            order=order,
            core_dtype=core_dtype,
            init_weights=init_weights,
        )
        for name, spec in specs.items()
    }
    _warn_of_ties(separate(model, whole))
    warn_unmergeable(model, layers)
    install_layers(model, layers, SavedWhole(whole), trainable=True)
    return model


def _warn_of_ties(tied: Mapping[str, list[str]]) -> None:
    for name, others in tied.items():
        warnings.warn(
            f"{name} shared parameters with {first_few(others, 3)}; named in modules_to_save, it "
            "is a copy now that is trained by itself, as in PEFT",
            stacklevel=3,
        )


def cosa_layers(model: nn.Module) -> dict[str, CosaLinear]:
    """Return the CoSA layers of a model by name; a layer used twice once, by its first name.

    What wrappers (FSDP, `torch.compile`, activation checkpointing) put into names is left out.
    """
    plain = plain_names(model)
    return {
        plain[name]: module
        for name, module in model.named_modules()
        if isinstance(module, CosaLinear)
    }


def merge_cosa(model: nn.Module, unload: bool = False) -> nn.Module:
    """Add every layer's ΔW = alpha · L Y R to its weight, so that the model runs as fast as before.

    Parameters
    ----------
    model : nn.Module
        With CoSA layers. Merging what is merged already changes nothing.
    unload : bool, default False
        Whether plain `nn.Linear` modules take the layers' places; unmerging is then impossible.

    Returns
    -------
    nn.Module
        The model itself.

    Raises
    ------
    InputError
        If there are no CoSA layers, a weight is tied to that of another module, a core or a merged
        weight is not finite, or a merged layer computes something else than before. Nothing is
        merged then; weights that were merged before this was met are restored to within a rounding.
    """
    layers = layers_or_error(model, "merge")
    _check_mergeable(model, layers)
    done: list[CosaLinear] = []
    for layer in layers.values():
        if not layer.merged:
            try:
                layer.merge()
            except Exception:
                for earlier in done:
                    earlier.unmerge()
                raise
            done.append(layer)
    if unload:
        replace_modules(model, {layer: layer.base_layer for layer in layers.values()})
        model.__dict__.pop(_ATTRIBUTE, None)
    return model


def unmerge_cosa(model: nn.Module) -> nn.Module:
    """Take every ΔW out of its weight again, to within a rounding of the weight.

    Parameters
    ----------
    model : nn.Module
        With CoSA layers, merged or not.

    Returns
    -------
    nn.Module
        The model itself.

    Raises
    ------
    InputError
        If there are no CoSA layers.
    """
    for layer in layers_or_error(model, "unmerge").values():
        layer.unmerge()
    return model


def saved_whole(model: nn.Module) -> SavedWhole:
    """Return what is to be saved of a model besides the cores."""
    return getattr(model, _ATTRIBUTE, SavedWhole())


def refuse_adapted(model: nn.Module) -> None:
    """Raise InputError if a model has adapters already: names and frozen parameters would mix."""
    present = list(cosa_layers(model))
    if present:
        raise InputError(
            f"the model has {len(present)} CoSA layers already ({first_few(present, 3)}); name all "
            "layers in one call, or merge these first with merge_cosa(model, unload=True)"
        )
    if hasattr(model, "peft_config"):
        raise InputError(
            "the model is adapted by PEFT already; merge that first (merge_and_unload), or use "
            "CosaConfig of cosa_theory.nn.peft"
        )


def layers_or_error(model: nn.Module, verb: str) -> dict[str, CosaLinear]:
    """Return the CoSA layers by name, or raise InputError if there is none."""
    layers = cosa_layers(model)
    layers.pop("", None)
    if not layers:
        raise InputError(
            f"the model contains no CoSA layers, so there is nothing to {verb}; add_cosa or "
            "load_cosa puts them in"
        )
    return layers


def build_layer(
    spec: LayerSpec,
    base_layer: nn.Linear,
    projections: Pair,
    *,
    dropout: float,
    order: str,
    core_dtype: torch.dtype = torch.float32,
    init_weights: bool = True,
) -> CosaLinear:
    """Return the layer of a specification, in the mode (training or not) of its base layer."""
    layer = CosaLinear(
        base_layer,
        alpha=spec.alpha,
        key=spec.key,
        dropout=dropout,
        order=order,
        core_dtype=core_dtype,
        init_weights=init_weights,
        projections=projections,
    )
    layer.spec = spec
    return layer.train(base_layer.training)


def install_layers(
    model: nn.Module, layers: Mapping[str, CosaLinear], whole: SavedWhole, *, trainable: bool
) -> None:
    """Put the layers into the model; freeze everything but what is trained."""
    tensors, places = named_tensors(model), named_places(model)
    model.requires_grad_(False)
    uncompiled(model, inside=[layer.base_layer for layer in layers.values()])
    replace_modules(model, {layer.base_layer: layer for layer in layers.values()})
    call_encoder_layers(model, CosaLinear)
    for layer in layers.values():
        layer.Y.requires_grad_(trainable)
    for name in whole.modules:
        places[name].requires_grad_(trainable)
    for name in whole.tensors:
        tensors[name].requires_grad_(trainable)
    setattr(model, _ATTRIBUTE, whole)


def _check_mergeable(model: nn.Module, layers: Mapping[str, CosaLinear]) -> None:
    """Refuse, before any weight is touched, what would go wrong."""
    problems = tie_problems(model, layers)
    for name, layer in layers.items():
        if layer.Y.device.type != "meta" and not torch.isfinite(layer.Y).all():
            problems.append(
                f"the core of {name} holds NaN or infinite entries; the training diverged: load an "
                "earlier checkpoint"
            )
    if problems:
        raise InputError(*problems)
