"""What the end-to-end check found: the best learning rates, a summary over seeds, a verdict."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import special

from cosa_theory.ground.estimates import mean_interval
from cosa_theory.projections import stream

__all__ = ["METHODS", "best_rates", "read_rates", "summarise", "verdict"]

_RESAMPLES = 4000

METHODS: dict[str, str] = {
    "full": "full fine-tuning",
    "lora": "LoRA",
    "cosa": "CoSA",
    "cosa_haar": "CoSA, orthonormal",
    "cosa_released": "CoSA as released",
}
"""The methods, and what they are called. "cosa": Gaussian factors of unit norm in expectation,
with a·m = b·n; "cosa_haar": the same with orthonormal factors; "cosa_released": a near 4 b and the
scale of the released code."""

REFERENCE = "lora"
_NAMES = {"encoder": "encoder on Reuters R8", "decoder": "language model on library functions"}
_RATES = Path(__file__).parent / "configs" / "finetune_check_rates.csv"
_COSTS = (
    "learning_rate",
    "adapter_parameters",
    "trainable_parameters",
    "seconds_per_step",
    "saved_bytes",
    "state_bytes",
    "frozen_bytes",
    "adapter_bytes",
)


def read_rates() -> pd.DataFrame:
    """Return the stored grid, which was run with the quick settings and one seed.

    Returns
    -------
    pandas.DataFrame
        As the second table of `experiments.finetune_check.run`.
    """
    return pd.read_csv(_RATES)


def best_rates(grid: pd.DataFrame) -> pd.DataFrame:
    """Choose a learning rate for each model and method.

    Parameters
    ----------
    grid : pandas.DataFrame
        model, method, learning_rate, metric ("accuracy" or "loss") and value, on validation parts.

    Returns
    -------
    pandas.DataFrame
        One row for each model and method: model, method, learning_rate (of the best value; the
        smallest of equal ones), at_edge (whether it is the first or last of its grid, so that a
        better one may lie outside).
    """
    rows = []
    # Trainings given up have no value, and where all were there is no such column.
    scored = grid.dropna(subset="value") if "value" in grid else grid[:0]
    for (model, method), part in scored.groupby(["model", "method"], sort=False):
        ordered = part.sort_values("learning_rate")
        values = ordered["value"] * ordered["metric"].map(_sign)
        best = int(values.to_numpy().argmax())
        rate = float(ordered["learning_rate"].iloc[best])
        rows.append((model, method, rate, best in (0, len(ordered) - 1)))
    return pd.DataFrame(rows, columns=["model", "method", "learning_rate", "at_edge"])


def _sign(metric: str) -> float:
    """Return 1 where more is better, else −1."""
    return 1.0 if metric == "accuracy" else -1.0


def summarise(table: pd.DataFrame) -> pd.DataFrame:
    """Average over seeds, and compare every method with LoRA on equal seeds.

    Parameters
    ----------
    table : pandas.DataFrame
        As `experiments.finetune_check.run` returns it; trainings without a result are left out.

    Returns
    -------
    pandas.DataFrame
        One row for each model and method: model, method, label, metric, seeds, before; value
        (mean) with value_low and value_high (95 % t interval over seeds; of one seed over items);
        advantage over LoRA (mean difference on the seeds of both, in accuracy or nats a token,
        positive where the method is better) with advantage_low and advantage_high (95 % interval
        over seeds and held-out items, see Notes; NaN for a single pair), pairs; parameter_ratio
        (adapter parameters over LoRA's); and the costs of the first seed. LoRA itself has no
        advantage.

    Notes
    -----
    All trainings are scored on the same items, so seeds and items are crossed. The interval of the
    advantage is of the sum of two independent deviations: that of a bootstrap over groups of items,
    of differences between the methods on the same items, averaged over seeds; and Student's t times
    the standard error over seeds, since resampling two or three seeds would understate it. What
    differs between seeds on single items is in both, so the interval is a little too wide.
    """
    done = table[(table["status"] == "done") & (table["method"] != "start")]
    rows = []
    for model, part in done.groupby("model", sort=False):
        reference = part[part["method"] == REFERENCE].set_index("seed")
        for method, own in part.groupby("method", sort=False):
            own = own.set_index("seed")
            rows.append(
                {"model": model, "method": method, "label": METHODS[str(method)]}
                | _mean_value(own)
                | _advantage(own, reference)
                | {name: own[name].iloc[0] for name in _COSTS}
            )
    return pd.DataFrame(rows)


def _mean_value(own: pd.DataFrame) -> dict[str, Any]:
    first = own.iloc[0]
    mean, low, high = mean_interval(own["value"])
    alone = len(own) < 2
    return {
        "metric": first["metric"],
        "seeds": len(own),
        "before": first["before"],
        "value": mean,
        "value_low": first["low"] if alone else low,
        "value_high": first["high"] if alone else high,
    }


def _advantage(own: pd.DataFrame, reference: pd.DataFrame) -> dict[str, Any]:
    names = ("advantage", "advantage_low", "advantage_high", "parameter_ratio")
    pairs = own.join(reference.add_suffix("_reference"), how="inner")
    if own["method"].iloc[0] == REFERENCE or pairs.empty:
        return {**dict.fromkeys(names, math.nan), "pairs": 0}
    sign = _sign(pairs["metric"].iloc[0])
    differences = sign * (pairs["value"] - pairs["value_reference"])
    mean, low, high = float(differences.mean()), math.nan, math.nan
    if len(pairs) > 1:  # a single pair says nothing of its spread
        own_sums, sums = (
            np.stack(pairs[f"item_sums{suffix}"].to_list()) for suffix in ("", "_reference")
        )
        items = sign * (own_sums - sums).mean(axis=0)
        weights = np.asarray(pairs["item_weights"].iloc[0])
        low, high = _crossed_interval(differences.to_numpy(), items, weights)
    ratio = pairs["adapter_parameters"] / pairs["adapter_parameters_reference"]
    values = (mean, low, high, ratio.iloc[0])
    return {**dict(zip(names, values, strict=True)), "pairs": len(pairs)}


def _crossed_interval(
    by_seed: NDArray[np.float64], items: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float]:
    """Return the 95 % interval of a mean over seeds, crossed with groups of items.

    Parameters
    ----------
    by_seed : array, shape (seeds,)
        The difference for each seed, at least two.
    items, weights : array, shape (groups,)
        What each group adds to the difference, averaged over seeds, and its weight.
    """
    generator = stream(0, "finetune_check", "lead")
    groups, seeds = len(items), len(by_seed)
    picked = generator.multinomial(groups, np.full(groups, 1 / groups), size=_RESAMPLES)
    of_items = (picked @ items) / (picked @ weights) - items.sum() / weights.sum()
    # Quantiles in random order: draws whose own quantiles are exact, far out in the tails too.
    levels = generator.permutation((np.arange(_RESAMPLES) + 0.5) / _RESAMPLES)
    error = float(by_seed.std(ddof=1)) / math.sqrt(seeds)
    deviations = of_items + error * special.stdtrit(seeds - 1, levels)
    low, high = float(by_seed.mean()) + np.quantile(deviations, (0.025, 0.975), method="hazen")
    return float(low), float(high)


def verdict(table: pd.DataFrame) -> str:
    """Return what the table says, best method first, model by model."""
    summary = summarise(table)
    parts = []
    for model, part in summary.groupby("model", sort=False):
        accuracy = part["metric"].iloc[0] == "accuracy"
        text: Callable[[float], str] = _percent if accuracy else "{:.3f}".format
        ordered = part.sort_values("value", ascending=not accuracy)
        shown = [
            f"{row['label']} {text(row['value'])} ({_seeds(row['seeds'])})"
            for row in ordered.to_dict(orient="records")
        ]
        what = "test accuracy" if accuracy else "held-out loss in nats a token"
        before = "" if accuracy else f" (before training {text(part['before'].iloc[0])})"
        parts.append(f"{_NAMES[str(model)]}, {what}{before}: {', '.join(shown)}")
    rank = table.loc[table["method"] != "start", "rank"].max()
    return (
        f"With as many trainable parameters as LoRA of rank {rank} has in every layer, best "
        f"first; {'; '.join(parts)}."
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _seeds(count: int) -> str:
    return f"{count} seed" if count == 1 else f"{count} seeds"
