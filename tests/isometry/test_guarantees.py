"""From a constant to the sparsity that algorithms are guaranteed to recover."""

import math

import numpy as np
import pytest

from cosa_theory.isometry.certificates import RipBound, RipBracket
from cosa_theory.isometry.guarantees import recovery_guarantees
from cosa_theory.isometry.rip import rip_exact
from cosa_theory.isometry.upper import rip_upper

PURSUIT, OMP, IHT, HTP, COSAMP = range(5)


def sparsities(*args, **kwargs):
    return [row.sparsity for row in recovery_guarantees(*args, **kwargs)]


def bound(s, least, greatest, side="upper"):
    return RipBound(side, s, least, greatest, "test", 0.0)


def test_a_zero_constant_of_order_twelve_guarantees_what_each_order_reaches():
    assert sparsities(0.0, order=12) == [6, 11, 4, 4, 3]


@pytest.mark.parametrize(
    ("row", "order", "threshold"),
    [
        (PURSUIT, 4, math.sqrt(0.5)),
        (OMP, 3, 1 / math.sqrt(3)),
        (IHT, 6, math.sqrt(1 / 3)),
        (HTP, 6, math.sqrt(1 / 3)),
        (COSAMP, 8, 0.5),
    ],
)
def test_each_condition_is_strict_at_its_threshold_and_order(row, order, threshold):
    below = recovery_guarantees(math.nextafter(threshold, 0.0), order=order)[row]
    assert below.sparsity == 2
    assert (below.order, below.threshold) == (order, threshold)
    assert recovery_guarantees(threshold, order=order)[row].sparsity < 2
    assert recovery_guarantees(0.0, order=order - 1)[row].sparsity < 2


def test_a_constant_of_a_higher_order_speaks_for_the_lower_ones():
    low = recovery_guarantees({2: 0.9, 6: 0.5})[PURSUIT]
    assert (low.sparsity, low.order, low.delta) == (3, 6, 0.5)
    # δ₂ = 0.9 is only an upper bound; δ₂ ≤ δ₆ ≤ 0.5 is better.
    assert recovery_guarantees({2: 0.9, 6: 0.5})[OMP].sparsity == 2


def test_nothing_is_guaranteed_by_a_vacuous_constant_and_the_condition_is_still_shown():
    row = recovery_guarantees(1.2, order=4)[PURSUIT]
    assert (row.sparsity, row.order, row.delta) == (0, 2, 1.2)
    row = recovery_guarantees(0.1, order=2)[COSAMP]
    assert row.sparsity == 0
    assert math.isnan(row.delta)


def test_algorithms_free_of_the_scale_are_judged_at_the_best_scale_and_the_others_are_not():
    scaled = bound(6, 2.0 * 0.8, 2.0 * 1.2)  # δ = 1.4 as it is, 0.2 after division by 2
    rows = recovery_guarantees(scaled)
    assert [row.sparsity for row in rows] == [3, 5, 0, 0, 1]
    assert [row.scale_free for row in rows] == [True, True, False, False, True]
    assert rows[PURSUIT].delta == pytest.approx(0.2)
    assert rows[IHT].delta == pytest.approx(1.4)


def test_brackets_and_exact_constants_count_by_their_upper_end():
    A = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 6)))[0]
    exact = rip_exact(A, 4)
    bracket = RipBracket(4, bound(4, 1.0, 1.0, "lower"), rip_upper(A, 4, "babel"))
    for delta in (exact, bracket, {4: bracket}, {4: exact, 2: 0.7}):
        assert sparsities(delta) == [2, 3, 1, 1, 1]


def test_a_lower_bound_is_refused_because_it_guarantees_nothing():
    with pytest.raises(ValueError, match=r"lower bound .* guarantees nothing"):
        recovery_guarantees(bound(4, 0.9, 1.1, "lower"))
    with pytest.raises(ValueError, match="lower bound"):
        recovery_guarantees({4: bound(4, 0.9, 1.1, "lower")})


@pytest.mark.parametrize(
    ("coherence", "expected"),
    [(1.0, 0), (0.5, 1), (1 / 3, 1), (0.33, 2), (0.1, 5), (1 / 9, 4), (0.0, math.inf)],
)
def test_the_coherence_condition_is_strict(coherence, expected):
    row = recovery_guarantees(0.5, order=2, coherence=coherence)[-1]
    assert row.condition == "(2s − 1)μ < 1"
    assert row.sparsity == expected
    if 0 < row.sparsity < math.inf:
        assert (2 * expected - 1) * coherence < 1 <= (2 * expected + 1) * coherence


def test_every_row_names_its_source_and_only_proven_ones_are_called_sharp():
    rows = recovery_guarantees(0.5, order=2, coherence=0.1)
    assert [row.sharp for row in rows] == [True, True, False, False, False, True]
    assert all(row.source[-4:].isdigit() and row.algorithm for row in rows)


def test_a_constant_of_a_huge_order_is_judged_at_once():
    pursuit, *_ = recovery_guarantees(0.5, order=2**48)
    assert (pursuit.sparsity, pursuit.order) == (2**47, 2**48)


def test_bad_arguments_are_named_with_a_remedy():
    with pytest.raises(ValueError, match="order is missing"):
        recovery_guarantees(0.5)
    with pytest.raises(ValueError, match="the bound is of order 4: leave it out"):
        recovery_guarantees(bound(4, 0.9, 1.1), order=2)
    with pytest.raises(ValueError, match="the mapping names its orders"):
        recovery_guarantees({2: 0.5}, order=2)
    with pytest.raises(ValueError, match="a bound of order 4 stands at order 2"):
        recovery_guarantees({2: bound(4, 0.9, 1.1)})
    with pytest.raises(ValueError, match="order is 0"):
        recovery_guarantees({0: 0.5})
    with pytest.raises(ValueError, match=r"order is 10+: it must be a whole number from 1 to"):
        recovery_guarantees(0.0, order=10**30)
    with pytest.raises(ValueError, match="δ_2 is nan"):
        recovery_guarantees(math.nan, order=2)
    for coherence in (1.5, math.nan, "high", True, [0.1]):
        with pytest.raises(ValueError, match=r"coherence is .*: it must be"):
            recovery_guarantees(0.5, order=2, coherence=coherence)
    for delta in (None, "small", True, [0.1, 0.2], -0.1, 0.1j):
        with pytest.raises(ValueError, match=r"δ_2 is .*: it must be at least 0"):
            recovery_guarantees(delta, order=2)
    with pytest.raises(ValueError, match="no constant is given"):
        recovery_guarantees({})
