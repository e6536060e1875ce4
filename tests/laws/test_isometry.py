"""The closed forms of isometry, and what the spark wall does to ℓ1 recovery in simulation."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from cosa_theory import CosaBasis
from cosa_theory.isometry.coherence import spark_bounds
from cosa_theory.laws.isometry import (
    RIP_ALGORITHMS,
    best_scale_constant,
    core_constant,
    kronecker_rip_upper,
    measurement_bound,
    rip_condition,
    spark_wall,
    uniform_sparsity_limit,
)


def test_the_kronecker_law_is_the_product_of_one_plus_each():
    assert kronecker_rip_upper(0.2, 0.5) == pytest.approx(1.2 * 1.5 - 1)
    assert kronecker_rip_upper(np.array([0.0, 0.1]), 0.1) == pytest.approx([0.1, 0.21])
    assert kronecker_rip_upper(1e-17, 0.0) == 1e-17  # not lost beside one
    with pytest.raises(ValueError, match=r"delta_b must be zero or positive, got -0\.1"):
        kronecker_rip_upper(0.1, -0.1)


def test_the_measurement_bound_grows_with_the_logarithm_of_the_larger_side():
    assert measurement_bound(16, 4096, 1024) == pytest.approx(16 * math.log(4096))
    assert measurement_bound(16, 1024, 4096, constant=3) == pytest.approx(48 * math.log(4096))
    assert measurement_bound([1, 2], 8, 8) == pytest.approx([math.log(8), 2 * math.log(8)])
    with pytest.raises(ValueError, match="constant must be positive, got 0"):
        measurement_bound(1, 8, 8, constant=0)
    with pytest.raises(ValueError, match="s must be a positive whole number"):
        measurement_bound(0, 8, 8)


def test_the_spark_wall_is_the_spark_of_a_gaussian_sensing_operator():
    assert spark_wall(1024, 256) == 257
    assert uniform_sparsity_limit(1024, 256) == 128
    assert uniform_sparsity_limit([3, 4, 1], 5) == pytest.approx([1, 2, 0])
    basis = CosaBasis.sample(12, 10, 5, 3, scale="analysis")
    assert spark_bounds(basis.sensing()).upper == spark_wall(5, 3) == 4
    assert spark_bounds(basis.dictionary()).lower == math.inf  # the tall one is injective


def test_the_best_scale_constant_and_the_limits_of_all_cores():
    assert best_scale_constant(5.0) == pytest.approx(24 / 26)
    assert best_scale_constant([1.0, math.inf]) == pytest.approx([0.0, 1.0])
    assert core_constant(4096, 4096, 1024, 256) == pytest.approx(1.875**2 - 1)
    assert core_constant(4096, 4096, 1024, 256, "analysis") == pytest.approx(64 * 1.875**2 - 1)
    assert core_constant(100, 100, 1, 1) == pytest.approx(1.1**4 - 1)
    with pytest.raises(ValueError, match=r"condition must be at least 1, got 0\.5"):
        best_scale_constant(0.5)
    with pytest.raises(ValueError, match="scale is 'unit'"):
        core_constant(8, 8, 2, 2, "unit")
    with pytest.raises(ValueError, match="a = 9 is larger than m = 8"):
        core_constant(8, 8, 9, 2)


def test_the_conditions_of_recovery_are_those_of_their_sources():
    assert rip_condition("basis_pursuit", 3) == (6, pytest.approx(0.70711, abs=1e-5))
    assert rip_condition("omp", 3) == (4, 0.5)
    assert rip_condition("iht", 2) == rip_condition("htp", 2) == (6, pytest.approx(3**-0.5))
    assert rip_condition("cosamp", 2) == (8, 0.5)
    assert len(RIP_ALGORITHMS) == 5
    with pytest.raises(ValueError, match="algorithm is 'lasso': it must be one of basis_pursuit"):
        rip_condition("lasso", 1)
    with pytest.raises(ValueError, match="s must be a positive whole number"):
        rip_condition("omp", 0)


# The spark wall in ℓ1 recovery: shares of success over trials, with 99 % intervals.

ITERATIONS = 500
TRIALS = 100


def basis_pursuit(project, shape):
    """Minimise ‖X‖₁ on an affine space by Douglas-Rachford splitting, many problems at once."""
    Z = project(np.zeros(shape))
    for _ in range(ITERATIONS):
        X = np.sign(Z) * np.maximum(np.abs(Z) - 0.1, 0)
        Z += project(2 * X - Z) - X
    return np.sign(Z) * np.maximum(np.abs(Z) - 0.1, 0)


def sparse_updates(generator, trials, s, packing, side=32):
    X = np.zeros((trials, side, side))
    for update in X:
        if packing == "anywhere":
            i, j = np.divmod(generator.choice(side * side, s, replace=False), side)
        elif packing == "column":
            i, j = generator.choice(side, s, replace=False), np.full(s, generator.integers(side))
        elif packing == "row":
            i, j = np.full(s, generator.integers(side)), generator.choice(side, s, replace=False)
        else:  # whole columns, as many as needed
            j, i = np.divmod(np.arange(s), side)
        update[i, j] = generator.standard_normal(s)
    return X


def interval(found, X):
    """The 99 % interval of the probability that an update is found from its measurements."""
    errors = np.linalg.norm(found - X, axis=(1, 2)) / np.linalg.norm(X, axis=(1, 2))
    successes = int((errors < 1e-3).sum())
    return binomtest(successes, len(X)).proportion_ci(0.99)


def kronecker_success(a, b, s, packing, seed=0):
    """Recovery of s-sparse 32 × 32 updates from Lᵀ ΔW Rᵀ, a new Gaussian pair for each."""
    generator = np.random.default_rng(seed)
    X = sparse_updates(generator, TRIALS, s, packing)
    # Equal measurements mean equal projections on the row spaces of Lᵀ and R.
    P, Q = (np.linalg.qr(generator.standard_normal((TRIALS, 32, k)))[0] for k in (a, b))
    P, Q = P @ P.transpose(0, 2, 1), Q @ Q.transpose(0, 2, 1)
    known = P @ X @ Q
    return interval(basis_pursuit(lambda Z: Z + known - P @ Z @ Q, X.shape), X)


def unstructured_success(rows, s, packing, matrices=4, seed=0):
    """The same from independent Gaussian rows; several updates share one matrix."""
    generator = np.random.default_rng(seed)
    found, true = [], []
    for _ in range(matrices):
        Q = np.linalg.qr(generator.standard_normal((1024, rows)))[0]
        X = sparse_updates(generator, TRIALS // matrices, s, packing)
        vectors = X.reshape(len(X), -1).T
        known = Q @ (Q.T @ vectors)

        def project(Z, Q=Q, known=known):
            return Z + known - Q @ (Q.T @ Z)

        found.append(basis_pursuit(project, vectors.shape).T.reshape(X.shape))
        true.append(X)
    return interval(np.concatenate(found), np.concatenate(true))


def test_supports_packed_in_one_row_are_limited_by_b_and_in_one_column_by_a():
    # a = 24, b = 8, s = 4: the same sparsity, the same 192 measurements.
    assert kronecker_success(24, 8, 4, "row").high < 0.3
    assert kronecker_success(24, 8, 4, "column").low > 0.7


def test_kronecker_sensing_finds_scattered_supports_and_loses_packed_ones():
    scattered = kronecker_success(16, 16, 40, "anywhere")
    assert 0.6 < scattered.low < scattered.high < 0.97
    packed = kronecker_success(16, 16, 8, "column")
    assert 0.1 < packed.low < packed.high < 0.5
    assert uniform_sparsity_limit(16, 16) == 8
    assert kronecker_success(16, 16, 16, "column").high < 0.1


def test_unstructured_sensing_does_not_care_how_a_support_is_packed():
    for packing in ("anywhere", "whole columns"):
        found = unstructured_success(256, 64, packing)
        assert 0.55 < found.low < found.high < 0.95
