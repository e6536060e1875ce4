"""Checks return what the library works with, or name the argument and its value."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.ground.checks import choice, finite, matrix, numbers, real, refuse, sizes, whole
from cosa_theory.ground.errors import InputError, Problems, quoted

NO_NUMBERS = (None, "3", b"3", [3], {}, math.nan, object)
NO_WHOLE = (
    True,
    np.True_,
    1.0,
    np.float64(2),
    2.5,
    np.array([3]),
    np.array(2.0),
    torch.tensor(2.0),
)
WHOLE = st.integers(-(10**6), 10**6)
REAL = st.floats(allow_nan=False, allow_infinity=False, width=32)


def refused(check, *arguments, **bounds):
    """Return the message of a refusal, which is about the argument "size"."""
    with pytest.raises(InputError) as caught:
        check("size", *arguments, **bounds)
    assert caught.value.argument == "size"
    assert str(caught.value).startswith("size ")
    return str(caught.value)


@given(WHOLE, WHOLE, st.sampled_from([int, np.int64, np.int32, torch.tensor]))
def test_whole_numbers_of_any_library_are_ints_within_their_bounds(value, least, kind):
    if value >= least:
        found = whole("size", kind(value), least)
        assert (found, type(found)) == (value, int)
        assert whole("size", value, least, most=value) == value
        refused(whole, value, least, most=value - 1)
    else:
        assert f"is {value}: it must be a whole number of at least {least}" in refused(
            whole, value, least
        )


@pytest.mark.parametrize("value", [*NO_NUMBERS, *NO_WHOLE])
def test_what_is_no_integer_is_no_whole_number(value):
    assert f"size is {quoted(value)}: it must be a whole number" in refused(whole, value)


@given(REAL, REAL, st.sampled_from([float, np.float32, np.float64, torch.tensor]))
def test_real_numbers_of_any_library_are_floats_within_their_bounds(value, bound, kind):
    for bounds, inside in (
        ({"least": bound}, value >= bound),
        ({"most": bound}, value <= bound),
        ({"above": bound}, value > bound),
        ({"below": bound}, value < bound),
    ):
        if inside:
            found = real("size", kind(value), **bounds)
            assert (found, type(found)) == (value, float)
        else:
            word = next(iter(bounds)).replace("least", "at least").replace("most", "at most")
            message = refused(real, value, **bounds)
            assert f"size is {value!r}: it must be {word} {bound:g}" in message


@pytest.mark.parametrize("value", [*NO_NUMBERS, True, np.True_, math.inf, -math.inf, 10**400, 1j])
def test_what_is_no_finite_number_is_no_real_one(value):
    assert f"size is {quoted(value)}: it must be a finite number" in refused(real, value)


@pytest.mark.parametrize("value", ["text", 1j, [1, [2, 3]], object])
def test_what_is_no_array_of_numbers_is_refused_with_its_value(value):
    for check in (numbers, lambda argument, given: sizes(**{argument: given})):
        assert f"size is {quoted(value)}: it must be a real number" in refused(check, value)


def test_a_number_without_bounds_still_has_to_be_one():
    assert refused(numbers, math.nan) == "size is nan: it must be a number"


def test_a_choice_is_one_of_the_names_and_others_are_told_them():
    assert choice("size", "b", {"a": 1, "b": 2}) == "b"
    for value in ("c", "", None, ["a"], 0):
        assert refused(choice, value, ("a", "b")) == f"size is {value!r}: it must be one of a, b"


def test_of_many_names_the_likest_is_told_first():
    names = [*(f"name_{index}" for index in range(20, 40)), "long_name_svd"]
    assert "it must be one of long_name_svd, name_20, name_21" in refused(choice, "svd", names)
    assert "it must be one of name_2" in refused(choice, "name_2", names)


def test_a_refusal_of_one_place_reads_as_the_others():
    error = refuse("size", (3, 4), "(m, n) with m ≤ n")
    assert isinstance(error, ValueError)
    assert str(error) == "size is (3, 4): it must be (m, n) with m ≤ n"
    assert error.argument == "size"


@given(st.integers(1, 5), st.integers(1, 5), st.sampled_from(["f2", "f4", "f8", "i2", "?"]))
def test_a_matrix_is_float32_if_it_is_that_and_float64_otherwise(m, n, kind):
    values = np.arange(m * n).reshape(m, n).astype(kind)
    found = matrix("size", values, (m, n))
    assert np.array_equal(found, values)
    assert found.dtype == ("float32" if kind == "f4" else "float64")
    assert f"({m}, {n}): it must be {m} × {n + 1}" in refused(matrix, values, (m, n + 1))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.ones(3), "shape (3,)"),
        (np.ones((2, 0)), "shape (2, 0): it must be a matrix with entries"),
        (np.ones((2, 2, 2)), "shape (2, 2, 2)"),
        (np.ones((2, 2)) * 1j, "complex128"),
        ([["a", "b"]], "<U1"),
    ],
)
def test_what_is_no_matrix_of_real_numbers_is_refused(value, words):
    assert words in refused(matrix, value)


@given(st.data())
def test_the_first_entry_that_is_no_number_is_named_by_its_place(data):
    m, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 4))
    places = st.tuples(st.integers(0, m - 1), st.integers(0, n - 1))
    wrong = data.draw(st.lists(places, min_size=1, max_size=3))
    array = np.ones((m, n), data.draw(st.sampled_from(["f4", "f8"])))
    for place in wrong:
        array[place] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    for given_array in (array, torch.from_numpy(array)):
        assert f"first at {min(wrong)}" in refused(finite, given_array)
    assert f"first at {min(wrong)}" in refused(matrix, array)


def test_entries_whose_sum_overflows_are_finite():
    large = np.full((2, 3), np.finfo(np.float64).max)
    finite("size", large)
    finite("size", torch.from_numpy(large))
    finite("size", np.ones(3))
    assert "first at 1" in refused(finite, np.array([1.0, np.nan]))


@given(st.lists(st.integers(1, 100), min_size=1), WHOLE)
def test_sizes_are_float64_arrays_or_name_the_one_that_is_none(values, other):
    first, second = sizes(k=values, d=other if other >= 1 else 1)
    assert first.tolist() == values
    assert (first.dtype, second.shape) == (np.float64, ())
    for wrong in (0, -other if other > 0 else other, 1.5, math.nan, math.inf):
        with pytest.raises(InputError, match=r"^k is ") as caught:
            sizes(d=1, k=[*values, wrong])
        assert caught.value.argument == "k"
        assert str(float(wrong)) in str(caught.value)
    assert sizes(0, k=0)[0] == 0


def test_an_error_is_spelt_with_the_option_of_its_argument():
    error = refuse("noise_level", -1, "at least 0")
    assert error.spelt({"noise_level": "--noise-level"}) == (
        "--noise-level is -1: it must be at least 0",
    )
    assert error.spelt({"other": "--other"}) == error.problems


def test_a_remedy_is_spelt_as_an_option_with_its_value_and_a_flag_alone():
    error = InputError(
        'q: 3 NaN; pass on_nan="skip" or any=True',
        remedies=[("on_nan", "skip"), ("any", True)],
    )
    spelt = error.spelt({"on_nan": "--on-nan", "any": "--any"})
    assert spelt == ("q: 3 NaN; pass --on-nan skip or --any",)
    assert error.spelt({}) == error.problems


def test_errors_of_several_checks_are_spelt_one_by_one():
    found = Problems()
    for name in ("a", "b"):
        with found:
            raise refuse(name, 0, "positive")
    with pytest.raises(InputError) as raised:
        found.report()
    assert len(raised.value.problems) == 2
    first, second = raised.value.spelt({"b": "--b"})
    assert first.startswith("a is 0")
    assert second.startswith("--b is 0")
