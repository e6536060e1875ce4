"""Arms against each other: paired differences with intervals over seeds and items."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.special import ndtri

from cosa_theory.ground.estimates import student_quantile
from cosa_theory.projections import stream
from experiments.subspace.study import Study

__all__ = ["compared", "resampled_means", "steadiness", "stretch", "variance_ratio", "variation"]

Array = NDArray[np.float64]

_CHUNK = 250


def stretch(seeds: int, confidence: float = 0.95) -> float:
    """Return by what deviations of a bootstrap over so few seeds are stretched.

    A bootstrap of n values has a standard deviation too small by √(n/(n − 1)), and its percentiles
    take no notice that the spread is estimated. Stretched by √(n/(n − 1)) t/z they end where
    Student's interval does, for a normal bootstrap distribution [1]_.

    References
    ----------
    .. [1] T. C. Hesterberg, "What teachers should know about the bootstrap", The American
       Statistician 69 (2015), section 4.2.
    """
    normal = float(ndtri((1 + confidence) / 2))
    return math.sqrt(seeds / (seeds - 1)) * student_quantile(seeds, confidence) / normal


def resampled_means(sums: Array, weights: Array, resamples: int, *key: str) -> Array:
    """Return weighted means over resampled items: the same items for everything.

    Parameters
    ----------
    sums : array, shape (..., items)
        Of every training.
    weights : array, shape (items,)
        Of the items.
    resamples : int
        How many.
    *key : str
        Names the draw.

    Returns
    -------
    array, shape (resamples, ...)
    """
    items = len(weights)
    generator = stream(0, "subspace", "items", *key)
    flat = sums.reshape(-1, items).T
    found = []
    for start in range(0, resamples, _CHUNK):
        count = min(_CHUNK, resamples - start)
        counts = generator.multinomial(items, np.full(items, 1 / items), count).astype(float)
        found.append(counts @ flat / (counts @ weights)[:, None])
    return np.concatenate(found).reshape(resamples, *sums.shape[:-1])


def compared(tests: pd.DataFrame, study: Study) -> pd.DataFrame:
    """Compare the arms of all tasks, as the study asks, by what is finished.

    Parameters
    ----------
    tests : pandas.DataFrame
        A row for each training that was tested, of `experiments.subspace.cells.train`.
    study : Study
        Comparisons and criteria.

    Returns
    -------
    pandas.DataFrame
        `task`, `arm`, `against`, `seeds` (that both have), `difference` of the mean loss in nats
        with `low` and `high`, `outcome`, `within` (the smallest effect, on both sides),
        `accuracy` (its difference), and whether it `came` as expected: "yes", "no", "open".
    """
    rows = []
    for task, own in tests.groupby("task", sort=False):
        weights = np.array(own["item_weights"].iloc[0], dtype=float)
        order = list(zip(own["arm"], own["seed"], strict=True))
        sums = np.array(own["item_sums"].tolist(), dtype=float)
        means = resampled_means(sums, weights, study.resamples, str(task))
        of = {pair: (means[:, at], row) for at, (pair, row) in enumerate(_rows(order, own))}
        for one in study.comparisons:
            shared = [seed for arm, seed in of if arm == one.arm and (one.against, seed) in of]
            if len(shared) < 2:
                continue
            pairs = [(of[one.arm, seed], of[one.against, seed]) for seed in sorted(shared)]
            gaps = np.stack([first[0] - second[0] for first, second in pairs], axis=1)
            values = np.array([first[1]["loss"] - second[1]["loss"] for first, second in pairs])
            low, high = _ends(gaps, values, study.confidence, str(task), one.arm, one.against)
            outcome = "better" if high < 0 else "worse" if low > 0 else "undecided"
            accuracies = [first[1]["accuracy"] - second[1]["accuracy"] for first, second in pairs]
            rows.append(
                {
                    "task": task,
                    "arm": one.arm,
                    "against": one.against,
                    "seeds": len(shared),
                    "difference": float(values.mean()),
                    "low": low,
                    "high": high,
                    "outcome": outcome,
                    "within": bool(max(-low, high) < study.smallest_effect),
                    "accuracy": float(np.mean(accuracies)),
                    "came": _came(outcome, one.expected),
                }
            )
    return pd.DataFrame(rows)


def _rows(order: list[Any], own: pd.DataFrame) -> Iterator[tuple[Any, Any]]:
    kept = own[["loss", "accuracy"]].astype(float).to_dict("records")
    return zip(order, kept, strict=True)


def _came(outcome: str, expected: tuple[str, ...]) -> str:
    if outcome in expected:
        return "yes"
    # What is undecided neither shows nor refutes a difference.
    return "open" if outcome == "undecided" else "no"


def _ends(gaps: Array, values: Array, confidence: float, *key: str) -> tuple[float, float]:
    """Return the interval of a mean difference.

    Parameters
    ----------
    gaps : array, shape (resamples, seeds)
        Differences over resampled items.
    values : array, shape (seeds,)
        Over all items.
    confidence : float
        Of the interval.
    *key : str
        Names the draw of seeds.
    """
    resamples, seeds = gaps.shape
    generator = stream(0, "subspace", "seeds", *key)
    counts = generator.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    of_seeds = stretch(seeds, confidence) * (counts @ values / seeds - values.mean())
    tail = (1 - confidence) / 2
    low, high = np.quantile(gaps.mean(1) + of_seeds, (tail, 1 - tail))
    return float(low), float(high)


def variation(norms: Sequence[float]) -> float:
    """Return the coefficient of variation of the gradient's norm after a third of the steps.

    Of its logarithm's trend nothing is taken off: what falls steadily varies too.
    """
    kept = np.array(norms[len(norms) // 3 :], dtype=float)
    return float(kept.std() / kept.mean()) if len(kept) and kept.mean() > 0 else math.nan


def steadiness(tests: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """Return how much gradients vary along trainings with Haar over that with Gaussian factors.

    Parameters
    ----------
    tests : pandas.DataFrame
        As for `compared`.
    confidence : float
        Of the interval.

    Returns
    -------
    pandas.DataFrame
        For each task with two shared seeds: `task`, `seeds`, and the geometric mean `ratio` of
        `variation` over them with Student's interval of its logarithm, `low` to `high`.
    """
    first, second = "cosa_haar", "cosa_gaussian"
    rows = []
    for task, own in tests.groupby("task", sort=False):
        values = own.assign(value=own["gradient_norms"].map(variation))
        grid = values.pivot_table(index="seed", columns="arm", values="value")
        if not {first, second} <= set(grid):
            continue
        logs = (grid[first] / grid[second]).dropna().map(math.log)
        if len(logs) < 2:
            continue
        half = student_quantile(len(logs), confidence) * logs.std() / math.sqrt(len(logs))
        low, middle, high = (math.exp(logs.mean() + part) for part in (-half, 0.0, half))
        rows.append({"task": task, "seeds": len(logs), "ratio": middle, "low": low, "high": high})
    return pd.DataFrame(rows)


def variance_ratio(table: pd.DataFrame, confidence: float = 0.95) -> dict[str, float]:
    """Return the spread over projections beside that over all else, from a crossed design.

    Parameters
    ----------
    table : pandas.DataFrame
        `draw`, `seed` and `loss`, every draw with every seed, k of each.

    Returns
    -------
    dict
        `draws` and `seeds`: estimated variances over the projections, and over head, order and
        dropout, what is left of an additive model taken off; `ratio` of the two mean squares,
        σ²_left + k σ²_draws over σ²_left + k σ²_seeds, above one exactly where the projections vary
        more, with the ends `low` and `high` of its interval for normal effects; `size` k.
    """
    from scipy.stats import f

    losses = table.pivot(index="draw", columns="seed", values="loss").to_numpy(float)
    size = len(losses)
    rows, columns, mean = losses.mean(1), losses.mean(0), losses.mean()
    left = losses - rows[:, None] - columns + mean
    free = size - 1
    of_rows, of_columns = (size * float(np.var(one, ddof=1)) for one in (rows, columns))
    of_left = float((left**2).sum()) / free**2
    ratio, tail = of_rows / of_columns, (1 - confidence) / 2
    return {
        "size": size,
        "draws": max(0.0, (of_rows - of_left) / size),
        "seeds": max(0.0, (of_columns - of_left) / size),
        "ratio": ratio,
        "low": ratio / float(f.ppf(1 - tail, free, free)),
        "high": ratio / float(f.ppf(tail, free, free)),
    }
