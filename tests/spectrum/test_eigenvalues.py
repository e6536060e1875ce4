"""Eigenvalues by way of a band are those of the matrix, whatever its size, rank or layout."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import cosa_theory.spectrum.eigenvalues as module
from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.eigenvalues import symmetric_eigenvalues


@pytest.fixture
def two_stages(monkeypatch):
    """Take the two stages at any size, with a band and strips to match."""
    monkeypatch.setattr(module, "_TWO_STAGES_FROM", 1)
    monkeypatch.setattr(module, "_BAND", 4)
    monkeypatch.setattr(module, "_STRIP", 7)


def symmetric(side, rank=None, seed=0):
    rng = np.random.default_rng(seed)
    factor = rng.standard_normal((side, side if rank is None else rank))
    signs = rng.choice([-1.0, 1.0], factor.shape[1])
    return (factor * signs) @ factor.T


def lower_only(matrix):
    """Return the matrix as BLAS leaves it, with rubbish above the diagonal."""
    rubbish = np.triu(np.full_like(matrix, 1e9), 1)
    return np.asfortranarray(np.tril(matrix) + rubbish)


@pytest.mark.parametrize("side", [1, 2, 4, 5, 6, 7, 8, 9, 13, 14, 15, 20, 50, 101])
@pytest.mark.parametrize("rank", [None, 1, 3])
def test_they_agree_with_lapack(two_stages, side, rank):
    matrix = symmetric(side, rank)
    values = symmetric_eigenvalues(lower_only(matrix))
    expected = np.linalg.eigvalsh(matrix)
    assert np.abs(values - expected).max() <= 1e-13 * np.abs(expected).max()


@pytest.mark.parametrize("matrix", [np.zeros((30, 30)), np.eye(30), np.diag(np.arange(30.0))])
def test_matrices_with_nothing_to_eliminate(two_stages, matrix):
    values = symmetric_eigenvalues(lower_only(matrix))
    np.testing.assert_allclose(values, np.sort(np.diagonal(matrix)), atol=1e-14)


@given(side=st.integers(2, 60), band=st.integers(1, 12), strip=st.integers(1, 30))
def test_band_and_strips_change_nothing_but_rounding(side, band, strip):
    matrix = symmetric(side, seed=side)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_TWO_STAGES_FROM", 1), ("_BAND", band), ("_STRIP", strip)):
            patch.setattr(module, name, value)
        values = symmetric_eigenvalues(lower_only(matrix))
    expected = np.linalg.eigvalsh(matrix)
    assert np.abs(values - expected).max() <= 1e-13 * np.abs(expected).max()


def test_singular_values_are_the_same_by_either_route(monkeypatch):
    X = np.random.default_rng(1).standard_normal((260, 200)).astype(np.float32)
    one = singular_values(X)
    monkeypatch.setattr(module, "_TWO_STAGES_FROM", 100)
    np.testing.assert_allclose(singular_values(X), one, rtol=1e-11)


def test_two_stages_find_what_one_finds(monkeypatch):
    matrix = symmetric(600, seed=2)
    found = []
    for least in (1, 10**9):  # in two stages, in one
        monkeypatch.setattr(module, "_TWO_STAGES_FROM", least)
        found.append(symmetric_eigenvalues(lower_only(matrix)))
    two, one = found
    assert not np.array_equal(two, one)  # or it was the same way twice
    assert np.abs(two - one).max() <= 1e-13 * np.abs(one).max()
