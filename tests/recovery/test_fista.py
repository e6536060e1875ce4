"""fista: the lasso, its certificate, its stages and its batches."""

import cvxpy as cp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory import CosaBasis, KroneckerOperator
from cosa_theory.projections import stream
from cosa_theory.recovery import System
from cosa_theory.recovery.solvers.fista import default_penalty, fista


def kronecker_system(m, n, p, q, seed=0):
    """A Kronecker system with unequal Gaussian factors."""
    draw = stream(seed, "lasso test")
    A, B = draw.standard_normal((p, m)) / p**0.5, draw.standard_normal((q, n)) / q**0.5
    return System(KroneckerOperator(A, B), (m, n))


def plain_system(M, N, seed=0):
    Phi = stream(seed, "lasso test, plain").standard_normal((M, N)) / M**0.5
    return System(KroneckerOperator(np.ones((1, 1)), Phi), (1, N), plain=True)


def sparse_matrix(shape, count, seed=0):
    draw = stream(seed, "lasso test, truth")
    X = np.zeros(shape[0] * shape[1])
    X[draw.choice(X.size, count, replace=False)] = draw.standard_normal(count)
    return X.reshape(shape)


def explicit(system):
    return np.kron(*system.factors)


def lasso_value(system, y, lam, x):
    return 0.5 * np.sum((explicit(system) @ np.ravel(x) - np.ravel(y)) ** 2) + lam * np.abs(x).sum()


def reference(system, y, lam):
    """Solve the lasso with an interior point method."""
    x = cp.Variable(system.size)
    objective = 0.5 * cp.sum_squares(explicit(system) @ x - y.ravel()) + lam * cp.norm1(x)
    settings = {"tol_gap_abs": 1e-13, "tol_gap_rel": 1e-13, "tol_feas": 1e-13}
    cp.Problem(cp.Minimize(objective)).solve(solver=cp.CLARABEL, **settings)
    return x.value.reshape(system.coefficient_shape)


def noisy_measurements(system, count, seed=0, noise=0.1):
    X = sparse_matrix(system.coefficient_shape, count, seed)
    Y = system.apply(X[None])
    return X, Y + noise * stream(seed, "noise").standard_normal(Y.shape)


def distance(x, y):
    return np.linalg.norm(np.asarray(x) - np.asarray(y)) / np.linalg.norm(np.asarray(y))


SYSTEMS = {
    "Kronecker, wide": kronecker_system(14, 11, 8, 6),
    "Kronecker, tall by wide": kronecker_system(6, 15, 9, 8),
    "plain": plain_system(48, 120),
}


@pytest.mark.parametrize("name", SYSTEMS)
@pytest.mark.parametrize("ratio", [0.5, 0.1, 0.01])
def test_the_solution_agrees_with_an_interior_point_method(name, ratio):
    system = SYSTEMS[name]
    _, Y = noisy_measurements(system, 6)
    solution = fista(system, Y, lam_ratio=ratio)
    lam = ratio * np.abs(system.apply_adjoint(Y)).max()
    wanted = reference(system, Y, lam)
    assert solution.status == ("optimal",)
    assert distance(solution.coefficients[0], wanted) < 1e-6
    value = lasso_value(system, Y, lam, wanted)
    assert solution.objective[0] <= value * (1 + 1e-9)
    assert solution.objective[0] == pytest.approx(
        lasso_value(system, Y, lam, solution.coefficients[0]), rel=1e-12
    )


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_steps_alone_reach_the_solution_without_the_finish(name, monkeypatch):
    monkeypatch.setattr(
        "cosa_theory.recovery.solvers.fista.polish_lasso", lambda *args, **options: None
    )
    system = SYSTEMS[name]
    _, Y = noisy_measurements(system, 6)
    solution = fista(system, Y, lam_ratio=0.05, tolerance=1e-11)
    lam = 0.05 * np.abs(system.apply_adjoint(Y)).max()
    assert solution.status == ("optimal",)
    assert distance(solution.coefficients[0], reference(system, Y, lam)) < 1e-5


