"""The trainer of instructions and chats: TRL's, on the tokens and labels of the task."""

from collections.abc import Sequence
from typing import Any

from datasets import Dataset
from transformers import AutoTokenizer
from trl import SFTConfig, SFTTrainer

from experiments.finetune.config import Config
from experiments.finetune.tasks import Example, Task
from experiments.finetune.trainer import TaskTrainer

__all__ = ["InstructedTrainer"]


class InstructedTrainer(TaskTrainer, SFTTrainer):
    """`SFTTrainer`, which forms the logits of answers alone, with all that `TaskTrainer` does."""

    def __init__(self, task: Task, config: Config, steps: int, **settings: Any) -> None:
        given = settings["args"].to_dict()
        ready = {"max_length": None, "dataset_kwargs": {"skip_prepare_dataset": True}}
        held_out = settings["eval_dataset"]
        super().__init__(
            task,
            config,
            steps,
            **{
                **settings,
                "args": SFTConfig(**{**given, **ready}),
                "data_collator": None,
                "train_dataset": _rows(task.train),
                "eval_dataset": None if held_out is None else _rows(held_out),
                "processing_class": AutoTokenizer.from_pretrained(task.base),
            },
        )

    def create_model_card(self, *_: Any, **__: Any) -> None:
        """Write none: a checkpoint is not published."""

    def _send_telemetry(self) -> None:
        """Send none: nobody was asked."""


def _rows(examples: Sequence[Example]) -> Any:
    return Dataset.from_dict(
        {name: [getattr(one, name) for one in examples] for name in ("input_ids", "labels")}
    )
