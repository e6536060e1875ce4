"""The steps of the search: each bound it uses is one, and each end is a local maximum."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.isometry import lower, rip_lower, search
from cosa_theory.isometry.enumeration import best_of_all, supports_reaching
from cosa_theory.isometry.search import (
    Found,
    _best_swap,
    best_pairs,
    climb,
    exceeds,
    exchange,
    grow,
    merged,
    random_supports,
    sample_best,
    settle,
    top_eigenpairs,
    top_values,
)
from cosa_theory.linear.gram import DenseGram
from cosa_theory.projections import make_projection, stream

sides = pytest.mark.parametrize("sign", [-1, 1], ids=["least", "greatest"])


def gaussian(rows, columns, seed=0):
    return stream(seed, "test", rows, columns).standard_normal((rows, columns)) / math.sqrt(rows)


def all_supports(d, s):
    return np.array(list(combinations(range(d), s)))


def value_of(A, support, sign):
    """λ_max(σ G_S) by singular values."""
    squares = np.linalg.svd(A[:, support], compute_uv=False) ** 2
    if len(support) > A.shape[0]:
        squares = np.append(squares, 0.0)
    return (sign * squares).max()


def factors():
    return gaussian(3, 5, 1), gaussian(4, 3, 2)


def test_random_supports_are_uniform():
    drawn = random_supports(stream(0, "uniform"), 60_000, 3, 6)
    assert (np.diff(np.sort(drawn, axis=1), axis=1) > 0).all()
    _, counts = np.unique(np.sort(drawn, axis=1), axis=0, return_counts=True)
    expected = 60_000 / math.comb(6, 3)
    assert counts.size == math.comb(6, 3)
    assert ((counts - expected) ** 2 / expected).sum() < chi2.ppf(0.999, counts.size - 1)


def test_a_support_of_all_columns_is_drawn_as_such():
    assert (np.sort(random_supports(stream(1), 5, 4, 4), axis=1) == np.arange(4)).all()


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(0, 10**6), st.floats(-2, 3))
def test_pivots_decide_whether_an_eigenvalue_reaches_a_level(s, seed, level):
    H = np.random.default_rng(seed).standard_normal((20, s, s))
    H = H + H.transpose(0, 2, 1)
    before = H.copy()
    np.testing.assert_array_equal(exceeds(H, level), top_values(H) >= level)
    np.testing.assert_array_equal(H, before)


@sides
@pytest.mark.parametrize("s", [2, 3, 5])
def test_the_best_of_a_sample_is_its_best(s, sign):
    gram = DenseGram(gaussian(9, 14))
    supports = random_supports(stream(2, s), 700, s, 14)
    found = sample_best(gram, supports, sign)
    values, _ = top_eigenpairs(gram, supports, sign)
    assert math.isclose(found.values[0], values.max(), rel_tol=1e-12)
    assert found.evaluations == 700
    assert (np.diff(found.values) <= 0).all()


def test_a_sample_is_cut_into_chunks_without_loss(monkeypatch):
    gram = DenseGram(gaussian(9, 14))
    supports = random_supports(stream(2), 700, 3, 14)
    whole = sample_best(gram, supports, 1)
    monkeypatch.setattr("cosa_theory.isometry.search._ENTRIES", 100)
    parts = sample_best(gram, supports, 1)
    assert math.isclose(whole.values[0], parts.values[0], rel_tol=1e-12)
    assert whole.evaluations == parts.evaluations


def test_a_union_of_finds_has_no_repetition_and_is_sorted():
    first = Found(np.array([[2, 0], [1, 3]]), np.array([1.0, 0.5]), 10)
    second = Found(np.array([[3, 1], [0, 1]]), np.array([0.5, 2.0]), 5)
    both = merged(first, second)
    np.testing.assert_array_equal(both.supports, [[0, 1], [0, 2], [1, 3]])
    np.testing.assert_array_equal(both.values, [2.0, 1.0, 0.5])
    assert both.evaluations == 15


@sides
def test_each_column_gets_its_best_partner(sign):
    A = gaussian(6, 8)
    found = best_pairs(DenseGram(A), np.arange(8), sign)
    values = {tuple(S): value_of(A, S, sign) for S in combinations(range(8), 2)}
    for support, value in zip(found.supports, found.values, strict=True):
        assert math.isclose(values[tuple(support)], value, rel_tol=1e-10, abs_tol=1e-14)
    for column in range(8):
        best = max((v, S) for S, v in values.items() if column in S)
        assert any((support == best[1]).all() for support in found.supports)


@sides
def test_growth_adds_the_column_of_the_greatest_quotient_in_its_plane(sign):
    A = gaussian(8, 12)
    pair = np.array([3, 7])
    x = top_eigenpairs(DenseGram(A), pair[None], sign)[1][0]
    quotients = {}
    for column in set(range(12)) - {3, 7}:
        plane = np.column_stack([A[:, pair] @ x, A[:, column]])
        quotients[column] = np.linalg.eigvalsh(sign * plane.T @ plane)[-1]
    best = max(quotients, key=quotients.get)
    grown = grow(DenseGram(A), pair[None], 3, sign)
    np.testing.assert_array_equal(grown.supports, [sorted([3, 7, best])])
    assert grown.values[0] >= quotients[best] - 1e-12
    assert math.isclose(grown.values[0], value_of(A, grown.supports[0], sign), rel_tol=1e-10)
    assert grown.evaluations == 10


@sides
@pytest.mark.parametrize("s", [2, 3, 5])
def test_the_score_of_a_swap_never_exceeds_its_eigenvalue(s, sign, monkeypatch):
    A = gaussian(7, 11)
    gram = DenseGram(A)
    scores = []
    plane = search._plane
    monkeypatch.setattr(
        search, "_plane", lambda *args: scores.append(plane(*args).copy()) or plane(*args)
    )
    supports = np.sort(random_supports(stream(4, s), 30, s, 11), axis=1)
    _best_swap(gram, supports, sign)
    assert len(scores) == s
    for place, bounds in enumerate(scores):
        for number, support in enumerate(supports):
            for column in set(range(11)) - set(support):
                swapped = support.copy()
                swapped[place] = column
                assert bounds[number, column] <= value_of(A, swapped, sign) + 1e-12


@sides
def test_a_vector_of_one_column_is_swapped_without_dividing_by_zero(sign):
    gram = DenseGram(np.diag([3.0, 1.0, 2.0, 0.5]))
    with np.errstate(all="raise"):
        found = climb(gram, np.array([[1, 2]]), sign)
    assert found.values[0] == (9.0 if sign > 0 else -0.25)


@sides
@pytest.mark.parametrize("s", [2, 3, 5])
def test_a_climb_ends_higher_and_counts_its_candidates(s, sign):
    gram = DenseGram(gaussian(9, 14))
    start = random_supports(stream(5, s), 20, s, 14)
    values, _ = top_eigenpairs(gram, start, sign)
    found = climb(gram, start, sign)
    assert found.values.min() >= values.min()
    assert found.values[0] >= values.max()
    assert (_best_swap(gram, found.supports, sign)[1] <= found.values + 1e-9).all()
    assert found.evaluations >= len(np.unique(np.sort(start, axis=1), axis=0)) * s * (14 - s)
    for support, value in zip(found.supports, found.values, strict=True):
        assert len(set(support)) == s
        assert math.isclose(value, top_eigenpairs(gram, support[None], sign)[0][0], abs_tol=1e-12)


@sides
@pytest.mark.parametrize("s", [2, 3, 4])
def test_an_exchange_finds_every_gain_of_one_or_two_columns(s, sign):
    A = gaussian(8, 10)
    gram = DenseGram(A)
    for seed in range(4):
        support = np.sort(random_supports(stream(6, seed), 1, s, 10)[0])
        value = value_of(A, support, sign)
        near = [S for S in all_supports(10, s) if len(set(S) & set(support)) >= s - 2]
        gains = {tuple(S) for S in near if value_of(A, S, sign) > value + 1e-10}
        found = exchange(gram, support, sign)
        assert gains <= {tuple(S) for S in found.supports} <= gains | {tuple(support)}


def witness_support(bound, sign):
    return (bound.greatest_witness if sign > 0 else bound.least_witness).support


@sides
def test_where_the_search_settles_no_exchange_of_two_columns_gains(sign):
    for seed in range(10):  # four starts: climbing alone ends short of it in some
        A = gaussian(12, 40, seed)
        support = witness_support(rip_lower(A, 5, starts=4, supports=50), sign)
        assert len(exchange(DenseGram(A), support, sign).supports) == 1


@sides
def test_settling_gains_until_no_exchange_does(sign):
    gram, start = DenseGram(gaussian(20, 30)), np.arange(4)
    found = settle(gram, start, sign)
    assert found.values[0] > top_eigenpairs(gram, start[None], sign)[0][0]
    assert len(exchange(gram, found.supports[0], sign).supports) == 1


@sides
def test_with_too_many_columns_for_exchanges_the_search_ends_where_no_swap_gains(sign):
    assert math.comb(8, 2) * 300**2 > lower._EXCHANGED
    for seed in range(6):  # growing alone ends short of it in some
        gram = DenseGram(gaussian(60, 300, seed))
        support = witness_support(rip_lower(gram, 8, starts=4), sign)
        value = top_eigenpairs(gram, support[None], sign)[0][0]
        assert _best_swap(gram, support[None], sign)[1][0] <= value + 1e-9


@sides
@pytest.mark.parametrize(("d", "s"), [(7, 2), (7, 3), (8, 4), (9, 6), (6, 6)])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 1.0])
def test_enumeration_yields_exactly_the_supports_that_reach_a_level(d, s, sign, share):
    A = gaussian(8, d, seed=d)
    H = sign * A.T @ A
    supports = all_supports(d, s)
    values = top_values(H[supports[:, :, None], supports[:, None, :]])
    level = float(np.quantile(values, share)) + 1e-9
    reached = {tuple(S) for S, value in zip(supports, values, strict=True) if value >= level}
    batches = list(supports_reaching(H, s, level))
    found = [tuple(S) for batch in batches for S in batch]
    assert len(found) == len(set(found))
    assert set(found) == reached


@sides
def test_enumeration_finds_the_best_from_the_worst_candidate(sign):
    A = gaussian(8, 10)
    supports = all_supports(10, 4)
    values = np.array([value_of(A, S, sign) for S in supports])
    worst = supports[values.argmin()]
    np.testing.assert_array_equal(best_of_all(DenseGram(A), worst, sign), supports[values.argmax()])


def test_ties_are_dismissed_without_a_look_at_their_eigenvalues(monkeypatch):
    Q = np.linalg.qr(gaussian(12, 12))[0]
    looked = []
    monkeypatch.setattr(
        "cosa_theory.isometry.enumeration.top_values",
        lambda H: looked.append(H.size) or top_values(H),
    )
    best_of_all(DenseGram(Q), np.arange(4), 1)
    assert looked == [16]  # the candidate's own


@pytest.mark.parametrize(("s", "rows"), [(7, 6), (4, 6)], ids=["beyond", "below"])
def test_packed_supports_meet_the_spark_wall_of_a_kronecker_sensing_operator(s, rows):
    # ΔW is 16 × 10, the core 9 × 6: s ≥ 7 columns packed in one row of ΔW are dependent, though
    # the operator has 54 rows.
    basis = CosaBasis.sample(16, 10, 9, rows, scale="analysis")
    bound = rip_lower(basis.sensing(), s)
    assert (bound.least == 0.0) == (s > rows)
    if s > rows:
        support = bound.least_witness.support
        assert bound.least_witness.value < 1e-14
        assert len(np.unique(support // 10)) == 1


@pytest.mark.parametrize("axis", [0, 1], ids=["row", "column"])
def test_a_bad_row_or_column_of_the_domain_is_found(axis):
    # One factor is orthonormal, the other has three nearly parallel columns: only supports packed
    # along its side are bad.
    bad = np.linalg.qr(gaussian(12, 10))[0]
    bad[:, 7] = bad[:, 2] + 0.02 * bad[:, 7]
    bad[:, 4] = bad[:, 2] - 0.02 * bad[:, 4]
    good = np.linalg.qr(gaussian(9, 8, 1))[0]
    bound = rip_lower(KroneckerOperator(*((good, bad) if axis == 0 else (bad, good))), 3)
    i, j = np.divmod(bound.support, 10 if axis == 0 else 8)
    packed, along = (i, j) if axis == 0 else (j, i)
    assert len(set(packed)) == 1
    assert set(along) == {2, 4, 7}
    assert bound.greatest > 2.9


def test_a_large_domain_is_searched_on_the_grid_of_its_factors(monkeypatch):
    operator = CosaBasis.sample(24, 20, 12, 10).dictionary()
    whole = rip_lower(operator, 4)
    monkeypatch.setattr(lower, "_SEARCHED", 50)
    part = rip_lower(operator, 4)
    assert part.value >= 0.98 * whole.value
    assert math.isclose(part.recompute(operator), part.value, rel_tol=1e-9)


def test_a_dictionary_of_a_language_model_is_searched_in_little_memory_and_time():
    # 2²² rows and 2¹⁵ columns: A ⊗ B would take a terabyte, its Gram matrix eight gigabytes.
    basis = CosaBasis.sample(2048, 2048, 256, 128)
    bound = rip_lower(basis.dictionary(), 4, starts=16, supports=200)
    assert bound.seconds < 20
    image = basis.synthesize(bound.vector.reshape(256, 128))
    assert math.isclose(abs(float((image**2).sum()) - 1), bound.value, abs_tol=1e-6)
    assert bound.value > 0.2


def test_swaps_reach_further_than_drawing_and_growing_alone():
    gains = []
    for seed in range(8):
        A = make_projection("gaussian", 24, 60, seed=seed)
        drawn = rip_lower(A, 5, starts=0, supports=2000)
        gains.append(rip_lower(A, 5).value - drawn.value)
    assert min(gains) > 0.1