@pytest.mark.parametrize("finish", [True, False])
def test_anyone_can_recompute_the_duality_gap_from_the_dual_point(finish, monkeypatch):
    if not finish:
        monkeypatch.setattr(
            "cosa_theory.recovery.solvers.fista.polish_lasso", lambda *args, **_: None
        )
    system = SYSTEMS["Kronecker, wide"]
    _, Y = noisy_measurements(system, 6)
    solution = fista(system, Y, lam=0.05)
    theta, y = solution.certificate.dual.ravel(), Y.ravel()
    assert np.abs(explicit(system).T @ theta).max() <= 0.05 * (1 + 1e-12)
    primal = lasso_value(system, Y, 0.05, solution.coefficients)
    dual = 0.5 * y @ y - 0.5 * np.sum((theta - y) ** 2)
    assert primal - dual == pytest.approx(solution.certificate.value[0], abs=1e-13 * primal)
    penalty = 0.05 * np.abs(solution.coefficients).sum()
    assert solution.certificate.relative[0] == pytest.approx(
        solution.certificate.value[0] / penalty, rel=1e-6
    )
    assert solution.certificate.holds.all()


def test_every_gap_of_the_history_bounds_the_distance_to_the_minimum():
    system = SYSTEMS["plain"]
    _, Y = noisy_measurements(system, 12)
    lam = 0.02 * np.abs(system.apply_adjoint(Y)).max()
    least = lasso_value(system, Y, lam, reference(system, Y, lam))
    history = fista(system, Y, lam=lam).history
    assert len(history["iteration"]) > 5
    above = history["objective"] - least
    assert (above >= -1e-9 * least).all()
    assert (above <= history["gap"] + 1e-9 * least).all()
    assert (np.diff(history["lam"]) <= 0).all()
    assert history["lam"][-1] >= lam


def test_the_solution_meets_the_optimality_conditions():
    system = SYSTEMS["Kronecker, tall by wide"]
    _, Y = noisy_measurements(system, 9)
    solution = fista(system, Y, lam=0.03)
    X = solution.coefficients
    correlations = system.apply_adjoint(Y - system.apply(X))
    on = X != 0
    assert on.sum() > 3
    np.testing.assert_allclose(correlations[on], 0.03 * np.sign(X[on]), rtol=1e-9)
    assert np.abs(correlations[~on]).max() <= 0.03 * (1 + 1e-9)


def test_a_penalty_from_the_largest_correlation_on_gives_a_certified_zero():
    system = SYSTEMS["Kronecker, wide"]
    _, Y = noisy_measurements(system, 6)
    largest = np.abs(system.apply_adjoint(Y)).max()
    for lam in (largest, 2 * largest):
        solution = fista(system, Y, lam=lam)
        assert solution.status == ("optimal",)
        assert not solution.coefficients.any()
        assert solution.iterations[0] == 0
    nearly = fista(system, Y, lam=0.999 * largest)
    assert nearly.status == ("optimal",)
    assert np.count_nonzero(nearly.coefficients) == 1


def test_measurements_orthogonal_to_the_range_give_a_certified_zero():
    draw = stream(3, "tall")
    A, B = draw.standard_normal((7, 4)), draw.standard_normal((6, 3))
    system = System(KroneckerOperator(A, B), (4, 3))
    left = np.linalg.qr(A, mode="complete")[0][:, -1]
    Y = np.multiply.outer(left, draw.standard_normal(6))[None]
    solution = fista(system, Y, lam=1e-3)
    assert solution.status == ("optimal",)
    assert not solution.coefficients.any()
    assert fista(system, np.zeros_like(Y)).status == ("optimal",)


