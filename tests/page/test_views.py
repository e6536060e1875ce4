"""Numbers as text: one form for bytes and shares everywhere."""

import math

import pandas as pd
import pytest

from cosa_theory.page.views import MISSING, Column, View, memory, number, percent


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (4344, "4.34 kB"),
        (999_960, "1.00 MB"),
        (57_344_000, "57.3 MB"),
        (1.75e9, "1.75 GB"),
        (46_861e9, "46.9 TB"),
        (math.nan, MISSING),
        (None, MISSING),
    ],
)
def test_bytes_have_three_digits_and_a_decimal_unit(size, text):
    assert memory(size) == text


def test_large_shares_are_grouped_like_other_numbers():
    assert percent(108.6) == "10,860 %"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((None, "–"), (float("nan"), "–"), (pd.NA, "–"), (0, "0"), (1.0, "1.00"), (12.34, "12.3")),
        *((1234.5, "1,234"), (0.0123, "0.0123"), (1.5e-7, "1.5e-7"), (99.96, "100")),
        *((2.7e76, "2.7e76"), (-math.inf, "-∞"), (999_999_999_999, "999,999,999,999")),
    ],
)
def test_numbers_have_three_digits_and_missing_ones_a_dash(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [
        *((1.0, "100 %"), (0.0634, "6.3 %"), (0.000634, "0.063 %"), (0, "0 %")),
        (math.inf, "∞ %"),
    ],
)
def test_shares_are_percentages(share, shown):
    assert percent(share) == shown


def test_a_column_shows_the_value_of_its_name_or_the_whole_row():
    columns = (
        Column("a", "A", cell=number),
        Column(None, "sum", cell=lambda row: f"{sum(row.values())}"),
    )
    view = View.of("Two", columns, pd.DataFrame({"a": [1, 2], "b": [3, 4]}))
    assert view.rows == (("1.00", "4"), ("2.00", "6"))
    assert View.of("Two", columns, [{"a": 1, "b": 3}, {"a": 2, "b": 4}]) == view
