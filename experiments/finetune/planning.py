"""What a training will take, from the model's configuration alone: memory, operations, hours."""

import math
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from cosa_theory.assets import asset_folder
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.memory import available_memory
from cosa_theory.nn.moments.gathering import MOST_BYTES
from cosa_theory.nn.moments.sums import ExactSum
from cosa_theory.nn.settings import CosaSettings
from cosa_theory.nn.shapes import ModelLayers, model_layers, read_config
from cosa_theory.projections import INFORMED
from cosa_theory.studies.plan.costs import Budget, TrainingStep, cosa_budget, lora_budget
from experiments.finetune.budgets import OWN_RANK, Size
from experiments.finetune.config import Config
from experiments.finetune.methods import chosen_layers, size_for
from experiments.finetune.scoring import BATCH, MOST_LOGITS

__all__ = ["TrainingPlan", "measured_speed", "plan_training"]

_FLOAT32 = 4
_UTILISED = 0.4
"""Share of the speed of one large product of matrices that a training reaches."""
_FORMED = ("fourierft", "shira", "c3a", "dora")  # these form ΔW, or its norms, as a matrix


@dataclass(frozen=True)
class TrainingPlan:
    """What one device will take.

    Attributes
    ----------
    base_parameters, trained : int
        Numbers in the model, and those that are trained, a new head aside.
    layers : int
        How many are trained; 0 where everything is.
    memory : dict of str to int
        Bytes by what takes them.
    flops : float
        Operations of an optimiser step.
    available : int, optional
        Bytes that are free on this device; None where the system does not say.
    """

    base_parameters: int
    trained: int
    layers: int
    memory: Mapping[str, int]
    flops: float
    available: int | None

    def refuse(self) -> None:
        """Raise InputError if it takes more memory than there is."""
        needed = sum(self.memory.values())
        if self.available is not None and needed > self.available:
            largest = max(self.memory, key=lambda name: self.memory[name])
            raise InputError(
                f"out of memory foreseen: a training of about {needed / 1e9:,.1f} GB (most for "
                f"{largest}), and {self.available / 1e9:,.1f} GB are free: lower batch and raise "
                'accumulation, set recompute = true or dtype = "bfloat16", or take another device',
                argument="batch",
            )

    def text(self, steps: int, speed: float) -> str:
        """Return the plan in lines, with the hours that `steps` take at so many operations/s."""
        parts = ", ".join(f"{name} {size / 1e9:,.2f}" for name, size in self.memory.items() if size)
        free = "" if self.available is None else f" of {self.available / 1e9:,.1f} GB that are free"
        hours = steps * self.flops / speed / 3600
        share = self.trained / self.base_parameters
        return (
            f"{self.trained:,} parameters are trained ({share:.3%} of {self.base_parameters:,}), "
            f"{'everywhere' if not self.layers else f'on {self.layers:,} layers'}\n"
            f"about {sum(self.memory.values()) / 1e9:,.2f} GB on each device{free} ({parts})\n"
            f"{steps:,} steps of {self.flops:.3g} operations: {hours:,.2f} hours at "
            f"{speed / 1e12:,.3g} TFLOP/s, {_UTILISED:.0%} of the speed of one product of matrices "
            "here"
        )


