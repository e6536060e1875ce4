"""Variances of projected norms: exact by enumeration of small ensembles, and by simulation.

Where an ensemble is finite, every outcome is enumerated and the law must hold to rounding. The
others are simulated with fixed seeds; a z-score beyond 4 fails.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cosa_theory.ground.errors import InputError
from cosa_theory.laws import norms
from cosa_theory.projections import ENSEMBLES
from tests.laws.ensembles import (
    DENSITY,
    outcomes,
    sjlt_outcomes,
    srht_outcomes,
    unit,
    variance_over,
)


def moments(kind, k, d):
    """The moments that an ensemble states in its record."""
    options = {"density": DENSITY} if kind == "very_sparse" else {}
    return norms.GramMoments(*ENSEMBLES[kind].moments(k, d, **options))


VECTORS = {"spike": unit([0, 1, 0]), "flat": unit([1, -1, 1]), "other": unit([3, -1, 0.5])}


@pytest.mark.parametrize("x", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("kind", ["rademacher", "achlioptas", "very_sparse"])
def test_kurtosis_law_holds_exactly_for_finite_ensembles(kind, x):
    kappa = {"rademacher": 1, "achlioptas": 3, "very_sparse": 1 / DENSITY}[kind]
    quartic = norms.fourth_power(x)
    exact = variance_over(outcomes(kind, 2, 3), lambda A: np.sum((A @ x) ** 2))
    assert (2 + (kappa - 3) * quartic) / 2 == pytest.approx(exact, abs=1e-12)
    assert moments(kind, 2, 3).norm_variance(quartic) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("x", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("zeta", [1, 2, 3])
def test_sjlt_law_holds_exactly_for_any_nonzeros_a_column(zeta, x):
    exact = variance_over(sjlt_outcomes(3, 3, zeta), lambda A: np.sum((A @ x) ** 2))
    quartic = norms.fourth_power(x)
    assert 2 / 3 * (1 - quartic) == pytest.approx(exact, abs=1e-12)
    assert moments("sjlt", 3, 3).norm_variance(quartic) == pytest.approx(exact, abs=1e-12)


@pytest.mark.parametrize("x", VECTORS.values(), ids=VECTORS)
@pytest.mark.parametrize("k", [1, 2, 3, 4])
@pytest.mark.parametrize("replacement", [False, True])
def test_srht_law_holds_exactly_with_and_without_replacement(replacement, k, x):
    """Three coordinates, padded to four."""
    outcome = srht_outcomes(k, 3, replacement)
    exact = variance_over(outcome, lambda A: np.sum((A @ x) ** 2))
    quartic = norms.fourth_power(x)
    law = 2 / k * (1 - quartic) * (1 if replacement else (4 - k) / 3)
    assert law == pytest.approx(exact, abs=1e-12)
    if not replacement:
        assert moments("srht", k, 3).norm_variance(quartic) == pytest.approx(exact, abs=1e-12)


def test_haar_variance_is_that_of_its_beta_variable():
    for k, d in ((1, 2), (3, 7), (50, 384), (9, 9)):
        beta = stats.beta(k / 2, (d - k) / 2).var() * (d / k) ** 2 if k < d else 0.0
        assert 2 * (d - k) / (k * (d + 2)) == pytest.approx(beta, rel=1e-12)
        law = moments("haar", k, d).norm_variance(0.7)
        assert law == pytest.approx(beta, rel=1e-9, abs=1e-15)


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


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("fourth_power", lambda: moments("gaussian", 4, 5).norm_variance(1.5)),
        ("k", lambda: norms.chi_square_failure(0, 0.5)),
        ("eps", lambda: norms.chi_square_failure(4, 0.0)),
        ("tail", lambda: norms.chi_square_failure(4, 0.1, "left")),
        ("k", lambda: norms.haar_failure(5, 4, 0.1)),
    ],
)
def test_bad_arguments_are_named(argument, call):
    with pytest.raises(InputError) as error:
        call()
    assert error.value.argument == argument


def test_a_norm_law_is_found_by_its_name_and_none_is_nan():
    eps = np.array([0.1, 0.2])
    assert np.array_equal(
        norms.exact_failure("chi_square", 4, 9, eps), norms.chi_square_failure(4, eps)
    )
    assert np.array_equal(norms.exact_failure("beta", 4, 9, eps), norms.haar_failure(4, 9, eps))
    assert np.isnan(norms.exact_failure(None, 4, 9, eps)).all()
