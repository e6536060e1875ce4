"""Approximations of an update: what they store, what they keep, and the laws of their errors."""

import math

import numpy as np
import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.laws import (
    InputMoments,
    explained_share,
    informed_share,
    input_moments,
    prior_error,
)
from cosa_theory.projections import SecondMoments, make_projection
from cosa_theory.spectrum.approximations import (
    APPROXIMATIONS,
    Given,
    Stored,
    select_approximations,
)
from cosa_theory.spectrum.approximations.base import rounded
from cosa_theory.spectrum.budget import cosa_shape

M, N, RANK = 24, 40, 3
RNG = np.random.default_rng(0)
DELTA = (RNG.standard_normal((M, 10)) * 0.7 ** np.arange(10)) @ RNG.standard_normal((10, N))
BASE = RNG.standard_normal((M, N))
MOMENTS = SecondMoments(np.cov(RNG.standard_normal((N, N)) * 0.8 ** np.arange(N)[:, None]))


def given(delta=DELTA, rank=RANK, draw=0, **changes):
    known = {"base": BASE, "moments": MOMENTS, **changes}
    return Given(delta, rank, seed=draw, key=("layer",), **known)


def error(made, delta=DELTA):
    return np.sum((made - delta) ** 2) / np.sum(delta**2)


@pytest.mark.parametrize("name", APPROXIMATIONS)
def test_every_approximation_is_reproducible_and_keeps_shape_and_type(name):
    one = APPROXIMATIONS[name]
    for delta in (DELTA, DELTA.astype(np.float32)):
        made = one.make(given(delta))
        assert made.shape == delta.shape
        assert made.dtype == delta.dtype
        np.testing.assert_array_equal(made, one.make(given(delta)))
    stored = one.stored(M, N, RANK)
    assert stored.bits >= stored.numbers or one.group == "rounding"
    if one.budgeted and one.group != "control":
        assert 0 < stored.numbers <= RANK * (M + N)


@pytest.mark.parametrize("name", ["svd", "range_finder", "nystroem"])
def test_an_update_of_exact_low_rank_is_found(name):
    delta = RNG.standard_normal((M, 1)) @ RNG.standard_normal((1, N))
    assert error(APPROXIMATIONS[name].make(given(delta)), delta) < 1e-6


@pytest.mark.parametrize("name", ["range_finder", "nystroem"])
def test_a_sketch_tells_its_error_without_bias_and_with_the_known_variance(name):
    one, draws, tests = APPROXIMATIONS[name], 1000, 10
    made = one.make(given())
    told = np.array([one.estimate(given(draw=draw + 1), made) for draw in range(draws)])
    sigma = np.linalg.svd(DELTA - made, compute_uv=False)
    variance = 2 * np.sum(sigma**4) / tests
    z = (told[:, 0].mean() - np.sum(sigma**2)) / math.sqrt(variance / draws)
    assert abs(z) < 4
    # Of sums of weighted chi-squares the fourth cumulant is 48 Σ σ⁸, over tests³.
    spread = math.sqrt((2 * variance**2 + 48 * np.sum(sigma**8) / tests**3) / draws)
    assert abs(told[:, 0].var(ddof=1) - variance) < 4 * spread
    within = told[:, 1]
    assert abs(within.mean() - variance) < 4 * within.std(ddof=1) / math.sqrt(draws)


def test_the_best_of_a_rank_and_the_rest_are_the_update():
    best, rest = (APPROXIMATIONS[name].make(given()) for name in ("svd", "remainder"))
    sigma = np.linalg.svd(DELTA, compute_uv=False)
    share = np.sum(sigma[:RANK] ** 2) / np.sum(sigma**2)
    assert 1 - error(best) == pytest.approx(share, abs=1e-4)
    np.testing.assert_allclose(best + rest, DELTA, atol=1e-2)


ROOT = RNG.standard_normal((N, 4))
LAWFUL = [name for name, one in APPROXIMATIONS.items() if one.law is not None]