def test_columns_of_zeros_get_no_weight():
    draw = stream(4, "zeros")
    A, B = draw.standard_normal((6, 9)), draw.standard_normal((5, 8))
    A[:, 2], B[:, 5] = 0, 0
    system = System(KroneckerOperator(A, B), (9, 8))
    solution = fista(system, draw.standard_normal((1, 6, 5)), lam_ratio=0.01)
    assert solution.status == ("optimal",)
    assert not solution.coefficients[0, 2].any()
    assert not solution.coefficients[0, :, 5].any()


@pytest.mark.parametrize("of_y", [1e-12, 1e-6, 1.0, 1e6, 1e12])
@pytest.mark.parametrize("of_operator", [1e-12, 1e-6, 1.0, 1e6, 1e12])
def test_scaling_the_measurements_or_the_operator_scales_the_solution(of_y, of_operator):
    system = SYSTEMS["Kronecker, wide"]
    _, Y = noisy_measurements(system, 6, noise=0.0)
    A, B = system.factors
    scaled = System(KroneckerOperator(A * of_operator**0.5, B * of_operator**0.5), (14, 11))
    plain, other = fista(system, Y), fista(scaled, of_y * Y)
    assert plain.status == other.status == ("optimal",)
    assert distance(other.coefficients * (of_operator / of_y), plain.coefficients) < 1e-7


sizes = st.tuples(st.integers(2, 7), st.integers(2, 7), st.integers(1, 7), st.integers(1, 7))


@given(sizes=sizes, seed=st.integers(0, 10**6), ratio=st.floats(0.02, 0.9))
def test_any_answer_is_certified_and_equivariant_under_permutations_and_signs(sizes, seed, ratio):
    m, n, p, q = sizes
    system = kronecker_system(m, n, p, q, seed)
    draw = stream(seed, "equivariance")
    Y = draw.standard_normal((1, p, q))
    rows, columns = draw.permutation(m), draw.permutation(n)
    signs = draw.choice([-1.0, 1.0], m)
    A, B = system.factors
    moved = System(KroneckerOperator((A * signs)[:, rows], B[:, columns]), (m, n))
    first, second = (fista(one, Y, lam_ratio=ratio) for one in (system, moved))
    assert first.status == second.status == ("optimal",)
    assert first.objective[0] == pytest.approx(second.objective[0], rel=1e-7)
    lam = ratio * np.abs(system.apply_adjoint(Y)).max()
    # Solutions may differ where they are not unique; their images and norms may not.
    assert first.objective[0] == pytest.approx(
        lasso_value(system, Y, lam, first.coefficients), rel=1e-10
    )
    mapped = system.apply(first.coefficients)
    scale = np.linalg.norm(Y)
    assert np.linalg.norm(mapped - moved.apply(second.coefficients)) < 3e-4 * scale
    back = np.zeros_like(second.coefficients)
    back[0][np.ix_(rows, columns)] = second.coefficients[0]
    back *= signs[:, None]
    assert lasso_value(system, Y, lam, back) == pytest.approx(first.objective[0], rel=1e-7)


def test_a_batch_gives_what_its_items_give_alone():
    system = kronecker_system(20, 17, 11, 12)
    items = [noisy_measurements(system, count, seed=count)[1] for count in (2, 9, 25)]
    Y = np.concatenate([*items, 1e4 * items[0]])
    together = fista(system, Y, lam_ratio=1e-2)
    assert set(together.status) == {"optimal"}
    assert together.coefficients.shape == (4, 20, 17)
    assert len(set(together.iterations.tolist())) > 1  # so some left before others
    for number, item in enumerate(Y):
        alone = fista(system, item[None], lam_ratio=1e-2)
        assert distance(together.coefficients[number], alone.coefficients[0]) < 1e-6
        assert together.objective[number] == pytest.approx(alone.objective[0], rel=1e-7)
        theta = together.certificate.dual[number]
        lam = 1e-2 * np.abs(system.apply_adjoint(item[None])).max()
        assert np.abs(system.apply_adjoint(theta[None])).max() <= lam * (1 + 1e-9)


