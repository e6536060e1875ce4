"""How sparse an update is, beside what ℓ1 needs of a core."""

import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.deltas import LayerDelta
from cosa_theory.laws import l1_weak_threshold
from experiments import sparsity


@given(st.floats(1e-4, 0.999))
def test_the_least_core_is_where_the_threshold_meets_the_density(density):
    d = sparsity.least_core(density)
    assert density < d < 1
    assert d * float(l1_weak_threshold(d)) == pytest.approx(density, rel=1e-6)


def test_nothing_takes_no_core_and_everything_as_many_numbers():
    assert sparsity.least_core(0.0) == 0
    assert sparsity.least_core(1.0) == 1


@pytest.mark.parametrize("kept", [1, 10, 10_000])
def test_where_all_but_a_few_of_a_million_entries_changed_the_core_is_nearly_as_large(kept):
    assert 0.9999 < sparsity.least_core(1 - kept / 1e6) <= 1


def layer(name, changed, shape=(40, 50)):
    delta = np.zeros(shape)
    delta.flat[:changed] = 1e-3  # whole rows, one after another
    return LayerDelta(name, delta, np.ones(shape))


def test_entries_that_changed_are_counted_and_priced():
    layers, pooled = sparsity.measure(
        [layer("layers.0.q.weight", 100), layer("layers.1.q.weight", 0)]
    )
    first, second = layers.to_dict("records")
    assert (first["changed"], first["density"], second["changed"]) == (100, 0.05, 0)
    assert first["fullest_row"] == 1.0
    assert first["fullest_column"] == 2 / 40
    places = math.log2(math.comb(2000, 100))
    assert first["coded_bits"] == pytest.approx(16 * 0.05 + places / 2000)
    assert first["core_bits"] == pytest.approx(16 * sparsity.least_core(0.05))
    assert second["core_bits"] == second["coded_bits"] == 0
    assert pooled["density"] == 0.025
    assert (pooled["least"], pooled["most"], pooled["matrices"]) == (0, 0.05, 2)
    # One in twenty needs a fifth of the entries as measurements.
    assert [pooled[f"decodable_{d:g}"] for d in sparsity.CORES] == [1, 1, 1, 2, 2]


GOOD = {"rewarded": 0.005, "shuffled": 0.006, "supervised": 0.004}


def outcomes(coded=0.2, core=0.04, **densities):
    table = pd.DataFrame([{"arm": arm, "density": one} for arm, one in (GOOD | densities).items()])
    rows = {"arm": "rewarded", "core": [core] * 10, "core_bits": 0.6, "coded_bits": coded}
    return sparsity.judge(table, pd.DataFrame(rows))["outcome"].tolist()


@pytest.mark.parametrize(
    "wrong",
    [{"shuffled": 0.011}, {"supervised": 0.002}, {"coded": 0.7}, {"core": 0.06}],
)
def test_each_expectation_can_fail_and_holds_where_it_was_right(wrong):
    assert outcomes() == ["holds"] * 5
    assert outcomes(**wrong).count("fails") == 1


def test_an_arm_without_rewards_is_not_called_rewarded_and_judges_nothing():
    layers, pooled = sparsity.measure([layer("layers.0.q.weight", 20)])
    table = pd.DataFrame([{"arm": "shuffled", **pooled}])
    text = sparsity.verdict(table)
    assert text.startswith("1.0 % of the entries changed where rewards were shuffled:")
    assert sparsity.judge(table, layers.assign(arm="shuffled")).empty


def test_a_dense_update_is_told_as_one_that_no_core_is_enough_for():
    _, pooled = sparsity.measure([layer("layers.0.q.weight", 2000)])
    text = sparsity.verdict(pd.DataFrame([{"arm": "rewarded", **pooled}]))
    assert "no core of up to 50" in text
