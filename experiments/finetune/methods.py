"""What of a model is trained: everything, CoSA's cores, or the adapters of PEFT's methods.

A new head is trained as a whole by every method, and is not counted in the budget.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import peft
from peft import PeftConfig
from peft.tuners.lora.config import CordaConfig
from torch import nn

from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.peft import CosaConfig
from cosa_theory.nn.projection import FrozenProjection
from cosa_theory.nn.targets import closest
from experiments.finetune.budgets import Size, size_of
from experiments.finetune.config import Config
from experiments.finetune.starts import adapter_put

__all__ = [
    "Counts",
    "chosen_layers",
    "counts",
    "in_head",
    "linear_layers",
    "prepared",
    "size_for",
]


def linear_layers(
    model: nn.Module, blocks: int, targets: Sequence[str] = ()
) -> dict[str, tuple[int, int]]:
    """Return name and size (m, n) of a model's linear layers, see `chosen_layers`."""
    found = {
        name: (module.out_features, module.in_features)
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }
    return chosen_layers(found, blocks, targets)


def chosen_layers(
    layers: Mapping[str, tuple[int, int]], blocks: int, targets: Sequence[str] = ()
) -> dict[str, tuple[int, int]]:
    """Return those of a model's linear layers that are in its last `blocks` blocks; 0 for all.

    Parameters
    ----------
    layers : mapping of str to (int, int)
        All of them.
    blocks : int
        How many.
    targets : sequence of str
        Names, or their ends after a dot; none for all.

    Raises
    ------
    InputError
        If the model does not have so many blocks, or no layer of such a name in them.
    """
    found = {name: size for name, size in layers.items() if _block(name) is not None}
    first = _first_block(found, blocks)
    for target in targets:
        if not any(f".{name}".endswith(f".{target}") for name in found):
            raise InputError(
                f"targets has {target!r}, which is no linear layer of the model's blocks: "
                f"{closest(target, list(found))}",
                argument="targets",
            )
    chosen = {
        name: size
        for name, size in found.items()
        if (_block(name) or 0) >= first
        and (not targets or any(f".{name}".endswith(f".{target}") for target in targets))
    }
    if not chosen:
        raise InputError(
            f"targets are {', '.join(targets)}, of which the last {blocks:,} blocks have none: "
            "raise blocks, or name layers in them",
            argument="targets",
        )
    return chosen


def _block(name: str) -> int | None:
    """Return the number of the block that a module belongs to, the first number in its name."""
    match = re.search(r"\.(\d+)\.", name)
    return int(match[1]) if match else None


def _first_block(names: Mapping[str, Any], blocks: int) -> int:
    total = max((_block(name) or 0 for name in names), default=-1) + 1
    if not total:
        raise InputError("the model has no linear layers in blocks: adapters have no place in it")
    if blocks > total:
        raise InputError(f"blocks is {blocks}: the model has {total}", argument="blocks")
    return total - blocks if blocks else 0


def prepared(
    model: nn.Module,
    config: Config,
    *,
    head: Sequence[str] = (),
    steps: int = 1,
    batches: Iterable[Mapping[str, Any]] = (),
) -> nn.Module:
    """Return the model with exactly that trainable which the method trains.

    Parameters
    ----------
    model : nn.Module
        The model before training; it is changed.
    config : Config
        The method, its size and where it is put. Full fine-tuning trains all weights of the last
        `blocks` blocks, and with 0 all weights of the model.
    head : sequence of str
        Names of modules that are trained as a whole besides.
    steps : int
        Of the training; AdaLoRA spreads its pruning over them.
    batches : iterable of mapping
        As the model takes them, for methods that start from data.

    Returns
    -------
    nn.Module
        The model itself, or a `PeftModel` around it.

    Raises
    ------
    InputError
        If the layers are not there, or the budget is too small for the method.
    """
    if config.method == "full":
        first = _first_block(linear_layers(model, 0), config.blocks)
        for name, parameter in model.named_parameters():
            block = _block(name)
            inside = not config.blocks or (block is not None and block >= first)
            parameter.requires_grad_(inside or in_head(name, head))
        return model
    layers = linear_layers(model, config.blocks, config.targets)
    size = size_for(config, layers)
    made = _peft_config(config, size, steps)
    made.target_modules = list(layers)
    made.modules_to_save = list(head) or None
    adapted = adapter_put(model, made, config.method, batches)
    if config.method == "lora_fa":
        for name, parameter in adapted.named_parameters():
            if ".lora_A." in name:
                parameter.requires_grad_(False)
    return adapted


