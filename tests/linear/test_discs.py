"""Gershgorin's discs of a Kronecker product, of which few pairs of rows are looked at."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.linear import discs
from cosa_theory.linear.discs import LargestEntries, extreme_disc
from cosa_theory.linear.gram import KroneckerGram


def gaussian(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)) / math.sqrt(rows)


@given(
    seed=st.integers(0, 10**6),
    rows=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    counts=st.tuples(st.integers(0, 4), st.integers(0, 4)),
    order=st.integers(1, 8),
    sign=st.sampled_from([1, -1]),
    spread=st.floats(0.0, 3.0),
)
def test_the_extreme_disc_is_the_largest_over_all_pairs_of_rows(
    seed, rows, counts, order, sign, spread
):
    """For any lists, also where the diagonal is not the largest entry of its row."""
    generator = np.random.default_rng(seed)
    sides = []
    for number, count in zip(rows, counts, strict=True):
        lists = np.exp(spread * generator.standard_normal((number, 1 + count)))
        lists[:, 1:] = -np.sort(-lists[:, 1:], axis=1)
        sides.append(LargestEntries(lists[:, :order]))
    expected = -math.inf
    for first in sides[0].values:
        for second in sides[1].values:
            entries = np.outer(first, second).ravel()
            others = np.sort(entries[1:])[::-1][: order - 1]
            expected = max(expected, sign * entries[0] + others.sum())
    assert extreme_disc(*sides, order, sign) == pytest.approx(expected, rel=1e-12)
    # Pairs are left out by bounds of groups, none of which may be below a pair of its group.
    for group in discs._groups(sides[1]):
        bounds = discs._bound(sides[0], group, order, sign)
        for row, bound in zip(sides[0].values, bounds, strict=True):
            pairs = discs._pairs(row[None], group.values, order, sign)
            assert pairs.max() <= bound + 1e-12 * abs(bound)


def test_a_pair_is_only_evaluated_where_its_bound_leaves_hope(monkeypatch):
    evaluated = []
    pairs = discs._pairs

    def counted(row, others, order, sign):
        evaluated.append(len(others))
        return pairs(row, others, order, sign)

    monkeypatch.setattr(discs, "_pairs", counted)
    A, B = gaussian(40, 300), gaussian(30, 200, seed=1)
    KroneckerGram(A, B).discs(4)
    assert 0 < sum(evaluated) < 0.05 * 300 * 200  # those near the largest diagonal and cosines
