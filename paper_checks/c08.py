"""C8: whether training with CoSA matches training with LoRA, at equal trainable parameters."""

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from cosa_theory.deltas import LayerDelta
from experiments.finetune_check import stored_or_short
from experiments.finetune_check_results import summarise
from paper_checks.base import Case, Check, Claim, counts
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

CONTROL = "control"

CLAIM = Claim(
    id="C8",
    claim="CoSA matches or outperforms state-of-the-art methods of parameter-efficient "
    "fine-tuning.",
    source="abstract",
    method="A first check on small real models, from the stored results of "
    "`python -m experiments.finetune_check` (a short run where there are none): a sentence encoder "
    "on Reuters R8 and, in longer runs, SmolLM2-135M on library functions, trained with CoSA and "
    "with LoRA of as many trainable parameters in every layer, each at the learning rate that is "
    "best on a validation part. 95 % intervals of the difference, paired on equal seeds and equal "
    "held-out items, over both: a bootstrap over items (texts; modules of functions), which are "
    "the same for every seed, and Student's t over seeds, as resampling three values would "
    "understate their spread. Models with a single seed do not decide.",
    quantity=f"{THRESHOLDS['c8_accuracy'].quantity}; or {THRESHOLDS['c8_loss'].quantity}",
    criterion=f"{THRESHOLDS['c8_accuracy']}; {THRESHOLDS['c8_loss']}; for each model and variant "
    f"of CoSA; and as controls {THRESHOLDS['c8_gain']}, and {THRESHOLDS['c8_budget']}",
)


def measure(
    layers: Iterable[LayerDelta] = (), seed: int = 0, *, table: pd.DataFrame | None = None
) -> list[Case]:
    """Return a case for each model and variant of CoSA with several seeds, and the controls.

    Parameters
    ----------
    layers : iterable of LayerDelta
        Not needed.
    seed : int
        The first seed of a short run, where nothing is stored.
    table : pandas.DataFrame, optional
        As `experiments.finetune_check.run` returns it; by default the stored one.
    """
    del layers
    summary = summarise(stored_or_short(seed=seed) if table is None else table)
    rows: list[Any] = summary.to_dict(orient="records")
    compared = [row for row in rows if row["method"].startswith("cosa") and row["pairs"] > 0]
    cases = [_case(row) for row in compared if row["pairs"] > 1]
    if not cases:
        return []
    judged = {case.details["model"] for case in cases}
    for row in rows:
        if row["method"] == "lora" and row["model"] in judged:
            gain = row["value"] - row["before"]
            gain = gain if row["metric"] == "accuracy" else -gain
            name = f"LoRA on the {row['model']}"
            cases.append(Case.exact(name, CONTROL, gain, "c8_gain", control=True))
    worst = max(abs(1 - row["parameter_ratio"]) for row in compared)
    cases.append(Case.exact("equal size", CONTROL, worst, "c8_budget", control=True))
    return cases


def _case(row: dict[str, Any]) -> Case:
    names = ("model", "method", "label", "metric", "pairs", "value", "learning_rate")
    return Case(
        f"{row['label']} on the {row['model']}",
        row["model"],
        row["advantage"],
        row["advantage_low"],
        row["advantage_high"],
        f"c8_{row['metric']}",
        details={name: row[name] for name in names},
    )


def describe(cases: Sequence[Case]) -> str:
    """Return who wins, by how much and with how many seeds."""
    compared = [case for case in cases if not case.control]
    if not compared:
        return "There was no comparison with more than one seed."
    parts = []
    for case in (one for one in compared if one.known):
        scale, unit = (100, "points") if case.details["metric"] == "accuracy" else (1, "nats")
        value, low, high = (scale * x for x in (case.value, case.low, case.high))
        winner = "ahead of" if value > 0 else "behind"
        parts.append(
            f"{case.name} is {abs(value):.3g} {unit} {winner} LoRA (interval of its lead {low:.3g} "
            f"to {high:.3g}, {case.details['pairs']} seeds)"
        )
    return f"It {counts(cases)}: {'; '.join(parts) or 'no lead is known'}."


CHECK = Check(CLAIM, measure, describe, needs_pair=False)
