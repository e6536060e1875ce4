"""Sparsity measures equal their definitions, and find sparsity in the basis that has it."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cosa_theory.ground.errors import InputError
from cosa_theory.linear.transforms import DCT, SingularBasis
from cosa_theory.spectrum import sparsity_profile
from cosa_theory.spectrum.sparsity import BASES

# Multiples of 2⁻¹⁰, so that no test hinges on subnormal numbers.
entries = st.integers(-(2**20), 2**20).map(lambda k: k / 1024)
matrices = st.tuples(st.integers(1, 6), st.integers(1, 6)).flatmap(
    lambda shape: arrays(np.float64, shape, elements=entries)
)


def coordinate(x, fractions=(0.1, 0.5)):
    return sparsity_profile(x, bases=["coordinate"], fractions=fractions).iloc[0]


@given(matrices)
def test_measures_equal_their_definitions(x):
    row = coordinate(x, (0.3, 1.0))
    size = x.size
    assert row["entries"] == size
    if not x.any():
        assert row[["numerical_sparsity", "gini", "best_term_error_0.3"]].isna().all()
        return
    down = np.sort(np.abs(x).ravel())[::-1]
    ell1 = down.sum()
    assert row["numerical_sparsity"] == pytest.approx(ell1**2 / np.sum(down**2))
    assert row["numerical_sparsity_share"] == pytest.approx(row["numerical_sparsity"] / size)
    weights = (np.arange(1, size + 1) - 0.5) / size
    assert row["gini"] == pytest.approx(1 - 2 * np.sum(down / ell1 * weights), abs=1e-12)
    kept = math.ceil(0.3 * size)
    assert row["best_term_error_0.3"] == pytest.approx(down[kept:].sum() / ell1, abs=1e-12)
    assert row["best_term_error_1"] == 0.0


@given(matrices, st.integers(-60, 60), st.integers(0, 99))
def test_measures_ignore_scale_signs_and_order(x, exponent, seed):
    rng = np.random.default_rng(seed)
    other = np.ldexp(rng.permutation(x.ravel()).reshape(x.shape), exponent)
    other *= rng.choice([-1.0, 1.0], x.shape)
    one, two = coordinate(x), coordinate(other)
    np.testing.assert_allclose(two.drop("basis").astype(float), one.drop("basis").astype(float))


@pytest.mark.parametrize("ones", [1, 7, 60])
def test_s_equal_entries_have_numerical_sparsity_s_and_gini_one_minus_the_share(ones):
    x = np.zeros(60)
    x[:ones] = 3.0
    row = coordinate(x.reshape(6, 10), (ones / 60, 0.5))
    assert row["numerical_sparsity"] == pytest.approx(ones)
    assert row["gini"] == pytest.approx(1 - ones / 60, abs=1e-12)
    assert row[f"best_term_error_{ones / 60:g}"] == pytest.approx(0.0, abs=1e-15)
    assert row["weak_lp"] == (0.0 if ones == 1 else math.inf)


def test_gaussian_entries_have_the_known_sparsity_in_every_basis():
    rng = np.random.default_rng(0)
    m, n = 300, 200
    table = sparsity_profile(rng.standard_normal((m, n)), rng.standard_normal((m, n)))
    assert tuple(table["basis"]) == BASES
    # ‖x‖₁ and ‖x‖₂² of N standard normals: variances 1 − 2/π and 2, covariance √(2/π) per entry;
    # the delta method gives the share a variance of 4π⁻²·(2(π−3))/N.
    sd = math.sqrt(8 * (math.pi - 3) / math.pi**2 / (m * n))
    np.testing.assert_allclose(table["numerical_sparsity_share"], 2 / math.pi, atol=4 * sd)
    # The Gini index of a half-normal variable.
    np.testing.assert_allclose(table["gini"], math.sqrt(2) - 1, atol=0.005)


@pytest.mark.parametrize("p", [0.5, 1.0, 2.0])
def test_the_weak_exponent_of_a_power_law_is_its_exponent(p):
    x = np.arange(1, 1001.0) ** (-1 / p)
    assert coordinate(x.reshape(20, 50))["weak_lp"] == pytest.approx(p)


def test_the_best_term_error_falls_with_the_number_of_terms():
    x = np.random.default_rng(1).standard_normal((30, 30))
    fractions = (0.001, 0.01, 0.1, 0.5, 0.9, 1.0)
    row = coordinate(x, fractions)
    errors = [row[f"best_term_error_{fraction:g}"] for fraction in fractions]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] < 1.0
    assert errors[-1] == 0.0


def sparse_in(name, W):
    """Return a matrix with five non-zero coefficients in a basis, and spread out in the others."""
    coefficients = np.zeros(W.shape)
    coefficients[[2, 5, 7, 11, 13], [3, 1, 9, 4, 12]] = [1.0, -2.0, 1.5, 1.0, -1.0]
    inverse = {"coordinate": np.copy, "dct": DCT().inverse, "singular": SingularBasis(W).inverse}
    return inverse[name](coefficients)


@pytest.mark.parametrize("name", BASES)
def test_sparsity_is_found_in_the_basis_that_has_it(name):
    W = np.random.default_rng(2).standard_normal((24, 16))
    table = sparsity_profile(sparse_in(name, W), W).set_index("basis")
    expected = 6.5**2 / 9.25
    assert table.loc[name, "numerical_sparsity"] == pytest.approx(expected)
    assert (table["numerical_sparsity"].drop(name) > 5 * expected).all()


def test_the_weight_itself_is_as_sparse_as_its_rank_in_its_own_basis():
    W = np.random.default_rng(3).standard_normal((20, 50))
    row = sparsity_profile(W, W, bases=["singular"], fractions=[20 / 1000]).iloc[0]
    sigma = np.linalg.svd(W, compute_uv=False)
    assert row["numerical_sparsity"] == pytest.approx(sigma.sum() ** 2 / np.sum(sigma**2))
    assert row["best_term_error_0.02"] == pytest.approx(0.0, abs=1e-12)


def test_float32_updates_of_any_size_are_measured_alike():
    x = np.random.default_rng(4).standard_normal((40, 30)).astype(np.float32)
    one = coordinate(x).drop("basis").astype(float)
    tiny = coordinate(x * np.float32(2.0**-80)).drop("basis").astype(float)
    np.testing.assert_allclose(tiny, one, rtol=1e-6)


def test_the_singular_basis_is_left_out_without_the_weight():
    assert list(sparsity_profile(np.eye(4))["basis"]) == ["coordinate", "dct"]


def test_a_zero_update_has_null_measures():
    table = sparsity_profile(np.zeros((4, 5)), np.eye(4, 5))
    assert (table["entries"] == 20).all()
    assert table.drop(columns=["basis", "entries"]).isna().all(axis=None)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"delta": np.zeros((0, 3))}, "shape"),
        ({"delta": np.ones(3)}, "shape"),
        ({"delta": np.array([[1.0, np.nan]])}, "NaN or infinite"),
        ({"delta": np.array([[1.0, -np.inf]])}, "NaN or infinite"),
        ({"delta": np.eye(3), "base": np.eye(4)}, r"base has shape \(4, 4\).*3 × 3"),
        ({"delta": np.eye(3), "bases": ["haar"]}, "bases is 'haar'"),
        ({"delta": np.eye(3), "fractions": [0.0]}, "fractions is 0.0"),
        ({"delta": np.eye(3), "fractions": [1.5]}, "fractions is 1.5"),
        ({"delta": np.eye(3), "bases": "dct"}, "bases is 'dct'.* in a list"),
        ({"delta": np.eye(3), "fractions": 0.1}, r"fractions is 0.1.* in a list, as in \[0.1\]"),
    ],
)
def test_bad_input_is_refused_with_what_is_wrong(arguments, message):
    with pytest.raises(ValueError, match=message):
        sparsity_profile(**arguments)


def test_tensors_of_any_type_are_measured_and_errors_name_the_argument():
    delta = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, 0.25]])
    half = sparsity_profile(delta.bfloat16(), delta.bfloat16())
    assert half.equals(sparsity_profile(delta.numpy(), delta.numpy()))
    for argument, matrices in (
        ("delta", (np.ones(3),)),
        ("delta", (np.full((2, 2), np.nan),)),
        ("base", (np.ones((2, 3)), np.ones((3, 2)))),
        ("base", (np.ones((2, 2)), np.full((2, 2), np.inf))),
    ):
        with pytest.raises(InputError) as error:
            sparsity_profile(*matrices)
        assert error.value.argument == argument
