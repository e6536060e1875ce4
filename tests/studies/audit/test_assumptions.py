"""Every threshold is the number its reason says, and outcomes follow from whole intervals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.projections import stream
from cosa_theory.spectrum import summarize
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS, Measured, outcome_of, variance_factor

finite = st.floats(-1e6, 1e6)


@given(finite, finite, finite, st.sampled_from(sorted(ASSUMPTIONS)))
def test_an_outcome_is_undecided_exactly_where_the_threshold_splits_the_interval(x, y, cut, name):
    assumption = ASSUMPTIONS[name]
    low, high = min(x, y), max(x, y)
    outcome = outcome_of(assumption, Measured(low, low, high), cut)
    sign = 1 if assumption.relation == "at most" else -1
    met = [sign * end <= sign * cut for end in (low, high)]
    expected = "holds" if all(met) else "undecided" if any(met) else "fails"
    assert outcome == expected


def test_a_missing_number_is_undecided():
    assert {outcome_of(one, None, 1.0) for one in ASSUMPTIONS.values()} == {"undecided"}


def test_every_assumption_says_what_it_means_and_why():
    for name, one in ASSUMPTIONS.items():
        assert one.name == name
        assert 20 < len(one.meaning) < 90
        assert len(one.reason) > 60
        assert one.relation in ("at most", "at least")


SQUARE = (384, 384, 83, 74)


@pytest.mark.parametrize(
    ("name", "sizes", "threshold"),
    [
        ("admissible", SQUARE, 1.0),
        ("near_isometry", SQUARE, 1 / math.sqrt(2)),
        ("flat_spectrum", SQUARE, 158.0),
        ("flat_spectrum", (384, 384, 384, 74), 192.0),
        ("flat_spectrum", (384, 200, 83, 200), 100.0),
        ("flat_spectrum", (3, 3, 3, 3), 1.0),
        ("compressible", SQUARE, 1.0),
        ("spark_wall", SQUARE, 37.0),
        ("spark_wall", (384, 384, 384, 74), 37.0),
        ("spark_wall", (384, 60, 83, 60), 41.5),
        ("spark_wall", (12, 10, 12, 10), 120.0),
        ("measurements", SQUARE, 74 / math.log(384)),
        ("measurements", (2, 384, 2, 193), 193 / math.log(384)),
        ("measurements", (1, 1, 1, 1), 1.0),
        ("decodable", SQUARE, math.sqrt(0.1)),
    ],
)
def test_thresholds(name, sizes, threshold):
    assert ASSUMPTIONS[name].threshold(*sizes) == pytest.approx(threshold, rel=1e-12)


@pytest.mark.parametrize(
    ("a", "b"), [(6, 4), (12, 4), (6, 10)], ids=["both project", "a = m", "b = n"]
)
def test_the_variance_factor_is_that_of_a_simulation_and_two_at_the_threshold(a, b):
    m, n, draws = 12, 10, 40_000
    generator = stream(0, "variance factor", a, b)
    X = generator.standard_normal((m, n)) * np.linspace(0.2, 2, n)
    X /= np.linalg.norm(X)
    ratio = summarize(X).participation_ratio
    projected = np.broadcast_to(X, (draws, m, n))
    if a < m:
        projected = generator.standard_normal((draws, a, m)) / math.sqrt(a) @ projected
    if b < n:
        projected = projected @ generator.standard_normal((draws, n, b)) / math.sqrt(b)
    norms = np.square(projected).sum(axis=(1, 2))
    measured = norms.var() / (2 / (a * b))
    # Standard error of a variance from the sample's own fourth moment.
    fourth = np.mean((norms - norms.mean()) ** 4)
    spread = math.sqrt((fourth - norms.var() ** 2) / draws) / (2 / (a * b))
    assert abs(measured - variance_factor(m, n, a, b, ratio)) < 4.5 * spread
    threshold = ASSUMPTIONS["flat_spectrum"].threshold(m, n, a, b)
    assert variance_factor(m, n, a, b, threshold) == pytest.approx(2.0)


def test_nothing_varies_when_nothing_is_projected():
    assert variance_factor(5, 4, 5, 4, 2.0) == 0.0


def test_an_update_of_half_the_rows_of_the_core_is_not_told_apart_beyond_the_spark_wall():
    # min(a, b)/2 is sharp: with s one larger, two s-sparse updates share a core.
    a, b, m, n = 4, 6, 9, 8
    generator = stream(1, "spark")
    L, R = generator.standard_normal((m, a)), generator.standard_normal((b, n))
    wall = ASSUMPTIONS["spark_wall"].threshold(m, n, a, b)
    assert wall == 2.0
    # 2(s + 1) = a + 2 entries of one column: more than the a rows that see them.
    column = np.linalg.svd(L[: a + 2].T)[2][-1]
    first, second = np.zeros((m, n)), np.zeros((m, n))
    first[:3, 0], second[3:6, 0] = column[:3], -column[3:]
    assert np.linalg.norm(first) > 0.1
    assert L.T @ first @ R.T == pytest.approx(L.T @ second @ R.T, abs=1e-12)
