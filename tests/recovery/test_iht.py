"""Iterative hard thresholding: its step rule, its batches; and its pursuit of least squares."""

import numpy as np
import pytest
import torch

from cosa_theory.recovery import RecoveryProblem, recover
from cosa_theory.recovery.greedy import UnitColumns
from cosa_theory.recovery.solvers.iht import normalised_step
from tests.recovery.sparse_problems import kronecker, noise_like, plain, sparse_matrix

pytestmark = pytest.mark.filterwarnings("ignore::cosa_theory.recovery.SparsityWarning")


def state(known, count, seed=0):
    """An iterate, its residual and its support, in unit columns."""
    system = known.problem().system
    unit = UnitColumns(system, known.measurements)
    U = sparse_matrix(system.coefficient_shape, count, seed=seed + 1)[None]
    Y = known.problem().Y
    return unit, U, Y - unit.apply(U), U != 0


def test_the_step_minimises_the_residual_along_the_gradient_on_the_support():
    unit, _, R, support = state(kronecker(20, 16, 9, 8, 6), 6)
    G, step = unit.best_step(R, support)
    along = unit.apply(G * support)
    best, near = (np.linalg.norm(R - factor * step * along) for factor in (1.0, 1.01))
    assert best < near
    assert np.linalg.norm(R - 0.99 * step * along) > best
    assert np.vdot(R - step * along, along) == pytest.approx(0, abs=1e-12 * np.vdot(along, along))


@pytest.mark.parametrize("seed", range(5))
def test_a_step_never_raises_the_residual_even_where_the_support_changes(seed):
    unit, U, R, support = state(kronecker(20, 16, 6, 5, 8, seed=seed), 8, seed)
    G, long = unit.best_step(R, support)
    shrunk = 0
    for _ in range(30):
        V, after = normalised_step(unit, U, R, support, 8)
        assert np.linalg.norm(after) <= np.linalg.norm(R) * (1 + 1e-12)
        np.testing.assert_allclose(after, R - unit.apply(V - U), atol=1e-12)
        assert (V != 0).sum() <= 8
        G, long = unit.best_step(R, support)
        on_new = (V != 0) & (U == 0)
        if on_new.any():  # an entry that comes in is step times gradient: the step it came from
            taken = (V / G)[on_new].max()
            shrunk += taken < 0.999 * long.item()
        U, R, support = V, after, V != 0
    assert shrunk > 0  # the support check did act


def test_torch_and_numpy_give_the_same_answers_in_a_batch_of_unlike_items():
    known = kronecker(30, 20, 14, 12, 6)
    stack = np.stack([known.truth, 5 * sparse_matrix((30, 20), 2), sparse_matrix((30, 20), 11)])
    Y = known.operator.apply(stack)
    host = recover(RecoveryProblem(known.operator, Y), "iht")
    tensor = recover(RecoveryProblem(known.operator, torch.from_numpy(Y)), "iht")
    assert isinstance(tensor.estimate, torch.Tensor)
    np.testing.assert_allclose(tensor.estimate.numpy(), host.estimate, atol=1e-10)
    assert tensor.statuses == host.statuses == ("fitted",) * 3
    np.testing.assert_array_equal(tensor.iterations, host.iterations)
    single = recover(RecoveryProblem(known.operator, torch.from_numpy(Y[0]).float()), "iht")
    assert single.estimate.dtype == torch.float32
    np.testing.assert_allclose(single.estimate.numpy(), known.truth, atol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_tensor_on_a_device_stays_there():
    known = kronecker(30, 20, 14, 12, 6)
    result = recover(
        RecoveryProblem(known.operator, torch.from_numpy(known.measurements).cuda()), "iht"
    )
    assert result.estimate.device.type == "cuda"
    np.testing.assert_allclose(result.estimate.cpu().numpy(), known.truth, atol=1e-7)


def test_iterations_that_lead_no_further_stop_early():
    known = plain(30, 200, 20)
    result = recover(known.problem(), "iht", sparsity=10)
    assert result.status == "stalled"
    assert result.iterations < 200


def test_the_iteration_limit_is_said():
    known = plain(60, 150, 12)
    result = recover(known.problem(), "iht", sparsity=12, max_iterations=2)
    assert result.status == "iteration limit"
    assert result.iterations == 2


@pytest.mark.parametrize("seed", range(4))
def test_the_pursuit_ends_when_a_support_comes_back(seed):
    known = plain(30, 200, 20, seed=seed)  # more entries than can be found
    result = recover(known.problem(), "htp", sparsity=10)
    assert result.status == "stalled"
    assert result.iterations < 100
    residuals = result.history["residual"]
    assert result.certificate.value == pytest.approx(residuals.min(), rel=1e-12)


def test_a_fixed_point_of_the_pursuit_is_one_of_its_own_step():
    known = plain(60, 150, 12)
    y = known.measurements + noise_like(known.measurements, 1.0)
    problem = RecoveryProblem(known.operator, y)
    first = recover(problem, "htp", sparsity=12)
    again = recover(problem, "htp", sparsity=12, start=first.estimate)
    assert again.iterations == 2  # the first shows that the support stays, the second repeats it
    np.testing.assert_allclose(again.estimate, first.estimate, atol=1e-12)
