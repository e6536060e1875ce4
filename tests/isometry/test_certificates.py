"""Certificates: what a witness, a bound and a bracket say, and that rounding cannot break them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.isometry.certificates import RipBound, RipBracket, Witness, combine, inward
from cosa_theory.linear.gram_protocol import outward

positive = st.floats(1e-3, 1e3)


def bound(side, least, greatest, method="some", **fields):
    return RipBound(side, 3, least, greatest, method, 1.0, **fields)


def witness(support, coefficients, value=1.0, columns=5):
    return Witness(np.array(support), np.array(coefficients), value, columns)


@given(positive, positive, st.floats(0, 10))
def test_outward_widens_and_inward_narrows_by_the_slack(least, greatest, slack):
    assert outward(least, greatest, slack) == (max(least - slack, 0.0), greatest + slack)
    assert inward(least, greatest, slack) == (least + slack, max(greatest - slack, 0.0))


def test_inner_ends_closer_than_rounding_prove_no_distance_from_one():
    least, greatest = inward(1.0 + 1e-16, 1.0 + 2e-16, 1e-14)
    assert least > greatest
    assert bound("lower", least, greatest).value == 0.0
    assert bound("lower", least, greatest).scale_free == 0.0


@given(positive, positive)
def test_the_value_of_a_bound_is_the_greater_distance_from_one(x, y):
    least, greatest = sorted((x, y))
    assert bound("upper", least, greatest).value == max(greatest - 1, 1 - least, 0.0)


def test_a_witness_spells_out_its_vector():
    x = witness([1, 3], [0.6, -0.8]).vector
    np.testing.assert_array_equal(x, [0.0, 0.6, 0.0, -0.8, 0.0])


@pytest.mark.parametrize(("least", "greatest", "side"), [(0.2, 1.5, "low"), (0.7, 1.5, "high")])
def test_the_witness_of_a_bound_is_the_one_of_the_deciding_side(least, greatest, side):
    low, high = witness([0], [1.0], least), witness([2, 4], [0.6, 0.8], greatest)
    found = bound("lower", least, greatest, least_witness=low, greatest_witness=high)
    assert found.witness is (low if side == "low" else high)
    np.testing.assert_array_equal(found.support, found.witness.support)
    np.testing.assert_array_equal(found.vector, found.witness.vector)


def test_an_upper_bound_has_no_witness():
    upper = bound("upper", 0.5, 1.5)
    assert (upper.witness, upper.support, upper.vector) == (None, None, None)
    with pytest.raises(ValueError, match="no witness"):
        upper.recompute(np.eye(5))


def test_recomputing_a_bound_uses_the_matrix_and_not_the_stored_value():
    A = np.diag([1.0, 1.0, 3.0, 1.0, 1.0])
    honest = bound("lower", 1.0, 9.0, greatest_witness=witness([2], [1.0], 9.0))
    boasting = bound("lower", 1.0, 99.0, greatest_witness=witness([2], [1.0], 99.0))
    assert honest.recompute(A) == boasting.recompute(A) == 8.0


def test_a_witness_with_too_many_entries_is_refused():
    dense = witness([0, 1, 2, 3], [0.5, 0.5, 0.5, 0.5])
    with pytest.raises(ValueError, match="more than s = 3"):
        bound("lower", 1.0, 1.0, greatest_witness=dense).recompute(np.eye(5))


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=5))
def test_combined_upper_bounds_take_the_tightest_of_either_side(pairs):
    bounds = [bound("upper", *sorted(pair)) for pair in pairs]
    best = combine(bounds)
    assert best.least == max(b.least for b in bounds)
    assert best.greatest == min(b.greatest for b in bounds)
    assert best.value <= min(b.value for b in bounds)
    assert best.seconds == len(bounds)


@given(st.lists(st.tuples(positive, positive), min_size=1, max_size=5))
def test_combined_lower_bounds_take_the_widest_of_either_side(pairs):
    bounds = [bound("lower", *sorted(pair), evaluations=2) for pair in pairs]
    best = combine(bounds)
    assert best.least == min(b.least for b in bounds)
    assert best.greatest == max(b.greatest for b in bounds)
    assert best.evaluations == 2 * len(bounds)


def test_combining_keeps_methods_witnesses_proofs_and_notes_of_the_chosen_ends():
    low, high = witness([0], [1.0]), witness([1], [1.0])
    first = bound("lower", 0.1, 1.2, "first", least_witness=low, note="One.")
    second = bound("lower", 0.5, 1.4, "second", greatest_witness=high, note="Two.")
    best = combine([first, second])
    assert best.method == "first, second"  # the deciding end comes first
    assert (best.least_witness, best.greatest_witness) == (low, high)
    assert best.note == "One. Two."
    proofs = [bound("upper", 0.5, 1.5, "p", proof={"U": np.eye(2)}), bound("upper", 0.1, 9.0)]
    assert set(combine(proofs).proof) == {"U"}


def test_methods_that_tie_on_one_side_are_not_both_named():
    weak, strong = bound("upper", 0.0, 4.0, "weak"), bound("upper", 0.0, 3.0, "strong")
    assert combine([weak, strong]).method == "strong"


def test_an_exact_bound_settles_a_combination():
    exact = bound("exact", 0.4, 1.4)
    assert combine([bound("upper", 0.5, 1.1), exact]) is exact


@pytest.mark.parametrize(
    "bounds", [[], [bound("lower", 0.5, 1.5), bound("upper", 0.5, 1.5)]], ids=["none", "two sides"]
)
def test_what_cannot_be_combined_is_refused(bounds):
    with pytest.raises(ValueError, match="one order and side"):
        combine(bounds)


def test_a_bracket_reports_both_ends_and_when_it_guarantees_nothing():
    lower, upper = bound("lower", 0.8, 1.2, "a"), bound("upper", 0.2, 1.9, "b")
    bracket = RipBracket(3, lower, upper, (lower, upper))
    assert (bracket.lower, bracket.upper) == (lower.value, upper.value)
    assert (bracket.method, bracket.seconds) == ("a; b", 2.0)
    assert not bracket.vacuous
    assert not bracket.exact
    assert bracket.scale_free == (lower.scale_free, upper.scale_free)
    assert RipBracket(3, lower, bound("upper", 0.0, 1.1)).vacuous
