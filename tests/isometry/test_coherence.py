"""Coherence, Babel function, Welch bound and spark, plain and from Kronecker factors."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.isometry.coherence import babel, mutual_coherence, spark_bounds, welch_bound
from cosa_theory.projections import KINDS, make_projection


def gaussian(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns))


def cosines(A):
    A = A / np.linalg.norm(A, axis=0)
    C = np.abs(A.T @ A)
    np.fill_diagonal(C, 0.0)
    return C


def spark(A):
    """The least number of dependent columns, by trying all sets; infinity if there is none."""
    columns = A.shape[1]
    for size in range(1, columns + 1):
        for chosen in combinations(range(columns), size):
            if np.linalg.matrix_rank(A[:, chosen]) < size:
                return size
    return math.inf


@given(seed=st.integers(0, 10**6), rows=st.integers(1, 6), columns=st.integers(2, 8))
def test_coherence_and_babel_function_are_the_largest_cosines_and_their_sums(seed, rows, columns):
    A = gaussian(rows, columns, seed) * np.exp(gaussian(1, columns, seed + 1))
    C = -np.sort(-cosines(A), axis=1)
    assert mutual_coherence(A) == pytest.approx(C.max())
    sums = np.cumsum(C, axis=1).max(axis=0)[:-1]
    assert babel(A, np.arange(1, columns)) == pytest.approx(sums)
    assert babel(A, 1) == pytest.approx(mutual_coherence(A))
    assert isinstance(babel(A, 1), float)
    assert welch_bound(rows, columns) <= mutual_coherence(A) + 1e-12


def test_coherence_does_not_depend_on_the_scale_of_columns_however_extreme():
    A = gaussian(5, 7)
    scales = np.array([1e-200, 1e200, -1.0, 1e-3, 1.0, 1e150, 1e-150])
    assert mutual_coherence(A * scales) == pytest.approx(mutual_coherence(A))
    assert babel(A * scales, 4) == pytest.approx(babel(A, 4))


def test_equiangular_vectors_reach_the_welch_bound():
    angles = 2 * np.pi * np.arange(3) / 3
    frame = np.array([np.cos(angles), np.sin(angles)])
    assert mutual_coherence(frame) == pytest.approx(0.5)
    assert welch_bound(2, 3) == pytest.approx(0.5)
    assert babel(frame, 2) == pytest.approx(1.0)


def test_the_welch_bound_is_zero_without_more_columns_than_rows_and_broadcasts():
    assert welch_bound(5, 5) == 0.0
    assert welch_bound(5, 1) == 0.0
    assert welch_bound(np.array([2, 4]), 8) == pytest.approx(
        [math.sqrt(6 / (2 * 7)), math.sqrt(4 / (4 * 7))]
    )
    with pytest.raises(ValueError, match=r"rows is 0\.0: it must be a whole number"):
        welch_bound(0, 4)


def test_one_column_and_orthogonal_columns_have_coherence_zero_and_parallel_ones_one():
    assert mutual_coherence(gaussian(4, 1)) == 0.0
    assert mutual_coherence(np.eye(5)) == 0.0
    assert mutual_coherence(np.array([[1.0, -3.0], [2.0, -6.0]])) == pytest.approx(1.0, abs=1e-15)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_projection_is_read_as_its_matrix(kind):
    options = {"density": 0.7} if kind == "very_sparse" else {}  # without zero columns
    A = make_projection(kind, 6, 9, seed=3, **options)
    assert mutual_coherence(A) == pytest.approx(cosines(A @ np.eye(9)).max())


def test_blocks_of_the_gram_matrix_do_not_change_the_values(monkeypatch):
    A = gaussian(6, 11)
    whole = mutual_coherence(A), babel(A, [1, 5, 10])
    monkeypatch.setattr("cosa_theory.linear.gram._BLOCK", 25)  # two rows at a time
    assert mutual_coherence(A) == pytest.approx(whole[0], rel=1e-14)
    assert babel(A, [1, 5, 10]) == pytest.approx(whole[1], rel=1e-14)


@given(
    seed=st.integers(0, 10**6),
    shape=st.tuples(*[st.integers(1, 5)] * 4).filter(lambda p: p[1] * p[3] > 1),
    equal=st.booleans(),
)
def test_coherence_and_babel_function_of_a_kronecker_product_follow_from_its_factors(
    seed, shape, equal
):
    p, m, q, n = shape
    A, B = gaussian(p, m, seed), gaussian(q, n, seed + 1)
    if equal:
        B[:, -1] = B[:, 0]  # ties, and a cosine of one
    product = np.kron(A, B)
    operator = KroneckerOperator(A, B)
    assert mutual_coherence(operator) == pytest.approx(mutual_coherence(product), abs=1e-12)
    every = np.arange(1, m * n)
    assert babel(operator, every) == pytest.approx(babel(product, every), abs=1e-11)
    assert babel(operator, 1) == pytest.approx(babel(product, 1), abs=1e-12)


def test_coherence_of_the_sensing_operator_of_a_layer_never_forms_it():
    sensing = CosaBasis.sample(400, 300, 40, 20).sensing()  # 120,000 columns
    A, B = sensing.factors
    assert mutual_coherence(sensing) == max(mutual_coherence(A), mutual_coherence(B))
    assert babel(sensing, 1) == pytest.approx(mutual_coherence(sensing))
    assert babel(sensing, 8) <= 8 * mutual_coherence(sensing)


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 4),
    columns=st.integers(1, 5),
    rank=st.integers(1, 4),
    whole=st.booleans(),
)
def test_the_spark_lies_within_its_bounds(seed, rows, columns, rank, whole):
    generator = np.random.default_rng(seed)
    if whole:  # small whole entries: zero, parallel and dependent columns happen
        A = generator.integers(-1, 2, (rows, columns)).astype(float)
    else:
        A = generator.standard_normal((rows, rank)) @ generator.standard_normal((rank, columns))
    found = spark_bounds(A)
    assert found.lower <= spark(A) <= found.upper


def test_the_spark_is_known_where_it_is_plain():
    zero = spark_bounds(np.array([[1.0, 0.0], [0.0, 0.0]]))
    assert (zero.lower, zero.upper, zero.how) == (1, 1, "a zero column")
    parallel = spark_bounds(np.array([[1.0, 0.3, 3.0], [2.0, 0.1, 6.0]]) / 7)
    assert (parallel.lower, parallel.upper) == (2, 2)
    independent = spark_bounds(gaussian(5, 3))
    assert (independent.lower, independent.upper) == (math.inf, math.inf)
    # Equiangular lines in the plane: every two are independent, every three dependent.
    angles = np.pi * np.arange(3) / 3
    lines = spark_bounds(np.array([np.cos(angles), np.sin(angles)]))
    assert (lines.lower, lines.upper) == (3, 3)


def test_the_spark_does_not_depend_on_the_scale_of_columns_however_extreme():
    scales = np.array([1e17, 1e-18, 1.0, 1e200, 1e-200, 1.0])
    for rows, columns in ((6, 4), (4, 6), (6, 6)):
        A = gaussian(rows, columns)
        assert spark_bounds(A * scales[:columns]) == spark_bounds(A)
    assert spark_bounds(np.diag([1.0, 1e-20])).lower == math.inf
    assert spark_bounds(np.array([[1.0, 1e-300], [0.0, 1e-300]])).lower == math.inf


def test_the_lower_bound_of_the_spark_is_at_least_one_plus_one_over_the_coherence():
    # Identity and Hadamard basis: coherence 1/4, Babel μ₁(k) = k/4, spark 8.
    H = np.array([[1.0]])
    for _ in range(4):
        H = np.block([[H, H], [H, -H]])
    found = spark_bounds(np.hstack([np.eye(16), H / 4]))
    assert found.lower == 5 == 1 + 1 / mutual_coherence(np.hstack([np.eye(16), H / 4]))
    assert found.upper == 17


@pytest.mark.parametrize(
    ("shape_A", "shape_B"), [((2, 4), (3, 5)), ((3, 3), (2, 4)), ((4, 2), (3, 2)), ((1, 1), (2, 5))]
)
def test_the_spark_of_a_kronecker_product_is_the_lesser_of_its_factors(shape_A, shape_B):
    A, B = gaussian(*shape_A, seed=1), gaussian(*shape_B, seed=2)
    expected = min(spark(A), spark(B))
    found = spark_bounds(KroneckerOperator(A, B))
    if A.shape[1] * B.shape[1] <= 12:
        assert spark(np.kron(A, B)) == expected
    assert found.lower <= expected <= found.upper
    if expected < math.inf:
        wide = [M.shape[0] for M in (A, B) if M.shape[0] < M.shape[1]]
        assert found.upper == min(wide) + 1


def test_bad_arguments_are_named_with_a_remedy():
    A = gaussian(3, 4)
    A[:, 2] = 0.0
    with pytest.raises(ValueError, match="column 2 of A is zero and has no direction"):
        mutual_coherence(A)
    with pytest.raises(ValueError, match="column 2 of B is zero"):
        babel(KroneckerOperator(gaussian(3, 4), A), 2)
    for k in (0, 4, 1.5, True):
        with pytest.raises(ValueError, match=r"k is .*: it must be a whole number from 1 to 3"):
            babel(gaussian(3, 4), k)
    with pytest.raises(ValueError, match="A has one column: cosines take two"):
        babel(np.ones((3, 1)), 1)
    with pytest.raises(ValueError, match=r"k is \[\]"):
        babel(gaussian(3, 4), [])
    with pytest.raises(ValueError, match="k is 16: it must be a whole number from 1 to 15"):
        babel(KroneckerOperator(gaussian(3, 4), gaussian(3, 4)), 16)
    with pytest.raises(ValueError, match="must be a matrix"):
        mutual_coherence(np.ones(3))
    with pytest.raises(ValueError, match=r"A has a NaN or infinite entry, first at \(0, 1\)"):
        babel(np.array([[1.0, np.nan]]), 1)
