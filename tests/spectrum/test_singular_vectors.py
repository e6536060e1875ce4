"""Singular vectors through the Gram matrix are those of the direct decomposition."""

import numpy as np
import pytest

from cosa_theory.spectrum.singular_vectors import gram_vectors, leading_vectors


@pytest.mark.parametrize("shape", [(40, 25), (25, 40), (30, 30), (1, 9), (9, 1)])
@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_leading_vectors_are_those_of_a_direct_decomposition(shape, size):
    X = size * np.random.default_rng(0).standard_normal(shape)
    k = min(5, *shape)
    left, sigma, right = leading_vectors(X, k)
    U, values, V = np.linalg.svd(X, full_matrices=False)
    assert sigma == pytest.approx(values[:k], rel=1e-9)
    assert np.abs(U[:, :k].T @ left) == pytest.approx(np.eye(k), abs=1e-9)
    assert np.abs(V[:k] @ right) == pytest.approx(np.eye(k), abs=1e-9)


def test_unresolved_values_and_those_of_zero_have_no_vectors():
    X = np.diag([1.0, 1e-3, 1e-9, 0.0])
    assert leading_vectors(X, 3)[1] == pytest.approx([1.0, 1e-3])
    assert gram_vectors(X)[1].shape == (4, 2)
    left, sigma, right = leading_vectors(np.zeros((5, 3)), 2)
    assert (left.shape, sigma.shape, right.shape) == ((5, 0), (0,), (3, 0))


def test_left_vectors_of_small_values_are_orthonormal_to_machine_precision():
    rng = np.random.default_rng(1)
    U, V = (np.linalg.qr(rng.standard_normal((d, 6)))[0] for d in (50, 20))
    left, _, _ = leading_vectors((U * np.logspace(0, -6, 6)) @ V.T, 6)
    assert np.linalg.norm(left.T @ left - np.eye(6)) < 1e-14