def test_an_item_whose_step_was_too_long_waits_without_harm(monkeypatch):
    monkeypatch.setattr("cosa_theory.recovery.solvers.fista.polish_lasso", lambda *args, **_: None)
    system = kronecker_system(20, 17, 11, 12)
    Y = np.concatenate([noisy_measurements(system, s, seed=s)[1] for s in (3, 12, 30)])
    together = fista(system, Y, lam_ratio=0.1, tolerance=1e-3)
    assert set(together.status) == {"optimal"}
    for number, item in enumerate(Y):
        alone = fista(system, item[None], lam_ratio=0.1, tolerance=1e-3)
        assert together.iterations[number] == alone.iterations[0]
        assert distance(together.coefficients[number], alone.coefficients[0]) < 1e-9


def test_tensors_give_what_arrays_give():
    system = kronecker_system(20, 17, 11, 12)
    Y = np.concatenate([noisy_measurements(system, s, seed=s)[1] for s in (3, 12)])
    for dtype, torch_dtype, near in ((np.float64, torch.float64, 1e-9), (np.float32, None, 1e-3)):
        torch_dtype = torch_dtype or torch.float32
        array = fista(system, Y.astype(dtype), lam_ratio=0.05)
        tensor = fista(system, torch.as_tensor(Y).to(torch_dtype), lam_ratio=0.05)
        assert isinstance(tensor.coefficients, torch.Tensor)
        assert isinstance(tensor.certificate.dual, torch.Tensor)
        assert tensor.coefficients.dtype == torch_dtype
        assert array.coefficients.dtype == dtype
        assert array.status == tensor.status == ("optimal", "optimal")
        assert distance(tensor.coefficients.numpy(), array.coefficients) < near


def test_a_device_gives_what_the_host_gives():
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    system = kronecker_system(20, 17, 11, 12)
    _, Y = noisy_measurements(system, 9)
    device = fista(system, torch.as_tensor(Y, device="cuda"), lam_ratio=0.01)
    assert device.coefficients.is_cuda
    host = fista(system, Y, lam_ratio=0.01)
    assert distance(device.coefficients.cpu().numpy(), host.coefficients) < 1e-6


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_noiseless_sparse_update_comes_back_to_one_part_in_ten_thousand(dtype):
    basis = CosaBasis.sample(128, 128, 64, 64, seed=5, scale="analysis")
    X = sparse_matrix((128, 128), 60)
    system = System(basis.sensing(), (128, 128))
    solution = fista(system, basis.encode(X)[None].astype(dtype))
    assert solution.status == ("optimal",)
    assert distance(solution.coefficients[0], X) < 1e-4
    assert solution.iterations[0] < 150


def test_single_precision_says_where_rounding_ends_it():
    system = kronecker_system(16, 16, 8, 8)
    _, Y = noisy_measurements(system, 60, noise=0.0)  # too many entries to come back
    # After some 3,700 or 4,600 iterations, depending on how the processor sums.
    limits = {"tolerance": 1e-7, "lam_ratio": 1e-5, "max_iterations": 20_000}
    solution = fista(system, Y.astype(np.float32), **limits)
    assert solution.status == ("stalled",)
    assert "float64" in solution.message
    # The bound holds all the same, up to single precision of the larger terms.
    lam = 1e-5 * np.abs(system.apply_adjoint(Y)).max()
    least = fista(system, Y, lam=lam, tolerance=1e-6)
    value = lasso_value(system, Y, lam, solution.coefficients.astype(np.float64))
    assert value - least.objective[0] <= solution.certificate.value[0] * 1.1


