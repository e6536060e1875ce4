"""The law of a core decoded by its adjoint: exact by enumeration, and by simulation."""

import itertools
import math

import numpy as np
import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.laws import (
    GramMoments,
    best_gain,
    decoder_error,
    energy_law,
    gram_growth,
    input_moments,
)
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.projections import ENSEMBLES, KINDS, make_projection
from tests.laws.ensembles import DENSITY, outcomes, sjlt_outcomes, srht_outcomes

X = np.array([[2.0, -1.0, 0.5], [0.5, 1.0, 3.0]])
FACTOR = np.array([[1.0, 0.2, -0.3], [0.5, 2.0, 0.1]])
C = FACTOR.T @ FACTOR  # of inputs that fill two of three directions


def moments(kind, k, d, **options):
    return GramMoments(*ENSEMBLES[kind].moments(k, d, **options))


def relative_error(A, B, gain):
    error = (gain * A.T @ A @ X @ B.T @ B - X) @ FACTOR.T
    return np.sum(error**2) / np.sum((X @ FACTOR.T) ** 2)


@pytest.mark.parametrize("gain", [1.0, 0.3])
@pytest.mark.parametrize(
    ("left", "right"),
    [
        (("rademacher", 2, {}), ("very_sparse", 1, {"density": DENSITY})),
        (("achlioptas", 1, {}), ("rademacher", 2, {})),
        (("rademacher", 1, {}), ("srht", 2, {})),
        (("srht", 1, {}), ("sjlt", 2, {"nonzeros": 1})),
    ],
)
def test_the_law_is_the_mean_over_all_outcomes_of_finite_factors(left, right, gain):
    def drawn(kind, k, d):
        if kind == "srht":
            return list(srht_outcomes(k, d, False))
        return list(sjlt_outcomes(k, d, 1) if kind == "sjlt" else outcomes(kind, k, d))

    pairs = itertools.product(drawn(*left[:2], 2), drawn(*right[:2], 3))
    exact = sum(p * r * relative_error(A, B, gain) for (A, p), (B, r) in pairs)
    law = decoder_error(
        moments(*left[:2], 2, **left[2]),
        2,
        moments(*right[:2], 3, **right[2]),
        input_moments(X, C),
        gain,
    )
    assert law == pytest.approx(exact, rel=1e-10)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_drawn_adjoints_have_the_error_of_the_law(kind):
    m, n, a, b, draws = 12, 20, 5, 8, 400
    rng = np.random.default_rng(3)
    dW = rng.standard_normal((m, 2)) @ rng.standard_normal((2, n))
    root = rng.standard_normal((n, 3))
    weighted = np.sum((dW @ root) ** 2)
    errors, weighted_errors = np.empty(draws), np.empty(draws)
    for draw in range(draws):
        basis = CosaBasis.sample(m, n, a, b, kind=kind, seed=draw, scale="analysis", key="law")
        back = basis.synthesize(basis.encode(dW)) - dW
        errors[draw] = np.sum(back**2) / np.sum(dW**2)
        weighted_errors[draw] = np.sum((back @ root) ** 2) / weighted
    left, right = moments(kind, a, m), moments(kind, b, n)
    for measured, inputs in ((errors, None), (weighted_errors, root @ root.T)):
        law = decoder_error(left, m, right, input_moments(dW, inputs))
        deviation = measured.std(ddof=1) / math.sqrt(draws)
        assert abs(measured.mean() - law) < 4 * deviation


def test_the_energy_errors_are_the_published_ones():
    m, n, a, b = 30, 20, 6, 5
    update = input_moments(np.ones((m, n)))
    gaussian = decoder_error(moments("gaussian", a, m), m, moments("gaussian", b, n), update)
    assert gaussian == pytest.approx((1 + (m + 1) / a) * (1 + (n + 1) / b) - 1)
    haar = [moments("haar", a, m), m, moments("haar", b, n), update]
    assert decoder_error(*haar) == pytest.approx(m * n / (a * b) - 1)
    law = float(energy_law(m, n, a, b))
    assert best_gain(*haar) == pytest.approx(law)
    assert decoder_error(*haar, law) == pytest.approx(1 - law)


def test_one_fixed_input_has_the_error_of_the_published_law():
    m, n, a, b = 30, 20, 6, 5
    rng = np.random.default_rng(0)
    dW, x = rng.standard_normal((m, n)), rng.standard_normal(n)
    out, energy = np.sum((dW @ x) ** 2), np.sum(dW**2) * np.sum(x**2)
    update = input_moments(dW, np.outer(x, x))
    law = decoder_error(moments("gaussian", a, m), m, moments("gaussian", b, n), update)
    assert law * out == pytest.approx((1 + (m + 1) / a) * ((1 + 1 / b) * out + energy / b) - out)
    v = b * (b + 2) / (n * (n + 2))
    c2 = (b / n - v) / (n - 1)
    haar = decoder_error(moments("haar", a, m), m, moments("haar", b, n), update)
    projected = (v - c2) * out + c2 * energy
    assert haar * out == pytest.approx((m * n / (a * b)) ** 2 * a / m * projected - out)


def test_least_squares_on_haar_ranges_is_the_adjoint_times_the_law():
    m, n, a, b = 10, 14, 4, 6
    basis = CosaBasis.sample(m, n, a, b, kind="haar", seed=1, scale="analysis")
    dW = np.random.default_rng(1).standard_normal((m, n))
    adjoint = basis.synthesize(basis.encode(dW))
    np.testing.assert_allclose(basis.project(dW), a * b / (m * n) * adjoint, atol=1e-10)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_gram_growth_is_the_mean_square_of_a_column(kind):
    k, d, draws = 4, 9, 600
    values = np.empty(draws)
    for draw in range(draws):
        A = make_projection(kind, k, d, seed=draw, key="growth")
        A = A @ np.eye(d) if not isinstance(A, np.ndarray) else A
        values[draw] = np.mean(np.sum((A.T @ A) ** 2, axis=0))
    law = gram_growth(moments(kind, k, d), d)
    tolerance = 4 * values.std(ddof=1) / math.sqrt(draws) + 1e-12
    assert abs(values.mean() - law) < tolerance


def test_inputs_that_do_not_fit_the_update_are_named():
    with pytest.raises(InputError, match=r"shape \(2, 2\).*\(3, 3\)") as caught:
        input_moments(X, np.eye(2))
    assert caught.value.argument == "C"
    with pytest.raises(InputError, match="blind"):
        input_moments(np.diag([1.0, 0.0]), np.diag([0.0, 1.0]))
    with pytest.raises(InputError, match="dW is zero"):
        input_moments(np.zeros((2, 3)))
