"""The closed forms of isometry; what they do to recovery is seen in tests/experiments."""

import math

import numpy as np
import pytest

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
