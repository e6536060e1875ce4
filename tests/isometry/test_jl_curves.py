"""Norms over many draws follow their laws, and draws are what their keys say."""

import math
import re

import numpy as np
import pytest
from scipy import stats

from cosa_theory.isometry.jl_curves import jl_ratios, kronecker_ratios, kronecker_variance
from cosa_theory.laws import kronecker_inflation, norms
from cosa_theory.projections import make_projection

SPIKE = np.eye(12)[4]
MIXED = np.random.default_rng(0).standard_normal(12)


def test_gaussian_norms_are_exactly_chi_square():
    for x in (SPIKE, MIXED):
        ratios = jl_ratios("gaussian", 5, x, draws=2000, seed=1)[:, 0]
        assert stats.kstest(5 * ratios, stats.chi2(5).cdf).pvalue > 1e-3
        assert stats.kstest(5 * ratios, stats.chi2(6).cdf).pvalue < 1e-6  # the test can fail


def test_haar_norms_are_exactly_beta():
    ratios = jl_ratios("haar", 5, MIXED, draws=2000, seed=1)[:, 0]
    assert stats.kstest(5 / 12 * ratios, stats.beta(2.5, 3.5).cdf).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["gaussian", "haar"])
def test_failure_counts_are_binomial_around_the_exact_law(kind):
    draws, eps = 2000, np.array([0.2, 0.5, 0.9, 1.3])
    ratios = jl_ratios(kind, 5, MIXED, draws=draws, seed=2)
    failures = np.count_nonzero(np.abs(ratios - 1) > eps, axis=0)
    law = norms.chi_square_failure(5, eps) if kind == "gaussian" else norms.haar_failure(5, 12, eps)
    low, high = stats.binom.ppf([[1e-4], [1 - 1e-4]], draws, law)
    assert np.all((low <= failures) & (failures <= high))


def test_a_sparse_ensemble_fails_more_often_on_a_spike_than_the_chi_square_law_says():
    ratios = jl_ratios("very_sparse", 16, SPIKE, draws=1000, seed=3)
    law = norms.chi_square_failure(16, 0.7)
    failures = np.count_nonzero(np.abs(ratios - 1) > 0.7)
    assert failures > stats.binom.ppf(1 - 1e-6, 1000, law)


def test_density_reaches_the_ensemble():
    """At density 1 a very sparse projection is Rademacher, which keeps a spike exactly."""
    ratios = jl_ratios("very_sparse", 16, SPIKE, draws=10, density=1.0)
    assert ratios == pytest.approx(1.0, abs=1e-9)


def test_draws_are_keyed_by_their_number_alone():
    few = jl_ratios("gaussian", 5, MIXED, draws=3, seed=4)
    many = jl_ratios("gaussian", 5, MIXED, draws=6, seed=4)
    assert np.array_equal(few, many[:3])
    A = make_projection("gaussian", 5, 12, seed=4, key=("jl", 1))
    assert few[1, 0] == pytest.approx(np.sum((A @ MIXED) ** 2) / np.sum(MIXED**2))


def test_several_vectors_share_their_draws():
    together = jl_ratios("sjlt", 8, np.stack([SPIKE, MIXED]), draws=4, seed=5)
    assert together[:, 1] == pytest.approx(jl_ratios("sjlt", 8, MIXED, draws=4, seed=5)[:, 0])


def rectangular(ratio):
    """7 × 9, its singular values from flat to steep."""
    rng = np.random.default_rng(6)
    U = np.linalg.qr(rng.standard_normal((7, 7)))[0]
    V = np.linalg.qr(rng.standard_normal((9, 7)))[0]
    return (U * np.arange(1.0, 8.0) ** -ratio) @ V.T


@pytest.mark.parametrize("decay", [0.0, 8.0])
@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "sjlt", "srht"])
def test_kronecker_variance_meets_its_law(kind, decay):
    found = kronecker_variance(kind, 4, 3, 50 * rectangular(decay), draws=600, seed=7)
    assert abs(found.z) < 4
    mean = found.ratios.mean() - 1
    assert abs(mean) < 4 * math.sqrt(found.law / found.ratios.size)
    assert found.measured.low < found.measured.value < found.measured.high
    assert found.unstructured == pytest.approx(2 / 12)
    if kind == "gaussian":
        inflation = kronecker_inflation(4, 3, found.moments.participation_ratio)
        assert found.law == pytest.approx(inflation * found.unstructured)


def test_a_law_without_the_spectrum_is_told_apart():
    """An unstructured map's variance is far outside the interval: the test above can fail."""
    found = kronecker_variance("gaussian", 12, 9, rectangular(8.0), draws=1000, seed=7)
    assert found.measured.low <= found.law <= found.measured.high
    assert not found.measured.low <= 2 * found.unstructured <= found.measured.high


def test_factors_of_equal_size_are_drawn_by_their_roles():
    X = np.arange(16.0).reshape(4, 4)
    ratios = kronecker_ratios("gaussian", 3, 3, X, draws=2, seed=8, key=("layer",))
    for i, ratio in enumerate(ratios):
        A, B = (
            make_projection("gaussian", 3, 4, seed=8, key=("jl", "layer", i, role)) for role in "AB"
        )
        assert ratio == pytest.approx(np.sum((A @ X @ B.T) ** 2) / np.sum(X**2))
        assert not np.array_equal(A, B)


def test_keys_make_kronecker_draws_independent():
    X = rectangular(1.0)
    first = kronecker_ratios("gaussian", 4, 3, X, draws=5, seed=8)
    assert np.array_equal(first, kronecker_ratios("gaussian", 4, 3, X, draws=5, seed=8))
    other = kronecker_ratios("gaussian", 4, 3, X, draws=5, seed=8, key=("layer",))
    assert not np.any(first == other)
    assert kronecker_ratios("gaussian", 4, 3, 1e200 * X, draws=5, seed=8) == pytest.approx(first)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: jl_ratios("gaussian", 5, MIXED, draws=0), "draws is 0"),
        (lambda: jl_ratios("gaussian", 5, MIXED, draws=2.5), "draws is 2.5"),
        (lambda: jl_ratios("gaussian", 5, MIXED, draws=True), "draws is True"),
        (lambda: kronecker_variance("gaussian", 2, 2, np.eye(3), draws="9"), "draws is '9'"),
        (lambda: jl_ratios("gaussian", 5, np.zeros(12), draws=2), "vector 0 is zero"),
        (lambda: jl_ratios("haar", 50, MIXED, draws=2), "haar"),
        (lambda: kronecker_variance("gaussian", 2, 2, np.eye(3), draws=1), "draws is 1"),
        (lambda: kronecker_variance("gaussian", 2, 2, np.zeros((3, 3))), "X is zero"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
