"""Whether what was predicted of informed projections came: predictions and outcomes."""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from cosa_theory.ground.estimates import mean_interval
from cosa_theory.studies.informed.compute import NULLS

__all__ = ["STATED", "compared", "judge_energy", "judge_function", "judge_training"]

STATED = Path(__file__).parent / "configs" / "informed_predictions.toml"
"""The predictions, committed before the results."""

REFERENCE_TEXTS = 128
COLUMNS = ("pair", "prediction", "value", "low", "high", "outcome")


def judge_energy(table: pd.DataFrame) -> pd.DataFrame:
    """Judge what was predicted of energies.

    Parameters
    ----------
    table : pandas.DataFrame
        Of `experiments.informed.pooled`.

    Returns
    -------
    pandas.DataFrame
        `pair`, `prediction` in words, `value`, `low`, `high` and `outcome`: "holds", "fails", or
        "undecided" where the interval holds the bound.
    """
    stated = tomllib.loads(STATED.read_text(encoding="utf-8"))
    at = table[table["rank"] == 8]
    rows = [
        *_reproduced(at, stated["reproduced"]),
        *_goals(at, stated["goals"]),
        *_nulls(table, stated["nulls"]),
        *_more_texts(at, stated["texts"]["fall"]),
        *_longer(at),
        *_gradients(at, stated["gradient"]["ratio"]),
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


Judged = Iterator[dict[str, Any]]


def _reference(at: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of 128 texts, or of as many as there are."""
    few = at[at["texts"] <= REFERENCE_TEXTS]
    most = few.groupby(["pair", "calibration"])["texts"].transform("max")
    return few[few["texts"] == most]


def _reproduced(at: pd.DataFrame, stated: dict[str, Any]) -> Judged:
    factor = stated["factor"]
    reference = _reference(at)
    for pair, predicted in stated.items():
        own = reference[reference["pair"] == pair] if pair != "factor" else reference[:0]
        for shape, shares in (predicted if len(own) else {}).items():
            for calibration, share in shares.items():
                if shape == "combinations":
                    chosen = _one(own, "combinations", "two_sided", calibration)
                elif calibration == "weights":
                    chosen = _one(own, "weights", shape, "")
                elif calibration == "block":
                    chosen = _one(own, "block", shape, "other")
                else:
                    chosen = _one(own, "top", shape, calibration)
                if chosen is None:
                    continue
                value = chosen["share"] / share
                words = f"{shape}, {calibration}: a share of {100 * share:.3g} %, within {factor}"
                near = 1 / factor <= value <= factor
                yield _row(pair, words, [value] * 3, "holds" if near else "fails")


def _one(rows: pd.DataFrame, basis: str, shape: str, calibration: str) -> Any:
    found = rows[
        (rows["basis"] == basis) & (rows["shape"] == shape) & (rows["calibration"] == calibration)
    ]
    return found.iloc[0] if len(found) else None


def _goals(at: pd.DataFrame, goals: dict[str, Any]) -> Judged:
    reference = _reference(at)
    for pair, own in reference.groupby("pair", sort=False):
        goal = "goal" if pair in goals["pairs"] else "expected"
        for calibration in ("other", "same", "random"):
            for shape in ("one_sided", "two_sided"):
                one = _one(own, "top", shape, calibration)
                if one is None or (calibration == "random" and not str(pair).startswith("decoder")):
                    continue
                words = f"{goal}: {shape}, {calibration}, at least {goals[calibration]:g} × law"
                ends = [float(one[name]) for name in ("ratio", "ratio_low", "ratio_high")]
                yield _row(str(pair), words, ends, _above(ends, goals[calibration]))


def _nulls(table: pd.DataFrame, stated: dict[str, Any]) -> Judged:
    nulls = table[table["basis"].isin(NULLS)]
    if not len(nulls):
        return
    inside = (nulls["ratio_low"] <= 1) & (nulls["ratio_high"] >= 1)
    share = float(inside.mean())
    words = f"intervals of {len(nulls)} nulls hold the law in at least {stated['covering']:.0%}"
    yield _row("all", words, [share] * 3, "holds" if share >= stated["covering"] else "fails")
    at = nulls.loc[nulls["rank"] == 8, "ratio"]
    worst = float(max(at.max(), 1 / at.min()))
    words = f"no null at rank 8 is off the law by more than a factor {stated['factor']}"
    yield _row("all", words, [worst] * 3, "holds" if worst <= stated["factor"] else "fails")


def _more_texts(at: pd.DataFrame, fall: float) -> Judged:
    top = at[(at["basis"] == "top") & (at["shape"] == "one_sided")]
    for (pair, calibration), own in top.groupby(["pair", "calibration"], sort=False):
        shares = own.sort_values("texts")["share"]
        if len(shares) > 1:
            least = float((shares / shares.shift()).min())
            words = f"more texts ({calibration}) never lower the share by more than {1 - fall:.0%}"
            yield _row(str(pair), words, [least] * 3, "holds" if least >= fall else "fails")


def _longer(at: pd.DataFrame) -> Judged:
    reference = _reference(at)
    for corpus in ("r8", "r52", "20newsgroups"):
        for calibration in ("other", "same"):
            ends = [
                _one(reference[reference["pair"] == name], "top", "one_sided", calibration)
                for name in (f"encoder_{corpus}_100", f"encoder_{corpus}_1000")
            ]
            if any(one is None for one in ends):
                continue
            gap = float(ends[0]["ratio"] - ends[1]["ratio"])
            words = f"less after 1,000 steps than after 100 ({calibration})"
            yield _row(f"encoder_{corpus}", words, [gap] * 3, "holds" if gap > 0 else "fails")


def _gradients(at: pd.DataFrame, ratio: float) -> Judged:
    both = at[(at["basis"] == "gradient") & (at["calibration"] == "other")]
    for _, one in both.iterrows():
        own = at[(at["pair"] == one["pair"]) & (at["texts"] == one["texts"])]
        alone = _one(own, "top", "two_sided", "other")
        if alone is not None:
            value = float(one["share"] / alone["share"])
            words = f"gradients on the left hold at least {ratio:g} times as much"
            yield _row(one["pair"], words, [value] * 3, "holds" if value >= ratio else "fails")


def _above(ends: Sequence[float], bound: float) -> str:
    _, low, high = ends
    return "holds" if low > bound else "fails" if high <= bound else "undecided"


def _row(pair: str, words: str, ends: Sequence[float], outcome: str) -> dict[str, Any]:
    return dict(zip(COLUMNS, (pair, words, *ends, outcome), strict=True))


def judge_function(table: pd.DataFrame) -> pd.DataFrame:
    """Judge what was predicted of function, from `experiments.informed_function.run`."""
    stated = tomllib.loads(STATED.read_text(encoding="utf-8"))["function"]
    near, names = stated.pop("difference"), {"one_sided": "one_sided", "two_sided": "best_core"}
    rows = []
    for pair, predicted in stated.items():
        for shape, values in predicted.items():
            for calibration, value in values.items():
                found = table[
                    (table["pair"] == pair)
                    & (table["calibration"] == calibration)
                    & (table["approximation"] == f"{names[shape]}_activation")
                ]
                for _, one in found.iterrows():
                    ends = [float(one[f"domain{end}"]) for end in ("", "_low", "_high")]
                    words = f"{shape}, {calibration}: function {value:.0%}, within {near:.0%}"
                    came = abs(ends[0] - value) <= near
                    rows.append(_row(pair, words, ends, "holds" if came else "fails"))
    return pd.DataFrame(rows, columns=list(COLUMNS))


UNINFORMED, LORA = "haar_one_sided", "lora"


def compared(runs: pd.DataFrame) -> pd.DataFrame:
    """Compare methods by their losses on test texts, paired on seeds.

    Parameters
    ----------
    runs : pandas.DataFrame
        `method`, `part`, `seed` and `loss`, of `experiments.informed_training`.

    Returns
    -------
    pandas.DataFrame
        For every method against LoRA and against the uninformed one-sided one: `method`,
        `against`, `seeds` (in both), the mean `difference` with its 95 % interval by Student's t,
        `low` and `high`, and `outcome`: "better", "worse" or "undecided".
    """
    losses = runs[runs["part"] == "test"].pivot(index="seed", columns="method", values="loss")
    rows = []
    for method in losses:
        for against in (LORA, UNINFORMED):
            if against not in losses or method in (against, LORA):
                continue
            gaps = (losses[method] - losses[against]).dropna()
            if len(gaps):
                value, low, high = mean_interval(gaps)
                outcome = "better" if high < 0 else "worse" if low > 0 else "undecided"
                ends = {"difference": value, "low": low, "high": high}
                row = {"method": method, "against": against, "seeds": len(gaps)}
                rows.append(row | ends | {"outcome": outcome})
    columns = ["method", "against", "seeds", "difference", "low", "high", "outcome"]
    return pd.DataFrame(rows, columns=columns)


def judge_training(comparison: pd.DataFrame) -> pd.DataFrame:
    """Judge what was predicted of trainings, from `compared`: as `judge_energy`."""
    stated = tomllib.loads(STATED.read_text(encoding="utf-8"))["training"]
    expected = (
        ("better_than_lora", LORA, ("better",)),
        ("not_better_than_uninformed", UNINFORMED, ("worse", "undecided")),
        ("undecided", UNINFORMED, ("undecided",)),
    )
    rows = []
    for name, against, outcomes in expected:
        for method in stated[name]:
            found = comparison[
                (comparison["method"] == method) & (comparison["against"] == against)
            ]
            for _, one in found.iterrows():
                # What is undecided neither shows nor refutes that a method is better.
                open_yet = one["outcome"] == "undecided" and "undecided" not in outcomes
                if one["seeds"] < stated["seeds"] or open_yet:
                    outcome = "undecided"
                else:
                    outcome = "holds" if one["outcome"] in outcomes else "fails"
                words = f"{method} {' or '.join(outcomes)} against {against}"
                ends = [float(one[column]) for column in ("difference", "low", "high")]
                rows.append(_row("encoder_r8", words, ends, outcome))
    return pd.DataFrame(rows, columns=list(COLUMNS))
