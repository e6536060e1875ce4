"""The methods of the end-to-end check, at equal trainable parameters for every adapted layer.

The budget of a layer is that of LoRA of rank r, P = r(m + n); a CoSA core gets the a × b ≤ P that
its rule allows. A new head is trained as a whole by every method, and is not counted.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from peft import LoraConfig, PeftConfig, get_peft_model
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.peft import CosaConfig
from cosa_theory.nn.projection import FrozenProjection
from cosa_theory.spectrum.budget import cosa_shape, lora_parameters

__all__ = ["Counts", "counts", "linear_layers", "prepared"]

Sizes = Mapping[str, tuple[int, int]]

RELEASED_RATIO = 4
"""a over b in the released default (1024, 256)."""


def released_shape(m: int, n: int, parameters: int) -> tuple[int, int]:
    """Return the largest (a, b) with a near 4 b and ab within the budget, clipped to the layer."""
    b = max(1, min(n, round((parameters / RELEASED_RATIO) ** 0.5)))
    a = min(m, parameters // b)
    return a, min(n, parameters // a)


def linear_layers(model: nn.Module, blocks: int) -> dict[str, tuple[int, int]]:
    """Return name and size (m, n) of every linear layer in the last `blocks` blocks; 0 for all.

    Raises
    ------
    InputError
        If the model does not have so many blocks.
    """
    found = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and _block(name) is not None
    }
    first = _first_block(found, blocks)
    return {name: size for name, size in found.items() if (_block(name) or 0) >= first}


def _block(name: str) -> int | None:
    """Return the number of the block that a module belongs to, the first number in its name."""
    match = re.search(r"\.(\d+)\.", name)
    return int(match[1]) if match else None


def _first_block(names: Mapping[str, Any], blocks: int) -> int:
    total = max((_block(name) or 0 for name in names), default=-1) + 1
    if blocks > total:
        raise InputError(f"blocks is {blocks}: the model has {total}")
    return total - blocks if blocks else 0


def prepared(
    model: nn.Module, method: str, *, blocks: int, rank: int, seed: int, head: str | None
) -> nn.Module:
    """Return the model with exactly that trainable which the method trains.

    Parameters
    ----------
    model : nn.Module
        The model before training; it is changed.
    method : str
        A key of `experiments.finetune_check_results.METHODS`.
    blocks : int
        How many of the last blocks are adapted; 0 for all. Full fine-tuning trains all weights of
        these blocks, and with 0 all weights of the model.
    rank : int
        The budget, as a rank of LoRA.
    seed : int
        Of CoSA's projections.
    head : str, optional
        Name of a module that is trained as a whole besides.

    Returns
    -------
    nn.Module
        The model itself, or a `PeftModel` around it.
    """
    if method == "full":
        first = _first_block(linear_layers(model, 0), blocks)
        for name, parameter in model.named_parameters():
            block = _block(name)
            inside = not blocks or (block is not None and block >= first)
            parameter.requires_grad_(inside or _in_head(name, head))
        return model
    return get_peft_model(model, _config(linear_layers(model, blocks), method, rank, seed, head))


def _config(sizes: Sizes, method: str, rank: int, seed: int, head: str | None) -> PeftConfig:
    common: dict[str, Any] = {
        "target_modules": list(sizes),
        "modules_to_save": [head] if head else None,
    }
    if method == "lora":
        return LoraConfig(r=rank, lora_alpha=rank, **common)
    shapes = {}
    for name, (m, n) in sizes.items():
        budget = lora_parameters(m, n, rank)
        if method == "cosa_released":
            shapes[re.escape(name)] = released_shape(m, n, budget)
        else:
            core = cosa_shape(m, n, budget)
            shapes[re.escape(name)] = core.a, core.b
    return CosaConfig(
        shape_pattern=shapes,
        seed=seed,
        kind="haar" if method == "cosa_haar" else "gaussian",
        scale="analysis" if method == "cosa_released" else "synthesis",
        **common,
    )


def _in_head(name: str, head: str | None) -> bool:
    return head is not None and f".{head}." in f".{name}"


@dataclass(frozen=True)
class Counts:
    """What a method adds to the frozen model.

    Attributes
    ----------
    adapter, head : int
        Trainable parameters, of the new head and of everything else.
    frozen_bytes : int
        Of frozen projections.
    """

    adapter: int
    head: int
    frozen_bytes: int

    @property
    def trainable(self) -> int:
        """All trainable parameters."""
        return self.adapter + self.head


def counts(model: nn.Module, head: str | None) -> Counts:
    """Count what a prepared model trains and keeps frozen beside its weights."""
    sizes = {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            sizes[_in_head(name, head)] += parameter.numel()
    frozen = sum(part.nbytes for part in model.modules() if isinstance(part, FrozenProjection))
    return Counts(sizes[False], sizes[True], frozen)