@pytest.mark.parametrize("name", LAWFUL)
def test_drawn_errors_have_the_mean_of_the_law_under_any_inputs(name):
    one, draws = APPROXIMATIONS[name], 150
    plain, weighted = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        made = one.make(given(draw=draw)) - DELTA
        plain[draw] = np.sum(made**2) / np.sum(DELTA**2)
        weighted[draw] = np.sum((made @ ROOT) ** 2) / np.sum((DELTA @ ROOT) ** 2)
    for measured, inputs in (
        (plain, InputMoments(N, 1.0)),
        (weighted, input_moments(DELTA, ROOT @ ROOT.T)),
    ):
        spread = 4 * measured.std(ddof=1) / math.sqrt(draws)
        assert abs(measured.mean() - one.law(M, N, RANK, inputs)) < spread + 1e-3


UNBIASED = [name for name, one in APPROXIMATIONS.items() if one.unbiased]


@pytest.mark.parametrize("name", UNBIASED)
def test_what_is_called_unbiased_is_the_update_on_average(name):
    draws = np.array([APPROXIMATIONS[name].make(given(draw=draw)) for draw in range(100)])
    z = (draws.mean(axis=0) - DELTA) / (draws.std(axis=0, ddof=1) / 10)
    assert np.mean(np.abs(z) < 3) > 0.97
    assert np.sum(z**2) / z.size < 1.5


def test_the_largest_entries_hold_more_than_random_ones_and_cost_their_places():
    top, mask = APPROXIMATIONS["top_entries"], APPROXIMATIONS["mask"]
    assert error(top.make(given())) < error(mask.make(given()))
    count = top.stored(M, N, RANK).numbers
    assert np.count_nonzero(top.make(given())) == count == mask.stored(M, N, RANK).numbers
    places = top.stored(M, N, RANK).bits - mask.stored(M, N, RANK).bits
    assert places == pytest.approx(math.log2(math.comb(M * N, count)), rel=1e-9)


def test_rounding_stays_within_half_a_step_and_signs_have_the_best_scale():
    for bits in (2, 4, 8):
        made = APPROXIMATIONS[f"bits_{bits}"].make(given())
        step = np.abs(DELTA).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        assert np.all(np.abs(made - DELTA) <= step * (0.5 + 2e-3 * 2**bits))
    made = APPROXIMATIONS["signs"].make(given())
    for factor in (0.9, 1.1):
        assert error(made) < error(factor * made)


def test_the_controls_are_what_they_say():
    np.testing.assert_array_equal(APPROXIMATIONS["exact"].make(given()), DELTA)
    shuffled = APPROXIMATIONS["shuffled"].make(given())
    np.testing.assert_array_equal(np.sort(shuffled, axis=None), np.sort(DELTA, axis=None))
    noise = APPROXIMATIONS["noise"].make(given())
    assert np.sum(noise**2) == pytest.approx(np.sum(DELTA**2))


def test_stored_values_have_half_precision_at_any_scale():
    for scale in (1e-30, 1.0, 1e30):
        values = scale * DELTA
        assert np.max(np.abs(rounded(values) - values)) <= 2**-11 * np.max(np.abs(values))
    np.testing.assert_array_equal(rounded(np.zeros(3)), np.zeros(3))


INFORMED = [name for name, one in APPROXIMATIONS.items() if one.needs_moments]


@pytest.mark.parametrize("name", INFORMED)
def test_a_transposed_layer_is_approximated_by_the_transpose(name):
    make = APPROXIMATIONS[name].make
    turned = make(given(DELTA.T.copy(), transposed=True))
    np.testing.assert_array_equal(turned, make(given()).T)


