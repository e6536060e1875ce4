"""The Kronecker variance law: exact by enumeration of finite factors, and by simulation."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.laws import GramMoments, kronecker
from cosa_theory.projections import ENSEMBLES, make_projection
from tests.laws.ensembles import DENSITY, Z, outcomes, sjlt_outcomes, srht_outcomes, z_of_variance

KURTOSES = {"rademacher": 1, "achlioptas": 3, "very_sparse": 1 / DENSITY}


def gram_moments(kind, k, d, **options):
    """The moments that an ensemble states in its record."""
    return GramMoments(*ENSEMBLES[kind].moments(k, d, **options))


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
    X = kronecker.matrix_moments(X_SMALL)
    law = kronecker.kronecker_variance_law(
        *(
            gram_moments(kind, k, 2, **({"density": DENSITY} if kind == "very_sparse" else {}))
            for kind, k in ((left, 2), (right, 1))
        ),
        X,
    )
    assert law == pytest.approx(exact, rel=1e-12)
    one, two, ratio = KURTOSES[left] - 3, KURTOSES[right] - 3, X.participation_ratio
    closed = 2 / 2 + (2 / 2 + 2 / 1 + 2 / 2) / ratio
    closed += one * X.row_fourth * (1 / 2 + 2 / 2) + two * X.column_fourth * (1 / 1 + 2 / 2)
    closed += one * two * X.entry_fourth / 2
    assert closed == pytest.approx(exact, rel=1e-12)


def test_kronecker_law_holds_exactly_for_a_hadamard_and_a_sparse_jl_factor():
    X = np.array([[2.0, -1.0], [0.5, 1.0], [0.0, 3.0]])
    X /= np.linalg.norm(X)
    left, right = list(srht_outcomes(2, 3, False)), list(sjlt_outcomes(2, 2, 1))
    exact = sum(
        p * r * (np.sum((A @ X @ B.T) ** 2) - 1) ** 2
        for (A, p), (B, r) in itertools.product(left, right)
    )
    law = kronecker.kronecker_variance_law(
        gram_moments("srht", 2, 3),
        gram_moments("sjlt", 2, 2),
        kronecker.matrix_moments(X),
    )
    assert law == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("kind", ["gaussian", "rademacher", "very_sparse", "haar"])
def test_kronecker_law_meets_drawn_rectangular_factors(kind):
    m, n, a, b, draws = 9, 6, 5, 2, 1000
    rng = np.random.default_rng(3)
    X = rng.standard_normal((m, 2)) @ np.diag([3.0, 1.0]) @ rng.standard_normal((2, n))
    X /= np.linalg.norm(X)
    ratios = []
    for i in range(draws):
        A = make_projection(kind, a, m, seed=2, key=("kron", i, "A"))
        B = make_projection(kind, b, n, seed=2, key=("kron", i, "B"))
        ratios.append(float(np.sum((B @ (A @ X).T) ** 2)))
    law = kronecker.kronecker_variance_law(
        gram_moments(kind, a, m), gram_moments(kind, b, n), kronecker.matrix_moments(X)
    )
    assert abs(z_of_variance(ratios, law)) < Z


def test_a_whole_orthonormal_side_leaves_the_law_of_the_other_factor_alone():
    """Var = 2/(a PR): twice that of an unstructured map with ab rows at PR = n/2."""
    m, n, a = 12, 10, 6
    X = np.random.default_rng(6).standard_normal((m, n)) * np.linspace(0.2, 2, n)
    moments = kronecker.matrix_moments(X)
    left, whole = gram_moments("gaussian", a, m), gram_moments("haar", n, n)
    law = kronecker.kronecker_variance_law(left, whole, moments)
    assert law == pytest.approx(2 / (a * moments.participation_ratio), rel=1e-12)
    flat = kronecker.MatrixMoments(n / 2, 0.0, 0.0, 0.0)
    assert kronecker.kronecker_variance_law(left, whole, flat) == pytest.approx(2 * 2 / (a * n))


def test_synthesis_law_is_the_analysis_law_with_the_layers_sizes():
    """‖L Y R‖² at synthesis scale, L and R Gaussian with entries of variance 1/m and 1/n."""
    m, n, a, b, draws = 11, 7, 4, 3, 10_000
    rng = np.random.default_rng(4)
    Y = np.outer(rng.standard_normal(a), rng.standard_normal(b)) + 0.3
    Y /= np.linalg.norm(Y)
    L = rng.standard_normal((draws, m, a)) / math.sqrt(m)
    R = rng.standard_normal((draws, b, n)) / math.sqrt(n)
    ratios = np.sum((L @ Y @ R) ** 2, axis=(1, 2))
    moments = kronecker.matrix_moments(Y)
    for rows, columns, agrees in ((m, n, True), (a, b, False)):
        factors = (gram_moments("gaussian", rows, a), gram_moments("gaussian", columns, b))
        z = abs(z_of_variance(ratios, kronecker.kronecker_variance_law(*factors, moments)))
        assert z < Z if agrees else z > 2 * Z


def test_core_participation_is_the_mean_of_a_gaussian_cores():
    a, b, draws = 5, 3, 20_000
    Y = np.random.default_rng(5).standard_normal((draws, a, b))
    energy = np.linalg.svd(Y, compute_uv=False) ** 2
    inverse = (energy**2).sum(axis=1) / energy.sum(axis=1) ** 2
    error = inverse.std(ddof=1) / math.sqrt(draws)
    assert abs(inverse.mean() - kronecker.core_participation(a, b)) < Z * error


@given(st.integers(1, 8), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_matrix_moments_agree_with_the_singular_values(m, n, seed):
    X = np.random.default_rng(seed).standard_normal((m, n)) * 1e-200  # squares would underflow
    moments = kronecker.matrix_moments(X)
    X = X / np.linalg.norm(X * 1e200) * 1e200
    sigma = np.linalg.svd(X, compute_uv=False)
    assert moments.participation_ratio == pytest.approx(1 / np.sum(sigma**4), rel=1e-9)
    assert moments.row_fourth == pytest.approx(np.sum(np.linalg.norm(X, axis=1) ** 4))
    assert moments.column_fourth == pytest.approx(np.sum(np.linalg.norm(X, axis=0) ** 4))
    assert moments.entry_fourth == pytest.approx(np.sum(X**4))


def test_inflation_is_the_gaussian_law_over_an_unstructured_maps():
    for a, b, ratio in ((4, 7, 1.0), (96, 48, 33.0)):
        moments = kronecker.MatrixMoments(ratio, 0.5, 0.5, 0.2)
        factors = (gram_moments("gaussian", a, 100), gram_moments("gaussian", b, 100))
        law = kronecker.kronecker_variance_law(*factors, moments)
        assert kronecker.kronecker_inflation(a, b, ratio) == pytest.approx(law * a * b / 2)
    assert kronecker.kronecker_inflation(96, 48, 145) == pytest.approx(2.0)  # PR = a + b + 1


def test_the_participation_ratio_runs_from_one_value_to_all_of_them():
    assert kronecker.participation_ratio([3.0, 0.0, 0.0]) == 1
    assert kronecker.participation_ratio([2e-200] * 5) == pytest.approx(5)
    assert kronecker.participation_ratio([2.0, 1.0]) == pytest.approx(25 / 17)
    assert math.isnan(kronecker.participation_ratio([0.0, 0.0]))


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("participation_ratio", lambda: kronecker.kronecker_inflation(2, 2, 0.5)),
        ("a", lambda: kronecker.core_participation(0, 2)),
        ("X", lambda: kronecker.matrix_moments(np.zeros((2, 2)))),
        ("X", lambda: kronecker.matrix_moments(np.array([[1.0, np.nan]]))),
        ("X", lambda: kronecker.matrix_moments(np.ones(3))),
    ],
)
def test_bad_arguments_are_named(argument, call):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.argument == argument
