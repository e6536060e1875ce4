"""CoSaMP: its iteration is that of the paper, and dependent columns do not stop it."""

import numpy as np
import pytest

from cosa_theory.recovery import RecoveryProblem, recover
from tests.recovery.sparse_problems import noise_like, plain

pytestmark = pytest.mark.filterwarnings("ignore::cosa_theory.recovery.SparsityWarning")


def direct_step(matrix, y, x, count):
    """One iteration of algorithm 2.1 on a dense matrix with unit columns, then the refit."""
    proxy = np.abs(matrix.T @ (y - matrix @ x))
    merged = np.union1d(np.argsort(proxy)[-2 * count :], np.flatnonzero(x))
    fitted = np.zeros_like(x)
    fitted[merged] = np.linalg.lstsq(matrix[:, merged], y, rcond=None)[0]
    kept = np.argsort(np.abs(fitted))[-count:]
    refitted = np.zeros_like(x)
    refitted[kept] = np.linalg.lstsq(matrix[:, kept], y, rcond=None)[0]
    return refitted


@pytest.mark.parametrize("spread", [0, 2])
def test_its_iterates_are_those_of_the_algorithm_in_unit_columns(spread):
    known = plain(60, 150, 12)
    matrix = known.operator / np.linalg.norm(known.operator, axis=0)
    lengths = 10.0 ** np.random.default_rng(0).uniform(-spread, spread, 150)
    y = known.measurements + noise_like(known.measurements, 2.0)
    iterates = []
    recover(
        RecoveryProblem(matrix * lengths, y),
        "cosamp",
        sparsity=10,
        monitor=lambda number, residual, coefficients: iterates.append(coefficients.ravel()),
    )
    assert len(iterates) > 1
    expected = np.zeros(150)
    for iterate in iterates:
        expected = direct_step(matrix, y, expected, 10)
        np.testing.assert_allclose(iterate * lengths, expected, atol=1e-9)


def test_the_residual_falls_with_every_iteration_kept():
    known = plain(60, 150, 14)
    y = known.measurements + noise_like(known.measurements, 1.0)
    result = recover(RecoveryProblem(known.operator, y), "cosamp", sparsity=14)
    assert (np.diff(result.history["residual"]) < 0).all()
    assert result.status == "stalled"
    assert result.certificate.value == pytest.approx(result.history["residual"][-1], rel=1e-2)


def test_candidates_that_depend_on_each_other_are_halved_rather_than_given_up():
    known = plain(60, 75, 5)
    twice = np.hstack([known.operator, known.operator])  # each column beside its equal
    result = recover(RecoveryProblem(twice, known.measurements), "cosamp")
    assert result.status == "fitted"
    np.testing.assert_allclose(result.estimate.reshape(2, 75).sum(0), known.truth[0], atol=1e-7)


def test_a_sparsity_of_more_than_a_third_of_the_measurements_is_tried_all_the_same():
    known = plain(30, 60, 3)
    result = recover(known.problem(), "cosamp", sparsity=15)
    assert result.status == "fitted"
    np.testing.assert_allclose(result.coefficients, known.truth, atol=1e-7)
