"""The system that solvers get: products, constants and row spaces from the two factors alone."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory import KroneckerOperator
from cosa_theory.recovery import System

sizes = st.integers(1, 6)


def system_of(p, m, q, n, seed=0, deficient=False):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((p, m)), rng.standard_normal((q, n))
    if deficient:
        A[-1] = A[0]
    return System(KroneckerOperator(A, B), (m, n)), np.kron(A, B)


@given(sizes, sizes, sizes, sizes, st.integers(1, 3), st.integers(0, 999))
def test_products_and_constants_are_those_of_the_explicit_matrix(p, m, q, n, count, seed):
    system, explicit = system_of(p, m, q, n, seed)
    rng = np.random.default_rng(seed + 1)
    X, Y = rng.standard_normal((count, m, n)), rng.standard_normal((count, p, q))
    expected = (X.reshape(count, -1) @ explicit.T).reshape(count, p, q)
    np.testing.assert_allclose(system.apply(X), expected, atol=1e-12)
    adjoint = (Y.reshape(count, -1) @ explicit).reshape(count, m, n)
    np.testing.assert_allclose(system.apply_adjoint(Y), adjoint, atol=1e-12)
    norms = np.linalg.norm(explicit, axis=0)
    np.testing.assert_allclose(system.column_norms.ravel(), norms, atol=1e-12)
    constant = np.linalg.norm(explicit, 2) ** 2
    assert constant <= system.lipschitz <= constant * (1 + 1e-10)
    assert (system.size, system.measurements) == (m * n, p * q)


@given(sizes, sizes, sizes, sizes, st.integers(0, 999), st.booleans())
def test_in_the_row_space_the_map_is_diagonal_and_the_projection_is_orthogonal(
    p, m, q, n, seed, deficient
):
    system, explicit = system_of(p, m, q, n, seed, deficient)
    rng = np.random.default_rng(seed + 1)
    X = rng.standard_normal((2, m, n))
    space = system.row_space(X)
    assert space.values.size == np.linalg.matrix_rank(explicit)
    assert (space.values > 0).all()
    C = space.coordinates(X)
    np.testing.assert_allclose(space.measurements(space.values * C), system.apply(X), atol=1e-11)
    np.testing.assert_allclose(space.measured(system.apply(X)), space.values * C, atol=1e-11)
    projection = np.linalg.pinv(explicit) @ explicit
    expected = (X.reshape(2, -1) @ projection.T).reshape(X.shape)
    np.testing.assert_allclose(space.coefficients(C), expected, atol=1e-10)


def test_the_row_space_comes_in_the_type_and_library_of_the_array_and_is_kept():
    system, _ = system_of(4, 6, 3, 5)
    single = np.zeros((1, 6, 5), np.float32)
    assert system.row_space(single).values.dtype == np.float32
    assert system.row_space(single) is system.row_space(single + 1)
    tensor = torch.zeros(1, 6, 5, dtype=torch.float64)
    space = system.row_space(tensor)
    assert isinstance(space.coordinates(tensor), torch.Tensor)
    assert space.values.dtype == torch.float64


@pytest.mark.parametrize("form", ["numpy", "torch"])
def test_a_stack_of_vectors_goes_through_a_plain_matrix_at_once(form):
    matrix = np.random.default_rng(0).standard_normal((7, 12))
    X = np.random.default_rng(1).standard_normal((5, 1, 12))
    system = System(KroneckerOperator(np.ones((1, 1)), matrix), (3, 4), plain=True)
    given = torch.from_numpy(X) if form == "torch" else X
    np.testing.assert_allclose(np.asarray(system.apply(given))[:, 0], X[:, 0] @ matrix.T)
    assert (system.coefficient_shape, system.matrix_shape) == ((1, 12), (3, 4))
    assert system.name == "the matrix Φ"
