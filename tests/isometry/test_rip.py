"""Restricted isometry constants: exact by enumeration, and lower ≤ exact ≤ upper everywhere."""

import math
from itertools import combinations, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.isometry import (
    mutual_coherence,
    rip,
    rip_bracket,
    rip_exact,
    rip_lower,
    rip_upper,
)
from cosa_theory.isometry.search import Found
from cosa_theory.linear.gram import KroneckerGram, as_gram
from cosa_theory.linear.gram_protocol import rounding_slack
from cosa_theory.projections import KINDS, make_projection, stream

CHEAP = ("coherence", "babel", "spectrum")


def gaussian(rows, columns, seed=0):
    return stream(seed, "test", rows, columns).standard_normal((rows, columns)) / math.sqrt(rows)


def plain_enumeration(A, s):
    """The sparse eigenvalues by a loop over all supports, each by its singular values."""
    A = as_gram(A).A
    squares = [
        np.linalg.svd(A[:, S], compute_uv=False) ** 2 for S in combinations(range(A.shape[1]), s)
    ]
    least = 0.0 if s > A.shape[0] else min(value[-1] for value in squares)
    return least, max(value[0] for value in squares)


def check_order_of_bounds(A, s, **search):
    """Assert lower ≤ exact ≤ upper on each side, and that every witness proves its number."""
    matrix = as_gram(A).A
    exact, lower = rip_exact(A, s), rip_lower(A, s, **search)
    least, greatest = plain_enumeration(A, s)
    slack = rounding_slack(matrix.shape[0], s, float((matrix**2).sum(axis=0).max()))
    assert abs(exact.least - least) <= slack
    assert abs(exact.greatest - greatest) <= slack
    assert lower.least >= exact.least
    assert lower.greatest <= exact.greatest
    assert lower.value <= exact.value
    for bound in (exact, lower):
        # The value itself, a difference from 1, is rounded once more.
        assert abs(bound.recompute(matrix) - bound.value) <= 2 * slack + 4 * 2.0**-53
        for witness in (bound.least_witness, bound.greatest_witness):
            assert math.isclose(float(np.linalg.norm(witness.vector)), 1.0, rel_tol=1e-14)
            assert np.count_nonzero(witness.vector) <= witness.support.size == s
            assert math.isclose(
                witness.value, float(((matrix @ witness.vector) ** 2).sum()), abs_tol=slack
            )
    for method in CHEAP:
        upper = rip_upper(A, s, method)
        assert upper.least <= exact.least
        assert upper.greatest >= exact.greatest


@pytest.mark.parametrize("kind", KINDS)
def test_lower_exact_and_upper_are_in_order_for_every_ensemble(kind):
    for k, d in ((5, 9), (8, 8)):
        A = make_projection(kind, k, d, seed=k, scale="synthesis")
        for matrix in (A, A.T):
            for s in (1, 2, 4):
                check_order_of_bounds(matrix, s, supports=50, starts=8)


def special_matrices():
    base = gaussian(5, 8, seed=3)
    units = base / np.linalg.norm(base, axis=0)
    yield "unit columns", units
    yield "very different norms", base * np.logspace(-4, 4, 8)
    yield "a zero column", np.column_stack([base[:, :6], np.zeros(5)])
    yield "equal columns", np.column_stack([units[:, :5], units[:, 0], -units[:, 1]])
    yield "rank one", np.outer(np.arange(1.0, 5.0), np.arange(1.0, 8.0))
    yield "all zero", np.zeros((3, 6))
    yield "all one", np.ones((4, 7))
    yield "orthonormal columns", np.linalg.qr(gaussian(9, 7))[0]
    yield "identity", np.eye(6)
    yield "diagonal", np.diag([1.0, 0.0, 3.0, 0.5])
    yield "one column", gaussian(4, 1)
    yield "one entry", np.array([[2.0]])
    yield "two identities", np.hstack([np.eye(4), np.eye(4)])
    yield "tiny", 1e-70 * base
    yield "huge", 1e70 * base
    yield "nearly dependent", np.column_stack([units[:, :4], units[:, 0] + 1e-9 * units[:, 1]])


@pytest.mark.parametrize("A", [pytest.param(A, id=name) for name, A in special_matrices()])
def test_lower_exact_and_upper_are_in_order_for_special_matrices(A):
    for s in range(1, A.shape[1] + 1):
        check_order_of_bounds(A, s, supports=50, starts=8)


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 9), st.integers(2, 9), st.integers(0, 10**6), st.data())
def test_lower_exact_and_upper_are_in_order_for_random_matrices(k, d, seed, data):
    generator = np.random.default_rng(seed)
    A = generator.standard_normal((k, d)) * (generator.random((k, d)) < 0.6)
    A *= 10 ** generator.uniform(-2, 1)
    check_order_of_bounds(A, data.draw(st.integers(1, d)), supports=20, starts=4)


