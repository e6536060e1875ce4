"""What row spaces hold of an update: all of it where it lies in them, the law where by chance."""

import numpy as np
import pytest

from cosa_theory.deltas import LayerDelta
from cosa_theory.projections import SecondMoments
from cosa_theory.studies.informed.compute import layer_shares

M, N, RANK, WIDTH = 48, 64, 4, 6


def layer_and_moments():
    """Return an update whose rows lie in the span of the inputs, fewer than P/m = 9 directions."""
    draw = np.random.default_rng(0).standard_normal
    inputs = draw((400, WIDTH)) @ draw((WIDTH, N))
    inputs += 1e-3 * draw(inputs.shape)
    delta = draw((M, 400)) @ inputs
    moments = SecondMoments(inputs.T @ inputs / len(inputs), count=len(inputs))
    return LayerDelta("layer", delta, draw((M, N))), moments


def shares_of(**settings):
    layer, moments = layer_and_moments()
    rows = layer_shares(layer, moments, [RANK], **settings)
    return {(row["basis"], row["shape"]): row for row in rows}


def test_an_update_in_the_span_of_the_inputs_is_held_whole_and_its_nulls_follow_the_law():
    found = shares_of(beside=True, draws=40)
    one = found["top", "one_sided"]
    assert (one["a"], one["b"]) == (M, RANK * (M + N) // M)
    assert one["share"] == pytest.approx(1, abs=1e-5)
    assert one["law"] == pytest.approx(one["b"] / N)
    for null in ("shuffled", "rotated"):
        assert found[null, "one_sided"]["share"] == pytest.approx(one["law"], rel=0.1)
    two = found["top", "two_sided"]
    assert two["share"] == pytest.approx(two["a"] / M, rel=0.05)  # the law of 7.1
    assert found["combinations", "one_sided"]["share"] == pytest.approx(1, abs=1e-3)
    assert found["svd", "two_sided"]["share"] < 1
    assert found["weights", "one_sided"]["share"] < 0.5


def test_inputs_of_another_layer_hold_what_chance_does_and_gradients_what_they_span():
    other = SecondMoments(np.diag(np.arange(N, 0, -1.0)))
    layer, _ = layer_and_moments()
    columns = layer.delta @ layer.delta.T
    found = shares_of(other=other, gradients=SecondMoments(columns))
    assert found["block", "one_sided"]["share"] < 0.5
    assert found["gradient", "two_sided"]["share"] == pytest.approx(1, abs=1e-5)
    assert ("svd", "two_sided") not in found


def test_a_budget_beyond_the_directions_of_the_inputs_has_no_share():
    layer, moments = layer_and_moments()
    few = SecondMoments(moments.matrix, count=4)
    for row in layer_shares(layer, few, [1, RANK], beside=True, draws=1):
        informed = row["basis"] in ("top", "combinations", "shuffled")
        assert np.isnan(row["share"]) == (informed and row["b"] > 4)


def test_the_law_of_a_shuffled_update_counts_its_mean_entry():
    layer, moments = layer_and_moments()
    shifted = np.random.default_rng(1).standard_normal((M, N)) + 0.5
    ones = SecondMoments(np.ones((N, N)) + 0.01 * moments.matrix)
    count = 40
    rows = layer_shares(
        LayerDelta("layer", shifted, layer.base), ones, [RANK], beside=True, draws=count
    )
    (found,) = (row for row in rows if row["basis"] == "shuffled")
    # E[ΔWᵀΔW] = m((q − c) I + c 11ᵀ), with q the mean square and c the mean product of two entries.
    square = np.mean(shifted**2)
    product = (shifted.sum() ** 2 - shifted.size * square) / (shifted.size * (shifted.size - 1))
    along = np.sum(ones.leading(found["b"])[1].sum(0) ** 2)
    law = ((square - product) * found["b"] + product * along) / (N * square)
    assert law > 1.5 * found["law"]
    assert found["share"] == pytest.approx(law, rel=0.02)
