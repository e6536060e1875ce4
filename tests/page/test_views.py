"""Numbers as text: one form for bytes and shares everywhere."""

import math

import pytest

from cosa_theory.page.views import MISSING, memory, percent


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
