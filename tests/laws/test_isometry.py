"""The closed forms of isometry; what they do to recovery is seen in tests/experiments."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory import CosaBasis
from cosa_theory.isometry.coherence import spark_bounds
from cosa_theory.laws.isometry import (
    RIP_ALGORITHMS,
    dictionary_edges,
    kronecker_rip_upper,
    measurement_bound,
    rip_condition,
    scale_free_constant,
    spark_wall,
    uniform_sparsity_limit,
)


def test_the_kronecker_law_is_the_product_of_one_plus_each():
    assert kronecker_rip_upper(0.2, 0.5) == pytest.approx(1.2 * 1.5 - 1)
    assert kronecker_rip_upper(np.array([0.0, 0.1]), 0.1) == pytest.approx([0.1, 0.21])
    assert kronecker_rip_upper(1e-17, 0.0) == 1e-17  # not lost beside one
    with pytest.raises(ValueError, match=r"delta_b is -0\.1"):
        kronecker_rip_upper(0.1, -0.1)


def test_the_measurement_bound_grows_with_the_logarithm_of_the_larger_side():
    assert measurement_bound(16, 4096, 1024) == pytest.approx(16 * math.log(4096))
    assert measurement_bound(16, 1024, 4096) == pytest.approx(16 * math.log(4096))
    assert measurement_bound([1, 2], 8, 8) == pytest.approx([math.log(8), 2 * math.log(8)])
    with pytest.raises(ValueError, match=r"s is 0\S*: it must be a whole number"):
        measurement_bound(0, 8, 8)


def test_the_spark_wall_is_the_spark_of_a_gaussian_sensing_operator():
    assert spark_wall(1024, 256) == 257
    assert uniform_sparsity_limit(1024, 256) == 128
    assert uniform_sparsity_limit([3, 4, 1], 5) == pytest.approx([1, 2, 0])
    basis = CosaBasis.sample(12, 10, 5, 3, scale="analysis")
    assert spark_bounds(basis.sensing()).upper == spark_wall(5, 3) == 4
    assert spark_bounds(basis.dictionary()).lower == math.inf  # the tall one is injective


positive = st.floats(1e-3, 1e3)


@given(positive, positive)
def test_the_scale_free_constant_is_the_least_over_all_scales(x, y):
    least, greatest = sorted((x, y))
    squares = (1 + np.linspace(-0.5, 0.5, 201)) * 2 / (least + greatest)
    constants = np.maximum(squares * greatest - 1, 1 - squares * least)
    value = scale_free_constant(least, greatest)
    assert math.isclose(constants[100], value, abs_tol=1e-12)
    assert constants.min() >= value - 1e-12


def test_a_matrix_of_zeros_has_the_scale_free_constant_one():
    assert scale_free_constant(0.0, 0.0) == 1.0


def test_the_dictionary_of_a_large_layer_is_far_from_an_isometry():
    edges = dictionary_edges((4096, 1024), (4096, 256))
    assert edges == pytest.approx((0.375, 1.875))
    assert scale_free_constant(*np.square(edges)) == pytest.approx(24 / 26)  # κ = 5
    assert dictionary_edges((100, 1)) == pytest.approx((0.9, 1.1))
    assert dictionary_edges() == (1.0, 1.0)  # both factors are identities
    with pytest.raises(ValueError, match="a is 9: it must be at most m = 8"):
        dictionary_edges((8, 9), (8, 2))


def test_the_conditions_of_recovery_are_those_of_their_sources():
    assert rip_condition("basis_pursuit", 3) == (6, pytest.approx(0.70711, abs=1e-5))
    assert rip_condition("omp", 3) == (4, 0.5)
    assert rip_condition("iht", 2) == rip_condition("htp", 2) == (6, pytest.approx(3**-0.5))
    assert rip_condition("cosamp", 2) == (8, 0.5)
    assert len(RIP_ALGORITHMS) == 5
    with pytest.raises(ValueError, match="algorithm is 'lasso': it must be one of basis_pursuit"):
        rip_condition("lasso", 1)
    with pytest.raises(ValueError, match=r"s is 0\S*: it must be a whole number"):
        rip_condition("omp", 0)
