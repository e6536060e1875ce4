"""The measures of a spectrum have the values their formulas give, and None where they have none."""

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.spectrum import (
    bf16_sparsity,
    intruder_dimensions,
    noise,
    singular_values_of_product,
    subspace_overlap,
    summarize,
)

RATIOS = (
    "stable_rank",
    "effective_rank_entropy_sigma2",
    "effective_rank_entropy_sigma",
    "participation_ratio",
    "flatness",
    "rank_90",
    "rank_95",
    "rank_99",
    "noise_sd",
    "mp_edge",
    "spikes",
    "noise_misfit",
)
spectra = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30).map(np.array)


def summary(sigma, shape=None):
    return summarize(np.asarray(sigma, dtype=float), shape or (len(sigma), len(sigma)), "svd")


def known(found):
    """Return what a summary says; without the base weight some of it is None."""
    return {name: value for name, value in found.as_dict().items() if value is not None}


def test_every_measure_has_its_value_on_a_spectrum_worked_by_hand():
    found = summary([2.0, 1.0, 1.0], (3, 5))
    p = np.array([4, 1, 1]) / 6
    q = np.array([2, 1, 1]) / 4
    assert found.rank == 3
    assert found.resolved
    assert found.sigma_max == 2.0
    assert found.frobenius == pytest.approx(math.sqrt(6))
    assert found.stable_rank == pytest.approx(6 / 4)
    assert found.participation_ratio == pytest.approx(36 / 18)
    assert found.effective_rank_entropy_sigma2 == pytest.approx(np.exp(-np.sum(p * np.log(p))))
    assert found.effective_rank_entropy_sigma == pytest.approx(np.exp(-np.sum(q * np.log(q))))
    assert found.flatness == pytest.approx(4 ** (1 / 3) / 2)
    assert (found.rank_90, found.rank_95, found.rank_99) == (3, 3, 3)


@pytest.mark.parametrize("size", [1, 10, 384, 1000])
def test_a_flat_spectrum_has_full_ranks_and_flatness_one(size):
    found = summary(np.full(size, 0.3))
    for name in RATIOS[:4]:
        assert getattr(found, name) == pytest.approx(size)
    assert found.flatness == pytest.approx(1.0)
    # Nine of ten equal values do hold 90 %, whatever rounding makes of their sum.
    assert found.rank_90 == math.ceil(0.9 * size - 1e-9)
    assert found.rank_99 == math.ceil(0.99 * size - 1e-9)


def test_a_rank_one_matrix_has_rank_one_in_every_sense_and_no_flatness():
    found = summarize(np.outer(np.arange(1.0, 31.0), np.ones(20)))
    assert found.rank == 1
    assert not found.resolved
    for name in RATIOS[:4]:
        assert getattr(found, name) == pytest.approx(1.0, abs=1e-4)
    assert (found.rank_90, found.rank_99) == (1, 1)
    assert found.flatness is None


def test_a_geometric_spectrum_has_the_closed_form_participation_ratio_and_flatness():
    ratio, size = 0.9, 60  # of consecutive σ²
    found = summary(np.sqrt(ratio ** np.arange(size)))
    total = (1 - ratio**size) / (1 - ratio)
    assert found.participation_ratio == pytest.approx(
        (1 + ratio) / (1 - ratio) * (1 - ratio**size) / (1 + ratio**size)
    )
    assert found.stable_rank == pytest.approx(total)
    assert found.flatness == pytest.approx(ratio ** ((size - 1) / 2) * size / total)
    held = (1 - ratio ** np.arange(1, size + 1)) / (1 - ratio**size)
    assert found.rank_90 == 1 + np.argmax(held >= 0.9)
    assert found.rank_95 == 1 + np.argmax(held >= 0.95)


@given(spectra)
def test_the_ranks_are_ordered_like_the_entropies_they_come_from(sigma):
    found = summary(sigma)
    slack = 1 + 1e-9
    # Rényi entropies of p = σ² of orders ∞, 2, 1, 0, and the flatter p = σ.
    assert found.stable_rank * slack >= 1
    assert found.stable_rank <= found.participation_ratio * slack
    assert found.participation_ratio <= found.effective_rank_entropy_sigma2 * slack
    assert found.effective_rank_entropy_sigma2 <= found.effective_rank_entropy_sigma * slack
    assert found.effective_rank_entropy_sigma <= sigma.size * slack
    assert 0 <= found.flatness <= slack
    assert found.rank_90 <= found.rank_95 <= found.rank_99 <= sigma.size


