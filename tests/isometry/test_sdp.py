"""The semidefinite bound: valid whatever the solver does, never wider than the others."""

import math
from itertools import combinations

import cvxpy
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory import KroneckerOperator
from cosa_theory.isometry import sdp
from cosa_theory.isometry.rip import rip_bracket, rip_exact
from cosa_theory.isometry.sdp import dual_bound, rip_sdp
from cosa_theory.isometry.upper import rip_upper
from cosa_theory.projections import KINDS, make_projection


def gaussian(rows, columns, seed=0):
    return np.random.default_rng(seed).standard_normal((rows, columns)) / math.sqrt(rows)


def sparse_range(A, s):
    """Least and greatest eigenvalue over all supports of size s, by a plain loop."""
    G = A.T @ A
    values = [np.linalg.eigvalsh(G[np.ix_(S, S)]) for S in combinations(range(len(G)), s)]
    return max(min(v[0] for v in values), 0.0), max(v[-1] for v in values)


def two_blocks():
    """Columns of a pair of unequal norms, and three parallel ones of a larger norm together."""
    A = np.zeros((3, 5))
    A[:2, :2] = np.linalg.cholesky(np.array([[2.0, 0.5], [0.5, 1.0]])).T
    A[2, 2:] = math.sqrt(0.77)
    return A


MATRICES = {
    "wide": gaussian(8, 12),
    "tall": gaussian(14, 9, seed=1),
    "unequal norms": gaussian(6, 10, seed=2) * np.linspace(0.2, 2.0, 10),
    "zero and equal columns": np.column_stack([np.zeros(5), gaussian(5, 6, 3), np.ones((5, 2))]),
    "orthonormal": np.linalg.qr(gaussian(8, 8, seed=4))[0],
    "two blocks": two_blocks(),
    **{kind: make_projection(kind, 8, 11, seed=5) @ np.eye(11) for kind in KINDS},
}


@pytest.mark.parametrize("name", MATRICES)
@pytest.mark.parametrize("s", [1, 2, 4])
def test_the_bound_encloses_the_sparse_eigenvalues_within_every_other_bound(name, s):
    A = MATRICES[name]
    least, greatest = sparse_range(A, s)
    bound = rip_sdp(A, s, max_iters=400)
    assert bound.side == "upper"
    assert bound.least <= least
    assert bound.greatest >= greatest
    for method in ("coherence", "babel", "spectrum"):
        other = rip_upper(A, s, method)
        slack = 1e-11 * (1 + other.greatest)  # the semidefinite bound allows more for rounding
        assert bound.greatest <= other.greatest + slack
        assert bound.least >= other.least - slack


def test_it_is_exact_where_each_block_needs_another_bound():
    # The pair needs its spectrum, (3 + √2)/2; the parallel columns, of spectrum 2.31, Gershgorin.
    exact = (3 + math.sqrt(2)) / 2
    bound = rip_sdp(two_blocks(), 2, solver="CLARABEL")
    assert sparse_range(two_blocks(), 2)[1] == pytest.approx(exact)
    assert bound.greatest == pytest.approx(exact, abs=1e-6)
    assert rip_upper(two_blocks(), 2, "babel").greatest == pytest.approx(2.5)
    assert rip_upper(two_blocks(), 2, "spectrum").greatest == pytest.approx(2.31)


def test_it_is_strictly_better_than_the_others_on_a_gaussian_matrix():
    bound = rip_sdp(MATRICES["wide"], 3)
    others = [rip_upper(MATRICES["wide"], 3, m) for m in ("coherence", "babel", "spectrum")]
    assert bound.greatest < min(other.greatest for other in others) - 0.1
    assert max(other.least for other in others) < 0.01 < bound.least


@pytest.mark.parametrize("solver", ["SCS", "CLARABEL"])
def test_both_ends_follow_again_from_the_stored_multipliers(solver):
    A = gaussian(7, 10, seed=6)
    bound = rip_sdp(A, 3, solver=solver)
    assert bound.note == ""
    G = A.T @ A
    assert dual_bound(G, bound.proof["U_greatest"], 3) == pytest.approx(bound.greatest, abs=1e-9)
    assert -dual_bound(-G, bound.proof["U_least"], 3) == pytest.approx(bound.least, abs=1e-9)


@given(seed=st.integers(0, 10**6), s=st.integers(1, 5), size=st.floats(0.0, 3.0))
def test_every_symmetric_matrix_of_multipliers_proves_a_bound(seed, s, size):
    generator = np.random.default_rng(seed)
    A = generator.standard_normal((4, 6))
    U = size * generator.standard_normal((6, 6))
    least, greatest = sparse_range(A, s)
    assert dual_bound(A.T @ A, U, s) >= greatest
    assert -dual_bound(-A.T @ A, U, s) <= least + 1e-12


def test_no_multipliers_give_the_spectrum_and_minus_the_matrix_gives_gershgorin():
    A = gaussian(5, 7, seed=7)
    G = A.T @ A
    off = G - np.diag(G.diagonal())
    discs = G.diagonal() + np.sort(np.abs(off), axis=1)[:, -2:].sum(axis=1)
    assert dual_bound(G, np.zeros_like(G), 3) == pytest.approx(np.linalg.eigvalsh(G)[-1])
    assert dual_bound(G, -G, 3) == pytest.approx(discs.max())


class Variable:
    def __init__(self, value):
        self.value = value


