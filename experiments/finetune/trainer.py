"""The Trainer of a task: its optimiser, what it notes of every step, how it scores on the way."""

import os
import time
from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from peft import PeftModel
from peft.optimizers import create_lorafa_optimizer
from torch import Tensor, nn
from transformers import TrainerCallback

from experiments.finetune.checkpoints import SlimTrainer
from experiments.finetune.config import Config
from experiments.finetune.methods import in_head
from experiments.finetune.scoring import score
from experiments.finetune.tasks import Task
from experiments.finetune.watching import Watch

__all__ = ["Progress", "TaskTrainer", "optimiser_of", "peak_memory"]


def optimiser_of(model: nn.Module, head: Sequence[str], config: Config) -> torch.optim.Optimizer:
    """Return AdamW over what is trained, or LoRA-FA's optimiser, with a rate of the head's own."""
    inside: list[nn.Parameter] = []
    outside: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            (inside if in_head(name, head) else outside).append(parameter)
    rate, decay = config.learning_rate, config.weight_decay
    groups = [{"params": outside, "lr": rate}, {"params": inside, "lr": config.head_rate}]
    betas = (0.9, float(config.beta2))  # a file may say 0
    if config.method == "lora_fa":
        adapter = cast(PeftModel, model).peft_config["default"]
        made = create_lorafa_optimizer(
            model, r=adapter.r, lora_alpha=adapter.lora_alpha, lr=rate, weight_decay=decay
        )
        made.param_groups[0]["betas"] = betas
        return _with_own_head(made, inside, config.head_rate)
    kept = [group for group in groups if group["params"]]
    return torch.optim.AdamW(kept, betas=betas, weight_decay=decay)


def _with_own_head(
    made: torch.optim.Optimizer, head: list[nn.Parameter], rate: float
) -> torch.optim.Optimizer:
    """Give the head's parameters, which the optimiser has with all others, their own rate."""
    group, known = made.param_groups[0], {id(parameter) for parameter in head}
    lists = [name for name in ("params", "names", "scaling_factors") if name in group]
    chosen = [id(parameter) in known for parameter in group["params"]]
    own = {**group, "lr": rate}
    for name in lists:
        own[name] = [one for one, mine in zip(group[name], chosen, strict=True) if mine]
        group[name] = [one for one, mine in zip(group[name], chosen, strict=True) if not mine]
    if head:
        made.param_groups.append(own)
    return made


class TaskTrainer(SlimTrainer):
    """A trainer that scores as the task says, and notes time, tokens and memory of each step."""

    def __init__(self, task: Task, config: Config, steps: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._task, self._config = task, config
        self._watch = Watch(settings["model"], config.watch if config.evaluate else 0)
        self._began, self._tokens = time.perf_counter(), 0

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *rest: Any) -> Tensor:
        """Count the tokens, and train on them."""
        if not self._tokens:
            self._began = time.perf_counter()
        self._tokens += int(inputs["attention_mask"].sum())
        loss: Tensor = super().training_step(model, inputs, *rest)
        return loss

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, **rest: Any
    ) -> Any:
        """Return the loss, of AdaLoRA with what keeps its factors orthogonal.

        PEFT adds that where a model is wrapped for one of its tasks; here none is.
        """
        found = super().compute_loss(model, inputs, return_outputs, **rest)
        if self._config.method != "adalora" or not model.training:
            return found
        added = _departure(self.accelerator.unwrap_model(model))
        return (found[0] + added, found[1]) if return_outputs else found + added

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log, and with a step's loss what it took."""
        if "loss" in logs:
            tokens = torch.tensor(self._tokens, device=self.args.device)
            logs = {
                **logs,
                "seconds": time.perf_counter() - self._began,
                "tokens": int(self.accelerator.reduce(tokens)),  # over all processes
                "memory": peak_memory(),
            }
            self._tokens = 0
        super().log(logs, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the validation part, and decompose the updates of the watched layers."""
        found = score(self._task, self.model, self._task.validation, self._config.seed)
        metrics = {f"eval_{name}": value for name, value in found.measures.items()}
        self.log({**metrics, **self._watch.measures()})
        self.control: Any = self.callback_handler.on_evaluate(
            self.args, self.state, self.control, metrics
        )
        return metrics


def _departure(model: Any) -> Tensor:
    """Return the mean of ‖A Aᵀ − 1‖ and ‖Bᵀ B − 1‖ over AdaLoRA's factors, with its weight."""
    squares = [
        factor @ factor.T if ".lora_A." in name else factor.T @ factor
        for name, factor in model.named_parameters()
        if ".lora_A." in name or ".lora_B." in name
    ]
    apart = [torch.linalg.norm(one - torch.eye(len(one)).to(one)) for one in squares]
    (made,) = model.peft_config.values()
    weighted: Tensor = made.orth_reg_weight * torch.stack(apart).mean()
    return weighted


def peak_memory() -> int:
    """Return the most bytes that were taken so far: of the accelerator, else by this process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    scale = 1 if os.uname().sysname == "Darwin" else 1024
    return scale * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Progress(TrainerCallback):
    """Tells how far the training is."""

    def __init__(self, progress: Callable[[int, int], None] | None = None) -> None:
        self._progress = progress

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Say it."""
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps)
