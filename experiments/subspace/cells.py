"""One training of the study: what it is, and what is kept of it."""

import dataclasses
import gc
import shutil
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from cosa_theory.deltas.language_models import quiet_transformers
from cosa_theory.ground.cells import cell_name
from cosa_theory.spectrum import intruder_dimensions, summarize
from cosa_theory.spectrum.budget import lora_parameters
from experiments.finetune.config import Config
from experiments.finetune.methods import linear_layers
from experiments.finetune.scoring import score
from experiments.finetune.tasks import Task, load_task
from experiments.finetune.training import Fitted, fit, isolated, store
from experiments.finetune.watching import adapted_layers, effective_weight
from experiments.subspace.arms import ARMS
from experiments.subspace.observer import NORM, Observer

__all__ = ["BASES", "Cell", "task_of", "train", "training_of"]

BASES = Path("results/subspace/base")
"""Where the language model is unpacked."""

_CHECKPOINT = 50
_LAYERS = 8
_DIGITS = 5


@dataclass(frozen=True)
class Cell:
    """One training.

    Attributes
    ----------
    task, arm : str
        As the study names them.
    quarter : int
        The peak rate is 10^(quarter/4).
    seed, draw : int
        Of head, order and dropout; of what the arm draws.
    part : {"validation", "test"}
        What is scored.
    model, data, steps, batch, tokens, items, rank, head_rate, warm_up
        As in `experiments.finetune.config.Config`.
    """

    task: str
    arm: str
    quarter: int
    seed: int
    draw: int
    part: str
    model: str
    data: str
    steps: int
    batch: int
    tokens: int
    items: int
    rank: int
    head_rate: float
    warm_up: float


def task_of(cell: Cell) -> Task:
    """Return the cell's data with its model's base, loaded once."""
    return _task(cell.model, cell.data, cell.tokens, cell.items)


@lru_cache(maxsize=2)
def _task(model: str, data: str, tokens: int, items: int) -> Task:
    config = Config(model=model, data=data, tokens=tokens, items=items, metric="loss")
    return load_task(config, BASES)


@lru_cache(maxsize=2)
def _sizes(*of_task: Any) -> tuple[tuple[int, int], ...]:
    with quiet_transformers(), isolated(0, threads=1):
        return tuple(linear_layers(_task(*of_task).model(), 0).values())


def training_of(cell: Cell) -> Config:
    """Return the cell as a training, with the budget of LoRA of its rank on all layers."""
    sizes = _sizes(cell.model, cell.data, cell.tokens, cell.items)
    names = ("model", "data", "steps", "batch", "tokens", "items", "rank", "head_rate", "warm_up")
    return Config(
        **{name: getattr(cell, name) for name in names},
        **ARMS[cell.arm].settings,
        budget=sum(lora_parameters(m, n, cell.rank) for m, n in sizes),
        seed=cell.seed,
        draw=cell.draw,
        learning_rate=10 ** (cell.quarter / 4),
        metric="loss",
        clip=1e9,  # never reached: see the stated file
        threads=1,
        checkpoint=_CHECKPOINT,
    )


def train(cell: Cell, runs: Path) -> dict[str, Any]:
    """Train, going on from a checkpoint under `runs` where there is one, and measure.

    Returns
    -------
    dict
        `loss` and `accuracy` (None for answers); `item_sums` and `item_weights` of the test part,
        see `experiments.finetune.scoring.Score`; `train_loss`; `parameters` without the head;
        `step_seconds` (processor time); `saved_bytes`, `state_bytes`, `frozen_bytes` (memory of a
        step beside the model), `adapter_bytes` (the file); `gradient_norms` of every step; and of
        the test part what `update_measures` says.
    """
    run = runs / cell_name(dataclasses.asdict(cell))
    task, config = task_of(cell), training_of(cell)
    watched = Observer(task.head)
    with quiet_transformers(), isolated(cell.seed, threads=1):
        fitted = fit(task, config, run, callbacks=[watched])
        found = score(task, fitted.model, getattr(task, cell.part))
        tested = cell.part == "test"
        result = {
            "loss": found.measures["loss"],
            "accuracy": found.measures.get("accuracy"),
            "train_loss": fitted.final_loss(),
            "parameters": fitted.size.adapter,
            "step_seconds": watched.seconds,
            "saved_bytes": fitted.saved_bytes,
            "state_bytes": 12 * fitted.size.adapter,  # a gradient and Adam's two moments
            "frozen_bytes": fitted.size.frozen_bytes,
            "gradient_norms": [_rounded(row[NORM]) for row in fitted.history if NORM in row],
        }
        if tested:
            result |= {"item_sums": found.item_sums, "item_weights": found.item_weights}
            result |= update_measures(fitted.model, task.model())
            result["adapter_bytes"] = _stored_bytes(fitted, cell.arm)
        shutil.rmtree(run, ignore_errors=True)
    del fitted
    gc.collect()  # a trainer and its model refer to each other
    return result


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _stored_bytes(fitted: Fitted, arm: str) -> int:
    if arm == "full":
        return 4 * fitted.size.adapter
    with tempfile.TemporaryDirectory() as folder:
        return store(fitted, Path(folder) / "adapter")


def update_measures(model: nn.Module, base: nn.Module) -> dict[str, float | None]:
    """Return means over some layers, evenly spread, of what describes their updates.

    Returns
    -------
    dict
        `relative_norm` ‖ΔW‖/‖W‖, `stable_rank`, `rank_90` and `rank_99` (directions that hold such
        a share of the energy), and `intruders` with the most of its null, `intruders_null`, see
        `cosa_theory.spectrum.intruder_dimensions`.
    """
    layers = adapted_layers(model)
    names = list(layers)
    count = min(_LAYERS, len(names))
    rows: list[dict[str, Any]] = []
    for name in (names[index * len(names) // count] for index in range(count)):
        inner: Any = base.get_submodule(layers[name])
        weight = inner.weight.detach()
        delta = (effective_weight(model.get_submodule(name)) - weight).numpy()
        # What is left of two weights in single precision.
        rounding = float(weight.square().mean().sqrt()) * float(np.finfo(np.float32).eps)
        spectrum = summarize(delta, rounding_rms=rounding)
        beside = intruder_dimensions(delta, weight.numpy())
        rows.append(
            {
                "relative_norm": spectrum.frobenius / float(weight.norm()),
                "stable_rank": spectrum.stable_rank,
                "rank_90": spectrum.rank_90,
                "rank_99": spectrum.rank_99,
                "intruders": beside.intruders,
                "intruders_null": beside.intruders_null_high,
            }
        )
    means = {key: [row[key] for row in rows if row[key] is not None] for key in rows[0]}
    return {key: float(np.mean(values)) if values else None for key, values in means.items()}