def size_for(config: Config, layers: Mapping[str, tuple[int, int]]) -> Size:
    """Return how large the method of a training is on these layers.

    Raises
    ------
    InputError
        As `size_of`, or if AdaLoRA should end with more ranks than it begins with.
    """
    core = config.core
    if core and config.left == "identity":  # then a is each layer's m, whatever is given
        core = (max(m for m, _ in layers.values()), core[1])
    sizes: dict[str, Any] = {"core": core, "budget": config.budget, "rank": config.rank}
    given = next(name for name, value in sizes.items() if value)
    size = size_of(config.method, layers, shape=config.shape, **{given: sizes[given]})
    if config.method == "adalora" and config.final_rank > (size.rank or 0):
        raise refuse("final_rank", config.final_rank, f"at most the rank, {size.rank}")
    return size


def _peft_config(config: Config, size: Size, steps: int) -> PeftConfig:
    rank, seed, dropout = size.rank or 0, config.drawn, config.dropout
    lora = {"r": rank, "lora_alpha": config.alpha * rank, "lora_dropout": dropout}
    match config.method:
        case "cosa" | "lora_xs":
            informed = config.method == "lora_xs"
            return CosaConfig(
                shape_pattern={re.escape(name): core for name, core in size.by_layer.items()},
                alpha=config.alpha,
                seed=seed,
                kind="gradient" if informed else config.kind,
                options={"whiten": True} if config.whiten else {},
                left=config.left or None,
                scale=config.scale,
                dropout=dropout,
            )
        case "rslora":
            return peft.LoraConfig(use_rslora=True, **lora)
        case "dora":
            return peft.LoraConfig(use_dora=True, **lora)
        case "lora_eva":
            start = peft.EvaConfig(rho=1.0, use_label_mask=False)
            return peft.LoraConfig(init_lora_weights="eva", eva_config=start, **lora)
        case "lora_corda":
            previewed = CordaConfig(corda_method="ipm")
            return peft.LoraConfig(init_lora_weights="corda", corda_config=previewed, **lora)
        case "lora_ga":
            steady = peft.LoraGAConfig()
            return peft.LoraConfig(init_lora_weights="lora_ga", lora_ga_config=steady, **lora)
        case "pissa":
            return peft.LoraConfig(init_lora_weights="pissa_niter_16", **lora)
        case "adalora":
            return peft.AdaLoraConfig(
                init_r=rank,
                target_r=config.final_rank or max(1, 2 * rank // 3),
                lora_alpha=config.alpha * rank,
                lora_dropout=dropout,
                # The first tenth keeps every rank, the last three tenths train what is left.
                tinit=steps // 10,
                tfinal=3 * steps // 10,
                total_step=max(steps, 1),
            )
        case "vera":
            # Neither this nor RandLoRA stores its projections, which a seed restores as for CoSA.
            return peft.VeraConfig(
                r=rank, projection_prng_key=seed, save_projection=False, vera_dropout=dropout
            )
        case "randlora":
            return peft.RandLoraConfig(
                r=rank,
                randlora_alpha=20 * config.alpha * rank,  # as in PEFT's default
                projection_prng_key=seed,
                save_projection=False,
                randlora_dropout=dropout,
            )
        case "fourierft":
            return peft.FourierFTConfig(
                n_frequency_pattern=dict(size.by_layer),
                scaling=100 * config.alpha,  # PEFT's default
                random_loc_seed=seed,
            )
        case "shira":
            return peft.ShiraConfig(r=rank, random_seed=seed)
        case "c3a":
            return peft.C3AConfig(block_size_pattern=dict(size.by_layer), block_size=1)
    return peft.LoraConfig(**lora)


def in_head(name: str, head: Sequence[str]) -> bool:
    """Return whether a parameter belongs to the new head, given by its modules."""
    return any(f".{one}." in f".{name}" for one in head)


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


def counts(model: nn.Module, head: Sequence[str]) -> Counts:
    """Count what a prepared model trains and keeps frozen beside its weights."""
    sizes = {True: 0, False: 0}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            sizes[in_head(name, head)] += parameter.numel()
    frozen = sum(part.nbytes for part in model.modules() if isinstance(part, FrozenProjection))
    return Counts(sizes[False], sizes[True], frozen)
