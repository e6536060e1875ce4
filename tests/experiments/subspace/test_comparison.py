"""Intervals of paired differences cover, and outcomes follow them."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.stats import norm, t

from experiments.subspace.comparison import compared, steadiness, stretch, variance_ratio
from experiments.subspace.judged import judged
from experiments.subspace.power import half_width, paired_spread, seeds_needed
from experiments.subspace.study import Comparison, read_study

STUDY = dataclasses.replace(
    read_study(), resamples=1000, comparisons=(Comparison("full", "lora", ("better",), ""),)
)


def trainings(generator, effect, seeds=5, items=60, of_seeds=0.05, of_items=0.5, name="r8"):
    """Return trainings whose losses differ by `effect`, with noise of seeds and of items."""
    shared = 1 + 0.3 * generator.standard_normal(items)
    of_item = of_items * generator.standard_normal(items)
    rows = []
    for seed in range(seeds):
        of_seed = of_seeds * generator.standard_normal()
        for arm, gap in (("lora", 0.0), ("full", effect + of_seed)):
            losses = shared + (of_item + gap if arm == "full" else 0.0)
            rows.append(
                {
                    "task": name,
                    "arm": arm,
                    "seed": seed,
                    "loss": losses.mean(),
                    "accuracy": 0.5,
                    "item_sums": losses.tolist(),
                    "item_weights": [1.0] * items,
                }
            )
    return pd.DataFrame(rows)


@pytest.mark.parametrize("noise", [(0.05, 0.0), (0.02, 0.2)])
def test_the_interval_over_seeds_and_items_covers_the_true_difference(noise):
    generator = np.random.default_rng(0)
    hits, trials = 0, 100
    for trial in range(trials):
        table = trainings(generator, -0.1, 5, 40, *noise, name=str(trial))
        row = compared(table, dataclasses.replace(STUDY, resamples=400)).iloc[0]
        hits += row["low"] < -0.1 < row["high"]
    # Three standard errors below the nominal level, and not every time.
    assert 0.95 - 3 * (0.95 * 0.05 / trials) ** 0.5 <= hits / trials


def test_the_stretch_is_to_students_interval():
    # A bootstrap of n values has the standard deviation √((n − 1)/n) s/√n.
    for seeds in (2, 5, 30):
        width = norm.ppf(0.975) * stretch(seeds) * ((seeds - 1) / seeds) ** 0.5
        assert width == pytest.approx(t.ppf(0.975, seeds - 1))


def test_outcomes_follow_the_interval_and_the_prediction():
    generator = np.random.default_rng(1)
    for effect, outcome, came in (
        (-0.5, "better", "yes"),
        (0.5, "worse", "no"),
        (0, "undecided", "open"),
    ):
        table = trainings(generator, effect, of_items=0.01, of_seeds=0.02)
        row = compared(table, STUDY).iloc[0]
        assert (row["outcome"], row["came"], row["seeds"]) == (outcome, came, 5)
        assert row["low"] < row["difference"] < row["high"]
    tight = compared(trainings(generator, 0.0, of_items=1e-3, of_seeds=1e-3), STUDY).iloc[0]
    assert tight["within"]


def test_a_comparison_takes_the_seeds_that_both_arms_have():
    table = trainings(np.random.default_rng(2), 0.0)
    kept = table[(table["arm"] == "lora") | (table["seed"] < 3)]
    assert compared(kept, STUDY).iloc[0]["seeds"] == 3
    assert not len(compared(kept[kept["arm"] == "lora"], STUDY))


def test_a_crossed_design_tells_what_varies():
    generator = np.random.default_rng(3)
    draws, seeds = generator.standard_normal((2, 30))
    for of_draws, of_seeds in ((0.5, 0.1), (0.1, 0.5)):
        left = 0.05 * generator.standard_normal((30, 30))
        losses = of_draws * draws[:, None] + of_seeds * seeds + left
        table = pd.DataFrame(
            [{"draw": i, "seed": j, "loss": losses[i, j]} for i in range(30) for j in range(30)]
        )
        found = variance_ratio(table)
        assert found["draws"] == pytest.approx(of_draws**2 * draws.var(ddof=1), rel=0.2)
        assert found["seeds"] == pytest.approx(of_seeds**2 * seeds.var(ddof=1), rel=0.2)
        assert (found["low"] > 1) if of_draws > of_seeds else (found["high"] < 1)


def test_how_steady_trainings_are_is_a_ratio_with_students_interval():
    generator = np.random.default_rng(0)
    rows = [
        {"task": "r8", "arm": arm, "seed": seed, "gradient_norms": [9.0, 1 - part, 1 + part]}
        for seed in range(5)
        for arm, part in (
            ("cosa_gaussian", 0.2),
            ("cosa_haar", 0.1 * np.exp(0.1 * generator.standard_normal())),
            ("lora", 0.5),
        )
    ]
    rows[0]["seed"] = 9  # has no partner
    (found,) = steadiness(pd.DataFrame(rows)).to_dict("records")
    logs = np.log([row["gradient_norms"][2] - 1 for row in rows[4::3]]) - np.log(0.2)
    half = t.ppf(0.975, 3) * logs.std(ddof=1) / 2
    assert found["seeds"] == 4
    for name, value in (("ratio", 0.0), ("low", -half), ("high", half)):
        assert found[name] == pytest.approx(np.exp(logs.mean() + value))
    alone = pd.DataFrame([row for row in rows if row["arm"] == "lora"])
    assert not len(steadiness(alone))


def test_expectations_are_judged_by_their_intervals():
    arms = pd.DataFrame(
        {
            "task": "r8",
            "arm": ["cosa_haar", "cosa_gaussian", "lora", "full"],
            "rank_90": [30.0, 30.0, 5.0, 90.0],
            "intruders": [0.0, 0.0, 0.0, 1.0],
        }
    )
    crossed = pd.DataFrame([{"ratio": 0.5, "low": 0.1, "high": 2.0}])
    ends = [
        {"spearman": -0.8, "low": -0.9, "high": -0.5},
        {"spearman": 0.0, "low": -0.5, "high": 0.5},
    ]
    names = ["gradients", "energy", "function", "weighted"]
    predicted = pd.DataFrame(
        [{"task": "r8", "predictor": name, **ends[place % 2]} for place, name in enumerate(names)]
    )
    steady = [("yes", 0.95, 1.05), ("open", 0.8, 1.05), ("no", 0.5, 0.8), ("no", 1.2, 1.3)]
    steadiness = pd.DataFrame(
        [{"task": "r8", "ratio": low, "low": low, "high": high} for _, low, high in steady]
    )
    tables = {"arms": arms, "crossed": crossed, "predicted": predicted, "steadiness": steadiness}
    found = judged(tables, read_study())["came"].tolist()
    arms_and_steadiness = ["yes", "yes", "no", *(came for came, *_ in steady)]
    assert found == ["open", *arms_and_steadiness, "yes", "yes", "no", "yes"]
    assert not len(judged(dict.fromkeys(tables, pd.DataFrame()), read_study()))


def test_the_power_is_that_of_student():
    table = pd.DataFrame(
        {"arm": ["a"] * 4 + ["b"] * 4, "seed": [*range(4)] * 2, "loss": [0, 0, 0, 0, 1, 2, 3, 4.0]}
    )
    assert paired_spread(table) == pytest.approx(np.std([1, 2, 3, 4], ddof=1))
    needed = seeds_needed(0.03, 0.02)
    assert half_width(0.03, needed) <= 0.02 < half_width(0.03, needed - 1)
