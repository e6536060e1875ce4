"""The law of random signs."""

import math

import numpy as np
import pytest

from cosa_theory.projections import make_projection

Z = 4.5  # two-sided probability 7e-6; seeds are fixed


def test_rademacher_entries_are_fair_and_independent_signs():
    k, d = 300, 400
    x = make_projection("rademacher", k, d, seed=3) * math.sqrt(k)
    np.testing.assert_allclose(np.abs(x), 1, rtol=1e-15)
    sums = [x, x[:, 1:] * x[:, :-1], x[1:] * x[:-1], x[:, 64:] * x[:, :-64]]
    assert max(abs(np.sum(each)) / math.sqrt(each.size) for each in sums) < Z


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_do_not_depend_on_the_size_of_the_chunks(dtype, monkeypatch):
    expected = make_projection("rademacher", 7, 300, dtype=dtype)
    monkeypatch.setattr("cosa_theory.projections.streams.CHUNK", 64)
    assert np.array_equal(make_projection("rademacher", 7, 300, dtype=dtype), expected)
