"""Sparse updates: exactly s entries, where the packing says, from keyed streams."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.supports import PACKINGS, capacity, sparse_updates


@given(st.integers(1, 9), st.integers(1, 9), st.sampled_from(PACKINGS), st.data())
def test_every_update_has_s_entries_where_the_packing_says(m, n, packing, data):
    s = data.draw(st.integers(1, capacity(m, n, packing)))
    for update in sparse_updates((m, n), s, packing, 3, seed=data.draw(st.integers(0, 99))):
        i, j = np.nonzero(update)
        assert len(i) == s
        if packing == "column":
            assert len(set(j)) == 1
        if packing == "row":
            assert len(set(i)) == 1
        if packing == "block":
            rows, columns = (int(np.ptp(place)) + 1 for place in (i, j))
            side = math.isqrt(s - 1) + 1
            if side <= min(m, n):
                assert rows <= side
                assert columns <= -(-s // side)
            assert rows <= m
            assert columns <= n


def test_a_block_of_a_square_number_is_full():
    for update in sparse_updates((12, 10), 25, "block", 5):
        i, j = np.nonzero(update)
        assert (np.ptp(i), np.ptp(j)) == (4, 4)


@pytest.mark.parametrize("packing", PACKINGS)
def test_every_entry_is_as_likely_as_its_packing_allows(packing):
    X = sparse_updates((6, 5), 2, packing, 3000) != 0
    counts = X.sum(axis=0)
    if packing == "block":  # one row of two entries: its place is uniform among 6 × 4 or 5 × 5
        assert counts.min() > 0
        return
    expected = 3000 * 2 / 30
    deviation = np.abs(counts - expected) / math.sqrt(expected)
    assert deviation.max() < 4.5


def test_values_are_normal_or_signs():
    normal = sparse_updates((8, 8), 64, "random", 100)
    assert abs(normal.mean()) < 4 / 80
    assert abs(normal.std() - 1) < 4 / (80 * math.sqrt(2))
    signs = sparse_updates((8, 8), 64, "random", 100, values="signs")
    assert set(np.unique(signs)) == {-1.0, 1.0}
    assert abs(signs.mean()) < 4 / 80


def test_equal_keys_give_equal_updates_and_others_do_not():
    settings = {"seed": 3, "key": ("a", 1)}
    first = sparse_updates((7, 7), 5, "random", 4, **settings)
    np.testing.assert_array_equal(first, sparse_updates((7, 7), 5, "random", 4, **settings))
    for change in ({"seed": 4}, {"key": ("a", 2)}):
        other = sparse_updates((7, 7), 5, "random", 4, **{**settings, **change})
        assert not np.array_equal(first, other)


def test_more_entries_than_a_packing_holds_are_refused():
    assert [capacity(4, 6, packing) for packing in PACKINGS] == [24, 4, 6, 24]
    for packing, s in (("column", 5), ("row", 7), ("block", 25), ("random", 25), ("random", 0)):
        with pytest.raises(ValueError, match=f"s is {s}: an update of 4 × 6 has 1 to"):
            sparse_updates((4, 6), s, packing, 1)
    with pytest.raises(ValueError, match="packing is 'diagonal'"):
        sparse_updates((4, 6), 2, "diagonal", 1)
    with pytest.raises(ValueError, match="values is 'ones'"):
        sparse_updates((4, 6), 2, "row", 1, values="ones")
