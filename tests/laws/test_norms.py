"""Variances of projected norms: exact by enumeration of small ensembles, and by simulation.

Where an ensemble is finite, every outcome is enumerated and the law must hold to rounding. The
others are simulated with fixed seeds; a z-score beyond 4 fails.
"""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.linalg import hadamard

from cosa_theory.laws import norms
from cosa_theory.projections import KINDS, make_projection

Z = 4.0
DENSITY = 0.3


def unit(x):
    x = np.asarray(x, dtype=float)
    return x / np.linalg.norm(x)


def z_of_variance(ratios, law):
    """Standard errors between the mean of (q − 1)² and the law, by the sample's fourth moment."""
    squares = (np.asarray(ratios) - 1) ** 2
    return (squares.mean() - law) / (squares.std(ddof=1) / math.sqrt(squares.size))


def outcomes(kind, k, d):
    """Every k × d matrix of a finite ensemble, with its probability."""
    if kind == "rademacher":
        values, weights = np.array([-1.0, 1.0]), np.array([0.5, 0.5])
    else:
        q = 1 / 3 if kind == "achlioptas" else DENSITY
        size = 1 / math.sqrt(q)
        values, weights = np.array([-size, 0.0, size]), np.array([q / 2, 1 - q, q / 2])
    for places in itertools.product(range(len(values)), repeat=k * d):
        chosen = list(places)
        yield values[chosen].reshape(k, d) / math.sqrt(k), float(np.prod(weights[chosen]))


def sjlt_outcomes(k, d, zeta):
    columns = []
    for rows in itertools.combinations(range(k), zeta):
        for signs in itertools.product((-1, 1), repeat=zeta):
            column = np.zeros(k)
            column[list(rows)] = np.array(signs) / math.sqrt(zeta)
            columns.append(column)
    chosen = list(itertools.product(columns, repeat=d))
    for matrix in chosen:
        yield np.array(matrix).T, 1 / len(chosen)


def srht_outcomes(k, d, replacement):
    N = 1 << (d - 1).bit_length()
    H = hadamard(N)[:, :d] / math.sqrt(k)
    choose = itertools.product(range(N), repeat=k)
    rows = list(choose if replacement else itertools.combinations(range(N), k))
    signs = list(itertools.product((-1, 1), repeat=d))
    for chosen, flips in itertools.product(rows, signs):
        yield H[list(chosen)] * np.array(flips), 1 / (len(rows) * len(signs))


def variance_over(pairs, norm):
    """Exact variance of a squared norm over enumerated outcomes; its mean must be one."""
    values = np.array([[norm(A), p] for A, p in pairs])
    mean = float(values[:, 0] @ values[:, 1])
    assert mean == pytest.approx(1.0, abs=1e-12)
    return float(((values[:, 0] - 1) ** 2) @ values[:, 1])


VECTORS = {"spike": unit([0, 1, 0]), "flat": unit([1, -1, 1]), "other": unit([3, -1, 0.5])}


