"""Which layers compute W x + b from a Parameter of their own at each call: only these are adapted.

An update L Y R can be added to such a weight and to no other. It is decided by what a layer is: its
forward, its hooks, how its weight comes about, and who reads it past the layer. A weight that
others hold too can be adapted but not merged.
"""

import copy
import warnings
from collections.abc import Collection, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cosa_theory.deltas.matching import first_few
from cosa_theory.nn.readers import weights_read_past
from cosa_theory.nn.wrappers import plain_names

__all__ = ["layer_obstacles", "shared_weights", "tie_problems", "warn_unmergeable"]

_SAFE_HOOKS = ("accelerate", "deepspeed", "peft", "torch.distributed", "transformers")
"""Packages whose hooks move values between devices or record them, and change nothing."""


def layer_obstacles(
    model: nn.Module, layers: Mapping[str, nn.Module], quantised: Collection[str] = ()
) -> dict[str, str]:
    """Say what stands against adapting some layers of a model, by their names in it.

    `layers` are those to adapt, `nn.Linear` or transformers' `Conv1D`, not inside adapters; the
    forward of those named in `quantised` is not looked at. A reason reads on after "is".
    """
    read = weights_read_past(model, layers)
    found = {}
    for name, layer in layers.items():
        reason = None if name in quantised else _forward_problem(layer)
        if reason is None and name in read:
            reason = f"a layer whose weight {read[name]} reads without calling the layer"
        if reason is not None:
            found[name] = reason
    return found


def tie_problems(model: nn.Module, names: Collection[str]) -> list[str]:
    """Say which layers of a model have a weight that is not theirs alone, a sentence each."""
    shared = shared_weights(model)
    tied = [name for name in names if name in shared]
    more = [f"and {len(tied) - 3} more layers have tied weights"] if len(tied) > 3 else []
    return [
        f"the weight of {name} is tied to that of {first_few(shared[name], 3)}, which merging "
        "would change too; untie it first (layer.base_layer.weight = "
        "nn.Parameter(layer.base_layer.weight.clone()))"
        for name in tied[:3]
    ] + more


def warn_unmergeable(model: nn.Module, names: Collection[str]) -> None:
    """Warn, once, of layers that train well and cannot be merged as they are."""
    problems = tie_problems(model, names)
    if problems:
        warnings.warn("; ".join([problems[0], *problems[3:]]), stacklevel=4)


def _forward_problem(layer: nn.Module) -> str | None:
    """Say why a layer's output is not W x + b."""
    if not isinstance(layer._parameters.get("weight"), Tensor):
        return "a linear layer whose weight is computed at each call (parametrised)"
    kind = f"a {type(layer).__name__} with a forward of its own, which is not W x + b"
    # accelerate replaces the forward of a layer whose weight it fetches, and calls the first one.
    if "forward" in vars(layer) and not hasattr(layer, "_hf_hook"):
        return kind
    plain = nn.Linear if isinstance(layer, nn.Linear) else _conv1d_of(type(layer))
    if plain is None or (type(layer).forward is not plain.forward and not _is_affine(layer)):
        return kind
    if _foreign_hooks(layer) and not _agrees_with_hooks(layer):
        return "a layer with a hook that changes what it computes"
    return None


def _conv1d_of(kind: type) -> Any:
    """Return transformers' `Conv1D` among the bases of a class, without importing it."""
    return next((one for one in kind.__mro__ if one.__name__ == "Conv1D"), None)


def _affine(x: Tensor, weight: Tensor, bias: Tensor | None, stored_as: tuple[int, int]) -> Tensor:
    """Return W x + b for a weight stored as (m, n), or as (n, m) by `Conv1D`."""
    return F.linear(x, weight if stored_as == (1, 0) else weight.mT, bias)