def test_informed_cores_keep_the_rows_that_the_inputs_lead_and_store_their_projection():
    vectors = MOMENTS.leading(N - 1)[1]
    parameters = RANK * (M + N)
    b = parameters // M
    one = APPROXIMATIONS["one_sided_activation"]
    kept = (DELTA @ vectors[:, :b]) @ vectors[:, :b].T
    np.testing.assert_allclose(one.make(given()), kept, atol=2e-3 * np.abs(kept).max())
    assert one.stored(M, N, RANK) == Stored(M * b, 16 * (M * b + b * N))
    # Two-sided at the shape of the random core: its share is the law's on average over draws of L.
    size = cosa_shape(M, N, parameters)
    held = np.cumsum(np.sum((DELTA @ vectors) ** 2, axis=0)) / np.sum(DELTA**2)
    law = informed_share(size.a, M, size.b, held)
    make = APPROXIMATIONS["best_core_activation"].make
    shares = np.array([1 - error(make(given(draw=draw))) for draw in range(100)])
    assert abs(shares.mean() - law) < 4 * shares.std() / 10 + 1e-3


@pytest.mark.parametrize(
    ("name", "decoder"), [("prior_haar", "least_squares"), ("prior_adjoint_haar", "adjoint")]
)
def test_updates_drawn_from_the_prior_are_decoded_with_the_error_of_the_law(name, decoder):
    size = cosa_shape(M, N, RANK * (M + N))
    root = np.linalg.cholesky(MOMENTS.matrix + 1e-9 * np.eye(N))
    errors, laws = [], []
    for draw in range(100):
        delta = np.random.default_rng(draw).standard_normal((M, N)) @ root.T
        made = APPROXIMATIONS[name].make(given(delta, draw=draw))
        errors.append(np.sum((made - delta) ** 2) / (M * np.trace(MOMENTS.matrix)))
        R = make_projection("haar", size.b, N, seed=draw, key=("layer", "R"))
        laws.append(prior_error(size.a, M, explained_share(R, MOMENTS.matrix), decoder))
    gaps = np.array(errors) - np.array(laws)
    # The prior's floor of a thousandth moves it a little.
    assert abs(gaps.mean()) < 4 * gaps.std() / 10 + 2e-3


@pytest.mark.parametrize("name", ["prior_haar", "prior_adjoint_haar"])
def test_a_prior_that_knows_nothing_decodes_as_without_it(name):
    plain = {"prior_haar": "best_core_haar", "prior_adjoint_haar": "adjoint_haar"}[name]
    flat = APPROXIMATIONS[name].make(given(moments=SecondMoments(np.eye(N))))
    expected = APPROXIMATIONS[plain].make(given())
    gain = 1.0 if name == "prior_haar" else cosa_shape(M, N, RANK * (M + N)).b / N
    np.testing.assert_allclose(flat, expected * gain, atol=5e-3 * np.abs(flat).max())


@pytest.mark.parametrize("name", ["prior_haar", "prior_adjoint_haar"])
def test_inputs_of_few_directions_leave_the_decoder_finite(name):
    poor = SecondMoments(np.outer(np.arange(N), np.arange(N)).astype(float), count=1)
    made = APPROXIMATIONS[name].make(given(moments=poor))
    assert np.linalg.norm(made) < 100 * np.linalg.norm(DELTA)


def test_directions_that_the_inputs_lack_are_drawn():
    seen = np.arange(1.0, N + 1)
    poor = SecondMoments(np.outer(seen, seen), count=1)
    one = APPROXIMATIONS["one_sided_activation"]
    made = one.make(given(moments=poor))
    assert np.linalg.matrix_rank(made) == one.directions(M, N, RANK) == 8
    np.testing.assert_allclose(made @ seen, DELTA @ seen, rtol=2e-2, atol=0.1)
    np.testing.assert_array_less(error(made), error(made * 0.9))  # a projection of the update


def test_an_unknown_approximation_is_named():
    with pytest.raises(InputError, match="'svf'") as caught:
        select_approximations(["svd", "svf"])
    assert caught.value.argument == "approximations"
    with pytest.raises(InputError, match="approximations is 'svd'"):
        select_approximations("svd")
    assert [one.name for one in select_approximations(["mask", "svd"])] == ["svd", "mask"]