def test_the_search_finds_both_sparse_eigenvalues_of_gaussian_matrices():
    # 20 × 30, s ≤ 4: of 160 cases tried all were equal, on both sides.
    for seed in range(6):
        A = gaussian(20, 30, seed)
        for s in (1, 2, 3, 4):
            exact, lower = rip_exact(A, s), rip_lower(A, s, seed=seed)
            assert lower.value <= exact.value
            assert lower.least == pytest.approx(exact.least, abs=1e-11)
            assert lower.greatest == pytest.approx(exact.greatest, abs=1e-11)


def test_the_search_remains_good_at_higher_orders():
    values = [(gaussian(12, 20, seed), s) for seed in range(2) for s in (5, 6)]
    equal = [rip_lower(A, s).value >= rip_exact(A, s).value - 1e-11 for A, s in values]
    assert all(equal)


@pytest.mark.parametrize("s", [2, 3, 6])
def test_enumeration_does_not_rely_on_the_search_that_it_starts_from(s, monkeypatch):
    A = gaussian(5, 9)
    poor = Found(np.arange(s)[None], np.zeros(1), 0)
    monkeypatch.setattr(rip, "search_supports", lambda *args, **options: poor)
    least, greatest = plain_enumeration(A, s)
    exact = rip_exact(A, s)
    assert math.isclose(exact.greatest, greatest, rel_tol=1e-12)
    assert math.isclose(exact.least, least, rel_tol=1e-9, abs_tol=1e-13)


@settings(max_examples=8, deadline=None)
@given(st.integers(3, 8), st.integers(3, 8), st.integers(0, 10**6))
def test_the_constant_grows_with_the_order(k, d, seed):
    A = np.random.default_rng(seed).standard_normal((k, d))
    bounds = [rip_exact(A, s) for s in range(1, d + 1)]
    assert all(b.least <= a.least + 1e-12 for a, b in pairwise(bounds))
    assert all(b.greatest >= a.greatest - 1e-12 for a, b in pairwise(bounds))


