"""A tiny task for the tests of trainings; `python -m tests.experiments.finetune_tiny OUT BATCH`.

The command trains and kills itself when it is asked for the batch of that number.
"""

import os
import signal
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from cosa_theory.ground.sweep import run_cells
from experiments import finetune_check
from experiments.finetune.tasks import TASKS, AnswerTask, Example

CELL = finetune_check.Cell(
    model="decoder",
    method="cosa",
    part="test",
    learning_rate=1e-2,
    seed=3,
    rank=2,
    steps=10,
    batch=4,
    tokens=12,
    blocks=0,
    items=6,
    threads=1,
    inputs="none",
)


@dataclass(frozen=True)
class TinyTask(AnswerTask):
    """Counting modulo a number, with a random Llama of two blocks and dropout."""

    stop: int | None = None

    def model(self):
        config = LlamaConfig(
            vocab_size=20,
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            attention_dropout=0.2,
            pad_token_id=0,
            use_cache=False,
        )
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return LlamaForCausalLM(config)

    def collate(self, examples):
        asked.append(len(examples))
        if self.stop is not None and len(asked) == self.stop:
            os.kill(os.getpid(), signal.SIGKILL)
        return super().collate(examples)


asked: list[int] = []
"""The size of every batch that was asked for."""


def load(folder, tokens, items, stop=None):
    def examples(first, count):
        ids = [tuple(1 + (n * k) % 17 for k in range(tokens)) for n in range(first, first + count)]
        labels = [(*[-100] * 4, *row[4:]) for row in ids]
        return [Example(*pair, str(n % 3)) for n, pair in enumerate(zip(ids, labels, strict=True))]

    parts = (examples(1, 24), examples(40, items), examples(60, items))
    return TinyTask(str(folder / "tiny"), 0, *parts, stop=stop)


def train(cell, out, checkpoint=3):
    """Run one cell like a sweep does, and return its row."""
    from functools import partial

    compute = partial(finetune_check.compute, folder=out, checkpoint=checkpoint)
    settings = {"name": "tiny", "version": 1, "jobs": 1, "progress": False}
    return run_cells(compute, [cell], folder=out / "cells", **settings).iloc[0]


if __name__ == "__main__":
    from tests.experiments import finetune_tiny as module

    TASKS["decoder"] = lambda *settings: module.load(*settings, stop=int(sys.argv[2]))
    torch.set_num_threads(1)
    module.train(module.CELL, Path(sys.argv[1]))
