"""What bfloat16 does to an update: exact entry by entry, expected for a dense one of its size."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.spectrum import bf16_sparsity

LARGEST = 0x7F7F  # the bits of the largest finite number


def number(bits):
    """Return the value of the bits of bfloat16, exactly."""
    value = Fraction(bits & 0x7F, 128) + (1 if bits & 0x7F80 else 0)
    exponent = max((bits >> 7) & 0xFF, 1) - 127
    return (-1 if bits & 0x8000 else 1) * value * Fraction(2) ** exponent


def lost(delta, base):
    return bf16_sparsity([[delta]], [[base]]).bf16_lost_share


def as_bfloat16(x):
    return torch.from_numpy(x).bfloat16().double().numpy()


def noise(shape, sd=1.0, seed=0):
    return sd * np.random.default_rng(seed).standard_normal(shape)


@given(st.integers(0, LARGEST - 1), st.booleans(), st.booleans(), st.integers(-2, 2))
def test_an_entry_is_lost_below_half_the_way_to_its_neighbour(bits, outwards, negative, steps):
    w, sign = number(bits), -1 if negative else 1
    neighbour = number(bits + 1) if outwards else number(bits - 1) if bits else -number(1)
    half = float(neighbour - w) / 2
    delta = half
    for _ in range(abs(steps)):
        delta = math.nextafter(delta, math.copysign(math.inf, steps) * math.copysign(1, half))
    beyond = abs(delta) > abs(half)
    tie_moves = abs(delta) == abs(half) and bits % 2
    assert lost(sign * delta, sign * float(w)) == (not (beyond or tie_moves))


@pytest.mark.parametrize(
    ("base", "delta", "is_lost"),
    [
        (1.0, 2.0**-8, True),  # the tie above a power of two goes to the even digit
        (1.0, math.nextafter(2.0**-8, 1), False),
        (1.0, -(2.0**-9), True),  # below it the spacing is half as wide
        (1.0, -math.nextafter(2.0**-9, 1), False),
        (-1.0, -(2.0**-8), True),
        (-1.0, math.nextafter(2.0**-9, 1), False),
        (1.0078125, 2.0**-8, False),  # the tie of an odd digit
        (0.0, 2.0**-134, True),
        (0.0, -math.nextafter(2.0**-134, 1), False),
        (2.0**-133, 2.0**-134, False),
        (2.0**-130, math.nextafter(2.0**-134, 0), True),  # spacing of all subnormals
        (0.1, 0.0, True),
        (1e-200, 1e-100, True),  # stored as zero, with or without
    ],
)
def test_entries_worked_by_hand(base, delta, is_lost):
    assert lost(delta, base) == is_lost


@pytest.mark.parametrize("size", [1e-4, 1e-3, 1e-2, 1.0])
def test_lost_entries_are_those_that_a_tensor_of_bfloat16_does_not_change(size):
    W = as_bfloat16(noise((80, 50)))
    delta = noise((80, 50), size, seed=1)
    found = bf16_sparsity(delta, W)
    assert found.bf16_lost_share == (as_bfloat16(W + delta) == W).mean()
    assert found.zero_share == 0.0
    # In float32, and as tensors of either, the same.
    assert bf16_sparsity(torch.from_numpy(delta), torch.from_numpy(W).bfloat16()) == found


def test_a_dense_update_of_a_thousandth_of_the_weight_is_expected_to_lose_78_per_cent():
    W = noise((400, 400))
    found = bf16_sparsity(noise((400, 400), 1e-3, seed=1), W)
    assert found.bf16_lost_null == pytest.approx(0.78, abs=0.005)
    assert found.bf16_lost_share == pytest.approx(0.78, abs=0.01)


@pytest.mark.parametrize("size", [1e-4, 1e-3, 1e-2, 0.3])
@pytest.mark.parametrize("stored", [False, True])
def test_a_dense_update_falls_into_its_own_null(size, stored):
    W = as_bfloat16(noise((500, 400), 0.02))
    delta = noise((500, 400), 0.02 * size, seed=1)
    if stored:
        delta = as_bfloat16(W + delta) - W
    found = bf16_sparsity(delta, W)
    if stored:
        assert found.zero_share == found.bf16_lost_share
    sd = math.sqrt(found.bf16_lost_null * (1 - found.bf16_lost_null) / delta.size)
    # The size comes from the entries too, which doubles the variance at most.
    assert abs(found.bf16_lost_share - found.bf16_lost_null) < 4 * math.sqrt(2) * sd


def test_an_update_that_is_sparse_by_itself_has_more_zeros_than_rounding_makes():
    W = as_bfloat16(noise((300, 300), 0.02))
    masked = noise((300, 300), 0.01, seed=1) * (np.random.default_rng(2).random(W.shape) < 0.1)
    for delta in (masked, as_bfloat16(W + masked) - W):
        found = bf16_sparsity(delta, W)
        assert found.zero_share == pytest.approx(0.9, abs=0.02)
        assert found.bf16_lost_null < 0.02


def test_zero_updates_zero_weights_and_weights_out_of_range():
    W = noise((6, 5))
    assert bf16_sparsity(0 * W, W) == (1.0, 1.0, 1.0)
    assert bf16_sparsity(W, 0 * W)[:2] == (0.0, 0.0)
    assert bf16_sparsity(1e-200 * W, 1e-200 * W) == (0.0, 1.0, 1.0)
    assert bf16_sparsity(W, 1e200 * W) == (0.0, None, None)


def test_transposition_and_signs_do_not_matter():
    W, delta = noise((30, 20)), noise((30, 20), 1e-3, seed=1)
    one = bf16_sparsity(delta, W)
    assert bf16_sparsity(delta.T, W.T) == pytest.approx(one)
    assert bf16_sparsity(-delta, -W) == pytest.approx(one)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base": np.full((4, 3), np.nan)}, "base has a NaN"),
        ({"delta": np.full((4, 3), np.inf)}, "delta has a NaN or infinite"),
        ({"base": np.ones((3, 4))}, "base has shape"),
    ],
)
def test_what_is_wrong_is_named(change, named):
    with pytest.raises(InputError, match=named):
        bf16_sparsity(**({"delta": np.ones((4, 3)), "base": np.eye(4, 3)} | change))
