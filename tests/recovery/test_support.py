"""Least squares on a support needs the chosen columns of the factors, and no others."""

import numpy as np
import pytest
import torch

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.recovery import System
from cosa_theory.recovery.support import debias, gram_block, solve_on_support, support_of


def system_of(m=12, n=10, a=6, b=7, seed=0):
    rng = np.random.default_rng(seed)
    A, B = rng.standard_normal((a, m)), rng.standard_normal((b, n))
    return System(KroneckerOperator(A, B), (m, n)), np.kron(A, B)


def test_a_gram_block_is_that_of_the_explicit_columns():
    system, explicit = system_of()
    support = np.array([3, 77, 4, 119, 13])
    chosen = explicit[:, support]
    np.testing.assert_allclose(gram_block(system, support), chosen.T @ chosen, atol=1e-11)


def test_the_solution_on_a_support_is_the_least_squares_fit():
    system, explicit = system_of()
    y = np.random.default_rng(1).standard_normal(42)
    support = np.random.default_rng(2).choice(120, 20, replace=False)
    expected = np.linalg.lstsq(explicit[:, support], y, rcond=None)[0]
    found = solve_on_support(system, explicit.T @ y, support)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    assert solve_on_support(system, explicit.T @ y, support[:0]).size == 0


@pytest.mark.parametrize("support", [np.arange(7) * 10, np.arange(8)])
def test_dependent_columns_give_no_solution(support):
    # Seven columns that share b₀ meet only six rows of A; eight that share a₀ only seven of B.
    system, explicit = system_of()
    assert np.linalg.matrix_rank(explicit[:, support]) < support.size
    assert solve_on_support(system, np.ones(120), support) is None


def test_debiasing_undoes_shrinkage_on_the_true_support():
    system, _ = system_of()
    truth = np.zeros((2, 12, 10))
    truth.reshape(2, -1)[0, [5, 50, 100]] = 1.0, -2.0, 3.0
    truth.reshape(2, -1)[1, [7, 8]] = 1.0, 1.0
    shrunk = np.sign(truth) * np.maximum(np.abs(truth) - 0.3, 0)
    fitted = debias(system, system.apply(truth), shrunk)
    np.testing.assert_allclose(fitted, truth, atol=1e-10)
    tensor = debias(system, system.apply(torch.from_numpy(truth)), torch.from_numpy(shrunk))
    np.testing.assert_allclose(tensor.numpy(), truth, atol=1e-10)


def test_there_is_no_debiased_estimate_on_too_large_an_empty_or_a_dependent_support():
    system, _ = system_of()
    y = np.ones((1, 6, 7))
    assert debias(system, y, np.ones((1, 12, 10))) is None
    assert debias(system, y, np.zeros((1, 12, 10))) is None
    column = np.zeros((1, 12, 10))
    column[0, :7, 0] = 1.0
    assert debias(system, y, column) is None


def test_entries_at_rounding_level_do_not_count_as_support():
    X = np.array([[1.0, 1e-9], [0.0, -0.5]])
    np.testing.assert_array_equal(support_of(X), [0, 3])
    np.testing.assert_array_equal(support_of(X, relative=0), [0, 1, 3])
    assert support_of(np.zeros((2, 2))).size == 0


def test_a_large_layer_needs_only_its_chosen_columns():
    basis = CosaBasis.sample(2048, 2048, 64, 32, seed=0, scale="analysis")
    system = System(basis.sensing(), (2048, 2048))
    support = np.array([0, 2047, 4_000_000])
    y = system.apply_adjoint(np.ones((1, 64, 32))).ravel()
    assert solve_on_support(system, y, support).shape == (3,)