def plan_training(config: Config) -> TrainingPlan:
    """Plan a training; of the model, only its configuration is read.

    The memory is an estimate: weights, what is trained with its gradients and Adam's moments,
    frozen projections, all that the linear layers of blocks read and write for backward (with
    `recompute` the input of each block, and one block), the logits of a language model, and what
    the moments of an informed core take beyond that, before training.

    Raises
    ------
    InputError
        If the configuration cannot be read, the layers are not there, or the budget is too small.
    """
    if config.model == "smollm2":
        fields = _SMOLLM2
    else:
        minilm = config.model == "minilm"
        fields = read_config(asset_folder("encoder") if minilm else config.model)
    model = model_layers(fields)
    full = config.method == "full"  # of blocks, whatever layers are named
    layers = chosen_layers(model.sizes, config.blocks, () if full else config.targets)
    item = 2 if config.dtype == "bfloat16" else 4
    tokens = config.batch * config.tokens
    memory = {"weights": model.parameters * item // _shards()}
    entries = sum(math.prod(size) for size in layers.values())
    flops = 4.0 * model.parameters  # for each token: forward, and back to the inputs
    if config.recompute:
        flops *= 1.5
    if full:
        trained = entries if config.blocks else model.parameters
        memory["gradients and moments"] = 3 * trained * item // _shards()
        flops += 2 * trained
    else:
        size = size_for(config, layers)
        trained = size.trained
        memory["trained, gradients and moments"] = 4 * _FLOAT32 * trained
        budget = _budget(config, replace(model, sizes=layers), size)
        memory["projections"] = budget.frozen_bytes
        formed = item * entries if config.method in _FORMED else budget.formed_bytes
        memory["activations of adapters"] = tokens * budget.saved_bytes + formed
        flops += budget.flops
    memory["activations"] = item * tokens * _kept(model, fields, config.recompute)
    if str(fields.get("architectures")).find("ForCausalLM") >= 0:
        # As the model gives them, in single precision, and their gradient; or where it is scored.
        width = int(fields.get("vocab_size", 0))
        scored = min(BATCH * config.tokens * width, MOST_LOGITS)
        memory["logits"] = max(tokens * width, scored) * (item + 2 * _FLOAT32)
    before = _moments(config, model, layers) + memory["weights"] - sum(memory.values())
    memory["moments beforehand"] = max(0, before)
    flops *= tokens * config.accumulation
    adapted = 0 if full and not config.blocks else len(layers)
    return TrainingPlan(model.parameters, trained, adapted, memory, flops, _free())


def _shards() -> int:
    """Return over how many devices the weights are spread."""
    sharded = any(os.environ.get(f"ACCELERATE_USE_{name}") for name in ("FSDP", "DEEPSPEED"))
    return int(os.environ.get("WORLD_SIZE", "1")) if sharded else 1


def _budget(config: Config, model: ModelLayers, size: Size) -> Budget:
    """Return what the adapter costs as the planner of adapters counts it, others as LoRA's."""
    tokens = config.batch * config.tokens
    step = TrainingStep(tokens, config.dtype)
    if config.method != "cosa":
        rank = size.rank if config.method in OWN_RANK and size.rank else 0
        equal = size.trained // sum(m + n for m, n in model.sizes.values())
        return lora_budget(model, dict.fromkeys(model.sizes, rank or max(1, equal)), step)
    shapes = {f"^{re.escape(name)}": shape for name, shape in size.by_layer.items()}
    settings = CosaSettings(
        kind=config.kind, left=config.left or None, scale=config.scale, shape_pattern=shapes
    )
    return cosa_budget(model, settings, step)


def _moments(config: Config, model: ModelLayers, layers: Mapping[str, tuple[int, int]]) -> int:
    """Return what an informed core is made from before training, which lies in main memory."""
    if config.method != "cosa" or config.kind not in INFORMED or torch.cuda.is_available():
        return 0
    widths = {model.inputs[name]: n for name, (_, n) in layers.items()}
    if config.kind == "gradient" and config.left != "identity":
        widths |= {f"gradients of {name}": m for name, (m, _) in layers.items()}
    return min(MOST_BYTES, sum(map(ExactSum.bytes, widths.values())))


def _kept(model: ModelLayers, fields: Mapping[str, Any], recompute: bool) -> int:
    """Return how many numbers the blocks keep for backward, for each token."""
    every = chosen_layers(model.sizes, 0)
    read = sum(n for name, (_, n) in every.items() if model.inputs[name] == name)
    total = read + sum(m for m, _ in every.values())
    blocks = int(fields.get("num_hidden_layers", 1))
    # Besides, the norms and sums of a block keep about four vectors of the hidden size.
    width = int(fields.get("hidden_size", 0))
    total += 4 * width * blocks
    return width * blocks + total // blocks if recompute else total


def _free() -> int | None:
    return torch.cuda.mem_get_info()[0] if torch.cuda.is_available() else available_memory()


def measured_speed(dtype: str, size: int = 512) -> float:
    """Return the operations a second that a training may reach here, from a product of matrices."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = 16 * size if device == "cuda" else size
    factor = torch.ones(size, size, dtype=getattr(torch, dtype), device=device)
    best = math.inf
    for _ in range(3):
        begun = time.perf_counter()
        (factor @ factor).sum().item()
        best = min(best, time.perf_counter() - begun)
    return _UTILISED * 2 * size**3 / best


_SMOLLM2: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 576,
    "intermediate_size": 1536,
    "num_hidden_layers": 30,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "vocab_size": 49152,
    "tie_word_embeddings": True,
    "architectures": ["LlamaForCausalLM"],
}
"""The embedded language model, whose configuration lies in its packed file."""
