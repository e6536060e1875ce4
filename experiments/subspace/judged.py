"""Whether what was expected besides the comparisons came: spreads, ranks, intruders, predictors."""

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from experiments.subspace.study import Study

__all__ = ["judged"]

Row = dict[str, Any]


def judged(tables: Mapping[str, pd.DataFrame], study: Study) -> pd.DataFrame:
    """Judge the expectations of the stated file by what is finished.

    Parameters
    ----------
    tables : mapping of str to pandas.DataFrame
        ``arms``, ``steadiness``, ``crossed`` and ``predicted``, of
        `experiments.subspace.tables.tables_of`.
    study : Study
        The stated numbers.

    Returns
    -------
    pandas.DataFrame
        `task`, `expected` in words, `value`, `low` and `high` (of intervals, else the value), and
        `came`: "yes", "no", or "open" where the interval does not tell.
    """
    rows = [
        *(row for one in _records(tables["crossed"]) for row in _spread(one, study)),
        *(row for task, own in _by_task(tables["arms"]) for row in _of_arms(task, own)),
        *(row for one in _records(tables["steadiness"]) for row in _steady(one, study)),
        *(row for one in _records(tables["predicted"]) for row in _predictor(one, study)),
    ]
    return pd.DataFrame(rows, columns=["task", "expected", "value", "low", "high", "came"])


def _records(table: pd.DataFrame) -> list[Row]:
    rows: list[Any] = table.to_dict("records")
    return rows


def _by_task(arms: pd.DataFrame) -> Iterator[tuple[str, dict[Any, Row]]]:
    if len(arms):
        for task, own in arms.groupby("task", sort=False):
            yield str(task), {row["arm"]: row for row in _records(own)}


def _row(task: str, expected: str, ends: tuple[float, float, float], came: str) -> Row:
    value, low, high = ends
    return {
        "task": task,
        "expected": expected,
        "value": value,
        "low": low,
        "high": high,
        "came": came,
    }


def _below(ends: tuple[float, float, float], bound: float) -> str:
    _, low, high = ends
    return "yes" if high < bound else "no" if low >= bound else "open"


def _spread(one: Row, study: Study) -> Iterator[Row]:
    bound = study.expected["variance_ratio_below"]
    ends = float(one["ratio"]), float(one["low"]), float(one["high"])
    words = f"variance over L and R over that over the order, below {bound:g}"
    yield _row(study.crossed["task"], words, ends, _below(ends, bound))


def _steady(one: Row, study: Study) -> Iterator[Row]:
    within = study.expected["haar_variation_within"]
    words = f"gradients vary along the training with Haar as with Gaussian, within {within:.0%}"
    value, low, high = float(one["ratio"]), float(one["low"]), float(one["high"])
    inside, outside = 1 / (1 + within) < low and high < 1 + within, high < 1 / (1 + within)
    came = "yes" if inside else "no" if outside or low > 1 + within else "open"
    yield _row(str(one["task"]), words, (value, low, high), came)


def _of_arms(task: str, own: Mapping[Any, Row]) -> Iterator[Row]:
    for words, first, second, column, bounds in (
        (
            "CoSA's updates need more directions than LoRA's",
            "cosa_gaussian",
            "lora",
            "rank_90",
            _UP,
        ),
        ("full updates need more directions than CoSA's", "full", "cosa_gaussian", "rank_90", _UP),
    ):
        if first in own and second in own:
            ratio = float(own[first][column] / own[second][column])
            came = "yes" if bounds[0] < ratio < bounds[1] else "no"
            yield _row(task, words, (ratio, ratio, ratio), came)
    if "lora" in own and "full" in own:
        gap = float(own["lora"]["intruders"] - own["full"]["intruders"])
        words = "more intruder dimensions in LoRA's updates than in full ones"
        yield _row(task, words, (gap, gap, gap), "yes" if gap > 0 else "no")


_UP = (1.0, float("inf"))


def _predictor(one: Row, study: Study) -> Iterator[Row]:
    name, good = one["predictor"], study.predictors[one["predictor"]].startswith("yes")
    ends = float(one["spearman"]), float(one["low"]), float(one["high"])
    found = _below(ends, 0.0)
    # That a measure predicts nothing is never shown: an interval around zero is in line with it.
    came = found if good else {"yes": "no"}.get(found, "yes")
    words = f"{name} {'predicts' if good else 'does not predict'} the loss"
    yield _row(str(one["task"]), words, ends, came)
