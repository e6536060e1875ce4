"""What is known of an arm before it is trained, and whether that predicts how it ends.

One full fine-tuning, with a tuning seed and as long as the trainings that are tested, gives the
update that an arm would have to make, and the gradients on the way to it. How much of them lies in
the arm's tangent space at its start is measured without training the arm.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy.stats import rankdata
from torch import Tensor, nn
from transformers import TrainerCallback

from cosa_theory.deltas.language_models import quiet_transformers
from cosa_theory.ground.files import atomic_path
from cosa_theory.nn import layer_moments
from cosa_theory.nn.moments import Moments
from cosa_theory.projections import stream
from experiments.finetune.methods import linear_layers, prepared
from experiments.finetune.tasks import Task
from experiments.finetune.training import fit, isolated, moment_batches
from experiments.finetune.watching import adapted_layers
from experiments.subspace.cells import Cell, task_of, training_of
from experiments.subspace.tangent import tangent

__all__ = ["PREDICTORS", "measure", "path_of", "predicted"]

PREDICTORS = ("energy", "weighted", "function", "gradients")
"""What `measure` returns."""

Array = NDArray[np.float64]

_WINDOWS = 4
_TEXTS = 128  # on which functions are compared
_RESAMPLES = 2000


class _Along(TrainerCallback):
    """Sums the gradients of the layers' weights over each quarter of a training."""

    def __init__(self) -> None:
        self.sums: list[dict[str, Tensor]] = [{} for _ in range(_WINDOWS)]

    def on_pre_optimizer_step(
        self, args: Any, state: Any, control: Any, model: nn.Module, **_: Any
    ) -> None:
        """Add those of a step."""
        window = self.sums[state.global_step * _WINDOWS // state.max_steps]
        for name in linear_layers(model, 0):
            weight: Any = model.get_submodule(name).weight
            gradient = weight.grad.detach()
            window[name] = window[name] + gradient if name in window else gradient.clone()


def path_of(cell: Cell, file: Path, runs: Path) -> dict[str, Tensor]:
    """Return a full fine-tuning's update, "update.NAME", and its gradients, "gradient0.NAME", ...

    Parameters
    ----------
    cell : Cell
        Of the arm "full".
    file : path
        Where it is kept: trained once.
    runs : path
        For the training's own files.
    """
    if not file.is_file():
        task, along = task_of(cell), _Along()
        config = dataclasses.replace(training_of(cell), checkpoint=cell.steps)
        with quiet_transformers(), isolated(cell.seed, threads=1):
            base = task.model()
            model: Any = fit(task, config, runs / f"path-{cell.task}", callbacks=[along]).model
        found = {}
        for name in linear_layers(base, 0):
            before: Any = base.get_submodule(name)
            found[f"update.{name}"] = (model.get_submodule(name).weight - before.weight).detach()
        for number, window in enumerate(along.sums):
            found |= {f"gradient{number}.{name}": one for name, one in window.items()}
        with atomic_path(file) as temporary:
            save_file({name: one.contiguous() for name, one in found.items()}, temporary)
    return dict(load_file(file))


def measure(cell: Cell, paths: Path) -> dict[str, float]:
    """Measure an arm at its start.

    Parameters
    ----------
    cell : Cell
        The arm; its quarter is that of the full fine-tuning.
    paths : path
        Folder with the file of `path_of`, as TASK.safetensors.

    Returns
    -------
    dict
        With P the projection onto the tangent space: `energy` Σ‖P ΔW‖²/Σ‖ΔW‖² over the layers;
        `weighted` 1 − Σ‖(ΔW − P ΔW) C^½‖²/Σ‖ΔW C^½‖² with the inputs' second moments C
        (docs/theory.md, 6.2); `function` recovered by P ΔW (6.1), of embeddings; `gradients`, the
        mean over quarters of the training of Σ‖P G‖²/Σ‖G‖².
    """
    task, config = task_of(cell), training_of(cell)
    path = load_file(paths / f"{cell.task}.safetensors")
    moments = _moments(cell.model, cell.data, cell.tokens, cell.items, cell)
    with quiet_transformers(), isolated(cell.seed, threads=1):
        base = task.model()
        torch.manual_seed(config.drawn)
        batches = moment_batches(task, config)
        adapted = prepared(base, config, head=task.head, batches=batches)
        of_layer = {
            plain: tangent(adapted.get_submodule(name))
            for name, plain in adapted_layers(adapted).items()
        }
        kept = {name: project(path[f"update.{name}"]) for name, project in of_layer.items()}
        function = _recovered(task, kept, {name: path[f"update.{name}"] for name in kept})
    sums = np.zeros((2, 2))
    for name, part in kept.items():
        whole = path[f"update.{name}"].double()
        C = torch.from_numpy(moments.inputs[f"{name}.weight"].matrix).double()
        left = whole - part
        sums += [
            [float(part.square().sum()), float(whole.square().sum())],
            [float((left @ C * left).sum()), float((whole @ C * whole).sum())],
        ]
    along = []
    for number in range(_WINDOWS):
        gradients = {name: path[f"gradient{number}.{name}"].double() for name in of_layer}
        held = sum(float(of_layer[name](one).square().sum()) for name, one in gradients.items())
        along.append(held / sum(float(one.square().sum()) for one in gradients.values()))
    return {
        "energy": sums[0, 0] / sums[0, 1],
        "weighted": 1 - sums[1, 0] / sums[1, 1],
        "function": function,
        "gradients": float(np.mean(along)),
    }


@lru_cache(maxsize=1)
def _moments(model: str, data: str, tokens: int, items: int, cell: Cell) -> Moments:
    """Return the moments of a task's base model on the texts that informed arms start from."""
    task, config = task_of(cell), training_of(cell)
    with quiet_transformers(), isolated(0, threads=1):
        network = task.model()
        names = [f"{name}.weight" for name in linear_layers(network, 0)]
        return layer_moments(network, moment_batches(task, config), names)


@torch.no_grad()
def _recovered(task: Task, kept: Mapping[str, Tensor], whole: Mapping[str, Tensor]) -> float:
    """Return 1 − Σ‖f(W + P ΔW) − f(W + ΔW)‖²/Σ‖f(W) − f(W + ΔW)‖² over some texts."""

    def said(updates: Mapping[str, Tensor]) -> Tensor:
        model: Any = task.model().eval()
        model.head = nn.Identity()  # so that embeddings are compared, and no head on them
        for name, update in updates.items():
            model.get_submodule(name).weight += update.float()
        texts = sorted(task.validation[:_TEXTS], key=lambda one: len(one.input_ids))
        outputs = []
        for start in range(0, len(texts), 16):
            inputs = task.collate(texts[start : start + 16])
            inputs.pop("labels")
            outputs.append(model(**inputs)["logits"])
        return torch.cat(outputs).double()

    goal = said(whole)
    return float(1 - (said(kept) - goal).square().sum() / (said({}) - goal).square().sum())


def predicted(measured: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """Return how well each measure ranks the arms.

    Parameters
    ----------
    measured : pandas.DataFrame
        `task`, `arm` and a column for each of `PREDICTORS`.
    arms : pandas.DataFrame
        `task`, `arm` and mean `loss` of the test part.

    Returns
    -------
    pandas.DataFrame
        `task`, `predictor`, `arms` (how many, full fine-tuning left out), `spearman` with the loss,
        negative where more of the measure means less loss, and its 95 % interval over resampled
        arms, `low` and `high`.
    """
    both = measured.merge(arms[["task", "arm", "loss"]], on=["task", "arm"], suffixes=("", "_"))
    return pd.DataFrame(_correlations(both[both["arm"] != "full"]))


def _correlations(both: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for task, own in both.groupby("task", sort=False):
        if len(own) < 4:
            continue
        losses = own["loss"].to_numpy(float)
        draws = stream(0, "subspace", "arms", str(task)).integers(
            len(own), size=(_RESAMPLES, len(own))
        )
        for name in PREDICTORS:
            values = own[name].to_numpy(float)
            low, high = np.nanquantile(_spearman(values[draws], losses[draws]), (0.025, 0.975))
            spearman = float(_spearman(values[None], losses[None])[0])
            ends = {"spearman": spearman, "low": float(low), "high": float(high)}
            yield {"task": task, "predictor": name, "arms": len(own)} | ends


def _spearman(values: Array, others: Array) -> Array:
    """Return Spearman's correlation of each row with each; NaN where one is constant."""
    one, other = (rankdata(rows, axis=1) for rows in (values, others))
    one, other = (ranks - ranks.mean(1, keepdims=True) for ranks in (one, other))
    with np.errstate(invalid="ignore"):
        found: Array = (one * other).sum(1) / np.sqrt((one**2).sum(1) * (other**2).sum(1))
    return found
