"""The dimension for n points is never below its bound; distortions are what they say."""

import itertools
import math
import re
from decimal import Decimal, localcontext

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats
from scipy.spatial.distance import pdist

from cosa_theory import KroneckerOperator
from cosa_theory.isometry.jl import jl_distortion, jl_min_dim
from cosa_theory.laws.norms import chi_square_failure
from cosa_theory.projections import KINDS, make_projection


def bound(n, eps):
    """4 ln n / (ε²/2 − ε³/3) with 200 digits."""
    with localcontext() as context:
        context.prec = 200
        e = Decimal(eps)
        return 4 * Decimal(n).ln() / (e**2 / 2 - e**3 / 3)


@given(st.integers(1, 10**30), st.floats(1e-9, 1, exclude_max=True))
def test_min_dim_is_the_bound_rounded_up(n, eps):
    k = jl_min_dim(n, eps)
    assert isinstance(k, int)
    assert k >= bound(n, eps) > k - 1 or (n == 1 and k == 0)


@given(
    st.lists(st.integers(1, 2**60), min_size=1, max_size=5),
    st.lists(st.floats(1e-6, 0.999), min_size=1, max_size=5),
)
def test_arrays_agree_with_single_numbers(counts, tolerances):
    table = jl_min_dim(np.array(counts)[:, None], tolerances)
    assert table.dtype == np.int64
    assert table.shape == (len(counts), len(tolerances))
    for (i, n), (j, eps) in itertools.product(enumerate(counts), enumerate(tolerances)):
        assert table[i, j] == jl_min_dim(n, eps)


def test_min_dim_is_not_rounded_below_a_bound_that_float64_cannot_tell_from_a_whole_number():
    """For ten values of n, ε whose bound exceeds a whole number by less than a float can say."""
    for n in range(2, 12):
        target = 10**9 + n
        low, high = Decimal("1e-6"), Decimal("0.5")
        with localcontext() as context:
            context.prec = 60
            for _ in range(200):
                middle = (low + high) / 2
                low, high = (low, middle) if bound(n, middle) < target else (middle, high)
        eps = float(low)
        for candidate in (eps, math.nextafter(eps, 0), math.nextafter(eps, 1)):
            k = jl_min_dim(n, candidate)
            assert k >= bound(n, candidate) > k - 1
            assert jl_min_dim([n], candidate)[0] == k


def test_min_dim_known_values():
    # The first two are in scikit-learn's documentation, rounded down there.
    assert jl_min_dim(10**6, 0.5) == 663 + 1
    assert jl_min_dim(10**6, 0.1) == 11841 + 1
    assert jl_min_dim(1, 0.1) == 0
    assert jl_min_dim(1e4, 0.1) == 7895
    assert jl_min_dim(np.array(1e4), np.array(0.1)) == 7895


