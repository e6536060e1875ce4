"""The closed forms of sparse recovery, beside their definitions and beside ℓ1 itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.stats import norm

from cosa_theory import CosaBasis
from cosa_theory.laws.recovery import l1_weak_threshold, packed_l1_threshold
from cosa_theory.recovery import RecoveryProblem, recover
from experiments.supports import sparse_updates


def by_definition(d):
    """Maximise [1 − (2/d) g(z)] / [1 + z² − 2 g(z)] over z, on a grid and then finely."""

    def negative(z):
        g = (1 + z**2) * norm.sf(z) - z * norm.pdf(z)
        return -(1 - 2 / d * g) / (1 + z**2 - 2 * g)

    grid = np.linspace(1e-3, 12, 1500)
    near = grid[int(np.argmin(negative(grid)))]
    bounds = (near - 0.01, near + 0.01)
    found = minimize_scalar(negative, bounds=bounds, method="bounded", options={"xatol": 1e-10})
    return -found.fun


@given(st.floats(1e-4, 0.99))
def test_the_weak_threshold_is_the_maximum_that_defines_it(d):
    assert l1_weak_threshold(d) == pytest.approx(by_definition(d), abs=1e-10)


def test_the_weak_threshold_has_the_published_values():
    assert l1_weak_threshold(0.25) == pytest.approx(0.267, abs=5e-4)
    assert l1_weak_threshold(0.5) == pytest.approx(0.386, abs=5e-4)
    assert l1_weak_threshold(1.0) == pytest.approx(1.0, abs=1e-12)
    assert isinstance(l1_weak_threshold(0.5), float)


def test_the_weak_threshold_broadcasts_and_increases():
    d = np.linspace(0.01, 1.0, 60).reshape(3, 20)
    rho = l1_weak_threshold(d)
    assert rho.shape == d.shape
    assert np.all(np.diff(rho.ravel()) > 0)
    np.testing.assert_array_equal(rho[1, 3], l1_weak_threshold(d[1, 3]))


def test_the_weak_threshold_of_few_measurements_is_one_over_twice_the_logarithm():
    for d in (1e-100, 1e-300):
        leading = l1_weak_threshold(d) * 2 * np.log(1 / d)
        assert 0.95 < leading < 1.05


@pytest.mark.parametrize("d", [0.0, -0.1, 1.1, float("nan"), np.array([0.5, 2.0])])
def test_an_undersampling_out_of_range_is_refused(d):
    with pytest.raises(ValueError, match=r"d is .*: it must be"):
        l1_weak_threshold(d)


def test_packed_thresholds_are_those_of_one_factor():
    m, n, a, b = 40, 24, 10, 18
    column, row, block = (
        packed_l1_threshold(m, n, a, b, packing) for packing in ("column", "row", "block")
    )
    assert column * a * b == pytest.approx(a * l1_weak_threshold(0.25))
    assert row * a * b == pytest.approx(b * l1_weak_threshold(0.75))
    assert block * a * b == pytest.approx((a * l1_weak_threshold(0.25)) ** 2)
    assert packed_l1_threshold(n, m, b, a, "row") == pytest.approx(column)
    many = packed_l1_threshold(m, n, [4, 10], b, "column")
    assert many[1] == pytest.approx(column)
    with pytest.raises(ValueError, match="packing is 'random': it must be column, row or block"):
        packed_l1_threshold(m, n, a, b, "random")
    with pytest.raises(ValueError, match="a is 41: it must be at most m = 40"):
        packed_l1_threshold(m, n, 41, b, "column")


def found(operator, X, shape=None):
    flat = X.reshape(len(X), -1)
    Y = flat @ operator.T if shape else operator.apply(X)
    result = recover(RecoveryProblem(operator, Y, shape=shape), "basis_pursuit", debiasing=False)
    return result.relative_error(X) < 1e-5


@pytest.mark.parametrize("packing", ["column", "row"])
def test_a_packed_update_is_found_exactly_when_each_factor_finds_its_part(packing):
    """The claim behind the threshold, update by update and not only on average."""
    outcomes, places = [], []
    for seed in range(4):
        basis = CosaBasis.sample(14, 12, 7, 8, seed=seed, scale="analysis")
        X = sparse_updates((14, 12), 4, packing, 8, seed=seed)
        factors, axis = (basis.L.T, basis.R), 2
        if packing == "row":
            factors, axis = factors[::-1], 1
        vector, place = X.sum(axis=axis)[:, :, None], X.any(axis=3 - axis)[:, :, None] * 1.0
        one, other = (
            found(factor, part, (factor.shape[1], 1))
            for factor, part in zip(factors, (vector, place), strict=True)
        )
        np.testing.assert_array_equal(found(basis.sensing(), X), one & other)
        outcomes += one.tolist()
        places += other.tolist()
    assert 6 <= sum(outcomes) <= 27, "both outcomes occur, so that the comparison says something"
    assert sum(places) >= 28, "one entry is nearly always found: the other factor hardly matters"


def test_a_block_is_found_only_if_each_of_its_columns_and_rows_is():
    basis = CosaBasis.sample(12, 12, 8, 8, seed=1, scale="analysis")
    X = sparse_updates((12, 12), 9, "block", 24, seed=2)
    whole = found(basis.sensing(), X)
    assert 1 <= whole.sum() < 24
    for update in X[whole]:
        columns, rows = update.T[update.any(axis=0)], update[update.any(axis=1)]
        assert found(basis.L.T, columns[:, :, None], (12, 1)).all()
        assert found(basis.R, rows[:, :, None], (12, 1)).all()
