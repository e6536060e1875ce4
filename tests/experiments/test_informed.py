"""Cells of informed projections, and predictions judged by what was committed before."""

import numpy as np
import pandas as pd
import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.projections import SecondMoments
from experiments import informed, informed_function, informed_training
from experiments.informed import Cell, Config, cells_of, pooled
from experiments.informed_predictions import (
    compared,
    judge_energy,
    judge_function,
    judge_training,
)
from experiments.pairs import PAIRS, Pair
from tests.experiments.test_real_updates import pair_of


def test_every_pair_with_texts_is_measured_on_three_sources_and_once_beside_baselines():
    cells = cells_of(Config(("sre_encoder", "encoder_r52_100")))
    assert {cell.pair for cell in cells} == {"sre_encoder", "encoder_r52_100"}
    for pair in ("sre_encoder", "encoder_r52_100"):
        own = [cell for cell in cells if cell.pair == pair]
        beside = [cell for cell in own if cell.beside]
        assert [cell.calibration for cell in beside] == ["random", "other", "same"]
        assert len({cell.source for cell in own}) == 3
        (of_gradients,) = [cell for cell in own if cell.gradients]
        assert (of_gradients.calibration, of_gradients.beside) == ("other", False)
    card = [cell.texts for cell in cells if cell.source == "sre_card"]
    assert card == [8, 25]  # as many as there are


@pytest.mark.parametrize(
    ("refused", "named"),
    [
        (lambda: Config(("chgnet",)).chosen(), "chgnet"),
        (lambda: Config(("sre_encoder", "chgnet")).chosen(), "chgnet.*reads texts"),
        (lambda: informed_function.Config(("nosuch",)), "nosuch"),
        (lambda: informed_function.Config(("chgnet",)), "chgnet"),
        (lambda: informed_function.Config(()), "at least one name"),
    ],
)
def test_pairs_that_cannot_be_measured_are_named(refused, named):
    with pytest.raises(InputError, match=named):
        refused()


def test_a_method_that_nothing_stands_beside_is_compared_with_nothing():
    runs = pd.DataFrame({"method": "lora", "part": "test", "seed": [0, 1], "loss": [0.1, 0.2]})
    assert judge_training(compared(runs)).empty
    assert "nothing to compare" in informed_training.verdict(compared(runs))


@pytest.mark.parametrize("name", ["seeds", "steps"])
def test_a_training_has_seeds_and_steps(name):
    with pytest.raises(InputError, match=f"{name} is 0"):
        informed_training.Config(**{name: 0})


def test_a_cell_measures_the_layers_that_have_moments_and_pools_them(tmp_path, monkeypatch):
    draw = np.random.default_rng(0).standard_normal
    paths = pair_of(tmp_path, draw((24, 16)), draw((24, 16)), np.zeros((24, 16)))
    monkeypatch.setitem(PAIRS, "toy", Pair("toy", "noise", "none", lambda: paths))
    C = SecondMoments(np.diag(np.arange(16, 0, -1.0)))
    names = [f"layers.{place}.weight" for place in range(3)]
    moments = informed.Moments(dict.fromkeys(names, C))
    monkeypatch.setattr(informed, "_moments", lambda *_: moments)
    monkeypatch.setattr(informed, "RANKS", (2,))
    cell = Cell("toy", "other", "reuters", 128, beside=True)
    rows = pd.DataFrame(informed.measure(cell)).assign(
        pair="toy", calibration="other", source="reuters", texts=128
    )
    assert set(rows["layer"]) == set(names[:2])  # the third has no update
    table = pooled(rows).set_index(["basis", "shape"])
    assert (table["matrices"] == 2).all()
    one = rows[(rows["basis"] == "top") & (rows["shape"] == "one_sided")]
    share = np.average(one["share"], weights=one["energy"])
    assert table.loc[("top", "one_sided"), "share"] == pytest.approx(share)
    assert ("svd", "two_sided") not in table.index
    assert 0 < table.loc[("top", "one_sided"), "svd"] < 1


