"""The noise floor: the Marchenko-Pastur law fitted by the median, and where it must not fit."""

import math

import numpy as np
import pytest
import torch

from cosa_theory.laws import marchenko_pastur_edges
from cosa_theory.laws.noise import marchenko_pastur_median
from cosa_theory.spectrum import summarize
from cosa_theory.spectrum.noise import noise_misfit, noise_sd, spike_level

SHAPES = [(300, 300), (200, 500), (500, 200), (64, 2000)]


def noise(shape, sd=1.0, seed=0):
    return sd * np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_independent_noise_lies_between_the_edges(shape):
    sigma = np.linalg.svd(noise(shape, 0.1), compute_uv=False)
    low, high = marchenko_pastur_edges(*shape, 0.01)
    # Edges fluctuate on the Tracy-Widom scale, a relative (m+n)^(−2/3) or so: four of them.
    slack = 4 * high * sum(shape) ** (-2 / 3)
    assert low - slack < sigma[-1]
    assert sigma[0] < high + slack
    assert sigma[0] > high - slack  # the edge is reached, not only respected


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("sd", [1e-8, 1.0, 1e3])
def test_the_median_finds_the_noise_level(shape, sd):
    found = summarize(noise(shape, sd))
    # Eigenvalues are rigid: their ranks, hence the median, move by a few parts in min(m, n).
    assert found.noise_sd == pytest.approx(sd, rel=3 / min(shape))
    assert found.mp_edge == pytest.approx(
        found.noise_sd * (math.sqrt(shape[0]) + math.sqrt(shape[1]))
    )
    assert found.noise_misfit < 5 / min(shape)


def test_noise_alone_exceeds_its_edge_in_one_draw_of_six_and_its_spike_level_in_one_of_a_hundred():
    draws = 600
    largest = np.array([np.linalg.norm(noise((50, 80), seed=seed), 2) for seed in range(draws)])

    def agrees(level, chance):
        sd = math.sqrt(chance * (1 - chance) / draws)
        return abs(np.mean(largest > level) - chance) < 4 * sd

    # P(Tracy-Widom > 0) is 0.17 in the limit, and a little less at finite size.
    assert agrees(math.sqrt(50) + math.sqrt(80), 0.15)
    assert agrees(spike_level((50, 80), 1.0), 0.01)
    assert spike_level((80, 50), 3.0) == pytest.approx(3 * spike_level((50, 80), 1.0))


def test_a_fitted_floor_of_pure_noise_has_spikes_in_few_draws():
    draws = 100
    spiked = sum(summarize(noise((100, 150), seed=seed)).spikes > 0 for seed in range(draws))
    # 1 %, and some more for the error of the fitted level.
    assert spiked <= 6


@pytest.mark.parametrize("count", [0, 1, 10, 40])
def test_spikes_above_the_noise_are_counted_and_leave_its_level_alone(count):
    shape = (300, 400)
    X = noise(shape, 0.01, seed=3)
    rng = np.random.default_rng(4)
    U = np.linalg.qr(rng.standard_normal((300, max(count, 1))))[0]
    V = np.linalg.qr(rng.standard_normal((400, max(count, 1))))[0]
    if count:
        X = X + (U * np.linspace(3.0, 1.0, count)) @ V.T
    found = summarize(X)
    assert found.spikes == count
    # Each spike takes one value out of the bulk below the median: a shift of count/2 ranks.
    assert found.noise_sd == pytest.approx(0.01, rel=(3 + count) / 300)


def test_the_misfit_is_of_the_bulk_alone():
    bulk = np.linalg.svd(noise((160, 300), seed=8), compute_uv=False)
    alone = noise_misfit(bulk, (160, 300), 1.0)
    assert alone < 0.03
    assert noise_misfit(np.append(bulk, np.full(40, 100.0)), (160, 300), 1.0) == alone


def test_a_decaying_spectrum_is_no_noise_floor_and_the_misfit_says_so():
    decay = 1.0 / np.arange(1, 301)
    found = summarize(decay, (300, 300), "svd")
    assert found.noise_misfit > 0.1
    # Judged with its own level, one value at the edge or none below it is far from any law.
    assert noise_misfit(np.array([10.0, 9.0]), (2, 2), 1e-3) == 1.0


def test_the_noise_level_is_the_formula_on_known_values():
    sigma = np.array([5.0, 3.0, 1.0])
    expected = 3.0 / math.sqrt(7 * marchenko_pastur_median(3 / 7))
    assert noise_sd(sigma, (3, 7)) == noise_sd(sigma, (7, 3)) == pytest.approx(expected)


def as_bfloat16(x):
    return torch.from_numpy(x).bfloat16().double().numpy()


def test_bfloat16_moves_an_entry_by_at_most_2_to_the_minus_8_and_042_of_that_on_average():
    W = noise((1000, 1000))
    moved = np.abs(as_bfloat16(W) - W) / np.abs(W) * 2**8
    assert moved.max() <= 1.0
    # Uniform rounding under a log-uniform mantissa: √(1/(8 ln 2)) = 0.4247; 10⁶ entries.
    assert np.sqrt(np.mean(moved**2)) == pytest.approx(math.sqrt(1 / (8 * math.log(2))), abs=2e-3)


def test_a_small_update_stored_in_bfloat16_is_mostly_zeros_on_a_full_rank_floor():
    W = as_bfloat16(noise((400, 400), seed=5))
    update = 1e-3 * np.outer(*noise((2, 400), seed=6)).reshape(400, 400)
    update *= 1e-3 * np.linalg.norm(W) / np.linalg.norm(update)
    stored = as_bfloat16(W + update) - W
    assert summarize(update).rank == 1
    assert summarize(stored).rank > 350  # but for rows whose update rounds away
    dense = noise((400, 400), 1e-3, seed=7)
    zeros = np.mean(as_bfloat16(W + dense) - W == 0.0)
    assert zeros == pytest.approx(0.775, abs=4 * math.sqrt(0.775 * 0.225 / 400**2) + 0.003)
