"""One of two gloo processes: moments, and gradients and gathered cores under DDP and FSDP.

Run as ``python -m tests.nn.distributed_run RANK FOLDER``; rank 0 leaves FOLDER/results.pt.
"""

import os
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel

from cosa_theory.nn.model import add_cosa, cosa_layers
from cosa_theory.nn.moments import layer_moments
from cosa_theory.nn.saving import save_cosa
from tests.nn.made import moments_for

WORLD = 2
KINDS = {"data_parallel": "gaussian", "fully_sharded": "gradient", "sharded_in_place": "activation"}


def build(kind="gaussian"):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 10))
    torch.manual_seed(1)
    moments = None if kind == "gaussian" else moments_for({"0": (16, 12), "2": (10, 16)})
    settings = {"alpha": 2.0, "init_weights": False, "kind": kind, "moments": moments}
    return add_cosa(model, "all-linear", 5, 4, **settings)


def batch():
    torch.manual_seed(2)
    return torch.randn(8, 12)


def loss_of(output):
    return output.square().mean()


def half(rank):
    return batch().chunk(WORLD)[rank]


def data_parallel(rank, folder):
    model = build()
    drawn = [layer.left.tensors["values"] for layer in cosa_layers(model).values()]
    kept = [values.clone() for values in drawn]
    if rank == 1:
        with torch.no_grad():
            for tensor in (*model.parameters(), *drawn):
                tensor.zero_()
    # The first process's parameters are sent to the others; projections are not.
    wrapped = DistributedDataParallel(model)
    assert all((values == 0).all() for values in drawn) == (rank == 1)
    assert all(parameter.any() for parameter in model.parameters())
    for values, own in zip(drawn, kept, strict=True):
        values.copy_(own)
    sent = []

    def hook(_, bucket):
        sent.append(bucket.buffer().numel())
        future = dist.all_reduce(bucket.buffer() / WORLD, async_op=True).get_future()
        return future.then(lambda one: one.value()[0])

    wrapped.register_comm_hook(None, hook)
    loss_of(wrapped(half(rank))).backward()
    layers = cosa_layers(model)
    if rank == 0:
        save_cosa(wrapped, folder / "data_parallel")
    return {
        "gradients": {name: layer.Y.grad for name, layer in layers.items()},
        "sent": sum(sent),
    }


def fully_sharded(rank, folder):
    model = FullyShardedDataParallel(
        build(KINDS["fully_sharded"]), use_orig_params=True, device_id=torch.device("cpu")
    )
    loss_of(model(half(rank))).backward()
    with FullyShardedDataParallel.summon_full_params(model, with_grads=True):
        gradients = {name: layer.Y.grad.clone() for name, layer in cosa_layers(model).items()}
        state = {name: value.clone() for name, value in model.state_dict().items()}
    if rank == 0:
        save_cosa(model, folder / "fully_sharded", state_dict=state)
    return {"gradients": gradients}


def sharded_in_place(rank, folder):
    model = build(KINDS["sharded_in_place"])
    for layer in model:
        if list(layer.parameters()):
            fully_shard(layer)
    fully_shard(model)
    loss_of(model(half(rank))).backward()
    layers = cosa_layers(model)
    gradients = {name: layer.Y.grad.full_tensor() for name, layer in layers.items()}
    state = {
        name: value.full_tensor() if hasattr(value, "full_tensor") else value
        for name, value in model.state_dict().items()
    }
    if rank == 0:
        save_cosa(model, folder / "sharded_in_place", state_dict=state)
    return {"gradients": gradients}


class Branching(nn.Module):
    """A model one layer of which is run for some batches only."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.more, self.last = nn.Linear(12, 5), nn.Linear(5, 5), nn.Linear(5, 40)

    def forward(self, x, more=False):
        hidden = torch.tanh(self.first(x))
        return self.last(self.more(hidden) if more else hidden)


def shares():
    """The batches of either process."""
    torch.manual_seed(3)
    first, second, third = ({"x": torch.randn(size, 12), "more": size > 8} for size in (6, 8, 10))
    return [first, second], [third]


def gathered_moments(rank, folder):
    options = {"most_bytes": 306_000, "directions": 4, "resume": folder / "sums.safetensors"}
    found = layer_moments(Branching(), shares()[rank], gradients="samples", **options)
    return {"moments": found, "left": list(folder.glob("sums*"))}


def main():
    rank, folder = int(sys.argv[1]), Path(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder / 'store'}", rank=rank, world_size=WORLD
    )
    results = {
        step.__name__: step(rank, folder)
        for step in (data_parallel, fully_sharded, sharded_in_place, gathered_moments)
    }
    every = [None] * WORLD
    dist.all_gather_object(every, results["gathered_moments"])
    if rank == 0:
        results["gathered_moments"] = every
        torch.save(results, folder / "results.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # gloo's threads now and then abort a process that is torn down in order
