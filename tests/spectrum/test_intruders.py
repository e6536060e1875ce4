"""Intruder dimensions: exact where they are known, and beside what size alone does."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, kstest

from cosa_theory.ground.errors import InputError
from cosa_theory.spectrum import intruder_dimensions
from cosa_theory.spectrum.intruders import DRAWS, EXAMINED, THRESHOLD, _random_directions

RNG = np.random.default_rng(0)


def orthonormal(d, k, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, k)))[0]


def weight(m, n, seed=0):
    """Return W = U Σ Vᵀ with distinct singular values 2, …, 1, and its U and V."""
    U, V = orthonormal(m, min(m, n), seed), orthonormal(n, min(m, n), seed + 1)
    return (U * np.linspace(2, 1, min(m, n))) @ V.T, U, V


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (36, 36)])
def test_a_spike_orthogonal_to_the_top_directions_is_exactly_one_intruder(shape):
    W, U, V = weight(*shape)
    among = np.arange(EXAMINED, min(shape))  # spread over all directions that are not leading
    u, v = U[:, among].mean(axis=1), V[:, among].mean(axis=1)
    spike = 1e4 * np.outer(u, v) / np.linalg.norm(u) / np.linalg.norm(v)
    found = intruder_dimensions(spike, W)
    assert found.intruders == 1
    assert found.lowest_cosine == pytest.approx(1 / math.sqrt(among.size), rel=1e-3)
    # A spike in the direction of one of W's own is none, however large.
    own = intruder_dimensions(1e4 * np.outer(U[:, 15], V[:, 15]), W)
    assert (own.intruders, own.lowest_cosine) == (0, pytest.approx(1.0))
    # Random spikes of this size are intruders too: the null says so.
    assert own.intruders_null_low >= 1


@pytest.mark.parametrize("c", [-3.0, -0.5, 0.0, 1e-6, 7.0])
def test_a_multiple_of_the_weight_brings_no_intruder(c):
    W, _, _ = weight(30, 20)
    found = intruder_dimensions(c * W, W)
    assert (found.intruders, found.lowest_cosine) == (0, pytest.approx(1.0))


def test_nothing_is_said_without_directions_to_compare():
    W, _, _ = weight(6, 4)
    for delta, base in ((W, 0 * W), (-W, W)):
        assert set(intruder_dimensions(delta, base)) == {None}


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (200, 5), (1, 9), (9, 1)])
@pytest.mark.parametrize("size", [0.1, 0.5, 3.0])
def test_counts_are_those_of_two_direct_decompositions(shape, size):
    rng = np.random.default_rng(3)
    W, delta = rng.standard_normal(shape), size * rng.standard_normal(shape)
    before = np.linalg.svd(W, full_matrices=False)[0]
    after = np.linalg.svd(W + delta, full_matrices=False)[0][:, :7]
    best = np.abs(before.T @ after).max(axis=0)
    found = intruder_dimensions(delta, W, k=7, threshold=0.6)
    assert found.intruders == (best < 0.6).sum()
    assert found.lowest_cosine == pytest.approx(best.min(), rel=1e-6)
    tensors = intruder_dimensions(torch.from_numpy(delta), torch.from_numpy(W), k=7, threshold=0.6)
    assert tensors == found


def test_directions_that_the_weight_does_not_reach_are_no_counterparts():
    U, V = orthonormal(30, 20), orthonormal(20, 20, seed=1)
    W = (U[:, :10] * np.linspace(2, 1, 10)) @ V[:, :10].T  # of rank 10
    found = intruder_dimensions(100 * np.outer(U[:, 15], V[:, 15]), W)
    assert (found.intruders, found.lowest_cosine) == (1, pytest.approx(0.0, abs=1e-6))


@given(st.integers(0, 2**32), st.integers(-600, 600), st.floats(0.01, 10))
@settings(max_examples=20, deadline=None)
def test_neither_scale_nor_a_rotation_of_both_matters(seed, exponent, size):
    rng = np.random.default_rng(seed)
    W, delta = rng.standard_normal((12, 8)), size * rng.standard_normal((12, 8))
    one = intruder_dimensions(delta, W)
    scaled = intruder_dimensions(np.ldexp(delta, exponent), np.ldexp(W, exponent))
    assert scaled == pytest.approx(one, rel=1e-6)
    Q, P = orthonormal(12, 12, seed), orthonormal(8, 8, seed)
    turned = intruder_dimensions(Q @ delta @ P, Q @ W @ P)
    assert turned.lowest_cosine == pytest.approx(one.lowest_cosine, rel=1e-6)
    assert turned[2:] == pytest.approx(one[2:], rel=1e-6)  # the null knows singular values alone


@pytest.mark.parametrize(
    ("shape", "size"), [((14, 14), 0.7), ((60, 8), 5.0), ((8, 60), 0.7), ((14, 9), 2.0)]
)
def test_a_random_update_falls_into_its_own_null(shape, size):
    trials, inside, counts = 90, 0, 0
    W, _, _ = weight(*shape)
    for seed in range(trials):
        rank = min(shape) // 2
        delta = (
            size * orthonormal(shape[0], rank, seed) @ orthonormal(shape[1], rank, -seed % 977).T
        )
        found = intruder_dimensions(delta, W, seed=seed)
        low, high = found.lowest_cosine_null_low, found.lowest_cosine_null_high
        inside += low <= found.lowest_cosine <= high
        counts += found.intruders_null_low <= found.intruders <= found.intruders_null_high
    # Exchangeable with its draws, it is the least or the largest of them with chance 2/(DRAWS + 1).
    chance = 1 - 2 / (DRAWS + 1)
    assert abs(inside / trials - chance) < 3.5 * math.sqrt(chance * (1 - chance) / trials)
    assert counts >= inside  # ties of counts are inside


@pytest.mark.parametrize(("side", "first", "count"), [(50, 6, 6), (50, 6, 3), (9, 6, 6), (6, 6, 6)])
def test_random_directions_are_orthonormal_and_of_the_law_in_the_whole_space(side, first, count):
    squares, signs = [], []
    for seed in range(400):
        basis = _random_directions(np.random.default_rng(seed), side, first, count)
        assert basis.T @ basis == pytest.approx(np.eye(count), abs=1e-12)
        squares.append(np.square(basis[:first]).sum(axis=0)[-1])
        signs.append(np.sign(basis[0, 0]))
    assert abs(np.mean(signs)) < 4 / math.sqrt(len(signs))
    if first < side:  # the squared length of `first` coordinates of a random unit vector
        assert kstest(squares, beta(first / 2, (side - first) / 2).cdf).pvalue > 1e-3


def test_the_defaults_are_those_of_the_source():
    assert (EXAMINED, THRESHOLD) == (10, 0.5)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base": np.full((4, 3), np.nan)}, "base has a NaN"),
        ({"delta": np.full((4, 3), np.inf)}, "delta has a NaN or infinite"),
        ({"base": np.ones((3, 4))}, r"base has shape \(3, 4\): it must be 4 × 3"),
        ({"base": 1.7e308 * np.eye(4, 3), "delta": 1e308 * np.eye(4, 3)}, r"base \+ delta has"),
        ({"k": 0}, "k is 0"),
        ({"threshold": 0.0}, "threshold is 0"),
    ],
)
def test_what_is_wrong_is_named(change, named):
    with pytest.raises(InputError, match=named):
        intruder_dimensions(**({"delta": np.ones((4, 3)), "base": np.eye(4, 3)} | change))


def test_an_update_that_may_cancel_a_single_weight_has_a_null():
    found = intruder_dimensions(np.ones((1, 1)), np.ones((1, 1)))
    assert (found.intruders, found.intruders_null_low, found.intruders_null_high) == (0, 0, 0)
    assert found.lowest_cosine == found.lowest_cosine_null_low == 1.0
