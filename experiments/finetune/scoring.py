"""How a model does on held-out items: a mean with its interval, and the usual measures."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch import nn

from cosa_theory.projections import stream
from experiments.finetune.tasks import Example, Task

__all__ = ["BATCH", "MOST_LOGITS", "Score", "measures_of", "score"]

Array = NDArray[np.float64]

BATCH = 16
"""Items that are scored at once."""

MOST_LOGITS = 2**27
"""Of a language model, formed at once: half a GB in single precision."""

_RESAMPLES = 2000


@dataclass(frozen=True)
class Score:
    """A mean over held-out items with its 95 % interval.

    Attributes
    ----------
    value, low, high : float
        Accuracy with Wilson's interval; or loss (nats a text or token, or a squared error), with a
        bootstrap over groups.
    scored : int
        How many items.
    item_sums, item_weights : list of float
        For each group of items, in the order of their names, the sum that is averaged (hits, or
        nats) and its weight (texts, or tokens): equal weights in every score of the same items.
    measures : dict
        What `measures_of` says, the loss among them.
    """

    value: float
    low: float
    high: float
    scored: int
    item_sums: list[float]
    item_weights: list[float]
    measures: dict[str, float] = field(default_factory=dict)


@torch.no_grad()
def score(task: Task, model: nn.Module, examples: Sequence[Example], seed: int = 0) -> Score:
    """Return the mean score of held-out items; the model is left in evaluation mode.

    Parameters
    ----------
    task : Task
        What the items are.
    model : nn.Module
        The model.
    examples : sequence of Example
        One part of the task.
    seed : int
        Of the bootstrap.

    Returns
    -------
    Score
    """
    model.eval()
    device = next(model.parameters()).device
    # Sorted by length, the items of a batch need little padding.
    order = sorted(examples, key=lambda example: len(example.input_ids))
    found: dict[str, list[NDArray[Any]]] = {}
    most = MOST_LOGITS // _width(task, model)
    for batch in _batches(order, most):
        inputs = task.collate(batch)
        moved = {name: tensor.to(device) for name, tensor in inputs.items()}
        for name, values in task.outcomes(model, moved).items():
            found.setdefault(name, []).append(values.cpu().numpy())
    all_of = {name: np.concatenate(values) for name, values in found.items()}
    empty = np.zeros(0)
    measures = measures_of(task.learns, all_of.get("said", empty), all_of.get("true", empty))
    measures["loss"] = float(all_of["loss"].sum() / all_of["weight"].sum())
    hits = task.metric == "accuracy"
    total = (all_of["said"] == all_of["true"]).astype(float) if hits else all_of["loss"]
    groups, member = np.unique([example.group for example in order], return_inverse=True)
    item_sums, item_weights = (
        np.bincount(member, x, len(groups)) for x in (total, all_of["weight"])
    )
    if hits:
        interval = stats.binomtest(round(total.sum()), len(total)).proportion_ci(
            0.95, method="wilson"
        )
        low, high = float(interval.low), float(interval.high)
    else:
        low, high = _bootstrap(item_sums, item_weights, seed)
    sums, weights = (np.round(x, 6).tolist() for x in (item_sums, item_weights))
    return Score(measures[task.metric], low, high, len(order), sums, weights, measures)


def _width(task: Task, model: Any) -> int:
    """Return how many outputs a token has: of a classifier one, as only texts have them."""
    return model.config.get_text_config().vocab_size if task.learns == "answers" else 1


def _batches(order: Sequence[Example], most: int) -> Iterator[Sequence[Example]]:
    """Yield items in their order, so few at once that they have at most so many tokens, padded."""
    start = 0
    while start < len(order):
        batch = order[start : start + BATCH]
        while len(batch) > 1 and len(batch) * len(batch[-1].input_ids) > most:
            batch = batch[:-1]
        yield batch
        start += len(batch)


def _bootstrap(sums: NDArray[Any], weights: NDArray[Any], seed: int) -> tuple[float, float]:
    """Return the 95 % percentile interval of a weighted mean under resampling of groups."""
    groups = len(sums)
    if groups < 2:
        return math.nan, math.nan
    picked = stream(seed, "finetune_check", "bootstrap").integers(groups, size=(_RESAMPLES, groups))
    means = sums[picked].sum(1) / weights[picked].sum(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def measures_of(learns: str, said: Array, true: Array) -> dict[str, float]:
    """Compare what was said with what is true.

    Parameters
    ----------
    learns : {"labels", "numbers", "answers"}
        What they are: numbers of classes, or numbers.
    said, true : array, shape (items,)
        Empty for answers.

    Returns
    -------
    dict
        For labels ``accuracy``, ``matthews`` (the correlation of Gorodkin, Matthews's for two
        classes) and ``f1`` (of the second of two classes, the mean over more); for numbers
        ``pearson`` and ``spearman``. A correlation with a constant is 0.
    """
    if learns == "labels":
        classes = np.unique(np.concatenate([said, true]))
        counts = np.array([[np.sum((said == s) & (true == t)) for s in classes] for t in classes])
        accuracy = float(np.mean(said == true))
        return {"accuracy": accuracy, "matthews": _matthews(counts), "f1": _f1(classes, counts)}
    if learns == "numbers":
        constant = np.ptp(said) == 0 or np.ptp(true) == 0
        return {
            "pearson": 0.0 if constant else float(stats.pearsonr(said, true).statistic),
            "spearman": 0.0 if constant else float(stats.spearmanr(said, true).statistic),
        }
    return {}


def _matthews(counts: Array) -> float:
    """Return the correlation of the classes, from counts[true, said]."""
    total, hits = counts.sum(), np.trace(counts)
    said, true = counts.sum(0).astype(float), counts.sum(1).astype(float)
    spread = (total**2 - said @ said) * (total**2 - true @ true)
    return float((hits * total - said @ true) / np.sqrt(spread)) if spread > 0 else 0.0


def _f1(classes: Array, counts: Array) -> float:
    hits, both = np.diag(counts), counts.sum(0) + counts.sum(1)
    scores = 2 * hits / np.maximum(both, 1)
    if set(classes) <= {0, 1}:
        return float(scores[classes == 1].sum())
    return float(scores.mean())
