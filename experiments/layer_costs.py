"""What a step of an adapted layer or model costs: time, memory, operations; ours and the rivals.

Every method gets the setting that is fastest for it: adapters of PEFT in the type of the model
(in a bfloat16 model their float32 default would convert every input), without dropout.
"""

from __future__ import annotations

import copy
import math
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, RandLoraConfig, VeraConfig, get_peft_model
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from cosa_theory.nn import CosaLinear, add_cosa
from cosa_theory.nn.forward import cheapest_order, update_flops
from cosa_theory.nn.projection import FrozenProjection
from cosa_theory.spectrum.budget import cosa_shape

__all__ = [
    "adapted_layers",
    "adapted_readers",
    "added_flops",
    "frozen_bytes",
    "interleaved",
    "peak_bytes",
    "quiet",
    "ratio",
    "rival_configs",
    "saved_bytes",
    "step",
    "trainable_bytes",
]

Step = Callable[[], Any]


def interleaved(calls: Mapping[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of every call in every round, the calls in turn; the first does not count.

    Seconds of all of the process's threads, not of the clock: other programs share the machine. One
    that is slow for a while then slows all alike, and ratios within a round are fair.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds + 1):
        for name, call in calls.items():
            begun = time.process_time()
            call()
            if number:
                seconds[name].append(time.process_time() - begun)
    return seconds


def ratio(seconds: Mapping[str, list[float]], name: str, base: str) -> float:
    """Return the median over the rounds of how many times as long as `base` a call takes."""
    pairs = zip(seconds[name], seconds[base], strict=True)
    return statistics.median(mine / other for mine, other in pairs)


def _held(module: nn.Module) -> list[Tensor]:
    """Return what a module holds: parameters, buffers and frozen projections."""
    return [*module.parameters(), *module.buffers(), *_projection_tensors(module)]


def _projection_tensors(module: nn.Module) -> list[Tensor]:
    projections = (part for part in module.modules() if isinstance(part, FrozenProjection))
    return [tensor for one in projections for tensor in one.tensors.values()]


def saved_bytes(module: nn.Module, forward: Callable[[], object]) -> int:
    """Return the bytes that a forward pass keeps for backward, beside what the module holds.

    Storages are counted once, inputs among them.
    """
    held = {tensor.untyped_storage().data_ptr() for tensor in _held(module)}
    kept: dict[int, Any] = {}

    def note(tensor: Tensor) -> Tensor:
        sparse = tensor.layout == torch.sparse_coo
        for part in (tensor._indices(), tensor._values()) if sparse else (tensor,):
            storage = part.untyped_storage()
            if storage.data_ptr() not in held:
                kept[storage.data_ptr()] = storage  # held here, so that no address comes twice
        return tensor.detach()  # an output that its own graph keeps would never be let go of

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        result = forward()
    del result
    return sum(storage.nbytes() for storage in kept.values())


def peak_bytes(call: Step) -> int:
    """Return the most memory that torch's CPU allocator lends during a call, above its start."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        call()
    results = measured.profiler.kineto_results
    changes = [
        (event.start_ns(), event.nbytes())
        for event in results.events()
        if event.name() == "[memory]"
    ]
    lent, most = 0, 0
    for _, change in sorted(changes, key=lambda entry: entry[0]):
        lent += change
        most = max(most, lent)
    return most


def _storage_bytes(tensors: list[Tensor]) -> int:
    """Return the bytes of distinct storages."""
    storages = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors
    }
    return sum(storages.values())


def frozen_bytes(module: nn.Module, base: nn.Module) -> int:
    """Return the bytes that a method adds and does not train, shared ones once."""
    known = {tensor.untyped_storage().data_ptr() for tensor in _held(base)}
    return _storage_bytes(
        [
            tensor
            for tensor in _held(module)
            if not tensor.requires_grad and tensor.untyped_storage().data_ptr() not in known
        ]
    )


def trainable_bytes(module: nn.Module) -> int:
    """Return the bytes of the trainable parameters; AdamW keeps twice as much."""
    return _storage_bytes([part for part in module.parameters() if part.requires_grad])


def step(module: nn.Module, x: Tensor, gradient: Tensor) -> Step:
    """Return a forward and backward pass of a layer that leaves no gradient behind."""

    def run() -> None:
        module(x).backward(gradient)
        x.grad = None
        module.zero_grad(set_to_none=True)

    return run


def added_flops(module: nn.Module, run: Step, tokens: int, base: int) -> int:
    """Return the floating-point operations of a step beyond the base layer's.

    For CoSA those of the order that runs, by `update_flops`; for others as torch counts them.
    """
    if isinstance(module, CosaLinear):
        left, right = module.left, module.right
        order = module.order
        if order == "auto":
            order = cheapest_order(tokens, left, right, dtype=module.weight.dtype)
        return update_flops(order, tokens, left, right)
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops()) - base


def rival_configs(*ranks: int) -> dict[str, PeftConfig]:
    """Return the configurations of PEFT's methods, but for the modules that they adapt.

    Parameters
    ----------
    *ranks : int
        Of LoRA.
    """
    configs: dict[str, PeftConfig] = {
        f"LoRA {one}": LoraConfig(r=one, lora_alpha=one) for one in dict.fromkeys(ranks)
    }
    # Neither stores its projections, which a seed restores, as for CoSA.
    configs["VeRA"] = VeraConfig(save_projection=False)
    configs["RandLoRA"] = RandLoraConfig(save_projection=False)
    return configs


def _injected(layer: nn.Linear, config: PeftConfig) -> nn.Module:
    holder = nn.ModuleDict({"layer": layer})  # a model of one layer, for PEFT to put an adapter in
    config.target_modules = ["layer"]
    get_peft_model(holder, config, autocast_adapter_dtype=False)
    return holder["layer"]


def adapted_layers(
    layer: nn.Linear, core: tuple[int, int], rank: int, seed: int, small_rank: int
) -> dict[str, nn.Module]:
    """Return a layer with each method's adapter; all share the layer's frozen weight.

    Parameters
    ----------
    layer : nn.Linear
        m × n.
    core : (int, int)
        CoSA's (a, b), clipped to the layer; another core of equal product has a·m ≈ b·n.
    rank : int
        Of LoRA, beside the rank at which it trains as many parameters as CoSA.
    seed : int
        Of CoSA's projections.
    small_rank : int
        Of LoRA too, beside a one-sided core of as many numbers, to the nearest below. Another has
        as many as CoSA's core.
    """
    layer.requires_grad_(False)
    m, n = layer.out_features, layer.in_features
    a, b = min(core[0], m), min(core[1], n)
    balanced = cosa_shape(m, n, a * b)
    make = partial(CosaLinear, layer, seed=seed)
    built: dict[str, nn.Module] = {
        f"CoSA ({a}, {b})": make(a, b),
        f"CoSA ({a}, {b}) through a": make(a, b, order="through"),
    }
    if (balanced.a, balanced.b) != (a, b):
        built[f"CoSA ({balanced.a}, {balanced.b}), a·m = b·n"] = make(balanced.a, balanced.b)
    for kind in ("sjlt", "srht"):
        built[f"CoSA ({a}, {b}) {kind}"] = make(a, b, kind=kind)
    for numbers in dict.fromkeys((small_rank * (m + n), a * b)):
        slim = max(1, numbers // m)
        built[f"CoSA one-sided ({m}, {slim})"] = make(m, slim, left="identity")
    equal = max(1, math.floor(a * b / (m + n)))
    with quiet():
        for name, config in rival_configs(rank, equal, small_rank).items():
            built[name] = _injected(_shared(layer), config)
    return built


class Readers(nn.Module):
    """Layers of one input, such as q, k and v: every output."""

    def __init__(self, n: int, outputs: Sequence[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(n, m, bias=False) for m in outputs)
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs side by side."""
        return torch.cat([layer(x) for layer in self.layers], -1)


def adapted_readers(n: int, outputs: Sequence[int], rank: int) -> dict[str, nn.Module]:
    """Return layers of one input with LoRA, and with one-sided CoSA of no more parameters.

    All share the frozen weights. CoSA has its own R in every layer, and one that they share.
    """
    base = Readers(n, outputs)
    b = max(1, rank * (len(outputs) * n + sum(outputs)) // sum(outputs))
    names = [str(number) for number in range(len(outputs))]

    def twin() -> nn.Module:
        return copy.deepcopy(base, {id(part): part for part in base.parameters()})

    lora = LoraConfig(r=rank, lora_alpha=rank, target_modules=names)
    with quiet():
        return {
            "base": base,
            f"LoRA {rank}": get_peft_model(twin(), lora, autocast_adapter_dtype=False),
            f"CoSA one-sided (m, {b})": add_cosa(twin(), names, b=b, left="identity"),
            f"CoSA one-sided (m, {b}), shared R": add_cosa(
                twin(), names, b=b, left="identity", share_projections=True
            ),
        }


def _shared(layer: nn.Linear) -> nn.Linear:
    """Return another module around the same weight."""
    m, n = layer.out_features, layer.in_features
    other = nn.Linear(n, m, bias=False, device="meta")
    other.weight = layer.weight
    return other


def quiet() -> AbstractContextManager[Any]:
    """Return a context without warnings: cores are clipped, PEFT says what it assumes."""
    return warnings.catch_warnings(action="ignore")