@settings(max_examples=8, deadline=None)
@given(st.integers(3, 8), st.integers(4, 8), st.integers(0, 10**6))
def test_order_and_signs_of_the_columns_do_not_matter(k, d, seed):
    generator = np.random.default_rng(seed)
    A = generator.standard_normal((k, d))
    other = A[:, generator.permutation(d)] * generator.choice([-1.0, 1.0], d)
    first, second = rip_exact(A, 3), rip_exact(other, 3)
    assert math.isclose(first.least, second.least, rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(first.greatest, second.greatest, rel_tol=1e-9)


@settings(max_examples=5, deadline=None)
@given(st.floats(0.01, 100))
def test_scaling_a_matrix_scales_its_sparse_eigenvalues_by_the_square(c):
    A = gaussian(6, 9)
    plain, scaled = rip_exact(A, 3), rip_exact(c * A, 3)
    assert math.isclose(scaled.least, c * c * plain.least, rel_tol=1e-9)
    assert math.isclose(scaled.greatest, c * c * plain.greatest, rel_tol=1e-9)
    assert math.isclose(scaled.scale_free, plain.scale_free, rel_tol=1e-9)


def test_the_best_scale_brings_the_constant_to_its_scale_free_value():
    bound = rip_exact(gaussian(6, 9), 3)
    best = math.sqrt(2 / (bound.least + bound.greatest))
    assert math.isclose(rip_exact(best * gaussian(6, 9), 3).value, bound.scale_free, rel_tol=1e-12)


@pytest.mark.parametrize("seed", range(2))
def test_the_constant_of_order_two_is_the_mutual_coherence_of_unit_columns(seed):
    A = gaussian(7, 11, seed)
    A /= np.linalg.norm(A, axis=0)
    assert math.isclose(rip_exact(A, 2).value, mutual_coherence(A), rel_tol=1e-12)
    assert math.isclose(rip_lower(A, 2).value, mutual_coherence(A), rel_tol=1e-12)


@pytest.mark.parametrize("s", [1, 2, 4, 9])
def test_orthonormal_columns_have_the_constant_zero_to_rounding(s):
    Q = np.linalg.qr(gaussian(12, 9))[0]
    assert rip_exact(Q, s).value <= rounding_slack(12, s, 1.0)
    assert rip_lower(Q, s).value == 0.0


def test_order_one_is_the_column_norms():
    A = gaussian(6, 9)
    squares = (A * A).sum(axis=0)
    for bound in (rip_exact(A, 1), rip_lower(A, 1)):
        assert math.isclose(bound.least, squares.min(), rel_tol=1e-12)
        assert math.isclose(bound.greatest, squares.max(), rel_tol=1e-12)
        assert bound.least_witness.support[0] == squares.argmin()
        assert bound.greatest_witness.support[0] == squares.argmax()


@pytest.mark.parametrize("bound", [rip_exact, rip_lower])
def test_more_columns_than_rows_are_dependent(bound):
    found = bound(gaussian(4, 9), 5)
    assert found.least == 0.0
    assert found.value >= 1.0
    assert found.least_witness.value < 1e-14


@pytest.mark.parametrize("bound", [rip_exact, rip_lower])
@pytest.mark.parametrize("s", [1, 2, 4])
def test_a_zero_column_is_legal_and_makes_the_constant_at_least_one(bound, s):
    A = gaussian(6, 8) / 10
    A[:, 5] = 0.0
    found = bound(A, s)
    assert found.least == 0.0
    assert found.value == 1.0
    assert 5 in found.support


def test_equal_columns_are_found_as_dependent():
    A = gaussian(6, 9)
    A[:, 7] = A[:, 2]
    bound = rip_lower(A, 2)
    assert bound.least < 1e-13
    assert bound.least_witness.support.tolist() == [2, 7]


@pytest.mark.parametrize("form", ["float32", "csr", "coo", "operator", "tensor", "tensor32"])
def test_every_kind_of_matrix_gives_the_same_constant(form):
    A = gaussian(6, 9).astype(np.float32).astype(np.float64)
    forms = {
        "float32": A.astype(np.float32),
        "csr": sparse.csr_array(A),
        "coo": sparse.coo_array(A),
        "operator": sparse.linalg.aslinearoperator(A),
        "tensor": torch.tensor(A, requires_grad=True),
        "tensor32": torch.tensor(A, dtype=torch.float32),
    }
    for bound in (rip_exact, rip_lower):
        assert bound(forms[form], 3).value == bound(A, 3).value


def test_hadamard_projections_are_measured_through_their_fast_product():
    A = make_projection("srht", 6, 12, seed=2)
    assert rip_exact(A, 3).value == rip_exact(A @ np.eye(12), 3).value


@pytest.mark.parametrize("bound", [rip_exact, rip_lower, rip_bracket])
@pytest.mark.parametrize("s", [0, 10, 2.0])
def test_a_bad_order_is_an_error_that_names_it(bound, s):
    with pytest.raises(ValueError, match=r"s is .*: it must be a whole number from 1 to 9"):
        bound(gaussian(6, 9), s)


@pytest.mark.parametrize("bound", [rip_exact, rip_lower, rip_bracket])
@pytest.mark.parametrize(
    "A",
    [
        np.ones(4),
        np.ones((2, 2, 2)),
        np.ones((0, 4)),
        np.ones((4, 0)),
        np.ones((2, 3)) * 1j,
        np.array([[1.0, np.nan], [0.0, 1.0]]),
        np.array([[1.0, np.inf], [0.0, 1.0]]),
        np.full((2, 3), 1e200),
    ],
    ids=["vector", "3-D", "no rows", "no columns", "complex", "nan", "inf", "overflow"],
)
def test_a_bad_matrix_is_an_error(bound, A):
    with pytest.raises(ValueError, match=r"must|real|NaN or infinite|divide"):
        bound(A, 1)


@pytest.mark.parametrize(
    ("options", "name"), [({"supports": 0}, "supports"), ({"starts": -1}, "starts")]
)
def test_a_bad_count_is_an_error_that_names_it(options, name):
    with pytest.raises(ValueError, match=f"{name} is .* at least"):
        rip_lower(gaussian(6, 9), 2, **options)


def test_too_many_supports_are_refused_with_their_number_and_the_remedy():
    with pytest.raises(ValueError, match=r"has 27405 supports.*27404.*rip_bracket"):
        rip_exact(gaussian(20, 30), 4, max_supports=27404)
    assert rip_exact(gaussian(20, 30), 4, max_supports=27405).evaluations == 27405


@pytest.mark.parametrize("limit", ["many", None, float("nan"), True])
def test_a_limit_on_supports_must_be_a_number(limit):
    with pytest.raises(ValueError, match=r"max_supports is .*: it must be a finite number"):
        rip_exact(gaussian(4, 5), 2, max_supports=limit)
    with pytest.raises(ValueError, match=r"exact is .*: it must be a finite number"):
        rip_bracket(gaussian(4, 5), 2, exact=limit)


def test_the_same_seed_finds_the_same_bound():
    A = gaussian(20, 60)
    first, second = rip_lower(A, 5, seed=3), rip_lower(A, 5, seed=3)
    assert (first.least, first.greatest) == (second.least, second.greatest)
    np.testing.assert_array_equal(first.vector, second.vector)
    only_drawn = [rip_lower(A, 5, seed=seed, supports=20, starts=0).value for seed in (3, 4)]
    assert only_drawn[0] != only_drawn[1]


def test_a_matrix_is_left_as_it_was():
    A = gaussian(6, 9)
    before = A.copy()
    rip_exact(A, 3)
    rip_lower(A, 3)
    np.testing.assert_array_equal(A, before)


def test_a_bracket_is_exact_where_enumeration_is_affordable():
    A = gaussian(6, 9)
    bracket = rip_bracket(A, 3)
    assert bracket.exact
    assert bracket.lower == bracket.upper == rip_exact(A, 3).value
    assert bracket.method == "enumeration"
    assert bracket.about == "the matrix A (wide, 6 × 9)"


@pytest.mark.parametrize("s", [2, 4])
def test_a_bracket_holds_the_constant_between_its_ends(s):
    A = gaussian(12, 16)
    bracket = rip_bracket(A, s, exact=0)
    exact = rip_exact(A, s).value
    assert not bracket.exact
    assert bracket.lower <= exact <= bracket.upper
    assert {bound.method for bound in bracket.tried} == {"search", *CHEAP, "sdp"}
    assert bracket.upper <= min(rip_upper(A, s, method).value for method in CHEAP) + 1e-10


def test_a_bracket_takes_the_methods_it_is_given():
    bracket = rip_bracket(gaussian(12, 16), 3, exact=0, methods=("babel",), about="mine")
    assert [bound.method for bound in bracket.tried] == ["search", "babel"]
    assert bracket.about == "mine"


@pytest.mark.parametrize("methods", [(), ("babel", "magic"), "babel"])
def test_unknown_methods_are_refused_even_where_enumeration_would_do(methods):
    with pytest.raises(ValueError, match="coherence, babel, spectrum, sdp"):
        rip_bracket(gaussian(4, 5), 2, methods=methods)


def test_large_matrices_are_bracketed_without_the_semidefinite_bound():
    bracket = rip_bracket(gaussian(100, 200), 3, exact=0)
    assert {bound.method for bound in bracket.tried} == {"search", *CHEAP}


@pytest.mark.parametrize("which", ["dictionary", "sensing"])
def test_a_kronecker_operator_is_bracketed_from_its_factors(which):
    operator = getattr(CosaBasis.sample(5, 4, 3, 2), which)()
    full = np.kron(*(np.asarray(factor) for factor in operator.factors))
    exact = rip_exact(full, 2).value
    bracket = rip_bracket(operator, 2, exact=0)
    assert bracket.lower <= exact <= bracket.upper
    assert math.isclose(rip_bracket(operator, 2).lower, exact, rel_tol=1e-12)
    rows, columns = operator.shape
    name = {"dictionary": "the dictionary Ψ = L ⊗ Rᵀ (tall", "sensing": "the sensing operator Φ = "}
    assert bracket.about.startswith(name[which])
    assert bracket.about.endswith(f", {rows} × {columns})")


@pytest.mark.parametrize("shape", [(4, 3, 3, 2), (3, 4, 2, 3), (2, 5, 3, 1)])
@pytest.mark.parametrize("s", [1, 2, 3])
def test_a_kronecker_operator_has_the_constants_of_its_explicit_product(shape, s):
    m, n, a, b = shape
    A, B = gaussian(a, m, 1), gaussian(b, n, 2)
    full, operator = np.kron(A, B), KroneckerOperator(A, B)
    exact = rip_exact(full, s)
    factored, lower = rip_exact(operator, s), rip_lower(operator, s)
    assert math.isclose(factored.greatest, exact.greatest, rel_tol=1e-12)
    assert math.isclose(factored.least, exact.least, rel_tol=1e-9, abs_tol=1e-12)
    assert lower.value <= exact.value
    assert math.isclose(lower.value, exact.value, rel_tol=1e-10)
    assert math.isclose(lower.recompute(operator), exact.value, rel_tol=1e-10)
    assert rip_lower(KroneckerGram(A, B), s).value == lower.value


@pytest.mark.parametrize("kind", KINDS)
def test_a_basis_of_any_ensemble_is_measured_through_its_factors(kind):
    operator = CosaBasis.sample(8, 6, 4, 3, kind=kind, seed=2).sensing()
    full = operator @ np.eye(48)
    exact = rip_exact(full, 2)
    bound = rip_lower(operator, 2)
    assert bound.value <= exact.value
    assert math.isclose(bound.least, exact.least, abs_tol=1e-10)
    assert math.isclose(bound.greatest, exact.greatest, rel_tol=1e-10)