@given(spectra, st.integers(-400, 400))
def test_ratios_do_not_depend_on_the_scale_and_sizes_follow_it(sigma, exponent):
    one, other = summary(sigma), summary(np.ldexp(sigma, exponent))
    for name in RATIOS:
        if name in ("noise_sd", "mp_edge"):
            expected = math.ldexp(getattr(one, name), exponent)
        else:
            expected = getattr(one, name)
        assert getattr(other, name) == pytest.approx(expected, rel=1e-12)
    assert other.frobenius == pytest.approx(math.ldexp(one.frobenius, exponent))


def test_energy_ranks_are_the_fewest_values_that_hold_the_share():
    sigma = np.sqrt([90.0, 5.0, 4.0, 1.0])
    found = summary(sigma)
    assert (found.rank_90, found.rank_95, found.rank_99) == (1, 2, 3)
    assert summary(np.sqrt([89.0, 6.0, 4.0, 1.0])).rank_90 == 2


def test_a_zero_matrix_has_rank_zero_and_null_ratios():
    found = summarize(np.zeros((4, 6)))
    assert (found.rank, found.sigma_max, found.frobenius, found.resolved) == (0, 0.0, 0.0, False)
    for name in RATIOS:
        assert getattr(found, name) is None


@pytest.mark.parametrize("X", [np.zeros((2, 3)), np.eye(4), np.outer(np.ones(3), np.ones(9))])
def test_a_summary_is_plain_json_without_nan(X):
    found = summarize(X)
    assert json.loads(json.dumps(found.as_dict(), allow_nan=False)) == found.as_dict()


@pytest.mark.parametrize("shape", [(40, 30), (30, 40), (1, 9), (9, 1)])
def test_a_matrix_a_tensor_and_their_singular_values_give_one_summary(shape):
    X = np.random.default_rng(0).standard_normal(shape)
    whole = known(summarize(X))
    shuffled = np.random.default_rng(1).permutation(np.linalg.svd(X, compute_uv=False))
    for other in (
        summarize(torch.from_numpy(X)),
        summarize(X.tolist()),
        summarize(shuffled, shape),
        summarize(torch.from_numpy(shuffled), shape),
        summarize(X, method="svd"),
    ):
        assert known(other) == pytest.approx(whole, rel=1e-9)


def test_values_left_out_by_the_product_route_count_as_zeros():
    rng = np.random.default_rng(2)
    B, A = rng.standard_normal((50, 4)), rng.standard_normal((4, 40))
    found = summarize(singular_values_of_product(B, A), (50, 40), "product")
    full = summarize(B @ A)
    assert found.rank == full.rank == 4
    assert not found.resolved
    for name in RATIOS[:3:2]:
        assert getattr(found, name) == pytest.approx(getattr(full, name), rel=1e-6)
    assert found.flatness is full.flatness is None
    # No noise floor is resolved, so none is claimed.
    assert found.noise_sd is found.mp_edge is found.spikes is found.noise_misfit is None


def test_the_flatness_of_unresolved_values_is_not_made_up():
    sigma = np.array([1.0, 0.5, 1e-9])
    gram, direct = summarize(sigma, (3, 3), "gram"), summarize(sigma, (3, 3), "svd")
    assert (gram.rank, direct.rank) == (2, 3)
    assert (gram.resolved, direct.resolved) == (False, True)
    assert direct.flatness == pytest.approx((0.25e-18) ** (1 / 3) * 3 / 1.25)
    assert gram.flatness is None


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("rank", [1, 16, 40])
def test_a_product_of_thin_factors_has_their_rank_in_every_stored_type(dtype, method, rank):
    rng = np.random.default_rng(rank)
    update = rng.standard_normal((80, rank)) @ rng.standard_normal((rank, 60))
    found = summarize(torch.from_numpy(update).to(getattr(torch, dtype)), method=method)
    assert found.rank == rank
    assert found.flatness is None
    exact = summarize(update)
    for name in RATIOS[:4]:
        # Rounding of 3 digits moves σ by as much; the noise beyond the rank has no say.
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=0.01)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (1, 1), (30, 30), (20, 90)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_full_matrix_keeps_its_rank_and_flatness_in_every_stored_type(shape, dtype):
    X = np.random.default_rng(3).standard_normal(shape)
    found = summarize(torch.from_numpy(X).to(getattr(torch, dtype)))
    assert found.rank == min(shape)
    assert found.flatness == pytest.approx(summarize(X).flatness, rel=0.05)


