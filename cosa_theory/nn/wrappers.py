"""Models inside wrappers: the plain names of modules and tensors, and compiled modules.

`torch.compile`, FSDP, activation checkpointing, data parallel training and Lightning put a module
of theirs around a model or a part of it, and a part of a name with it. Draws, files and
configurations know plain names only, as the base model without wrappers has them.
"""

import sys
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from cosa_theory.deltas.wrapped_names import known_name, unwrapped_name

__all__ = [
    "named_places",
    "named_tensors",
    "plain_names",
    "plain_tensors",
    "uncompiled",
    "unparallel",
]

_PARALLEL = (nn.DataParallel, DistributedDataParallel, AveragedModel)
"""Wrappers that call what they wrap `module`, as other modules may call a part of theirs."""


def plain_names(model: nn.Module) -> dict[str, str]:
    """Return the plain name of every place in a model's tree, by its name there."""
    tree = dict(model.named_modules(remove_duplicate=False))
    plain = {"": ""}
    for name in tree:
        parent, _, last = name.rpartition(".")
        if last == "module" and _is_parallel(tree[parent]):
            last = ""
        plain[name] = ".".join(part for part in (plain[parent], unwrapped_name(last)) if part)
    return plain


def _is_parallel(module: nn.Module) -> bool:
    if isinstance(module, _PARALLEL):
        return True
    return any(one.__name__ == "DeepSpeedEngine" for one in type(module).__mro__)


def named_places(model: nn.Module) -> dict[str, nn.Module]:
    """Return every place in a model's tree by its plain name; a module used twice has two places.

    Of a wrapper and what it wraps, which have one plain name, the latter is returned.
    """
    tree, plain = dict(model.named_modules(remove_duplicate=False)), plain_names(model)
    places = {plain[name]: module for name, module in tree.items()}
    places.pop("", None)
    return places


def named_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and persistent buffers by their plain names; tied ones have several."""
    found = {}
    plain = plain_names(model)
    for name, module in model.named_modules(remove_duplicate=False):
        own = module._parameters | {
            key: one
            for key, one in module._buffers.items()
            if key not in module._non_persistent_buffers_set
        }
        for key, tensor in own.items():
            if tensor is not None:
                found[f"{plain[name]}.{key}".removeprefix(".")] = tensor
    return found


def plain_tensors(model: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of a state dict of the model, or a wrapper around it, by plain name."""
    plain = plain_names(model)
    known = set(plain.values())
    found = {}
    for name, tensor in tensors.items():
        place, _, last = name.rpartition(".")
        place = plain[place] if place in plain else known_name(unwrapped_name(place), known)
        found[f"{place}.{last}".removeprefix(".")] = tensor
    return found


def uncompiled(model: nn.Module, inside: Iterable[nn.Module] | None = None) -> nn.Module:
    """Put what `torch.compile` wraps into the places of its wrappers; it is compiled in place.

    A wrapper would go on calling a layer that another module replaces. Returned is the model, or
    what it wraps; `inside` restricts this to wrappers of these modules.
    """
    wanted = None if inside is None else {id(module) for module in inside}
    # What nobody has imported yet has wrapped nothing; importing it takes seconds.
    wrapper: Any = getattr(sys.modules.get("torch._dynamo.eval_frame"), "OptimizedModule", ())
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if isinstance(child, wrapper) and (wanted is None or id(child._orig_mod) in wanted):
                parent._modules[name] = _compiled_in_place(child)
    if wanted is None and isinstance(model, wrapper):
        return _compiled_in_place(model)
    return model


def unparallel(model: nn.Module) -> nn.Module:
    """Return the model inside a wrapper of data parallel training, with a warning.

    PEFT names what it saves whole as the model's tree does, and new cores are no part of a wrapper
    that was made before.
    """
    while isinstance(model, (nn.DataParallel, DistributedDataParallel)):
        warnings.warn(
            f"the model is wrapped in {type(model).__name__}, which is taken off; adapt the model "
            "first, and wrap it then",
            stacklevel=4,
        )
        model = model.module
    return model


def _compiled_in_place(wrapper: Any) -> nn.Module:
    module: nn.Module = wrapper._orig_mod
    module._compiled_call_impl = wrapper.dynamo_ctx(module._call_impl)
    return module