def test_the_other_block_is_three_on_and_begins_again():
    moments = informed.Moments(dict.fromkeys([f"a.{i}.q.weight" for i in range(5)], None))
    assert informed._three_on("a.1.q.weight", moments) == "a.4.q.weight"
    assert informed._three_on("a.4.q.weight", moments) == "a.2.q.weight"


def energies(pair="sre_encoder", **ratios):
    rows = [
        {"calibration": name, "basis": "top", "shape": "one_sided", "texts": 128, "ratio": ratio}
        for name, ratio in ratios.items()
    ]
    rows.append({**rows[0], "basis": "shuffled", "ratio": 1.01})
    table = pd.DataFrame(rows).assign(pair=pair, rank=8, law=0.031)
    low, high = table["ratio"] * 0.9, table["ratio"] * 1.1
    return table.assign(share=table["ratio"] * table["law"], ratio_low=low, ratio_high=high)


def test_a_goal_is_judged_by_its_interval_and_a_trial_number_by_its_factor():
    judged = judge_energy(energies(other=4.7, same=5.2)).set_index("prediction")["outcome"]
    assert judged["goal: one_sided, other, at least 3 × law"] == "holds"
    assert judged["goal: one_sided, same, at least 5 × law"] == "undecided"
    assert judged["one_sided, other: a share of 14.7 %, within 1.25"] == "holds"
    far = judge_energy(energies(other=2.0, same=2.0)).set_index("prediction")["outcome"]
    assert far["goal: one_sided, other, at least 3 × law"] == "fails"
    assert far["one_sided, other: a share of 14.7 %, within 1.25"] == "fails"


def test_nulls_off_the_law_and_shares_that_fall_with_more_texts_fail():
    table = pd.concat([energies(other=4.0), energies(other=3.5).assign(texts=1024)])
    table.loc[table["basis"] == "shuffled", ["ratio", "ratio_low"]] = 1.3, 1.2
    judged = judge_energy(table).set_index("prediction")["outcome"]
    fails = [words for words, outcome in judged.items() if outcome == "fails"]
    assert sum("nulls" in words or "null" in words for words in fails) == 2
    assert sum(words.startswith("more texts") for words in fails) == 1


def test_function_is_judged_by_its_distance_from_what_the_trial_gave():
    names = {"approximation": ["one_sided_activation", "best_core_activation"]}
    table = pd.DataFrame(names | {"domain": [0.5, 0.4]})
    table = table.assign(pair="sre_encoder", calibration="other", domain_low=0.3, domain_high=0.6)
    judged = judge_function(table)
    assert judged["outcome"].tolist() == ["holds", "fails"]  # 0.48 and 0.22 were stated
    assert judge_function(table.assign(pair="encoder_r8_1000")).empty


def trainings(**gaps):
    rows = []
    for seed in range(5):
        level = 0.2 + 0.05 * seed  # of the seed, which pairing removes
        rows += [(name, "test", seed, level) for name in ("lora", "haar_one_sided")]
        rows += [
            (name, "test", seed, level + gap + 0.001 * (seed - 2)) for name, gap in gaps.items()
        ]
    return pd.DataFrame(rows, columns=["method", "part", "seed", "loss"])


def test_methods_are_compared_on_equal_seeds_and_judged_by_the_interval():
    runs = trainings(texts=0.01, whitened=0.0, haar=-0.02)
    tuning = runs[:1].assign(method="texts", part="validation", loss=-9.0)
    found = compared(pd.concat([runs, tuning]))
    outcomes = found.set_index(["method", "against"])["outcome"]
    assert outcomes["texts", "lora"] == outcomes["texts", "haar_one_sided"] == "worse"
    assert outcomes["whitened", "haar_one_sided"] == "undecided"
    assert outcomes["haar", "lora"] == "better"
    judged = judge_training(found).set_index("prediction")["outcome"]
    assert judged["haar better against lora"] == "holds"
    assert judged["texts worse or undecided against haar_one_sided"] == "holds"
    few = judge_training(compared(runs[runs["seed"] < 4]))
    assert set(few["outcome"]) == {"undecided"}  # fewer seeds than were stated
    turned = judge_training(compared(trainings(texts=-0.02, haar=0.02)))
    assert set(turned["outcome"].iloc[[0, 2]]) == {"fails"}
