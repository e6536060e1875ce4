"""One training through transformers' Trainer: resumable to the same numbers, and measured."""

import math
import os
import random
import shutil
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.integrations import get_available_reporting_integrations
from transformers.trainer_callback import PrinterCallback

from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.ground.swap import swapped
from cosa_theory.projections import stream
from experiments.finetune.checkpoints import Pruning, last_checkpoint
from experiments.finetune.config import Config
from experiments.finetune.methods import Counts, counts, prepared
from experiments.finetune.scoring import score
from experiments.finetune.starts import OF_GRADIENTS, REWRITTEN
from experiments.finetune.tasks import Task
from experiments.finetune.trainer import Progress, TaskTrainer, optimiser_of
from experiments.layer_costs import saved_bytes

__all__ = [
    "Fitted",
    "fit",
    "isolated",
    "kept_bytes",
    "moment_batches",
    "refuse_lacking_service",
    "start",
    "store",
    "store_merged",
    "total_steps",
    "train",
]

_BYTES_OF_STATE = 12  # a gradient and Adam's two moments, float32 each


def start(task: Task, config: Config, part: str = "test") -> dict[str, Any]:
    """Return the score before training, as columns without its measures."""
    with isolated(config.seed, config.threads):
        return _columns(score(task, task.model(), getattr(task, part), config.seed))


def _columns(result: Any) -> dict[str, Any]:
    return {name: value for name, value in vars(result).items() if name != "measures"}


def total_steps(config: Config, rows: int, devices: int = 1) -> int:
    """Return the optimiser steps of a training on so many rows."""
    batches = math.ceil(rows / (config.batch * devices))
    each = math.ceil(batches / config.accumulation)
    return config.steps or math.ceil(config.epochs * each)


