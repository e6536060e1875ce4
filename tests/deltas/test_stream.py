import dataclasses
import math
import tracemalloc

import numpy as np
import pytest
import torch

from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.deltas.layers import storage_noise
from cosa_theory.ground.errors import InputError
from tests.deltas.files import moved, save_pair, total, weights

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


# Mixed types and the rounding floor


@pytest.mark.parametrize("base_dtype", DTYPES)
@pytest.mark.parametrize("tuned_dtype", DTYPES)
def test_mixed_types_are_converted_before_they_are_subtracted(tmp_path, base_dtype, tuned_dtype):
    base = {"a.weight": torch.randn(9, 7).to(DTYPES[base_dtype])}
    tuned = {"a.weight": (base["a.weight"].float() * 1.01).to(DTYPES[tuned_dtype])}
    expected = tuned["a.weight"].double() - base["a.weight"].double()
    for pair in (open_pair(base, tuned), open_pair(*save_pair(tmp_path, base, tuned))):
        (layer,) = pair
        assert layer.delta.dtype == layer.base.dtype == np.float32
        assert (layer.base_dtype, layer.tuned_dtype) == (base_dtype, tuned_dtype)
        np.testing.assert_allclose(layer.delta, expected.numpy(), rtol=1e-5, atol=1e-8)
        np.testing.assert_allclose(layer.tuned, tuned["a.weight"].float(), rtol=1e-6)


def test_float64_on_either_side_makes_the_difference_float64(tmp_path):
    base = {"a.weight": torch.ones(2, 3, dtype=torch.float64)}
    tuned = {"a.weight": torch.ones(2, 3) * 1.5}
    tiny = {"a.weight": base["a.weight"] + 1e-12}
    for left, right in ((base, tuned), (tuned, base), (base, tiny)):
        for pair in (open_pair(left, right), open_pair(*save_pair(tmp_path, left, right))):
            (layer,) = pair
            assert layer.delta.dtype == layer.base.dtype == np.float64
    np.testing.assert_allclose(layer.delta, 1e-12, rtol=1e-3)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("spread", [0.02, 1.0])
def test_the_rounding_floor_is_the_error_that_storing_makes(dtype, spread):
    exact = torch.randn(400, 500, dtype=torch.float64, generator=torch.manual_seed(1)) * spread
    error = (exact.to(DTYPES[dtype]).double() - exact).square().mean().sqrt().item()
    # The mantissas of Gaussian entries are nearly, not exactly, log-uniform.
    assert storage_noise(exact.numpy(), dtype) == pytest.approx(error, rel=0.03)


def test_the_rounding_floor_is_0_42_units_of_the_coarser_type():
    base = {"a.weight": torch.full((3, 4), 2.0).bfloat16()}
    tuned = {"a.weight": torch.full((3, 4), 2.5).half()}
    for left, right in ((base, tuned), (tuned, base)):
        (layer,) = open_pair(left, right)
        rms = math.sqrt(np.mean(layer.base.astype(float) ** 2))
        assert layer.rounding_rms == pytest.approx(0.42 * 2**-8 * rms, rel=0.02)
    (same,) = open_pair(tuned, tuned)
    assert same.rounding_rms == pytest.approx(0.42 * 2**-11 * 2.5, rel=0.02)


def test_the_rounding_floor_survives_tiny_and_huge_weights():
    for size in (1e-30, 1e30):
        noise = storage_noise(np.full((2, 2), size, np.float32), "bfloat16")
        assert noise == pytest.approx(0.4247 * 2**-8 * size, rel=1e-3)


# NaN and Inf


def broken():
    tuned = moved(weights())
    tuned["layers.0.q_proj.weight"][2, 3] = math.nan
    tuned["layers.0.q_proj.weight"][5, 1] = math.inf
    return tuned


def test_nan_and_inf_are_refused_with_name_count_and_first_index(tmp_path):
    for pair in (
        open_pair(weights(), broken()),
        open_pair(*save_pair(tmp_path, weights(), broken())),
    ):
        with pytest.raises(InputError) as caught:
            total(pair)
        assert str(caught.value) == (
            "layers.0.q_proj.weight: 1 NaN and 1 Inf, first at [2, 3], in tuned; repair it, or "
            'pass on_nonfinite="skip".'
        )


def test_nan_and_inf_can_be_skipped_and_are_then_reported_once():
    pair = open_pair(weights(), broken(), on_nonfinite="skip")
    for _ in range(2):
        assert set(total(pair)) == {"embed_tokens.weight", "layers.1.q_proj.weight"}
    assert [name for name, _ in pair.report.skipped].count("layers.0.q_proj.weight") == 1
    assert any("layers.0.q_proj.weight: skipped, 1 NaN" in text for text in pair.report.notices)


def test_some_matrices_of_a_pair_know_nothing_of_what_was_skipped_elsewhere():
    pair = open_pair(weights(), broken(), on_nonfinite="skip")
    total(pair)
    part = pair.only(["layers.1.q_proj.weight"])
    assert part.coverage == (1, 1)
    assert part.report.skipped == pair.found.skipped


def test_the_same_infinity_on_both_sides_is_found_on_both():
    base, tuned = weights(), weights()
    for side in (base, tuned):
        side["embed_tokens.weight"][0, 0] = -math.inf
    with pytest.raises(InputError, match=r"1 Inf, first at \[0, 0\], in base and 1 Inf.* in tuned"):
        total(open_pair(base, tuned))


def test_a_difference_that_overflows_is_refused():
    base = {"a.weight": torch.full((2, 2), 3e38)}
    with pytest.raises(InputError, match="overflows float32"):
        total(open_pair(base, {"a.weight": -base["a.weight"]}))


# Zero, and the rest


def test_equal_models_have_zero_deltas_of_finite_entries(tmp_path):
    for layer in open_pair(*save_pair(tmp_path, weights(), weights())):
        assert not layer.delta.any()
        assert layer.rounding_rms > 0


def test_a_layer_is_frozen_and_knows_its_shape():
    layer = LayerDelta("a", np.ones((2, 3)), np.zeros((2, 3)))
    assert layer.shape == (2, 3)
    assert layer.factors is None
    with pytest.raises(dataclasses.FrozenInstanceError):
        layer.name = "b"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_memory_is_that_of_one_layer_not_of_the_model(tmp_path, dtype):
    base = {f"layers.{i}.weight": torch.randn(256, 512).to(dtype) for i in range(12)}
    paths = save_pair(tmp_path, base, moved(base))
    one = 256 * 512 * 4
    list(open_pair(*paths, include=r"layers\.0\."))  # imports
    tracemalloc.start()
    for _ in open_pair(*paths):
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # While one layer is read the previous one is still held: base, ΔW, and a mask of one byte.
    # Names and headers take some 50 kB.
    assert peak < 4.5 * one + (1 << 16)
