"""What is noted along a training: gradients of what is trained, and the processor's time."""

import math
import time
from collections.abc import Sequence
from typing import Any

from torch import nn
from transformers import TrainerCallback

from experiments.finetune.methods import in_head

__all__ = ["NORM", "Observer"]

NORM = "adapter_norm"


class Observer(TrainerCallback):
    """Notes in the trainer's history the norm of the gradient of all that is trained but the head.

    Parameters
    ----------
    head : sequence of str
        Names of the head's modules.

    Attributes
    ----------
    seconds : float
        Processor time of a step, over those of this process; NaN before the end.
    """

    def __init__(self, head: Sequence[str]) -> None:
        self.seconds = math.nan
        self._head, self._norm = head, math.nan
        self._began = (0, 0.0)

    def on_train_begin(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Begin to count."""
        self._began = state.global_step, time.process_time()

    def on_pre_optimizer_step(self, *_: Any, model: nn.Module, **__: Any) -> None:
        """Take the norm."""
        squares = (
            float(one.grad.square().sum())
            for name, one in model.named_parameters()
            if one.grad is not None and not in_head(name, self._head)
        )
        self._norm = math.sqrt(sum(squares))

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
        """Put it into the history, which checkpoints keep."""
        if "loss" in (logs or {}):
            state.log_history[-1][NORM] = self._norm

    def on_train_end(self, args: Any, state: Any, *_: Any, **__: Any) -> None:
        """Divide the time by the steps."""
        first, began = self._began
        self.seconds = (time.process_time() - began) / max(1, state.global_step - first)