def test_a_warm_start_spares_iterations(monkeypatch):
    monkeypatch.setattr("cosa_theory.recovery.solvers.fista.polish_lasso", lambda *args, **_: None)
    system = kronecker_system(40, 30, 20, 16)
    _, Y = noisy_measurements(system, 20)
    first = fista(system, Y, lam_ratio=0.02, tolerance=1e-3)
    cold = fista(system, Y, lam_ratio=0.015, tolerance=1e-3)
    given = first.coefficients.copy()
    warm = fista(system, Y, lam_ratio=0.015, tolerance=1e-3, start=given)
    assert warm.status == cold.status == ("optimal",)
    assert warm.iterations[0] < 0.8 * cold.iterations[0]
    assert distance(warm.coefficients, cold.coefficients) < 0.05
    np.testing.assert_array_equal(given, first.coefficients)
    again = fista(system, Y, lam_ratio=0.02, tolerance=1e-3, start=given)
    assert again.iterations[0] < 0.2 * first.iterations[0]


def test_a_start_with_the_right_support_is_finished_at_once():
    system = kronecker_system(40, 30, 20, 16)
    _, Y = noisy_measurements(system, 20)
    first = fista(system, Y, lam_ratio=0.02)
    start = first.coefficients.copy()
    start.flags.writeable = False
    again = fista(system, Y, lam_ratio=0.019, start=start)
    assert again.iterations[0] == 0
    assert again.status == ("optimal",)
    np.testing.assert_array_equal(start, first.coefficients)


def test_the_limit_of_iterations_is_kept_and_said():
    system = kronecker_system(40, 30, 20, 16)
    _, Y = noisy_measurements(system, 200)
    solution = fista(system, Y, lam_ratio=1e-4, max_iterations=7)
    assert solution.status == ("iteration limit",)
    assert solution.iterations[0] == 7
    assert not solution.certificate.holds.any()
    assert "more" in solution.message


def test_the_default_penalty_for_noise_bounds_the_correlations_of_white_noise():
    system = kronecker_system(60, 50, 30, 25)
    sigma = 3.0
    lam = default_penalty(system, sigma)
    column = np.linalg.norm(explicit(system)) / system.size**0.5
    M, N = system.measurements, system.size
    assert lam == pytest.approx(sigma / M**0.5 * (2 * np.log(N)) ** 0.5 * column, rel=1e-12)
    draw = stream(8, "white")
    noise = draw.standard_normal((200, 30, 25))
    noise *= sigma / np.linalg.norm(noise, axis=(1, 2), keepdims=True)
    largest = np.abs(system.apply_adjoint(noise)).max(axis=(1, 2))
    # Columns longer than the average are above it; the universal level is met on average.
    assert 0.7 * lam < np.median(largest) < 1.3 * lam
    _, Y = noisy_measurements(system, 15, noise=0.0)
    solution = fista(system, Y + noise[:1] / 30, noise_level=sigma / 30)
    assert f"λ = {lam / 30:.6g}" in solution.formula
    assert solution.status == ("optimal",)


def test_the_monitor_sees_every_check():
    system = kronecker_system(20, 17, 11, 12)
    _, Y = noisy_measurements(system, 9)
    seen = []
    solution = fista(
        system, Y, lam_ratio=0.01, monitor=lambda k, gap, X: seen.append((k, gap, X.shape))
    )
    assert [k for k, _, _ in seen] == solution.history["iteration"].tolist()
    assert [gap for _, gap, _ in seen] == solution.history["certificate"].tolist()
    assert {shape for _, _, shape in seen} == {(1, 20, 17)}


def test_without_polish_the_iterations_alone_get_there_and_take_longer():
    system = kronecker_system(24, 20, 16, 14)
    y = system.apply(sparse_matrix((24, 20), 8)[None])
    plain = fista(system, y, lam_ratio=0.01, polish=False)
    polished = fista(system, y, lam_ratio=0.01)
    assert plain.status == polished.status == ("optimal",)
    assert plain.iterations[0] > polished.iterations[0]
    np.testing.assert_allclose(plain.coefficients, polished.coefficients, atol=1e-4)
