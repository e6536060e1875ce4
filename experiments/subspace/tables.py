"""The tables of what is finished: arms, comparisons, rates, the pilot and the crossed design."""

from typing import Any

import pandas as pd

from cosa_theory.ground.sweep import stored_cells
from experiments.subspace.arms import ARMS
from experiments.subspace.comparison import compared, steadiness, variance_ratio, variation
from experiments.subspace.job import MEASURED, VERSION, Job
from experiments.subspace.judged import judged
from experiments.subspace.power import half_width, paired_spread, seeds_needed
from experiments.subspace.predictors import PREDICTORS, predicted

__all__ = ["TABLES", "power_table", "tables_of", "verdict"]

TABLES = (
    *("arms", "compared", "steadiness", "rates", "pilot", "crossed", "measured", "predicted"),
    "judged",
)
"""What `tables_of` returns."""

_STORED = (
    *("loss", "accuracy", "train_loss", "parameters", "step_seconds", "adapter_bytes"),
    *("relative_norm", "stable_rank", "rank_90", "rank_99", "intruders", "intruders_null"),
)
_MEANS = (*_STORED, "memory", "norm_variation")


def tables_of(job: Job) -> dict[str, pd.DataFrame]:
    """Return the tables by the names of `TABLES`, each without rows where nothing is finished."""
    study = job.study
    tests = [one for task in study.tasks for one in job.tested(task)]
    finished = job.finished(tests)
    found = dict.fromkeys(("arms", "compared", "steadiness"), pd.DataFrame())
    if len(finished):
        # Arms are compared when all their seeds are there: no outcome is looked at before.
        seeds = finished.groupby(["task", "arm"])["seed"].transform("nunique")
        asked = finished["task"].map({task: job.seeds(task) for task in study.tasks})
        ended = finished[seeds == asked]
        found["arms"] = _arms(finished)
        if len(ended):
            found["compared"] = compared(ended, study)
            found["steadiness"] = steadiness(ended, study.confidence)
    crossed = job.crossed()
    table = job.finished(crossed) if crossed else pd.DataFrame()
    whole = len(table) == len(crossed) > 0
    starts = [one for task in study.tasks for one in (job.measured(task) or ([], []))[1]]
    settings: dict[str, Any] = {"name": MEASURED, "version": VERSION, "folder": job.folder}
    measured = stored_cells(starts, **settings)
    if len(measured):
        measured = measured[["task", "arm", *PREDICTORS]]
    both = len(measured) and len(found["arms"])
    found |= {
        "measured": measured if len(measured) else pd.DataFrame(),
        "predicted": predicted(measured, found["arms"]) if both else pd.DataFrame(),
        "rates": _rates(job),
        "pilot": power_table(job),
        "crossed": pd.DataFrame([variance_ratio(table, study.confidence)] if whole else []),
    }
    return {**found, "judged": judged(found, study)}


def _arms(finished: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each task and arm: means over seeds, and the spread of the loss."""
    measured = finished.astype(dict.fromkeys(_STORED, float))
    rows = measured.assign(
        memory=finished["saved_bytes"] + finished["state_bytes"] + finished["frozen_bytes"],
        norm_variation=finished["gradient_norms"].map(variation),
        rate=10 ** (finished["quarter"] / 4),
    )
    by = rows.groupby(["task", "arm"], sort=False)
    table = by[["rate", *_MEANS]].mean()
    table.insert(0, "spread", by["loss"].std())
    table.insert(0, "seeds", by["seed"].nunique())
    table = table.reset_index()
    about = [ARMS[name] for name in table["arm"]]
    for place, name in enumerate(("label", "subspace", "wide")):
        table.insert(2 + place, name, [getattr(one, name) for one in about])
    return table


def _rates(job: Job) -> pd.DataFrame:
    """Return every training that a rate was chosen among, and whether it was chosen."""
    rows: list[dict[str, Any]] = []
    for task in job.study.tasks:
        for arm in job.study.arms(task):
            cells, best = job.tuning(task, arm)
            for _, one in job.finished(cells).iterrows():
                rate = {"task": task, "arm": arm, "rate": 10 ** (one["quarter"] / 4)}
                rows.append(rate | {"loss": one["loss"], "chosen": one["quarter"] == best})
    return pd.DataFrame(rows)


def power_table(job: Job) -> pd.DataFrame:
    """Return for each task whose pilot is finished the spread and the seeds that follow.

    `spread` is the largest standard deviation of paired differences; `needed` seeds would be
    expected to reach the goal; `seeds` are trained, with the expected `half_width`.
    """
    study, rows = job.study, []
    for task in study.tasks:
        cells = job.pilot(task)
        seeds = job.seeds(task)
        if not cells or not seeds:
            continue
        spread = paired_spread(job.finished(cells))
        rows.append(
            {
                "task": task,
                "spread": spread,
                "needed": seeds_needed(spread, study.smallest_effect, study.confidence),
                "seeds": seeds,
                "half_width": half_width(spread, seeds, study.confidence),
            }
        )
    return pd.DataFrame(rows)


def verdict(comparisons: pd.DataFrame) -> str:
    """Say in words what is decided, first of CoSA against LoRA."""
    if not len(comparisons):
        return "No comparison has two seeds yet."
    parts = []
    for task, own in comparisons.groupby("task", sort=False):
        primary = own[(own["arm"] == "cosa_gaussian") & (own["against"] == "lora")]
        for _, one in primary.iterrows():
            parts.append(
                f"{task}: CoSA {one['outcome']} against LoRA, {one['difference']:+.4f} nats "
                f"({one['low']:+.4f} to {one['high']:+.4f}, {one['seeds']} seeds)"
            )
    counts = comparisons["outcome"].value_counts()
    told = ", ".join(f"{counts.get(one, 0)} {one}" for one in ("better", "worse", "undecided"))
    return f"{'; '.join(parts) or 'The primary comparison is not finished'}. Of all: {told}."