@dataclass(frozen=True)
class Fitted:
    """A trained model, and what was seen on the way.

    Attributes
    ----------
    model : Module
        As trained; of the best evaluation, where patience may end the training.
    size : Counts
        What was trained.
    saved_bytes : int
        Kept for backward in one step.
    history : list of dict
        A row for each step (`step`, `loss`, `grad_norm`, `learning_rate`, `seconds`, `tokens`,
        `memory`) and evaluation (`eval_loss`, ..., and of watched layers `update_NAME_...`),
        those before an interruption among them.
    steps : int
        How many were taken.
    device : str
        On which.
    trainer : Trainer
        That did it.
    """

    model: nn.Module
    size: Counts
    saved_bytes: int
    history: list[dict[str, Any]]
    steps: int
    device: str
    trainer: Trainer

    def seconds(self) -> float:
        """Return the median time of a step; the first, which warms up, counts only if alone."""
        times = [row["seconds"] for row in self.history if "seconds" in row]
        return statistics.median(times[1:] or times or [math.nan])

    def final_loss(self) -> float:
        """Return the mean loss over the last tenth of the steps."""
        losses = {row["step"]: row["loss"] for row in self.history if "loss" in row}
        first = self.steps - max(1, self.steps // 10)
        return statistics.fmean(loss for step, loss in losses.items() if step > first)


def train(
    task: Task,
    config: Config,
    part: str,
    run: Path,
    adapter: Path | None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train, resuming where an earlier attempt was stopped, and measure.

    Parameters
    ----------
    task : Task
        What is trained, on what.
    config : Config
        How; its model and data are those of the task.
    part : {"validation", "test"}
        What is scored afterwards.
    run : path
        Folder for checkpoints, deleted at the end.
    adapter : path, optional
        Where what was trained is kept, see `store`.
    progress : callable, optional
        Called as ``progress(done, total)`` after each step.

    Returns
    -------
    dict
        The `experiments.finetune.scoring.Score` without its measures; train_loss (mean of the last
        tenth of the steps); trainable_parameters, of which adapter_parameters without the head;
        seconds_per_step (median); saved_bytes (kept for backward in one step), state_bytes
        (gradients and Adam's moments), frozen_bytes (projections); adapter_bytes (of the file, a
        head in it; of the trained weights where there is no file); device.
    """
    with isolated(config.seed, config.threads):
        fitted = fit(task, config, run, progress)
        result = score(task, fitted.model, getattr(task, part), config.seed)
        trainable = fitted.size.trainable
        stored = 4 * trainable if adapter is None else store(fitted, adapter)
        shutil.rmtree(run, ignore_errors=True)
    return {
        **_columns(result),
        "train_loss": fitted.final_loss(),
        "trainable_parameters": trainable,
        "adapter_parameters": fitted.size.adapter,
        "seconds_per_step": fitted.seconds(),
        "saved_bytes": fitted.saved_bytes,
        "state_bytes": _BYTES_OF_STATE * trainable,
        "frozen_bytes": fitted.size.frozen_bytes,
        "adapter_bytes": stored,
        "device": fitted.device,
    }


def fit(
    task: Task,
    config: Config,
    run: Path,
    progress: Callable[[int, int], None] | None = None,
    callbacks: Sequence[TrainerCallback] = (),
) -> Fitted:
    """Train within `isolated`, from the last checkpoint in `run` where there is one."""
    steps = total_steps(config, len(task.train), int(os.environ.get("WORLD_SIZE", "1")))
    if config.method == "adalora" and steps < 2:
        raise InputError("steps is 1: adalora weighs its ranks for one before it prunes: take 2")
    trainer_of_task = _trainer_of(task)
    base = task.model()
    # PEFT notes in an adapter's folder which model it belongs to.
    base.name_or_path = task.base  # type: ignore[assignment]
    if config.recompute:
        cast(Any, base).gradient_checkpointing_enable()
    torch.manual_seed(config.drawn)
    batches = moment_batches(task, config)
    model = prepared(base, config, head=task.head, steps=steps, batches=batches)
    if config.method in REWRITTEN:  # what it began with, which is no part of the update
        _store_start(model, run / "start")
    size = counts(model, task.head)
    saved = kept_bytes(model, task.collate(task.train[: config.batch]))
    trainer = trainer_of_task(
        task,
        config,
        steps,
        model=model,
        args=_arguments(task, config, run, steps),
        train_dataset=task.train,
        eval_dataset=task.validation if config.evaluate else None,
        data_collator=task.collate,
        optimizers=(optimiser_of(model, task.head, config), None),
        callbacks=[Progress(progress), *callbacks],
    )
    trainer.remove_callback(PrinterCallback)
    if config.method == "adalora":
        trainer.add_callback(Pruning())
    if config.patience:
        trainer.add_callback(EarlyStoppingCallback(config.patience))
    trainer.train(resume_from_checkpoint=last_checkpoint(run))
    state = trainer.state
    device = str(trainer.args.device)
    return Fitted(model, size, saved, state.log_history, state.global_step, device, trainer)


def _trainer_of(task: Task) -> type[TaskTrainer]:
    if not task.template:
        return TaskTrainer
    try:
        from experiments.finetune.instructed import InstructedTrainer
    except ImportError as error:
        raise InputError(
            f"template is {task.template!r}, which TRL trains: install cosa-theory[llm]",
            argument="template",
        ) from error
    return InstructedTrainer


def refuse_lacking_service(config: Config) -> None:
    """Raise InputError if what a training reports to is not installed."""
    if config.report_to and config.report_to not in get_available_reporting_integrations():
        raise InputError(
            f"report_to is {quoted(config.report_to)}, which is not installed here, or no service "
            "that Trainer knows: install its package, or leave it out",
            argument="report_to",
        )


def moment_batches(task: Task, config: Config) -> Iterator[dict[str, Tensor]]:
    """Yield some training items as the model takes them, with labels for gradients alone.

    They are drawn, always the same: many corpora are sorted by their labels.
    """
    order = stream(0, "finetune", "moments").permutation(len(task.train))
    items = [task.train[place] for place in order[: config.moment_items]]
    for first in range(0, len(items), config.batch):
        inputs = task.collate(items[first : first + config.batch])
        yield {
            name: one
            for name, one in inputs.items()
            if name != "labels" or config.kind == "gradient" or config.method in OF_GRADIENTS
        }


def _arguments(task: Task, config: Config, run: Path, steps: int) -> TrainingArguments:
    warm_up = config.warm_up
    ends = bool(config.patience)
    every = config.evaluate if ends else config.checkpoint
    return TrainingArguments(
        output_dir=str(run),
        max_steps=steps,
        per_device_train_batch_size=config.batch,
        gradient_accumulation_steps=config.accumulation,
        learning_rate=config.learning_rate,
        lr_scheduler_type=_SCHEDULES[config.schedule],
        warmup_steps=math.ceil(warm_up * steps) if warm_up < 1 else round(warm_up),
        max_grad_norm=config.clip,
        bf16=config.dtype == "bfloat16",
        use_cpu=not torch.accelerator.is_available(),  # said, or it refuses bfloat16 there
        seed=config.seed,
        data_seed=config.seed,
        eval_strategy="steps" if config.evaluate else "no",
        eval_steps=config.evaluate or None,
        load_best_model_at_end=ends,
        metric_for_best_model=f"eval_{task.metric}",
        greater_is_better=task.metric == "accuracy",
        restore_callback_states_from_checkpoint=ends,
        # With a strategy of steps the trainer would also save after the last one, for nothing.
        save_strategy="steps" if ends or every < steps else "no",
        save_steps=every,
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=1,
        logging_nan_inf_filter=False,  # with it a loss that is not finite is logged as 0
        report_to=[config.report_to] if config.report_to else [],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )


_SCHEDULES = {"linear": "linear", "cosine": "cosine", "constant": "constant_with_warmup"}


def _store_start(model: Any, folder: Path) -> None:
    """Keep what PiSSA begins with, so that the update can be told from it."""
    if folder.is_dir() or os.environ.get("RANK", "0") != "0":
        return
    config = model.peft_config["default"]
    kept, config.init_lora_weights = config.init_lora_weights, True
    with swapped(folder) as new:
        model.save_pretrained(os.fspath(new))
    config.init_lora_weights = kept


def store(fitted: Fitted, folder: Path) -> int:
    """Keep what was trained, whole or not at all; return the bytes of its weights' file.

    An adapter in PEFT's format, PiSSA's as LoRA of twice its rank on the model as it was; of a full
    fine-tuning the whole model, a classifier with an encoder of its own without its head.
    """
    model: Any = fitted.model
    kept: Any = model if isinstance(model, PeftModel) else getattr(model, "encoder", model)
    settings: dict[str, Any] = {}
    beginning = Path(fitted.trainer.args.output_dir) / "start"
    if beginning.is_dir():
        settings["path_initial_model_for_weight_conversion"] = os.fspath(beginning)
    trainer = fitted.trainer
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:  # gathered from all processes
        trainer.save_model(os.fspath(folder))
    elif trainer.is_world_process_zero():
        with swapped(folder) as new:
            kept.save_pretrained(os.fspath(new), **settings)
    return sum(path.stat().st_size for path in folder.glob("*model.safetensors"))


def store_merged(fitted: Fitted, folder: Path) -> None:
    """Keep the model with the update in its weights; the fitted one is without adapter then."""
    model: Any = fitted.model
    whole: Any = model.merge_and_unload()
    with swapped(folder) as new:
        getattr(whole, "encoder", whole).save_pretrained(os.fspath(new))


def kept_bytes(model: nn.Module, inputs: Mapping[str, Tensor]) -> int:
    """Return what a training pass keeps for backward; model and generator stay as they are."""
    training = model.training
    with torch.random.fork_rng(devices=[]):
        kept = saved_bytes(model.train(), partial(model, **inputs))
    model.train(training)
    return kept


@contextmanager
def isolated(seed: int, threads: int) -> Iterator[None]:
    """Set the seed and the threads of torch for the block; leave every global generator alone."""
    # The trainer seeds these two as well, whatever its arguments.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    used = torch.get_num_threads()
    torch.set_num_threads(threads or used)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(used)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
