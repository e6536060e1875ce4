"""The overlap of the top subspaces of ΔW with those of W, and its law for random ones."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.spectrum import subspace_overlap


def orthonormal(d, k, seed=0):
    return np.linalg.qr(np.random.default_rng(seed).standard_normal((d, k)))[0]


def draw(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("shape", [(40, 100), (100, 40), (100, 100)])
def test_a_multiple_of_the_weight_lies_in_its_principal_subspace(shape):
    W = draw(shape, 0)
    found = subspace_overlap(-2e-3 * W, W, r=4)  # of the four, or more, that are principal
    assert found.left_overlap == pytest.approx(1.0)
    assert found.right_overlap == pytest.approx(1.0)
    k = min(shape) // 10
    assert found.left_overlap_null == pytest.approx(k / shape[0])
    assert found.right_overlap_null == pytest.approx(k / shape[1])
    # All of W's directions, where half of those of the update are principal.
    assert subspace_overlap(W, W, r=2 * k, k=k).left_overlap == pytest.approx(0.5)


def test_an_update_in_the_least_directions_is_off_principal():
    U, V = orthonormal(50, 30), orthonormal(30, 30, 1)
    W = (U * np.linspace(2, 1, 30)) @ V.T
    found = subspace_overlap(1e3 * U[:, 20:25] @ V[:, :5].T, W)
    # One direction in two is principal on the right: k is 3, of the 5 that the update has.
    assert (found.left_overlap, found.right_overlap) == pytest.approx((0.0, 3 / 5), abs=1e-9)


@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (1, 7), (7, 1)])
def test_shares_are_those_of_direct_decompositions(shape):
    W, delta = draw(shape, 1), draw(shape, 2)
    U, _, V = np.linalg.svd(W, full_matrices=False)
    left, _, right = np.linalg.svd(delta, full_matrices=False)
    r, k = min(5, *shape), min(9, *shape)
    found = subspace_overlap(delta, W, r=5, k=k)
    assert found.left_overlap == pytest.approx(np.linalg.norm(U[:, :k].T @ left[:, :r]) ** 2 / r)
    assert found.right_overlap == pytest.approx(np.linalg.norm(V[:k] @ right[:r].T) ** 2 / r)
    tensors = subspace_overlap(torch.from_numpy(delta), torch.from_numpy(W), r=5, k=k)
    assert tensors == found


@given(st.integers(0, 2**32), st.integers(-600, 600))
@settings(max_examples=25, deadline=None)
def test_transposition_swaps_the_sides_and_scales_do_not_matter(seed, exponent):
    W, delta = draw((12, 9), seed), draw((12, 9), seed + 1)
    one = subspace_overlap(delta, W, r=3, k=4)
    other = subspace_overlap(np.ldexp(delta.T, exponent), np.ldexp(W.T, -exponent), r=3, k=4)
    assert other[:3] == pytest.approx(one[3:])
    assert other[3:] == pytest.approx(one[:3])


@pytest.mark.parametrize(("shape", "r", "k"), [((24, 40), 3, 5), ((30, 30), 8, 3), ((9, 9), 9, 4)])
def test_random_directions_have_the_mean_and_the_spread_of_the_null(shape, r, k):
    W, trials = draw(shape, 0), 200
    found = [subspace_overlap(draw(shape, seed), W, r=r, k=k) for seed in range(1, trials + 1)]
    for side in ("left", "right"):
        shares = np.array([getattr(one, f"{side}_overlap") for one in found])
        mean = getattr(found[0], f"{side}_overlap_null")
        sd = getattr(found[0], f"{side}_overlap_null_sd")
        assert abs(shares.mean() - mean) < 4 * sd / math.sqrt(trials) + 1e-9
        # The sample variance has a relative sd of √(2/trials), and some more for its kurtosis.
        assert shares.std(ddof=1) == pytest.approx(sd, rel=5 * math.sqrt(0.5 / trials), abs=1e-9)


def test_nothing_is_said_of_zero_matrices_and_only_directions_that_exist_count():
    W = draw((20, 12), 0)
    assert set(subspace_overlap(0 * W, W)) == set(subspace_overlap(W, 0 * W)) == {None}
    rank_one = np.outer(W[:, 0], W[0])
    assert subspace_overlap(rank_one, W) == pytest.approx(subspace_overlap(rank_one, W, r=1))
    # One direction of W is principal where it has one alone.
    assert subspace_overlap(W, rank_one, k=3).left_overlap_null == pytest.approx(1 / 20)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"base": np.full((4, 3), np.nan)}, "base has a NaN"),
        ({"delta": np.ones((4, 4))}, "base has shape"),
        ({"r": 0}, "r is 0"),
        ({"k": 4}, "k is 4: it must be a whole number from 1 to 3"),
    ],
)
def test_what_is_wrong_is_named(change, named):
    with pytest.raises(InputError, match=named):
        subspace_overlap(**({"delta": np.ones((4, 3)), "base": np.eye(4, 3)} | change))
