"""One training of the end-to-end check: through transformers' Trainer, resumable, and measured."""

import json
import math
import os
import random
import shutil
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from cosa_theory.ground.swap import swapped
from experiments.finetune_check_methods import counts, prepared
from experiments.finetune_check_tasks import Task, score
from experiments.layer_costs import saved_bytes

__all__ = ["HEAD_RATE", "Settings", "isolated", "kept_bytes", "start", "train"]

HEAD_RATE = 1e-2
"""Peak learning rate of a new head, the same for every method."""
WARM_UP = 0.1
_STATE = "trainer_state.json"
_BYTES_OF_STATE = 12  # a gradient and Adam's two moments, float32 each


@dataclass(frozen=True)
class Settings:
    """One training.

    Attributes
    ----------
    method : str
        A key of `experiments.finetune_check_results.METHODS`.
    learning_rate : float
        Peak rate of AdamW, without weight decay, for everything but a new head; it rises over a
        tenth of the steps and falls linearly to zero.
    seed : int
        Of a new head, the order of the items, dropout, projections and LoRA's first factors.
    rank, blocks : int
        As for `experiments.finetune_check_methods.prepared`.
    steps, batch : int
        Optimiser steps, and items in each.
    threads : int
        Torch threads.
    """

    method: str
    learning_rate: float
    seed: int
    rank: int
    blocks: int
    steps: int
    batch: int
    threads: int


def start(task: Task, part: str, seed: int, threads: int) -> dict[str, Any]:
    """Return the `Score` before training, as columns."""
    with isolated(seed, threads):
        return vars(score(task, task.model(), getattr(task, part), seed))


def train(
    task: Task,
    settings: Settings,
    part: str,
    run: Path,
    adapter: Path | None,
    checkpoint: int,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Train, resuming where an earlier attempt was stopped, and measure.

    Parameters
    ----------
    task : Task
        What is trained, on what.
    settings : Settings
        How.
    part : {"validation", "test"}
        What is scored afterwards.
    run : path
        Folder for checkpoints, deleted at the end.
    adapter : path, optional
        Where the trained adapter is kept, in PEFT's format; of a full fine-tuning the whole model
        without its head.
    checkpoint : int
        Steps between two checkpoints.
    progress : callable, optional
        Called as ``progress(done, total)`` after each step.

    Returns
    -------
    dict
        The `experiments.finetune_check_tasks.Score`; train_loss (mean of the last tenth of the
        steps); trainable_parameters, of which adapter_parameters without the head;
        seconds_per_step (median); saved_bytes (kept for backward in one step), state_bytes
        (gradients and Adam's moments), frozen_bytes (projections); adapter_bytes (of the file, a
        head in it; of the trained weights where there is no file); device.
    """
    with isolated(settings.seed, settings.threads):
        base = task.model()
        # PEFT notes in an adapter's folder which model it belongs to.
        base.name_or_path = task.base  # type: ignore[assignment]
        torch.manual_seed(settings.seed)
        model = prepared(
            base,
            settings.method,
            blocks=settings.blocks,
            rank=settings.rank,
            seed=settings.seed,
            head=task.head,
        )
        size = counts(model, task.head)
        saved = kept_bytes(model, task.collate(task.train[: settings.batch]))
        log = _Log(progress)
        trainer = _trainer(task, model, settings, run, checkpoint, log)
        trainer.train(resume_from_checkpoint=_last_checkpoint(run))
        result = score(task, model, getattr(task, part), settings.seed)
        stored = _store(model, adapter, size.trainable)
        shutil.rmtree(run, ignore_errors=True)
    return {
        **vars(result),
        "train_loss": log.final_loss(settings.steps),
        "trainable_parameters": size.trainable,
        "adapter_parameters": size.adapter,
        "seconds_per_step": log.seconds(),
        "saved_bytes": saved,
        "state_bytes": _BYTES_OF_STATE * size.trainable,
        "frozen_bytes": size.frozen_bytes,
        "adapter_bytes": stored,
        "device": str(trainer.args.device),
    }


def _trainer(
    task: Task,
    model: nn.Module,
    settings: Settings,
    run: Path,
    checkpoint: int,
    log: "_Log",
) -> Trainer:
    arguments = TrainingArguments(
        output_dir=str(run),
        max_steps=settings.steps,
        per_device_train_batch_size=settings.batch,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=math.ceil(WARM_UP * settings.steps),
        seed=settings.seed,
        data_seed=settings.seed,
        # With a strategy of steps the trainer would also save after the last one, for nothing.
        save_strategy="steps" if checkpoint < settings.steps else "no",
        save_steps=checkpoint,
        save_total_limit=1,
        logging_strategy="steps",
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=task.train,
        data_collator=task.collate,
        optimizers=(_optimiser(model, task.head, settings.learning_rate), None),
        callbacks=[log],
    )
    trainer.remove_callback(PrinterCallback)
    return trainer


def _optimiser(model: nn.Module, head: str | None, rate: float) -> torch.optim.Optimizer:
    inside: list[nn.Parameter] = []
    outside: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            of_head = head is not None and f".{head}." in f".{name}"
            (inside if of_head else outside).append(parameter)
    groups = [{"params": outside, "lr": rate}, {"params": inside, "lr": HEAD_RATE}]
    return torch.optim.AdamW([group for group in groups if group["params"]], weight_decay=0.0)


class _Log(TrainerCallback):
    """The time of every step taken here, and the loss of every step of the training."""

    def __init__(self, progress: Callable[[int, int], None] | None = None) -> None:
        self._progress = progress
        self._times: list[float] = []
        self._losses: dict[int, float] = {}
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        self._times.append(time.perf_counter() - self._started)
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps)

    def on_train_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        # The state remembers the steps before an interruption too.
        self._losses = {row["step"]: row["loss"] for row in state.log_history if "loss" in row}

    def seconds(self) -> float:
        """Return the median time of a step; the first, which warms up, counts only if alone."""
        return statistics.median(self._times[1:] or self._times or [math.nan])

    def final_loss(self, steps: int) -> float:
        """Return the mean loss over the last tenth of the steps."""
        first = steps - max(1, steps // 10)
        return statistics.fmean(loss for step, loss in self._losses.items() if step > first)


def _last_checkpoint(run: Path) -> str | None:
    """Return the newest whole checkpoint; what a kill left unfinished is deleted."""
    whole = []
    for path in run.glob("checkpoint-*"):
        # The trainer writes its state last.
        try:
            whole.append((int(json.loads((path / _STATE).read_text())["global_step"]), path))
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            shutil.rmtree(path)
    return str(max(whole)[1]) if whole else None


def _store(model: nn.Module, adapter: Path | None, trainable: int) -> int:
    """Keep what was trained; return the bytes of its weights' file, or of the trained weights."""
    if adapter is None:
        return 4 * trainable
    kept: Any = model if isinstance(model, PeftModel) else getattr(model, "encoder", model)
    with swapped(adapter) as folder:
        kept.save_pretrained(os.fspath(folder))
    return sum(path.stat().st_size for path in adapter.glob("*model.safetensors"))


def kept_bytes(model: nn.Module, inputs: dict[str, Tensor]) -> int:
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
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(used)
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
