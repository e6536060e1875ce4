"""Operators of any library serve every solver, or are refused in one sentence."""

import numpy as np
import pylops
import pytest
import torch
from scipy import sparse
from scipy.sparse.linalg import LinearOperator, aslinearoperator

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.ground.errors import InputError
from cosa_theory.recovery import METHODS, RecoveryProblem, recover

BASIS = CosaBasis.sample(10, 8, 7, 6, seed=0, scale="analysis", key="k")
L, R = np.ascontiguousarray(BASIS.L.T), BASIS.R
MATRIX = np.kron(L, R)
TRUTH = np.zeros(80)
TRUTH[[5, 70]] = 1.0, -2.0


class Products:
    """What `aslinearoperator` takes: a shape and two products, of vectors, without a type."""

    shape = MATRIX.shape

    def matvec(self, x):
        return MATRIX @ x

    def rmatvec(self, y):
        return MATRIX.T @ y


FORMS = {
    "pylops": pylops.Kronecker(pylops.MatrixMult(L), pylops.MatrixMult(R)),
    "object": Products(),
    "scipy": aslinearoperator(2 * MATRIX) * 0.5,
    "sparse": sparse.coo_array(MATRIX),
    "kronecker of operators": KroneckerOperator(pylops.MatrixMult(L), aslinearoperator(R)),
}


@pytest.mark.parametrize("method", METHODS)
def test_every_solver_takes_any_linear_operator(method):
    for form, operator in FORMS.items():
        known = BASIS.sensing() if form == "kronecker of operators" else MATRIX
        expected = recover(RecoveryProblem(known, MATRIX @ TRUTH), method)
        found = recover(RecoveryProblem(operator, MATRIX @ TRUTH), method)
        assert found.status == expected.status, form
        np.testing.assert_allclose(found.estimate, expected.estimate, atol=1e-6, err_msg=form)


def test_the_estimate_has_the_shape_that_is_known():
    y = MATRIX @ TRUTH
    rows = pylops.MatrixMult(L, otherdims=(8,))  # says that it maps 10 × 8 matrices
    for operator, shape, expected in (
        (FORMS["pylops"], None, (1, 80)),
        (FORMS["pylops"], (10, 8), (10, 8)),
        (rows, None, (10, 8)),
        (rows, (8, 10), (8, 10)),
    ):
        measured = y if operator is not rows else rows @ TRUTH
        problem = RecoveryProblem(operator, measured, shape=shape)
        assert recover(problem, "least_norm").estimate.shape == expected


def lying(matvec, rmatvec=None, **settings):
    return LinearOperator(MATRIX.shape, matvec=matvec, rmatvec=rmatvec, **settings)


@pytest.mark.parametrize(
    ("operator", "names"),
    [
        (1j * MATRIX, "complex"),
        (sparse.csr_array(1j * MATRIX), "complex"),
        (aslinearoperator(1j * MATRIX), "complex"),
        (pylops.MatrixMult(1j * MATRIX, dtype="complex128"), "complex"),
        (lying(lambda x: 1j * (MATRIX @ x), lambda y: MATRIX.T @ y, dtype=float), "complex"),
        (lying(lambda x: MATRIX @ x), "rmatvec"),
        (lying(lambda x: MATRIX @ x, lambda y: 2 * MATRIX.T @ y), "adjoint"),
        (lying(lambda x: np.nan * (MATRIX @ x), lambda y: MATRIX.T @ y), "finite"),
        (lying(lambda x: 1 / 0, lambda y: MATRIX.T @ y, dtype=float), "division"),
        (LinearOperator((10**6, 10**5), matvec=np.copy, dtype=float), "KroneckerOperator"),
        (KroneckerOperator(lying(lambda x: MATRIX @ x), R), "rmatvec"),
        (torch.eye(80).to_sparse(), "sparse"),
        (object(), "object"),
        ("text", "numbers"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_what_is_no_real_operator_is_refused_with_its_fault(operator, names):
    with pytest.raises(InputError, match=names) as error:
        RecoveryProblem(operator, MATRIX @ TRUTH)
    assert error.value.argument == "operator"
    assert len(str(error.value)) <= 300
    assert str(error.value).startswith("operator")