@pytest.mark.parametrize("x", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("kind", ["rademacher", "achlioptas", "very_sparse"])
def test_kurtosis_law_holds_exactly_for_finite_ensembles(kind, x):
    kappa = norms.entry_kurtosis(kind, density=DENSITY)
    quartic = norms.fourth_power(x)
    exact = variance_over(outcomes(kind, 2, 3), lambda A: np.sum((A @ x) ** 2))
    assert norms.norm_variance(2, quartic, kappa) == pytest.approx(exact, abs=1e-12)
    moments = norms.gram_moments(kind, 2, 3, DENSITY)
    assert moments.norm_variance(quartic) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("x", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("zeta", [1, 2, 3])
def test_sjlt_law_holds_exactly_for_any_nonzeros_a_column(zeta, x):
    exact = variance_over(sjlt_outcomes(3, 3, zeta), lambda A: np.sum((A @ x) ** 2))
    quartic = norms.fourth_power(x)
    assert norms.sjlt_norm_variance(3, quartic) == pytest.approx(exact, abs=1e-12)
    law = norms.gram_moments("sjlt", 3, 3).norm_variance(quartic)
    assert law == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("x", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("replacement", [False, True])
def test_srht_law_holds_exactly_with_and_without_replacement(replacement, k, x):
    """Three coordinates, padded to four."""
    outcome = srht_outcomes(k, 3, replacement)
    exact = variance_over(outcome, lambda A: np.sum((A @ x) ** 2))
    quartic = norms.fourth_power(x)
    law = norms.srht_norm_variance(k, 3, quartic, replacement=replacement)
    assert law == pytest.approx(exact, abs=1e-12)
    if not replacement:
        moments = norms.gram_moments("srht", k, 3)
        assert moments.norm_variance(quartic) == pytest.approx(exact, abs=1e-12)


def test_haar_variance_is_that_of_its_beta_variable():
    for k, d in ((1, 2), (3, 7), (50, 384), (9, 9)):
        beta = stats.beta(k / 2, (d - k) / 2).var() * (d / k) ** 2 if k < d else 0.0
        assert norms.haar_norm_variance(k, d) == pytest.approx(beta, rel=1e-12)
        moments = norms.gram_moments("haar", k, d)
        assert moments.norm_variance(0.7) == pytest.approx(beta, rel=1e-9, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_variance_of_drawn_projections_meets_the_law(kind):
    k, d, draws = 6, 20, 3000
    x = unit(np.r_[4.0, np.ones(d - 1)])  # between flat and spike
    ratios = [
        float(np.sum((make_projection(kind, k, d, seed=1, key=("law", i)) @ x) ** 2))
        for i in range(draws)
    ]
    law = norms.gram_moments(kind, k, d).norm_variance(norms.fourth_power(x))
    assert abs(z_of_variance(ratios, law)) < Z


X_SMALL = np.array([[2.0, -1.0], [0.5, 1.0]]) / math.sqrt(6.25)


@pytest.mark.parametrize("right", ["rademacher", "very_sparse", "achlioptas"])
@pytest.mark.parametrize("left", ["rademacher", "very_sparse"])
def test_kronecker_law_holds_exactly_for_finite_factors(left, right):
    """A is 2 × 2 and B is 1 × 2: unequal, and of different ensembles."""
    factors = [
        (A, B, p * r)
        for (A, p), (B, r) in itertools.product(outcomes(left, 2, 2), outcomes(right, 1, 2))
    ]
    values = np.array([[np.sum((A @ X_SMALL @ B.T) ** 2), weight] for A, B, weight in factors])
    exact = float(((values[:, 0] - 1) ** 2) @ values[:, 1])
    X = norms.matrix_moments(X_SMALL)
    law = norms.kronecker_variance_law(
        norms.gram_moments(left, 2, 2, DENSITY), norms.gram_moments(right, 1, 2, DENSITY), X
    )
    assert law == pytest.approx(exact, rel=1e-12)
    closed = norms.kronecker_norm_variance(
        2,
        1,
        X.participation_ratio,
        kurtoses=tuple(norms.entry_kurtosis(kind, density=DENSITY) for kind in (left, right)),
        row_fourth=X.row_fourth,
        column_fourth=X.column_fourth,
        entry_fourth=X.entry_fourth,
    )
    assert closed == pytest.approx(exact, rel=1e-12)


def test_kronecker_law_holds_exactly_for_a_hadamard_and_a_sparse_jl_factor():
    X = np.array([[2.0, -1.0], [0.5, 1.0], [0.0, 3.0]])
    X /= np.linalg.norm(X)
    left, right = list(srht_outcomes(2, 3, False)), list(sjlt_outcomes(2, 2, 1))
    exact = sum(
        p * r * (np.sum((A @ X @ B.T) ** 2) - 1) ** 2
        for (A, p), (B, r) in itertools.product(left, right)
    )
    law = norms.kronecker_variance_law(
        norms.gram_moments("srht", 2, 3), norms.gram_moments("sjlt", 2, 2), norms.matrix_moments(X)
    )
    assert law == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "very_sparse", "haar"])
def test_kronecker_law_meets_drawn_rectangular_factors(kind):
    m, n, a, b, draws = 9, 6, 5, 2, 4000
    rng = np.random.default_rng(3)
    X = rng.standard_normal((m, 2)) @ np.diag([3.0, 1.0]) @ rng.standard_normal((2, n))
    X /= np.linalg.norm(X)
    ratios = []
    for i in range(draws):
        A = make_projection(kind, a, m, seed=2, key=("kron", i, "A"))
        B = make_projection(kind, b, n, seed=2, key=("kron", i, "B"))
        ratios.append(float(np.sum((B @ (A @ X).T) ** 2)))
    law = norms.kronecker_variance_law(
        norms.gram_moments(kind, a, m), norms.gram_moments(kind, b, n), norms.matrix_moments(X)
    )
    assert abs(z_of_variance(ratios, law)) < Z


def test_synthesis_law_is_the_analysis_law_with_the_layers_sizes():
    """‖L Y R‖² at synthesis scale, L and R Gaussian with entries of variance 1/m and 1/n."""
    m, n, a, b, draws = 11, 7, 4, 3, 20_000
    rng = np.random.default_rng(4)
    Y = np.outer(rng.standard_normal(a), rng.standard_normal(b)) + 0.3
    Y /= np.linalg.norm(Y)
    L = rng.standard_normal((draws, m, a)) / math.sqrt(m)
    R = rng.standard_normal((draws, b, n)) / math.sqrt(n)
    ratios = np.sum((L @ Y @ R) ** 2, axis=(1, 2))
    ratio = norms.matrix_moments(Y).participation_ratio
    assert abs(z_of_variance(ratios, norms.kronecker_norm_variance(m, n, ratio))) < Z
    assert abs(z_of_variance(ratios, norms.kronecker_norm_variance(a, b, ratio))) > 2 * Z


def test_core_participation_is_the_mean_of_a_gaussian_cores():
    a, b, draws = 5, 3, 20_000
    Y = np.random.default_rng(5).standard_normal((draws, a, b))
    energy = np.linalg.svd(Y, compute_uv=False) ** 2
    inverse = (energy**2).sum(axis=1) / energy.sum(axis=1) ** 2
    error = inverse.std(ddof=1) / math.sqrt(draws)
    assert abs(inverse.mean() - norms.core_participation(a, b)) < Z * error


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_matrix_moments_agree_with_the_singular_values(m, n, seed):
    X = np.random.default_rng(seed).standard_normal((m, n)) * 1e-200  # squares would underflow
    moments = norms.matrix_moments(X)
    X = X / np.linalg.norm(X * 1e200) * 1e200
    sigma = np.linalg.svd(X, compute_uv=False)
    assert moments.participation_ratio == pytest.approx(1 / np.sum(sigma**4), rel=1e-9)
    assert moments.row_fourth == pytest.approx(np.sum(np.linalg.norm(X, axis=1) ** 4))
    assert moments.column_fourth == pytest.approx(np.sum(np.linalg.norm(X, axis=0) ** 4))
    assert moments.entry_fourth == pytest.approx(np.sum(X**4))


def test_inflation_is_the_gaussian_law_over_an_unstructured_maps():
    a, b, ratio = np.array([4, 96]), np.array([7, 48]), np.array([1.0, 33.0])
    law = norms.kronecker_norm_variance(a, b, ratio)
    assert norms.kronecker_inflation(a, b, ratio) == pytest.approx(law * a * b / 2)
    assert norms.kronecker_inflation(96, 48, 145) == pytest.approx(2.0)  # PR = a + b + 1


def poisson_tail(k, level, upper):
    """A χ² tail of even k as a Poisson sum, in logarithms: P(χ²_k > 2y) = P(Poisson(y) < k/2)."""
    y = k * level / 2
    terms = np.arange(k // 2) if upper else np.arange(k // 2, k // 2 + 2000)
    return np.sum(np.exp(stats.poisson.logpmf(terms, y)))


@pytest.mark.parametrize(("k", "eps"), [(2, 0.5), (40, 0.3), (1000, 0.5), (1000, 0.8), (6, 2.5)])
def test_chi_square_tails_keep_their_digits(k, eps):
    upper = norms.chi_square_failure(k, eps, "upper")
    lower = norms.chi_square_failure(k, eps, "lower")
    assert upper == pytest.approx(poisson_tail(k, 1 + eps, True), rel=1e-9)
    if eps < 1:
        assert lower == pytest.approx(poisson_tail(k, 1 - eps, False), rel=1e-9)
    else:
        assert lower == 0.0
    assert norms.chi_square_failure(k, eps) == pytest.approx(upper + lower)
    assert 0 < upper < 1


def test_haar_failure_is_the_beta_law_and_nothing_at_full_rank():
    for k, d, eps in ((3, 8, 0.4), (64, 384, 0.1), (5, 6, 0.9)):
        beta = stats.beta(k / 2, (d - k) / 2)
        expected = beta.cdf(k / d * (1 - eps)) + beta.sf(k / d * (1 + eps))
        assert norms.haar_failure(k, d, eps) == pytest.approx(expected, rel=1e-9)
    assert norms.haar_failure(7, 7, 1e-6) == 0.0
    # Orthonormal rows fail less often than independent ones.
    assert norms.haar_failure(64, 384, 0.2) < norms.chi_square_failure(64, 0.2)


def test_failure_laws_broadcast():
    assert norms.chi_square_failure([[4], [8]], [0.1, 0.2, 0.3]).shape == (2, 3)
    assert norms.haar_failure(4, 8, [0.1, 0.2]).shape == (2,)


@given(st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_fourth_power_lies_between_one_over_d_and_one(d, seed):
    x = np.random.default_rng(seed).standard_normal(d) * 1e160  # squares would overflow
    assert 1 / d - 1e-12 <= norms.fourth_power(x) <= 1 + 1e-12


def test_fourth_power_takes_rows_and_has_none_for_zero():
    values = norms.fourth_power(np.array([[0.0, 2.0], [1.0, -1.0], [0.0, 0.0]]))
    assert values[:2] == pytest.approx([1.0, 0.5])
    assert np.isnan(values[2])


def test_kurtoses_are_those_of_the_definitions():
    assert norms.entry_kurtosis("gaussian") == norms.entry_kurtosis("achlioptas") == 3
    assert norms.entry_kurtosis("rademacher") == 1
    assert norms.entry_kurtosis("very_sparse", density=0.1) == pytest.approx(10)
    assert norms.entry_kurtosis("very_sparse", d=400) == pytest.approx(20)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: norms.entry_kurtosis("haar"), "kind is 'haar'"),
        (lambda: norms.entry_kurtosis("very_sparse"), "needs its density"),
        (lambda: norms.entry_kurtosis("very_sparse", density=0.0), "density is 0.0"),
        (lambda: norms.norm_variance(0, 0.5), "k must be a positive whole number"),
        (lambda: norms.norm_variance(4, 1.5), "fourth_power must lie in [0, 1]"),
        (lambda: norms.norm_variance(4, 0.5, 0.5), "kurtosis must be at least 1"),
        (lambda: norms.gram_moments("haar", 5, 4), "haar has at most 4 rows"),
        (lambda: norms.srht_norm_variance(9, 5, 0.5), "srht has at most 8 rows"),
        (lambda: norms.kronecker_norm_variance(2, 2, 0.5), "participation_ratio must be"),
        (lambda: norms.kronecker_norm_variance(2, 2, 1, kurtoses=(0, 3)), "kurtoses must be"),
        (lambda: norms.matrix_moments(np.zeros((2, 2))), "finite and not zero"),
        (lambda: norms.matrix_moments(np.array([[1.0, np.nan]])), "finite and not zero"),
        (lambda: norms.matrix_moments(np.ones(3)), "X must be a matrix"),
        (lambda: norms.chi_square_failure(4, 0.0), "eps must be positive"),
        (lambda: norms.chi_square_failure(4, 0.1, "left"), "tail must be one of"),
        (lambda: norms.haar_failure(5, 4, 0.1), "k must be at most d"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        call()