def _is_affine(layer: nn.Module) -> bool:
    """Try a forward on a small copy with other weights: so it can cache nothing, nor clip."""
    generator = torch.Generator().manual_seed(0)
    m, n = 5, 3
    order = (1, 0) if isinstance(layer, nn.Linear) else (0, 1)
    shape = (m, n) if order == (1, 0) else (n, m)
    bias = layer._parameters.get("bias")
    trial: Any = copy.copy(layer)
    trial.in_features, trial.out_features, trial.nx, trial.nf = n, m, n, m
    for size in (1e-3, 1.0, 1e3):
        own = {"weight": torch.randn(shape, generator=generator)}
        own |= {} if bias is None else {"bias": torch.randn(m, generator=generator)}
        parameters = {name: nn.Parameter(value, False) for name, value in own.items()}
        vars(trial)["_parameters"] = vars(layer)["_parameters"] | parameters
        x = size * torch.randn(2, 4, n, generator=generator)
        expected = _affine(x, own["weight"], own.get("bias"), order)
        for training in (False, True):
            vars(trial)["training"] = training
            try:
                found = type(trial).forward(trial, x)
            except Exception:  # it is somebody's code, and may ask for anything
                return False
            if not isinstance(found, Tensor) or found.shape != expected.shape:
                return False
            if not torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * size):
                return False
    return True


def _foreign_hooks(layer: nn.Module) -> bool:
    hooks = (*layer._forward_pre_hooks.values(), *layer._forward_hooks.values())
    return any(
        not (getattr(hook, "__module__", None) or type(hook).__module__).startswith(_SAFE_HOOKS)
        for hook in hooks
    )


@torch.no_grad()
def _agrees_with_hooks(layer: nn.Module) -> bool:
    """Call a layer once, with its hooks; where that is not possible, take them as harmless."""
    weight, bias = layer._parameters["weight"], layer._parameters.get("bias")
    order = (1, 0) if isinstance(layer, nn.Linear) else (0, 1)
    if weight is None or weight.device.type == "meta" or not weight.is_floating_point():
        return True
    before = weight.clone()
    n = weight.shape[order[0]]
    x = torch.randn(1, 2, n, generator=torch.Generator().manual_seed(0)).to(weight)
    try:
        found = layer(x)
    except Exception:
        return True
    if not torch.equal(before, weight) or not isinstance(found, Tensor):
        return False
    expected = _affine(x, before, bias, order)
    if found.shape != expected.shape:
        return False
    error = torch.linalg.vector_norm((found - expected).float())
    scale = torch.linalg.vector_norm(expected.float())
    return bool(error <= 16 * torch.finfo(weight.dtype).eps * scale)


def shared_weights(model: nn.Module) -> dict[str, tuple[str, ...]]:
    """Return, for every module whose parameter others hold too, the plain names of these.

    Held too is the same Parameter, or one whose memory overlaps. Modules inside a tuner layer go by
    the name of that layer.
    """
    plain = plain_names(model)
    spans = sorted(
        (*_span(parameter), plain[name].removesuffix(".base_layer"))
        for name, module in model.named_modules()
        for parameter in module._parameters.values()
        if parameter is not None and ".original_module" not in name
    )
    groups: list[set[str]] = []
    last = ("", -1)
    for device, start, stop, name in spans:
        if not groups or device != last[0] or start >= last[1]:
            groups.append(set())
            last = (device, stop)
        groups[-1].add(name)
        last = (device, max(last[1], stop))
    return {
        name: tuple(sorted(group - {name})) for group in groups for name in group if len(group) > 1
    }


def _span(parameter: Tensor) -> tuple[str, int, int]:
    """Return where a parameter's memory begins and ends; without memory, what stands for it."""
    try:
        start = parameter.data_ptr()
    except (RuntimeError, NotImplementedError):  # a tensor without a storage of its own
        start = 0
    if start == 0 or parameter.numel() == 0 or parameter.layout != torch.strided:
        return "", id(parameter), id(parameter) + 1
    steps = zip(parameter.shape, parameter.stride(), strict=True)
    entries = 1 + sum((size - 1) * step for size, step in steps)
    return str(parameter.device), start, start + entries * parameter.element_size()
