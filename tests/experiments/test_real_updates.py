"""All pairs in one table, and what was predicted of those that had not been measured."""

import tomllib

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import save_file

from experiments import real_updates
from experiments.pairs import PAIRS
from experiments.real_updates import PREDICTIONS, Config, energy_of, judge

STATED = tomllib.loads(PREDICTIONS.read_text(encoding="utf-8"))
ORDER = STATED["new_pairs"]["order"]


def pair_of(tmp_path, *updates):
    base = {f"layers.{i}.weight": np.ones(one.shape) for i, one in enumerate(updates)}
    tuned = {name: base[name] + one for name, one in zip(base, updates, strict=True)}
    for name, weights in (("base", base), ("tuned", tuned)):
        save_file(weights, tmp_path / f"{name}.safetensors")
    return tmp_path / "base.safetensors", tmp_path / "tuned.safetensors"


def test_noise_is_no_further_ahead_than_noise_and_low_rank_is(tmp_path):
    draw = np.random.default_rng(0).standard_normal
    noise = energy_of(*pair_of(tmp_path, draw((96, 96)), draw((96, 96)), np.zeros((8, 8))))
    assert noise["matrices"] == 2
    assert noise["excess"] == pytest.approx(1, abs=0.02)
    assert noise["excess_sixteenth"] == pytest.approx(1, abs=0.03)
    low = energy_of(*pair_of(tmp_path, draw((96, 4)) @ draw((4, 96))))
    assert low["top_share"] == pytest.approx(1)
    assert low["crossover_ratio"] == pytest.approx(1 / low["law"])


def tables_of(pair, *, correlation=0.97, energy=0.1, values=(0.98, 0.95, 0.9, 0.8, 0.03), null=0.0):
    names = [*ORDER, "noise", "shuffled"]
    domain = np.array([*values, null, null])
    function = pd.DataFrame(
        {
            "pair": pair,
            "approximation": names,
            "rank": [8] * len(ORDER) + [None] * 2,
            "gain": 1.0,
            "domain": domain,
            "domain_low": domain - 0.01,
            "domain_high": domain + 0.01,
        }
    )
    prediction = pd.DataFrame(
        {
            "pair": pair,
            "texts": "domain",
            "predictor": ["signal_and_noise", "energy"],
            "correlation": [correlation, energy],
            "low": [correlation - 0.02, energy - 0.02],
            "high": [correlation + 0.02, energy + 0.02],
        }
    )
    return {"function": function, "prediction": prediction}


def outcomes(tables):
    return judge(tables, STATED).set_index("prediction")["outcome"].to_dict()


def test_a_prediction_holds_fails_or_is_undecided_by_its_interval():
    found = outcomes(tables_of("encoder_r8_100"))
    assert set(found.values()) == {"holds"}
    assert len(found) == 2 + len(ORDER) - 1 + 2
    near = outcomes(tables_of("encoder_r8_100", correlation=0.91, null=0.045))
    undecided = {words for words, outcome in near.items() if outcome == "undecided"}
    assert len(undecided) == 3
    wrong = tables_of(
        "encoder_r8_100", correlation=0.5, energy=0.8, values=(0.9, 0.98, 0.8, 0.7, 0)
    )
    failed = [words for words, outcome in outcomes(wrong).items() if outcome == "fails"]
    assert len(failed) == 3


def test_the_pair_on_which_the_predictor_was_chosen_judges_nothing():
    assert judge(tables_of("sre_encoder"), STATED).empty


def test_the_longest_training_is_compared_with_the_shortest_of_its_corpus():
    both = [
        tables_of("encoder_r8_100"),
        tables_of("encoder_r8_5000", values=(0.98, 0.95, 0.5, 0.4, 0)),
    ]
    tables = {name: pd.concat([one[name] for one in both]) for name in both[0]}
    found = judge(tables, STATED)
    (row,) = found[found["pair"] == "encoder_r8"].to_dict("records")
    assert (row["outcome"], row["value"]) == ("holds", pytest.approx(0.4))


def test_all_pairs_at_hand_are_measured_unless_some_are_named(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Config().chosen() == ["sre_encoder", "chgnet"]
    assert Config(("chgnet",)).chosen() == ["chgnet"]
    with pytest.raises(ValueError, match="nowhere"):
        Config(("nowhere",)).chosen()


def test_every_pair_of_the_reference_tables_is_a_known_one():
    for path in real_updates.REFERENCE.glob("real_updates_*.csv"):
        pairs = set(pd.read_csv(path)["pair"])
        assert pairs - {name.rpartition("_")[0] for name in PAIRS} <= set(PAIRS), path.name
