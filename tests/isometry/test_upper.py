"""Upper bounds from coherence, the Babel function and the spectrum enclose every support."""

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.isometry.coherence import babel, mutual_coherence
from cosa_theory.isometry.upper import UPPER_METHODS, rip_upper
from cosa_theory.projections import KINDS, make_projection

CHEAP = ("coherence", "babel", "spectrum")


def sparse_range(A, s):
    G = A.T @ A
    values = [np.linalg.eigvalsh(G[np.ix_(S, S)]) for S in combinations(range(len(G)), s)]
    return max(min(v[0] for v in values), 0.0), max(v[-1] for v in values)


def unit(A):
    return A / np.linalg.norm(A, axis=0)


@given(
    seed=st.integers(0, 10**6),
    rows=st.integers(1, 7),
    columns=st.integers(1, 7),
    spread=st.floats(0.0, 3.0),
    method=st.sampled_from(CHEAP),
    data=st.data(),
)
def test_every_bound_encloses_the_sparse_eigenvalues(seed, rows, columns, spread, method, data):
    s = data.draw(st.integers(1, columns))
    generator = np.random.default_rng(seed)
    A = generator.standard_normal((rows, columns)) * np.exp(spread * generator.random(columns))
    A[:, generator.random(columns) < 0.1] = 0.0
    least, greatest = sparse_range(A, s)
    bound = rip_upper(A, s, method)
    assert bound.side == "upper"
    assert bound.method == method
    assert bound.least <= least + 1e-12 * greatest  # the loop's own rounding
    assert bound.greatest >= greatest * (1 - 1e-12)
    assert bound.support is None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["analysis", "synthesis"])
@pytest.mark.parametrize("method", UPPER_METHODS)
def test_every_bound_holds_for_every_ensemble(kind, scale, method):
    A = make_projection(kind, 7, 9, seed=1, scale=scale)
    least, greatest = sparse_range(A @ np.eye(9), 3)
    options = {"max_iters": 200} if method == "sdp" else {}
    bound = rip_upper(A, 3, method, **options)
    assert bound.least <= least
    assert bound.greatest >= greatest


@pytest.mark.parametrize("s", [1, 2, 3, 7])
def test_for_unit_columns_the_bounds_are_multiples_of_coherence_and_the_babel_function(s):
    A = unit(np.random.default_rng(0).standard_normal((5, 8)))
    assert rip_upper(A, s, "coherence").value == pytest.approx((s - 1) * mutual_coherence(A))
    expected = babel(A, s - 1) if s > 1 else 0.0
    assert rip_upper(A, s, "babel").value == pytest.approx(expected, abs=1e-12)


def test_the_constant_of_order_two_is_the_coherence_for_unit_columns():
    A = unit(np.random.default_rng(1).standard_normal((5, 8)))
    least, greatest = sparse_range(A, 2)
    assert max(greatest - 1, 1 - least) == pytest.approx(mutual_coherence(A))
    assert rip_upper(A, 2, "babel").value == pytest.approx(mutual_coherence(A))


def test_without_unit_columns_the_norms_count():
    A = np.diag([0.5, 2.0])  # orthogonal columns: coherence 0, but no isometry
    for method in UPPER_METHODS:
        bound = rip_upper(A, 1, method)
        assert bound.greatest == pytest.approx(4.0)
        assert bound.least == pytest.approx(0.25)
        assert bound.value == pytest.approx(3.0)
        assert bound.scale_free == pytest.approx(15 / 17)


def test_orthonormal_columns_give_zero_to_rounding():
    Q = np.linalg.qr(np.random.default_rng(2).standard_normal((12, 6)))[0]
    for method in UPPER_METHODS:
        assert rip_upper(Q, 4, method).value < 1e-11


def test_sparse_arrays_operators_tensors_and_single_precision_are_the_same_matrix():
    import torch

    A = np.random.default_rng(4).standard_normal((6, 8)).astype(np.float32)
    expected = rip_upper(A.astype(np.float64), 3, "babel")
    for form in (A, sparse.csr_array(A), torch.as_tensor(A), KroneckerOperator(np.eye(1), A)):
        bound = rip_upper(form, 3, "babel")
        assert (bound.least, bound.greatest) == pytest.approx((expected.least, expected.greatest))
    operator = make_projection("srht", 6, 8)
    dense = rip_upper(operator @ np.eye(8), 3, "babel")
    assert rip_upper(operator, 3, "babel").greatest == pytest.approx(dense.greatest)


@pytest.mark.parametrize("method", CHEAP)
def test_a_kronecker_operator_is_bounded_from_its_factors_as_if_it_were_formed(method):
    sensing = CosaBasis.sample(5, 4, 3, 2, scale="analysis").sensing()
    A, B = sensing.factors
    formed = rip_upper(np.kron(A, B), 3, method)
    bound = rip_upper(sensing, 3, method)
    assert bound.greatest == pytest.approx(formed.greatest, rel=1e-11)
    assert bound.least == pytest.approx(formed.least, abs=1e-11)


def test_blocks_of_the_gram_matrix_do_not_change_the_bounds(monkeypatch):
    A = np.random.default_rng(5).standard_normal((6, 11))
    whole = {method: rip_upper(A, 4, method).greatest for method in CHEAP}
    monkeypatch.setattr("cosa_theory.linear.gram._BLOCK", 25)  # two rows at a time
    for method in CHEAP:
        assert rip_upper(A, 4, method).greatest == pytest.approx(whole[method], rel=1e-14)


def test_bad_arguments_are_named_with_a_remedy():
    A = np.eye(4)
    with pytest.raises(ValueError, match="method is 'exact': it must be one of coherence, babel"):
        rip_upper(A, 2, "exact")
    with pytest.raises(ValueError, match="option solver belongs to sdp: babel takes none"):
        rip_upper(A, 2, "babel", solver="SCS")
    for s in (0, 5, 2.0, True):
        with pytest.raises(ValueError, match=rf"s is {s}: it must be a whole number from 1 to 4"):
            rip_upper(A, s, "coherence")
    with pytest.raises(ValueError, match=r"A has a NaN or infinite entry, first at \(1, 0\)"):
        rip_upper(np.array([[1.0], [math.inf]]), 1)
    with pytest.raises(ValueError, match="divide the matrix by a power of two"):
        rip_upper(np.full((2, 2), 1e200), 1, "sdp")
    with pytest.raises(ValueError, match="option solver belongs to sdp"):
        rip_upper(KroneckerOperator(A, A), 2, "babel", solver="SCS")
