"""The law of a noise spectrum, against its density, and the crossover ratio against drawn noise."""

import math

import numpy as np
import pytest
from scipy.integrate import quad

from cosa_theory.ground.errors import InputError
from cosa_theory.laws import advantage_bound, energy_law, equal_budget_rank, noise_crossover
from cosa_theory.laws.noise import marchenko_pastur_cdf, marchenko_pastur_median

RATIOS = [1.0, 0.99, 0.5, 0.1, 1e-3]


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_closed_form_is_the_integral_of_the_density(ratio):
    low, high = (1 - math.sqrt(ratio)) ** 2, (1 + math.sqrt(ratio)) ** 2

    def density(x):
        return math.sqrt(max((high - x) * (x - low), 0.0)) / (2 * math.pi * ratio * x)

    points = low + (high - low) * np.array([0.01, 0.2, 0.5, 0.8, 0.99])
    for x in points:
        expected = quad(density, low, x, epsabs=1e-10, limit=200)[0]
        assert marchenko_pastur_cdf(x, ratio) == pytest.approx(expected, abs=1e-8)
    np.testing.assert_array_equal(
        marchenko_pastur_cdf([low * 0.99 - 1e-6, high * 1.01], ratio), [0.0, 1.0]
    )


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_median_halves_the_law(ratio):
    assert marchenko_pastur_cdf(marchenko_pastur_median(ratio), ratio) == pytest.approx(0.5)


def test_the_median_gives_the_published_threshold_of_square_matrices():
    # Gavish and Donoho 2014: ω(1) = (4/√3) / √μ₁ = 2.858.
    assert 4 / math.sqrt(3) / math.sqrt(marchenko_pastur_median(1.0)) == pytest.approx(
        2.858, abs=5e-4
    )


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.5, math.nan])
def test_a_ratio_outside_its_range_is_refused(ratio):
    for law in (marchenko_pastur_median, lambda value: marchenko_pastur_cdf(1.0, value)):
        with pytest.raises(InputError) as caught:
            law(ratio)
        assert caught.value.argument == "ratio"


@pytest.mark.parametrize(("m", "n", "law"), [(384, 384, 1.84), (1536, 384, 1.71)])
def test_drawn_noise_has_the_crossover_ratio_of_the_law(m, n, law):
    rank = 8
    share = rank * (m + n) / (m * n)  # of a core with as many parameters
    assert noise_crossover(m, n, rank) == pytest.approx(law, abs=5e-3)
    assert noise_crossover(n, m, rank) == noise_crossover(m, n, rank)
    noise = np.random.default_rng(0).standard_normal((5, m, n))
    energy = np.linalg.eigvalsh(noise.mT @ noise)
    measured = energy[:, -rank:].sum(axis=1) / energy.sum(axis=1) / share
    # The law is asymptotic; at these sizes one draw varies by 0.006 around it.
    assert measured.mean() == pytest.approx(noise_crossover(m, n, rank), rel=0.01)


@pytest.mark.parametrize(("m", "n"), [(384, 384), (1536, 384), (50, 4000)])
def test_the_noise_crossover_falls_from_its_limit_to_that_of_the_whole_spectrum(m, n):
    ranks = np.arange(1, min(m, n) + 1)
    ratios = np.array([noise_crossover(m, n, int(rank)) for rank in ranks])
    limit = 1 + 2 * math.sqrt(m * n) / (m + n)
    assert 1 < limit <= 2
    assert np.all(np.diff(ratios) < 0)
    assert ratios[0] < limit
    large = noise_crossover(m * 10**6, n * 10**6, 1)
    assert large == pytest.approx(limit, rel=1e-4)
    # All of the energy, beside the law at the same parameters: one over the factor-two bound.
    assert ratios[-1] == pytest.approx(1 / advantage_bound(m, n))
    if m == n:
        assert 0.4 < ranks[ratios > 1][-1] / n < 0.42


def test_a_flatter_spectrum_than_noise_is_needed_for_a_core_to_win():
    """At small rank the top values of noise hold more than a core of as many parameters."""
    m, n, a, b = 96, 64, 40, 16
    rank = int(equal_budget_rank(m, n, a, b))
    energy = np.linalg.svd(np.random.default_rng(1).standard_normal((m, n)))[1] ** 2
    assert energy[:rank].sum() / energy.sum() > energy_law(m, n, a, b)
    assert noise_crossover(m, n, rank) > 1


@pytest.mark.parametrize(
    ("argument", "sizes"), [("m", (0, 4, 1)), ("n", (4, 2.5, 1)), ("rank", (4, 6, 5))]
)
def test_sizes_that_no_layer_has_are_refused_by_name(argument, sizes):
    with pytest.raises(InputError) as caught:
        noise_crossover(*sizes)
    assert caught.value.argument == argument
