"""Shares of all layers together: weighed by energy, with intervals over layers."""

import numpy as np
import pandas as pd
import pytest

from cosa_theory.studies.informed.pooling import pooled_shares


def table(shares, energies, law=0.1, svd=0.5):
    layers = [f"layer {place}" for place in range(len(shares))]
    return pd.DataFrame(
        {"layer": layers, "share": shares, "energy": energies, "law": law, "svd": svd, "kind": "x"}
    )


def test_layers_are_weighed_by_their_energy_and_those_without_a_share_left_out():
    (row,) = pooled_shares(table([0.2, 0.4, np.nan], [3.0, 1.0, 9.0]), ["kind"]).to_dict("records")
    assert row["matrices"] == 2
    assert row["share"] == pytest.approx(0.25)
    assert row["ratio"] == pytest.approx(2.5)
    assert row["closed"] == pytest.approx(0.15 / 0.4)
    assert row["share_low"] == pytest.approx(0.2)
    assert row["share_high"] == pytest.approx(0.4)


def test_the_interval_over_layers_covers_the_expectation_of_their_draw():
    draw = np.random.default_rng(0)
    held = 0
    for _ in range(40):
        shares = 0.2 + 0.05 * draw.standard_normal(36)
        (row,) = pooled_shares(table(shares, np.ones(36)), ["kind"]).to_dict("records")
        held += row["share_low"] <= 0.2 <= row["share_high"]
    assert held >= 33  # 36 or more of 40 are expected; fewer than 33 once in 500 such tests


def test_a_measurement_of_which_no_layer_has_a_share_is_listed_without_one():
    (row,) = pooled_shares(table([np.nan], [1.0]), ["kind"]).to_dict("records")
    assert row == {"kind": "x", "matrices": 0}
