"""Sums over the batches of all processes of torch.distributed."""

import hashlib
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

from cosa_theory.nn.moments.hooks import Gathering
from cosa_theory.nn.moments.sums import Sum

__all__ = ["reduce_sums", "this_process"]


def this_process() -> tuple[int, int]:
    """Return the number of this process, and how many there are."""
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    return 0, 1


def reduce_sums(gathering: Gathering, new_sum: Callable[[str, str], Sum], texts: str) -> str:
    """Add up the sums of all processes in each; a layer may have met tokens in some of them only.

    Returns the digest of all their texts, given that of this one's.
    """
    world = this_process()[1]
    if world == 1:
        return texts
    told: list[Any] = [None] * world
    dist.all_gather_object(
        told, (gathering.owners, list(gathering.inputs), list(gathering.gradients), texts)
    )
    for owners, inputs, gradients, _ in told:
        gathering.owners = owners | gathering.owners
        for side, names in (("inputs", inputs), ("gradients", gradients)):
            sums = getattr(gathering, side)
            for name in names:
                if name not in sums:
                    sums[name] = new_sum(side, name)
    for sums in (gathering.inputs, gathering.gradients):
        for name in sorted(sums):
            for values in sums[name].arrays().values():
                _add_up(torch.from_numpy(values))
    return hashlib.sha256("\n".join(one[-1] for one in told).encode()).hexdigest()


def _add_up(values: torch.Tensor) -> None:
    moved = values.cuda() if dist.get_backend() == "nccl" else values
    dist.all_reduce(moved)
    values.copy_(moved)