class Problem:
    """Stands for a solver that ends in a chosen way."""

    def __init__(self, status, error=None):
        self.status, self.error = status, error

    def solve(self, **settings):
        if self.error is not None:
            raise self.error


PAIRS = 12 * 11 // 2
FAILURES = {
    "solver error": (Problem(None, cvxpy.error.SolverError("did not start")), None),
    "arithmetic error": (Problem(None, ZeroDivisionError("division by zero")), None),
    "crash": (Problem(None, RuntimeError("segments of the problem were lost")), None),
    "infeasible": (Problem("infeasible"), None),
    "huge": (Problem("optimal"), np.full(PAIRS, 1.7e308)),
    "not a number": (Problem("user_limit"), np.full(PAIRS, np.nan)),
    "garbage": (Problem("optimal_inaccurate"), 1e6 * np.sin(np.arange(PAIRS))),
    "wrong sign": (Problem("optimal_inaccurate"), np.full(PAIRS, 3.0)),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_solver_that_fails_costs_tightness_and_is_reported(name, monkeypatch):
    problem, values = FAILURES[name]
    monkeypatch.setattr(sdp, "_relaxation", lambda gram, s: (problem, Variable(values)))
    A = MATRICES["wide"]
    least, greatest = sparse_range(A, 3)
    bound = rip_sdp(A, 3)
    assert bound.least <= least
    assert bound.greatest >= greatest
    babel, spectrum = (rip_upper(A, 3, method) for method in ("babel", "spectrum"))
    assert bound.greatest == pytest.approx(min(babel.greatest, spectrum.greatest))
    assert bound.least == pytest.approx(max(babel.least, spectrum.least))
    assert "greatest eigenvalue: SCS" in bound.note
    assert "least eigenvalue: SCS" in bound.note


def test_a_solver_that_stops_early_leaves_a_valid_bound_and_a_note():
    A = gaussian(12, 24, seed=8)
    least, greatest = sparse_range(A, 2)
    bound = rip_sdp(A, 2, max_iters=3)
    assert "stopped early" in bound.note
    assert bound.least <= least
    assert bound.greatest >= greatest
    assert bound.greatest <= rip_upper(A, 2, "babel").greatest * (1 + 1e-11)


def test_a_limit_in_seconds_is_kept():
    bound = rip_sdp(gaussian(45, 90, seed=9), 5, time_limit=0.2)
    assert "stopped early" in bound.note
    assert bound.seconds < 10  # 24 s without the limit; the rest is setting up and evaluating


def test_bad_arguments_are_named_with_a_remedy():
    A = gaussian(4, 6)
    with pytest.raises(ValueError, match=r"at most 5 columns, A has 6: .* raise max_columns"):
        rip_sdp(A, 2, max_columns=5)
    with pytest.raises(ValueError, match="solver is 'GUROBI': it must be one of SCS, CLARABEL"):
        rip_sdp(A, 2, solver="GUROBI")
    for limit in ({"time_limit": 0.0}, {"max_iters": "many"}, {"max_iters": True}):
        with pytest.raises(ValueError, match=rf"{next(iter(limit))} is .*: it must be"):
            rip_sdp(A, 2, **limit)
    with pytest.raises(ValueError, match="option is 'tolerance': it must be one of solver, "):
        rip_upper(A, 2, "sdp", tolerance=1e-3)
    G = A.T @ A
    for bad in (np.triu(G), np.full((6, 6), np.inf)):
        with pytest.raises(ValueError, match=r"G (must be symmetric|has a NaN)"):
            dual_bound(bad, G, 2)
    with pytest.raises(ValueError, match="U has a NaN"):
        dual_bound(G, np.full((6, 6), np.nan), 2)
    with pytest.raises(ValueError, match="s is 7: it must be a whole number from 1 to 6"):
        rip_sdp(A, 7)
    with pytest.raises(ValueError, match=r"A has a NaN or infinite entry, first at \(0, 0\)"):
        rip_sdp(np.full((3, 3), np.nan), 1)
    with pytest.raises(ValueError, match="square and of one size"):
        dual_bound(np.eye(3), np.eye(4), 1)


@pytest.mark.parametrize("s", [1, 2, 4])
def test_a_kronecker_product_has_the_bound_of_the_matrix_it_stands_for(s):
    A, B = gaussian(3, 4, seed=6), gaussian(4, 3, seed=7) * np.linspace(0.5, 1.5, 3)
    product = np.kron(A, B)
    least, greatest = sparse_range(product, s)
    found = rip_upper(KroneckerOperator(A, B), s, "sdp")
    assert found.least <= least
    assert found.greatest >= greatest
    expected = rip_sdp(product, s)
    # Both Gram matrices differ by rounding, and the solver is asked for four digits only.
    assert found.greatest == pytest.approx(expected.greatest, rel=1e-3)
    G = product.T @ product
    assert dual_bound(G, found.proof["U_greatest"], s) == pytest.approx(found.greatest, rel=1e-12)


def test_a_small_kronecker_product_is_bracketed_more_narrowly_than_from_its_factors():
    K = KroneckerOperator(gaussian(5, 8, seed=8), gaussian(6, 5, seed=9))
    exact = rip_exact(K, 3).value
    alone = rip_bracket(K, 3, exact=0, methods=["babel"])
    both = rip_bracket(K, 3, exact=0)
    assert exact <= both.upper < 0.95 * alone.upper
    assert both.lower == alone.lower <= exact
    assert "sdp" in both.upper_bound.method
