"""Isometry of Kronecker products from their factors, against the products formed out."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.isometry.certificates import RipBound, RipBracket, combine
from cosa_theory.isometry.cores import core_isometry
from cosa_theory.isometry.kronecker import kronecker_rip_bounds, norm_condition
from cosa_theory.isometry.lower import rip_lower
from cosa_theory.isometry.rip import rip_bracket, rip_exact
from cosa_theory.isometry.upper import rip_upper
from cosa_theory.laws.isometry import kronecker_rip_upper
from cosa_theory.linear.gram import DenseGram
from cosa_theory.projections import KINDS

UPPER = ("factors", "product", "babel", "coherence", "spectrum")
SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 4))


def gaussian(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)) / math.sqrt(rows)


def unit(A):
    return A / np.linalg.norm(A, axis=0)


def factors(shape, seed, spread):
    p, m, q, n = shape
    generator = np.random.default_rng(seed)
    A, B = gaussian(p, m, seed), gaussian(q, n, seed + 1)
    return A * np.exp(spread * generator.random(m)), B * np.exp(-spread * generator.random(n))


@settings(max_examples=30, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6), spread=st.floats(0.0, 2.0), data=st.data())
def test_every_bound_of_the_bracket_holds_on_its_own(shape, seed, spread, data):
    A, B = factors(shape, seed, spread)
    product = np.kron(A, B)
    s = data.draw(st.integers(1, min(product.shape[1], 5)))
    exact = rip_exact(product, s)
    bracket = kronecker_rip_bounds(A, B, s)
    assert {bound.method for bound in bracket.tried if bound.side == "upper"} == set(UPPER)
    slack = 1e-12 * (1 + exact.greatest)
    for bound in bracket.tried:
        if bound.side == "upper":
            assert bound.least <= exact.least + slack
            assert bound.greatest >= exact.greatest - slack
        else:
            assert bound.least >= exact.least - slack
            assert bound.greatest <= exact.greatest + slack
            assert bound.recompute(product) == pytest.approx(bound.value, abs=1e-9)
            for witness in (bound.least_witness, bound.greatest_witness):
                x = witness.vector
                assert np.count_nonzero(x) <= s
                assert np.linalg.norm(x) == pytest.approx(1.0)
                assert np.linalg.norm(product @ x) ** 2 == pytest.approx(witness.value, abs=1e-12)
    assert bracket.lower <= exact.value + slack
    assert bracket.upper >= exact.value - slack


@given(shape=SHAPES, seed=st.integers(0, 10**6), spread=st.floats(0.0, 2.0), data=st.data())
def test_gershgorin_coherence_and_spectrum_are_those_of_the_product_itself(
    shape, seed, spread, data
):
    A, B = factors(shape, seed, spread)
    product = np.kron(A, B)
    s = data.draw(st.integers(1, product.shape[1]))
    for method in ("babel", "coherence", "spectrum"):
        expected, found = (rip_upper(M, s, method) for M in (product, KroneckerOperator(A, B)))
        assert found.greatest == pytest.approx(expected.greatest, rel=1e-11)
        assert found.least == pytest.approx(expected.least, abs=1e-10 * expected.greatest)


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6), spread=st.floats(0.0, 1.0))
def test_the_constant_of_the_product_is_at_most_that_of_the_classical_law(shape, seed, spread):
    A, B = factors(shape, seed, spread)
    s = min(2, A.shape[1], B.shape[1])
    law = kronecker_rip_upper(rip_exact(A, s).value, rip_exact(B, s).value)
    assert rip_exact(np.kron(A, B), s).value <= law + 1e-10 * (1 + law)


def test_the_sum_over_orders_is_never_above_the_product_of_equal_orders():
    for seed in range(4):
        A, B = unit(gaussian(60, 7, seed)), unit(gaussian(50, 6, seed + 100))
        tried = {bound.method: bound for bound in kronecker_rip_bounds(A, B, 3).tried}
        assert tried["factors"].greatest < tried["product"].greatest - 0.01
        assert tried["factors"].least > tried["product"].least + 0.01


@settings(max_examples=25, deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 10**6), spread=st.floats(0.0, 1.0))
def test_the_product_is_no_better_than_either_factor_under_the_condition_on_norms(
    shape, seed, spread
):
    A, B = factors(shape, seed, spread)
    # Bring the first column of each to norm one: then the condition holds.
    A, B = A / np.linalg.norm(A[:, 0]), B / np.linalg.norm(B[:, 0])
    assert norm_condition(A, B)
    s = min(2, A.shape[1], B.shape[1])
    product = rip_exact(np.kron(A, B), s).value
    assert product >= max(rip_exact(A, s).value, rip_exact(B, s).value) - 1e-10


def test_without_the_condition_on_norms_the_product_can_be_better_than_a_factor():
    A, B = 2.0 * np.eye(2), 0.5 * np.eye(2)  # their product is the identity
    assert not norm_condition(A, B)
    assert rip_exact(A, 2).value == pytest.approx(3.0)
    assert rip_exact(np.kron(A, B), 2).value == pytest.approx(0.0)
    assert norm_condition(unit(gaussian(3, 5)), unit(gaussian(2, 4)))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), s=st.integers(1, 3), scale=st.floats(0.5, 2.0))
def test_brackets_of_the_factors_alone_give_a_bracket_of_the_product(seed, s, scale):
    A, B = gaussian(5, 4, seed), scale * gaussian(4, 5, seed + 1)
    brackets = []
    for M in (A, B):
        upper = combine([rip_upper(M, s, method) for method in ("babel", "spectrum")])
        brackets.append(RipBracket(s, rip_lower(M, s), upper))
    bracket = kronecker_rip_bounds(*brackets)
    exact = rip_exact(np.kron(A, B), s)
    assert bracket.s == s
    assert bracket.lower <= exact.value + 1e-10
    assert bracket.upper >= exact.value - 1e-10
    assert bracket.upper_bound.method == "product"


def exact_pairs(A, B):
    """Return p, q, r of the Gram matrices [[p, q], [q, r]] of all pairs of columns of A ⊗ B."""
    A, B = (np.vectorize(Fraction, otypes=[object])(M) for M in (A, B))
    G = np.kron(A.T @ A, B.T @ B)
    return [(G[i, i], G[i, j], G[j, j]) for i, j in itertools.combinations(range(len(G)), 2)]


def holds_exactly(bound, pairs):
    """Tell, in rational arithmetic, whether a bound of order 2 is one, without any tolerance."""
    least, greatest = Fraction(bound.least), Fraction(bound.greatest)
    if bound.side == "upper":
        return all(
            sign * (t - p) >= 0 and sign * (t - r) >= 0 and (t - p) * (t - r) >= q * q
            for t, sign in ((greatest, 1), (least, -1))
            for p, q, r in pairs
        )
    # Some pair reaches beyond: not all eigenvalues are strictly on the near side.
    return all(
        any(sign * (t - p) <= 0 or (t - p) * (t - r) <= q * q for p, q, r in pairs)
        for t, sign in ((greatest, 1), (least, -1))
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), rows=st.integers(1, 3), spread=st.floats(0.0, 2.0))
def test_every_bound_holds_in_exact_arithmetic_whichever_way_it_was_rounded(seed, rows, spread):
    A, B = factors((rows, 3, 3, 2), seed, spread)
    pairs = exact_pairs(A, B)
    brackets = [RipBracket(2, exact, exact) for exact in (rip_exact(A, 2), rip_exact(B, 2))]
    for bracket in (kronecker_rip_bounds(A, B, 2), kronecker_rip_bounds(*brackets)):
        for bound in (bracket.lower_bound, bracket.upper_bound, *bracket.tried):
            assert holds_exactly(bound, pairs), bound.method


@given(
    values=st.tuples(st.floats(1e-3, 1e3), st.floats(1e-3, 1e3)),
    known=st.sampled_from(["both", "least", "greatest"]),
)
def test_brackets_of_multiples_of_isometries_compose_to_bounds_in_exact_arithmetic(values, known):
    brackets = []
    for value in values:  # of ‖Ax‖² for every unit vector x
        # Where the inner bound of one side says nothing, the two of the product change places.
        least = value if known != "greatest" else 8 * value
        greatest = value if known != "least" else 0.0
        inner = RipBound("lower", 2, least, greatest, "given", 0.0)
        outer = RipBound("upper", 2, value, value, "given", 0.0)
        brackets.append(RipBracket(2, inner, outer))
    product = Fraction(values[0]) * Fraction(values[1])
    for bound in kronecker_rip_bounds(*brackets).tried:
        assert holds_exactly(bound, [(product, Fraction(0), product)])


def test_exact_brackets_of_unit_columns_compose_to_the_law_from_above():
    A, B = unit(gaussian(6, 5)), unit(gaussian(5, 6, seed=1))
    first, second = (RipBracket(2, exact, exact) for exact in (rip_exact(A, 2), rip_exact(B, 2)))
    bracket = kronecker_rip_bounds(first, second)
    assert bracket.upper == pytest.approx(kronecker_rip_upper(first.upper, second.upper))


def test_supports_packed_in_one_row_or_column_are_among_the_witnesses():
    # All columns of B are nearly one: the worst support is packed in one row of X.
    A, B = np.eye(4), unit(np.ones((6, 5)) + 0.1 * gaussian(6, 5))
    bracket = kronecker_rip_bounds(A, B, 4, search=False)
    rows, columns = np.divmod(bracket.support, 5)
    assert len(set(rows)) == 1
    assert len(set(columns)) == 4
    assert bracket.lower == pytest.approx(rip_exact(np.kron(A, B), 4).value)
    rows, columns = np.divmod(kronecker_rip_bounds(B, A, 4, search=False).support, 4)
    assert len(set(rows)) == 4
    assert len(set(columns)) == 1


def test_a_wide_product_has_no_isometry_from_the_rows_of_its_smaller_factor_on():
    # Lᵀ has 4 rows: 5 of its columns are dependent, and so are the 5 entries of a column of ΔW.
    Phi = CosaBasis.sample(9, 8, 4, 5, scale="analysis").sensing()
    bracket = kronecker_rip_bounds(*Phi.factors, 5)
    assert bracket.lower_bound.least == pytest.approx(0.0, abs=1e-12)
    assert bracket.lower >= 1.0
    assert bracket.vacuous


def test_low_rank_updates_are_invisible_to_the_sensing_operator():
    """No isometry on matrices of rank one: u vᵀ with Lᵀu = 0 or R v = 0 has no measurements."""
    basis = CosaBasis.sample(9, 8, 5, 8, scale="analysis", seed=1)
    u = np.linalg.svd(basis.L.T)[2][-1]
    v = np.random.default_rng(0).standard_normal(8)
    assert np.linalg.norm(basis.encode(np.outer(u, v))) < 1e-12 * np.linalg.norm(np.outer(u, v))
    basis = CosaBasis.sample(9, 8, 9, 5, scale="analysis", seed=1)
    v = np.linalg.svd(basis.R)[2][-1]
    u = np.random.default_rng(0).standard_normal(9)
    assert np.linalg.norm(basis.encode(np.outer(u, v))) < 1e-12 * np.linalg.norm(np.outer(u, v))


def test_several_orders_share_the_factors_and_agree_with_one_at_a_time():
    A, B = gaussian(12, 8), gaussian(10, 7, seed=1)
    together = kronecker_rip_bounds(A, B, np.array([2, 3, 5]), about="the product")
    assert [bracket.s for bracket in together] == [2, 3, 5]
    for bracket in together:
        alone = kronecker_rip_bounds(DenseGram(A), DenseGram(B), bracket.s)
        assert bracket.upper == alone.upper
        assert bracket.lower == alone.lower
        assert bracket.about == "the product"
    uppers, lowers = ([getattr(b, end) for b in together] for end in ("upper", "lower"))
    assert uppers == sorted(uppers)
    assert lowers == sorted(lowers)


def test_the_same_seed_finds_the_same_bracket():
    A, B = gaussian(12, 14), gaussian(10, 9, seed=1)
    first, again = (kronecker_rip_bounds(A, B, 4, seed=5) for _ in range(2))
    assert (first.lower, first.upper) == (again.lower, again.upper)
    assert np.array_equal(first.vector, again.vector)


# The exact constant over all cores.


def test_the_exact_constant_over_all_cores_of_a_layer_is_far_from_an_isometry():
    basis = CosaBasis.sample(4096, 4096, 1024, 256)
    found = core_isometry(basis)
    low, high = math.sqrt(found.least), math.sqrt(found.greatest)
    # Edges 0.375 and 1.875; over draws of the seed they move by some 0.02.
    assert low == pytest.approx(0.376, abs=0.02)
    assert high == pytest.approx(1.865, abs=0.03)
    assert found.delta == pytest.approx(2.5, abs=0.1)
    assert found.condition == pytest.approx(5.0, abs=0.25)
    assert found.scale_free == pytest.approx(0.92, abs=0.01)
    assert found.bai_yin_delta == pytest.approx(1.875**2 - 1, rel=2e-3)
    assert found.gain == pytest.approx(1.0, abs=5e-3)
    # At analysis scale every squared singular value is mn/(ab) = 64 times as large.
    released = core_isometry(CosaBasis(math.sqrt(4) * basis.L, math.sqrt(16) * basis.R))
    assert released.delta == pytest.approx(64 * (found.delta + 1) - 1)
    assert released.delta == pytest.approx(224, abs=6)
    assert released.scale_free == pytest.approx(found.scale_free)
    assert released.bai_yin_delta == pytest.approx(224, rel=5e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_the_constant_over_all_cores_is_that_of_the_dictionary_formed(kind):
    basis = CosaBasis.sample(12, 9, 5, 4, kind=kind, scale="analysis", seed=2)
    values = np.linalg.svd(basis.dictionary() @ np.eye(20), compute_uv=False) ** 2
    found = core_isometry(basis)
    assert found.greatest == pytest.approx(values[0])
    assert found.least == pytest.approx(values[-1], abs=1e-12)
    assert found.gain == pytest.approx(values.mean())
    assert found.delta == pytest.approx(max(values[0] - 1, 1 - values[-1]))
    if found.least > 1e-9:
        assert found.scale_free == pytest.approx(
            (values[0] - values[-1]) / (values[0] + values[-1])
        )


def test_orthonormal_factors_give_zero_to_rounding_at_synthesis_scale():
    found = core_isometry(CosaBasis.sample(300, 200, 64, 32, kind="haar"))
    assert found.delta < 1e-13
    assert found.scale_free < 1e-13
    assert found.condition == pytest.approx(1.0, abs=1e-13)


def test_a_redundant_core_has_no_isometry():
    found = core_isometry(CosaBasis.sample(6, 8, 7, 3))
    assert found.least == 0.0
    assert found.condition == math.inf
    assert found.scale_free == 1.0
    assert found.delta >= 1.0
    assert math.isnan(found.bai_yin_delta)


def test_bad_arguments_are_named_with_a_remedy():
    A, B = gaussian(3, 4), gaussian(2, 3)
    bracket = kronecker_rip_bounds(A, B, 2)
    with pytest.raises(ValueError, match="order s is missing"):
        kronecker_rip_bounds(A, B)
    with pytest.raises(ValueError, match=r"s is \[\]: it must be one order at least"):
        kronecker_rip_bounds(A, B, [])
    for s in (0, 13, 1.5, True):
        with pytest.raises(ValueError, match=rf"s is {s}: it must be a whole number from 1 to 12"):
            kronecker_rip_bounds(A, B, s)
    with pytest.raises(ValueError, match="not one of each"):
        kronecker_rip_bounds(A, bracket)
    with pytest.raises(ValueError, match="orders 2 and 1"):
        kronecker_rip_bounds(bracket, kronecker_rip_bounds(A, B, 1))
    with pytest.raises(ValueError, match="orders 2 and 2, with s = 3"):
        kronecker_rip_bounds(bracket, bracket, 3)
    with pytest.raises(ValueError, match=r"B has a NaN or infinite entry, first at \(0, 0\)"):
        kronecker_rip_bounds(A, np.full((2, 2), np.nan), 1)


def test_brackets_of_enumerated_constants_allow_for_their_rounding():
    A, B = gaussian(6, 4, seed=1), gaussian(5, 3, seed=2)
    first, second = rip_bracket(A, 2), rip_bracket(B, 2)
    assert first.exact
    assert second.exact
    composed = kronecker_rip_bounds(first, second)
    ends = first.upper_bound, second.upper_bound
    assert composed.upper_bound.greatest > ends[0].greatest * ends[1].greatest * (1 + 1e-12)
    assert composed.upper_bound.least < ends[0].least * ends[1].least * (1 - 1e-12)
    exact = rip_exact(np.kron(A, B), 2)
    assert composed.lower <= exact.value <= composed.upper


def test_a_result_names_what_it_is_about():
    basis = CosaBasis.sample(6, 5, 3, 2)
    psi, phi = basis.dictionary(), basis.sensing()
    assert rip_bracket(psi, 2).about == "the dictionary Ψ = L ⊗ Rᵀ (tall, 30 × 6)"
    assert rip_bracket(phi, 2).about == "the sensing operator Φ = Lᵀ ⊗ R (wide, 6 × 30)"
    found = kronecker_rip_bounds(*phi.factors, 2)
    assert found.about == "the Kronecker product A ⊗ B (wide, 6 × 30)"
