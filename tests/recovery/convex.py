"""Problems, and judgements of convex solvers that share no code with them."""

import warnings

import cvxpy as cp
import numpy as np

from cosa_theory import CosaBasis, KroneckerOperator

TIGHT = {"solver": "CLARABEL", "tol_gap_abs": 1e-12, "tol_gap_rel": 1e-12, "tol_feas": 1e-12}


def sparse_updates(count, m, n, sparsity, seed):
    rng = np.random.default_rng(seed)
    X = np.zeros((count, m * n))
    for row in X:
        row[rng.choice(m * n, sparsity, replace=False)] = rng.standard_normal(sparsity)
    return X.reshape(count, m, n)


def kronecker(m=9, n=8, a=6, b=5, seed=0, scale="analysis"):
    """A Kronecker operator with unequal rectangular factors, and the explicit matrix."""
    basis = CosaBasis.sample(m, n, a, b, seed=seed, scale=scale)
    operator = basis.sensing()
    return operator, np.kron(*(np.asarray(factor) for factor in operator.factors))


def gaussian(rows=30, columns=72, seed=0):
    explicit = np.random.default_rng(seed).standard_normal((rows, columns)) / np.sqrt(rows)
    return explicit, explicit


OPERATORS = {"kronecker": kronecker, "plain": gaussian}


def explicit_of(operator):
    if isinstance(operator, KroneckerOperator):
        return np.kron(*(np.asarray(factor) for factor in operator.factors))
    return np.asarray(operator)


def cvxpy_answer(Phi, y, sigma=0.0, Omega=None):
    """The least ‖Ωx‖₁ (‖x‖₁ without Ω) with ‖Φx − y‖ ≤ σ, as cvxpy finds it."""
    x = cp.Variable(Phi.shape[1])
    limit = Phi @ x == y if sigma == 0 else cp.norm(Phi @ x - y) <= sigma
    cost = cp.norm1(x if Omega is None else Omega @ x)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tolerances are below what it likes to promise
        cp.Problem(cp.Minimize(cost), [limit]).solve(**TIGHT)
    return np.asarray(x.value)


def noisy(y, share, seed=0):
    """Measurements with noise of a share of their norm, and the noise's norm."""
    noise = np.random.default_rng(seed).standard_normal(y.shape)
    sigma = share * float(np.linalg.norm(y))
    return y + noise * (sigma / np.linalg.norm(noise)), sigma


def assert_gap_is_proven(Phi, y, sigma, result, dual_norm):
    """Recompute the gap of one result from its dual point, with the explicit matrix."""
    nu = np.asarray(result.certificate.dual, dtype=np.float64).ravel()
    y = np.asarray(y).ravel()
    assert dual_norm(Phi.T @ nu) <= 1 + 1e-9
    bound = nu @ y - sigma * np.linalg.norm(nu)
    gap = result.objective - bound
    size = max(result.objective, 1e-300)
    assert abs(gap - result.certificate.value) <= 1e-9 * size
    assert gap >= -1e-7 * size
    x = np.asarray(result.coefficients).ravel()
    assert np.linalg.norm(Phi @ x - y) <= sigma + 1e-7 * np.linalg.norm(y)