@pytest.mark.parametrize(
    ("n", "eps", "message"),
    [
        (0, 0.1, "n_points is 0"),
        (2.5, 0.1, "n_points is 2.5"),
        (math.nan, 0.1, "n_points is nan"),
        (math.inf, 0.1, "n_points is inf"),
        (True, 0.1, "n_points is True"),
        ("ten", 0.1, "n_points is 'ten'"),
        (10, 0.0, "eps is 0.0"),
        (10, 1.0, "eps is 1.0"),
        (10, -0.1, "eps is -0.1"),
        (10, math.nan, "eps is nan"),
        (np.array(10.5), 0.1, "n_points is 10.5"),
        (10, "0.1", "eps is '0.1'"),
        (10, None, "eps is None"),
        ([10, 0], 0.1, "n_points is 0"),
        ([10, 3.5], 0.1, "n_points is 3.5"),
        ([10], [0.1, 1.5], "eps is 1.5"),
        ([10], 1e-10, "more than 2⁶³ − 1"),
    ],
)
def test_min_dim_refuses_what_has_no_dimension(n, eps, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jl_min_dim(n, eps)


def failed_draws(k, points, eps, draws):
    """How many Gaussian draws move some squared distance by more than ε."""
    before = pdist(points, "sqeuclidean")
    failed = 0
    for i in range(draws):
        A = make_projection("gaussian", k, points.shape[1], seed=0, key=("count", i))
        after = pdist(points @ A.T, "sqeuclidean")
        failed += bool(np.any(np.abs(after / before - 1) > eps))
    return failed


def test_at_the_minimum_dimension_draws_fail_no_more_often_than_the_union_bound_allows():
    points, eps, draws = np.random.default_rng(0).standard_normal((12, 40)), 0.5, 150
    k = jl_min_dim(12, eps)
    union = 12 * 11 / 2 * float(chi_square_failure(k, eps))
    assert union < 0.05
    assert failed_draws(k, points, eps, draws) <= stats.binom.ppf(0.9999, draws, union)
    # A quarter of the dimension is not enough: most draws fail.
    assert failed_draws(k // 4, points, eps, draws) > draws / 2


X = np.random.default_rng(1).standard_normal((9, 24)) * np.geomspace(1e-3, 1e3, 9)[:, None]


def loop(A, vectors):
    return np.array([np.sum((A @ x) ** 2) / np.sum(x**2) for x in vectors])


@pytest.mark.parametrize("kind", KINDS)
def test_ratios_are_those_of_a_plain_loop_for_every_ensemble(kind):
    A = make_projection(kind, 8, 24, seed=2)
    result = jl_distortion(A, X)
    assert result.ratios == pytest.approx(loop(A, X), rel=1e-12)
    assert result.max == pytest.approx(np.max(np.abs(loop(A, X) - 1)))
    assert result.mean.value == pytest.approx(np.mean(np.abs(loop(A, X) - 1)))


@pytest.mark.parametrize("kind", ["gaussian", "sjlt", "srht"])
def test_differences_are_those_of_all_pairs_and_the_sample_of_disjoint_ones(kind):
    A = make_projection(kind, 8, 24, seed=2)
    pairs = list(itertools.combinations(range(9), 2))
    expected = loop(A, [X[i] - X[j] for i, j in pairs])
    result = jl_distortion(A, X, differences=True)
    assert result.ratios == pytest.approx(expected, rel=1e-9)
    disjoint = [pairs.index((i, i + 1)) for i in range(0, 8, 2)]
    assert result.sample == pytest.approx(expected[disjoint], rel=1e-9)


def test_near_duplicates_keep_their_digits():
    """Inner products would lose the distance of 1e-9 between vectors of norm 1e3."""
    A = make_projection("gaussian", 16, 24, seed=3)
    x = np.full(24, 200.0)
    y = x.copy()
    y[3] += 2.0**-30
    result = jl_distortion(A, np.stack([x, y]), differences=True)
    assert result.ratios[0] == pytest.approx(np.sum(A[:, 3] ** 2), rel=1e-3)


def test_kronecker_operators_take_matrices_or_vectors():
    rng = np.random.default_rng(4)
    A, B = rng.standard_normal((3, 5)), rng.standard_normal((2, 4))
    stack = rng.standard_normal((6, 5, 4))
    operator = KroneckerOperator(A, B)
    expected = [np.sum((A @ M @ B.T) ** 2) / np.sum(M**2) for M in stack]
    assert jl_distortion(operator, stack).ratios == pytest.approx(expected)
    assert jl_distortion(operator, stack.reshape(6, 20)).ratios == pytest.approx(expected)
    with pytest.raises(ValueError, match=re.escape("shape (4, 5); A takes (5, 4)")):
        jl_distortion(operator, stack.transpose(0, 2, 1))


def test_tensors_and_sparse_vectors_are_read():
    A = make_projection("gaussian", 8, 24, seed=5)
    expected = loop(A, X)
    assert jl_distortion(torch.tensor(A), torch.tensor(X)).ratios == pytest.approx(expected)
    assert jl_distortion(A, sparse.csr_array(X)).ratios == pytest.approx(expected)
    assert jl_distortion(A.astype(np.float32), X).ratios == pytest.approx(expected, rel=1e-5)
    assert jl_distortion(A, X[0]).ratios == pytest.approx(expected[:1])


def test_zero_vectors_and_equal_pairs_are_skipped_and_counted():
    A = make_projection("gaussian", 8, 24, seed=6)
    rows = np.vstack([X[:3], np.zeros((2, 24)), X[:1]])
    assert jl_distortion(A, rows).skipped == 2
    assert jl_distortion(A, rows).ratios.size == 4
    pairs = jl_distortion(A, rows, differences=True)
    assert pairs.skipped == 2  # the two zeros, and the repeated first row
    assert pairs.ratios.size == 13


def test_intervals_hold_the_estimates_and_say_what_is_unknown():
    A = make_projection("gaussian", 50, 200, seed=7)
    vectors = np.random.default_rng(8).standard_normal((400, 200))
    result = jl_distortion(A, vectors, confidence=0.9)
    for estimate in (result.mean, result.quantile(0.95), result.failure(0.2)):
        assert estimate.low < estimate.value < estimate.high
    assert result.coverage == pytest.approx(0.1 ** (1 / 400))
    assert result.failure(10.0).value == 0.0
    assert result.failure(10.0).high > 0
    assert jl_distortion(A, vectors[:5]).quantile(0.95).high == math.inf
    # The vectors' directions are uniform, so the failure probability is about the χ² law's.
    low, high = result.failure(0.2)[1:]
    assert low < chi_square_failure(50, 0.2) < high


BAD = X.copy()
BAD[2, 3] = np.nan


@pytest.mark.parametrize(
    ("A", "vectors", "options", "message"),
    [
        (np.ones((3, 24)), X.T, {}, "pass X.T, vectors are rows"),
        (np.ones((3, 24)), np.ones((2, 7)), {}, "vectors need 24 entries"),
        (np.ones((3, 24)), BAD, {}, "X has a NaN or infinite entry, first at (2, 3)"),
        (np.full((3, 24), np.inf), X, {}, "A holds NaN or Inf"),
        (np.ones((3, 24)), np.zeros((2, 24)), {}, "every vector is zero"),
        (np.ones((3, 24)), X * 1j, {}, "X has entries of type complex128"),
        (np.ones((3, 24)), np.ones((0, 24)), {}, "X has shape (0, 24)"),
        (np.ones((3, 24)), X, {"confidence": 95}, "confidence is 95"),
        (np.ones((3, 24)), X[:1], {"differences": True}, "1 vectors have 0 pairs"),
        (np.ones((3, 1)), np.ones((7000, 1)), {"differences": True}, "sample of a larger set"),
        (np.ones((3, 24)), np.ones((4, 24)), {"differences": True}, "all vectors are equal"),
    ],
)
def test_bad_input_is_named(A, vectors, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        jl_distortion(A, vectors, **options)


def test_a_failure_level_must_be_a_positive_number():
    for eps, message in ((0, "eps is 0"), (math.nan, "eps is nan"), ("0.1", "eps is '0.1'")):
        with pytest.raises(ValueError, match=message):
            jl_distortion(np.eye(24), X).failure(eps)


def test_a_kronecker_operator_takes_a_nested_list_of_matrices():
    operator = KroneckerOperator(2 * np.eye(2), np.eye(3))
    matrices = np.ones((4, 2, 3))
    assert jl_distortion(operator, matrices.tolist()).max == jl_distortion(operator, matrices).max
