"""Equal budgets: never exceeded, hardly ever wasted, and three of them wherever three exist."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.spectrum.budget import (
    check_ranks,
    cosa_shape,
    default_ranks,
    lora_parameters,
    lora_xs_rank,
)
from cosa_theory.spectrum.families import FAMILIES

SIZES = st.integers(1, 5000)


@given(SIZES, SIZES, st.integers(1, 10**7), st.sampled_from(["memory", "square"]))
def test_a_core_fits_the_layer_and_the_budget(m, n, parameters, rule):
    shape = cosa_shape(m, n, parameters, rule)
    assert 1 <= shape.a <= m
    assert 1 <= shape.b <= n
    assert shape.parameters == shape.a * shape.b <= parameters


@given(SIZES, SIZES, st.integers(1, 64))
def test_no_family_ever_exceeds_the_budget(m, n, rank):
    budget = lora_parameters(m, n, rank)
    for family in FAMILIES.values():
        size = family.size(m, n, budget)
        assert size.parameters <= budget
        assert size.rank <= min(m, n)
        if size.a is not None:
            assert size.a * size.b == size.parameters


def least_memory(m, n, parameters):
    """Least a·m + b·n over real a ≤ m and b ≤ n with ab = parameters."""
    a = min(max(math.sqrt(parameters * n / m), parameters / n), m)
    return a * m + parameters / a * n


@given(st.integers(2, 60), st.integers(2, 60), st.data())
def test_the_product_is_the_largest_that_the_memory_allows(m, n, data):
    parameters = data.draw(st.integers(1, m * n - 1))
    shape = cosa_shape(m, n, parameters)
    allowed = 1.01 * least_memory(m, n, parameters)
    best = max(
        (
            a * min(n, parameters // a)
            for a in range(1, min(m, parameters) + 1)
            if a * m + min(n, parameters // a) * n <= allowed
        ),
        default=0,
    )
    # 0.1 % counts as equal, and a whole side may cost 1 %.
    whole = shape.a == m or shape.b == n
    assert shape.parameters >= (0.99 if whole else 0.999) * best


@given(st.integers(64, 5000), st.integers(64, 5000), st.integers(4, 16))
def test_budgets_of_real_layers_are_spent_to_97_per_cent_within_the_least_memory(m, n, rank):
    budget = lora_parameters(m, n, rank)
    if budget >= m * n:
        return
    shape = cosa_shape(m, n, budget)
    assert shape.parameters >= 0.97 * budget
    # Rounding both sides down or up by one costs at most m + n on top of the slack of 1 %.
    assert shape.a * m + shape.b * n <= 1.01 * least_memory(m, n, budget) + m + n


def test_a_side_that_leaves_the_layer_is_whole_and_the_other_side_grows():
    # k_proj of Llama-3.2-1B: a·m = b·n would ask for a = 1024 of 512 rows.
    assert cosa_shape(512, 2048, 262_144) == cosa_shape(512, 2048, 262_144, "square")
    shape = cosa_shape(512, 2048, 262_144)
    assert (shape.a, shape.b) == (512, 512)
    shape = cosa_shape(2048, 512, 262_144)
    assert (shape.a, shape.b) == (512, 512)


def test_a_whole_side_is_cut_where_it_would_waste_the_budget():
    # 77 × 2 would spend 154 of 230 parameters.
    shape = cosa_shape(77, 2826, 230)
    assert (shape.a, shape.b) == (76, 3)


@given(SIZES, SIZES, st.integers(0, 1000))
def test_a_budget_of_the_whole_layer_gives_the_whole_layer(m, n, more):
    shape = cosa_shape(m, n, m * n + more)
    assert (shape.a, shape.b) == (m, n)


@given(SIZES, SIZES, st.integers(1, 10**6))
def test_the_mirrored_layer_gets_a_mirrored_core_of_the_same_size(m, n, parameters):
    shape, mirrored = cosa_shape(m, n, parameters), cosa_shape(n, m, parameters)
    assert mirrored.parameters == pytest.approx(shape.parameters, rel=0.02, abs=n + m)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((0, 4, 5), "m is 0"),
        ((4, -1, 5), "n is -1"),
        ((4, 4, 0), "parameters is 0"),
        ((4, True, 5), "n is True"),
        ((4, 4, 5, "round"), "rule is 'round'"),
    ],
)
def test_bad_sizes_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        cosa_shape(*arguments)


@given(SIZES, SIZES, st.integers(1, 10**7))
def test_the_core_of_lora_xs_is_the_largest_square_within_budget_and_layer(m, n, parameters):
    rank = lora_xs_rank(m, n, parameters)
    assert rank**2 <= parameters
    assert rank == min(m, n) or (rank + 1) ** 2 > parameters


@given(SIZES, SIZES)
def test_three_different_budgets_unless_the_layer_has_fewer_ranks_below_its_own_size(m, n):
    ranks = default_ranks(m, n)
    assert list(ranks) == sorted(set(ranks))
    possible = (m * n - 1) // (m + n)  # the largest r with r(m + n) < mn
    assert len(ranks) == (3 if possible >= 3 else max(1, possible))
    if possible:
        assert lora_parameters(m, n, max(ranks)) < m * n
    if min(m, n) > 6:
        assert len(ranks) == 3


@pytest.mark.parametrize(
    ("shape", "ranks"),
    [
        ((384, 384), (4, 8, 16)),
        ((64, 64), (4, 8, 16)),
        ((30522, 384), (4, 8, 16)),
        ((32, 32), (2, 4, 8)),
        ((8, 384), (1, 2, 3)),
        ((2, 384), (1,)),
        ((1, 384), (1,)),
    ],
)
def test_the_default_budgets_are_those_of_the_documentation(shape, ranks):
    assert default_ranks(*shape) == ranks


def test_ranks_of_a_user_are_sorted_and_counted_once():
    assert check_ranks([16, 4, 4, 8]) == (4, 8, 16)


@pytest.mark.parametrize("ranks", [[], [4, 0], [2.5], [True], 5, "4", np.array(5)])
def test_ranks_that_are_no_budget_are_refused(ranks):
    with pytest.raises(InputError) as error:
        check_ranks(ranks)
    assert error.value.argument == "ranks"
