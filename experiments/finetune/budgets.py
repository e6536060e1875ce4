"""How large each method is for one budget of trainable parameters.

The budget is a number for the whole model, shared out as LoRA of one rank does, or that rank: an
m × n layer has r(m + n). Every method gets the largest size within it, and what it really trains
is counted.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from cosa_theory.ground.errors import InputError
from cosa_theory.spectrum.budget import cosa_shape, lora_parameters, lora_xs_rank

__all__ = ["METHODS", "OWN_RANK", "SHAPES", "Size", "layer_budgets", "released_shape", "size_of"]

Layers = Mapping[str, tuple[int, int]]

_AT_RANK: dict[str, Callable[[int, int, int], int]] = {
    **dict.fromkeys(("lora", "lora_eva", "lora_corda", "lora_ga"), lambda m, n, r: r * (m + n)),
    "rslora": lambda m, n, r: r * (m + n),
    "dora": lambda m, n, r: r * (m + n) + m,
    "pissa": lambda m, n, r: r * (m + n),
    "adalora": lambda m, n, r: r * (m + n + 1),
    "lora_fa": lambda m, n, r: r * m,
    "vera": lambda m, n, r: r + m,
    "shira": lambda m, n, r: r * (m + n),
    "randlora": lambda m, n, r: -(-min(m, n) // r) * (r + min(m, n)),
}
"""What a method of one rank for all layers trains on an m × n layer."""

OWN_RANK = (
    *("lora", "lora_eva", "lora_corda", "lora_ga", "rslora", "dora", "pissa", "adalora"),
    "lora_fa",
)
"""The methods that a rank is not a budget for, but their own rank."""

_SINGULAR = ("pissa", "lora_eva", "lora_corda", "lora_ga")

METHODS = ("full", "cosa", "lora_xs", *_AT_RANK, "fourierft", "c3a")
"""What can be trained."""

SHAPES = ("memory", "square", "released", "whole")
"""Rules for the shape of a CoSA core: those of `cosa_shape`, a near 4 b, and a = m."""

RELEASED_RATIO = 4
"""a over b in the released default (1024, 256)."""


@dataclass(frozen=True)
class Size:
    """What a method trains on some layers.

    Attributes
    ----------
    trained : int
        Numbers in all layers.
    rank : int, optional
        Where one rank is for all layers.
    by_layer : dict
        Else for each layer the shape (a, b) of a core, a number of frequencies or a block size.
    """

    trained: int
    rank: int | None = None
    by_layer: Mapping[str, Any] = field(default_factory=dict)


def size_of(
    method: str,
    layers: Layers,
    *,
    rank: int = 0,
    budget: int = 0,
    core: tuple[int, ...] = (),
    shape: str = "memory",
) -> Size:
    """Return the largest size of a method within a budget.

    Parameters
    ----------
    method : str
        One of `METHODS` but "full".
    layers : mapping of str to (int, int)
        Names and sizes (m, n) of what is adapted.
    rank, budget, core
        The budget, exactly one of them: a rank of LoRA, which methods of `OWN_RANK` take for their
        own; trainable numbers in the whole model; a CoSA core, reduced to layers that are smaller.
    shape : str
        One of `SHAPES`, of CoSA.

    Returns
    -------
    Size

    Raises
    ------
    InputError
        If the budget is too small for the method, or the rank larger than any layer has.
    """
    most = max(map(min, layers.values()))
    if rank > most:
        raise InputError(
            f"rank is {rank:,}: the adapted layers have at most {most:,}: lower it",
            argument="rank",
        )
    if core:
        a, b = core
        cores = {name: (min(a, m), min(b, n)) for name, (m, n) in layers.items()}
        return Size(sum(math.prod(one) for one in cores.values()), by_layer=cores)
    count = _AT_RANK.get(method)
    if count is not None and rank and method in OWN_RANK:
        least = min(map(min, layers.values()))
        if method in _SINGULAR and rank > least:
            raise InputError(
                f"rank is {rank:,}: {method} starts from singular vectors, of which the smallest "
                f"layer has {least:,}: lower it",
                argument="rank",
            )
        return Size(sum(count(m, n, rank) for m, n in layers.values()), rank)
    shares = layer_budgets(layers, rank=rank, budget=budget)
    if count is not None:
        return _one_rank(method, layers, budget or sum(shares.values()), count)
    if method == "cosa":
        cores = {name: _core(*layers[name], share, shape) for name, share in shares.items()}
        return Size(sum(math.prod(one) for one in cores.values()), by_layer=cores)
    if method == "lora_xs":
        ranks = {name: lora_xs_rank(*layers[name], share) for name, share in shares.items()}
        return Size(
            sum(r * r for r in ranks.values()), by_layer={n: (r, r) for n, r in ranks.items()}
        )
    if method == "fourierft":
        kept = {name: min(share, math.prod(layers[name])) for name, share in shares.items()}
        return Size(sum(kept.values()), by_layer=kept)
    blocks = {name: _block_size(name, *layers[name], share) for name, share in shares.items()}
    return Size(sum(m * n // blocks[name] for name, (m, n) in layers.items()), by_layer=blocks)


def layer_budgets(layers: Layers, *, rank: int = 0, budget: int = 0) -> dict[str, int]:
    """Return what each layer may train: as LoRA of a rank, or its share of a whole budget.

    Raises
    ------
    InputError
        If a share would be nothing.
    """
    if rank:
        return {name: lora_parameters(m, n, rank) for name, (m, n) in layers.items()}
    total = sum(m + n for m, n in layers.values())
    shares = {name: budget * (m + n) // total for name, (m, n) in layers.items()}
    if min(shares.values()) < 1:
        raise _too_small("every method", budget, -(-total // min(map(sum, layers.values()))))
    return shares


def _too_small(method: str, budget: int, least: int) -> InputError:
    return InputError(
        f"budget is {budget:,} trainable parameters: {method} needs at least {least:,} on these "
        "layers: raise it, or adapt fewer layers",
        argument="budget",
    )


def _one_rank(
    method: str, layers: Layers, budget: int, count: Callable[[int, int, int], int]
) -> Size:
    """Return the rank of one for all layers that trains the most within the budget."""
    sizes = list(layers.values())
    most = min(map(min, sizes)) if method != "shira" else min(m * n // (m + n) for m, n in sizes)
    if method == "randlora":  # more bases for a lower rank
        most = max(map(min, sizes))
    elif method == "vera":  # a scaling of each row, whatever their number
        most = max(1, budget)
    fixed = sum(count(m, n, 1) for m, n in sizes)
    each = sum(count(m, n, 2) for m, n in sizes) - fixed
    if method == "randlora":
        totals = np.array([sum(count(m, n, r) for m, n in sizes) for r in range(1, most + 1)])
        within = np.where(totals <= budget, totals, 0)
        rank = int(within.argmax()) + 1 if within.any() else 0
        fixed = int(totals.min())
    else:
        rank = min(most, 1 + (budget - fixed) // each)
    if rank < 1:
        raise _too_small(method, budget, fixed)
    return Size(sum(count(m, n, rank) for m, n in sizes), rank)


def _core(m: int, n: int, parameters: int, shape: str) -> tuple[int, int]:
    if shape == "released":
        return released_shape(m, n, parameters)
    if shape == "whole":
        if parameters < m:
            raise InputError(
                f"a layer of {m} × {n} may have {parameters:,} trainable parameters: a core with a "
                f"whole side of {m} needs more: raise the budget",
                argument="budget",
            )
        return m, min(n, parameters // m)
    core = cosa_shape(m, n, parameters, shape)
    return core.a, core.b


def released_shape(m: int, n: int, parameters: int) -> tuple[int, int]:
    """Return the largest (a, b) with a near 4 b and ab within the budget, clipped to the layer."""
    b = max(1, min(n, round((parameters / RELEASED_RATIO) ** 0.5)))
    a = min(m, parameters // b)
    return a, min(n, parameters // a)


def _block_size(name: str, m: int, n: int, parameters: int) -> int:
    """Return the smallest block that divides both sides, so that mn/block is within the budget."""
    common = math.gcd(m, n)
    for block in range(1, common + 1):
        if common % block == 0 and m * n // block <= parameters:
            return block
    raise InputError(
        f"{name}, {m} × {n}, may have {parameters:,} trainable parameters: c3a needs at least "
        f"{m * n // common:,} there: raise the budget, or leave the layer out",
        argument="budget",
    )