@pytest.mark.parametrize("size", [1e-2, 1e-3, 1e-4])
@pytest.mark.parametrize("rank", [1, 16])
def test_a_low_rank_update_merged_into_a_coarse_type_has_its_own_rank(size, rank):
    rng = np.random.default_rng(5)
    base = torch.from_numpy(0.02 * rng.standard_normal((200, 150))).bfloat16()
    update = size * rng.standard_normal((200, rank)) @ rng.standard_normal((rank, 150))
    merged = (base.double() + torch.from_numpy(update / rank**0.5)).bfloat16()
    rounding = 0.02 * noise.relative_rounding(torch.bfloat16)
    found = summarize((merged.double() - base.double()).numpy(), rounding_rms=rounding)
    assert found.rank == rank
    assert found.flatness is None


def test_nothing_but_rounding_has_rank_zero_and_no_ratios():
    found = summarize(1e-3 * np.random.default_rng(0).standard_normal((50, 40)), rounding_rms=1e-3)
    assert (found.rank, found.flatness, found.stable_rank) == (0, None, None)
    assert found.frobenius > 0


@pytest.mark.parametrize(
    ("argument", "arguments"),
    [
        ("shape", (np.ones(3),)),
        ("shape", (np.ones((3, 4)), (4, 3))),
        ("shape", (np.ones((3, 4)), (3,))),
        ("X", (np.ones(5), (3, 4))),
        ("X", (np.ones(0), (3, 4))),
        ("X", (np.ones((2, 2, 2)), (2, 2))),
        ("X", (np.array([1.0, -1.0]), (3, 4))),
        ("X", (np.array([1.0, np.nan]), (3, 4))),
        ("X", (np.array([1.0, np.inf]), (3, 4))),
        ("method", (np.ones((2, 2)), None, "randomized")),
        ("method", (np.ones((2, 2)), None, "product")),
        ("method", (np.ones(2), (2, 2), "qr")),
        ("rounding_rms", (np.ones(2), (2, 2), "svd", -1.0)),
        ("rounding_rms", (np.eye(2), None, "svd", np.nan)),
    ],
)
def test_bad_arguments_are_named(argument, arguments):
    with pytest.raises(InputError) as error:
        summarize(*arguments)
    assert error.value.argument == argument


def test_a_base_adds_what_only_it_tells_and_changes_nothing_else():
    rng = np.random.default_rng(0)
    W, delta = rng.standard_normal((2, 40, 25))
    delta *= 1e-3
    alone, found = summarize(delta), summarize(delta, base=W)
    added = known(found).keys() - known(alone).keys()
    of_functions = [
        intruder_dimensions(delta, W),
        subspace_overlap(delta, W),
        bf16_sparsity(delta, W),
    ]
    assert {name: getattr(found, name) for name in added} == {
        name: value for one in of_functions for name, value in one._asdict().items()
    }
    assert {name: getattr(found, name) for name in known(alone)} == known(alone)
    assert summarize(torch.from_numpy(delta), base=torch.from_numpy(W)) == found


def test_the_overlap_is_of_directions_within_the_rank_and_zero_updates_have_none():
    W = np.random.default_rng(0).standard_normal((30, 20))
    rank_one = np.outer(W[:, 0], W[0])
    found = summarize(rank_one.astype(np.float32), base=W)
    assert found.left_overlap == pytest.approx(subspace_overlap(rank_one, W, r=1).left_overlap)
    zero = summarize(0 * W, base=W)
    assert (zero.intruders, zero.left_overlap, zero.zero_share) == (None, None, 1.0)


def test_a_base_needs_the_matrix_and_its_shape():
    with pytest.raises(InputError, match="base is given beside singular values: give the matrix"):
        summarize(np.ones(3), (3, 4), base=np.ones((3, 4)))
    with pytest.raises(InputError, match=r"base has shape \(4, 3\)"):
        summarize(np.ones((3, 4)), base=np.ones((4, 3)))


@pytest.mark.parametrize("shape", [(4,), 4, (4.0, 6.0), (0, 6), "46"])
def test_a_shape_that_is_not_two_whole_numbers_is_refused_by_its_name(shape):
    with pytest.raises(InputError) as error:
        summarize([3.0, 1.0], shape)
    assert error.value.argument == "shape"
