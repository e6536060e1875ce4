"""Predictions are judged by intervals, on pairs that had not been measured."""

import tomllib

import numpy as np
import pandas as pd
import pytest

from experiments.function_predictions import STATED, judge

ORDER = tomllib.loads(STATED.read_text(encoding="utf-8"))["new_pairs"]["order"]


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
    return judge(tables).set_index("prediction")["outcome"].to_dict()


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
    assert judge(tables_of("sre_encoder")).empty


def test_the_longest_training_is_compared_with_the_shortest_of_its_corpus():
    both = [
        tables_of("encoder_r8_100"),
        tables_of("encoder_r8_5000", values=(0.98, 0.95, 0.5, 0.4, 0)),
    ]
    tables = {name: pd.concat([one[name] for one in both]) for name in both[0]}
    found = judge(tables)
    (row,) = found[found["pair"] == "encoder_r8"].to_dict("records")
    assert (row["outcome"], row["value"]) == ("holds", pytest.approx(0.4))
