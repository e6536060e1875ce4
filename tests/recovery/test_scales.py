"""Measurements and operators times powers of two give the same answer, times powers of two."""

import numpy as np
import pytest

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.ground.errors import InputError
from cosa_theory.recovery import METHODS, RecoveryProblem, recover

BASIS = CosaBasis.sample(8, 7, 6, 5, seed=0, scale="analysis")
UPDATE = np.zeros((8, 7))
UPDATE[3, 4], UPDATE[6, 1] = 1.0, -2.0
NOISE = 0.01 * np.random.default_rng(0).standard_normal((6, 5))
SIGMA = float(np.linalg.norm(NOISE))


def solved(method, k_y, k_a, sigma=0.0, dtype="float64", **options):
    A, B = BASIS.sensing().factors
    Y = BASIS.encode(UPDATE) + (NOISE if sigma else 0.0)
    problem = RecoveryProblem(
        KroneckerOperator(np.ldexp(A, k_a), B),
        np.ldexp(Y.astype(dtype), k_y),
        noise_level=float(np.ldexp(sigma, k_y)),
    )
    result = recover(problem, method, **options)
    return np.ldexp(result.estimate, k_a - k_y), result.status, result.certificate.relative


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("sigma", [0.0, SIGMA])
def test_every_solver_is_equivariant_under_powers_of_two(method, sigma):
    expected = solved(method, 0, 0, sigma)
    for k_y, k_a in ((300, 0), (-300, 0), (0, 60), (0, -60), (90, 120), (-90, 120)):
        found = solved(method, k_y, k_a, sigma)
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[1:] == expected[1:]
    single = solved(method, 0, 0, sigma, "float32")
    np.testing.assert_array_equal(solved(method, 20, -5, sigma, "float32")[0], single[0])


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "lasso"},
        {"objective": "nuclear"},
        {"objective": "analysis"},
        {"objective": "analysis", "sigma": SIGMA},
    ],
)
def test_every_objective_of_the_reference_is_equivariant(options):
    expected = solved("reference", 0, 0, **options)
    for k_y, k_a in ((200, 0), (-200, 60), (-60, -60)):
        found = solved("reference", k_y, k_a, **options)
        np.testing.assert_array_equal(found[0], expected[0])
        assert found[1] == expected[1]


def test_a_penalty_scales_with_measurements_and_operator():
    for method in ("fista", "reference"):
        given = {"objective": "lasso"} if method == "reference" else {}
        expected = solved(method, 0, 0, lam=0.1, **given)
        found = solved(method, 40, -7, lam=0.1 * 2.0**33, **given)
        np.testing.assert_array_equal(found[0], expected[0])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(("k_y", "k_a"), [(660, 0), (-660, 0), (0, 660), (0, -660)])
def test_what_leaves_the_range_of_squares_is_refused_with_a_remedy(method, k_y, k_a):
    with pytest.raises(InputError, match="powers of two"):
        solved(method, k_y, k_a)
