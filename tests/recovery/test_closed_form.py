"""The least-norm update and the best core, in closed form and in every type."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory import CosaBasis
from cosa_theory.recovery import RecoveryProblem, recover


def gaussian(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape)


@given(
    **dict.fromkeys("mnab", st.integers(1, 8)),
    seed=st.integers(0, 99),
    kind=st.sampled_from(["gaussian", "rademacher", "haar", "srht"]),
)
def test_least_norm_is_the_pseudo_inverse_for_tall_and_wide_factors(m, n, a, b, seed, kind):
    basis = CosaBasis(gaussian(m, a, seed=seed), gaussian(b, n, seed=seed + 1))
    if kind != "gaussian" and a <= m and b <= n:
        basis = CosaBasis.sample(m, n, a, b, kind=kind, seed=seed)
    K = basis.sensing()
    explicit = np.kron(*(np.asarray(f @ np.eye(f.shape[1])) for f in K.factors))
    y = gaussian(a, b, seed=seed + 2)
    found = recover(RecoveryProblem(K, y), "least_norm").estimate
    expected = (np.linalg.pinv(explicit, rcond=1e-10) @ y.ravel()).reshape(m, n)
    size = max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(found / size, expected / size, atol=1e-7)


def test_decoding_a_core_by_least_norm_is_projecting_the_update_on_both_ranges():
    basis = CosaBasis.sample(40, 30, 12, 9, seed=3)
    update = gaussian(40, 30)
    result = recover(RecoveryProblem(basis.sensing(), basis.encode(update)), "least_norm")
    np.testing.assert_allclose(result.estimate, basis.project(update), atol=1e-12)
    np.testing.assert_allclose(result.core, basis.best_core(update), atol=1e-11)
    np.testing.assert_allclose(basis.synthesize(result.core), result.estimate, atol=1e-12)
    assert result.status == "optimal"
    assert result.residual < 1e-13


def test_the_best_core_of_a_given_update_is_that_of_the_basis():
    basis = CosaBasis.sample(40, 30, 12, 9, seed=3)
    update = gaussian(40, 30)
    result = recover(RecoveryProblem(basis.dictionary(), update), "best_core")
    np.testing.assert_allclose(result.core, basis.best_core(update), atol=1e-11)
    np.testing.assert_allclose(result.estimate, basis.project(update), atol=1e-12)
    assert result.residual**2 == pytest.approx(1 - basis.captured_energy(update))
    assert result.objective == pytest.approx(
        0.5 * np.linalg.norm(update - result.estimate) ** 2, rel=1e-12
    )


def test_a_noise_level_changes_nothing_and_the_message_says_so():
    basis = CosaBasis.sample(20, 30, 8, 9, seed=1)
    Y = basis.encode(gaussian(20, 30))
    quiet = recover(RecoveryProblem(basis.sensing(), Y), "least_norm")
    noisy = recover(RecoveryProblem(basis.sensing(), Y, noise_level=0.1), "least_norm")
    np.testing.assert_array_equal(quiet.estimate, noisy.estimate)
    assert quiet.message == ""
    assert noisy.message.startswith("the noise level is not used")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("library", ["numpy", "torch"])
def test_it_computes_in_the_type_and_library_of_the_measurements(dtype, library):
    basis = CosaBasis.sample(20, 30, 8, 9, seed=1)
    updates = gaussian(3, 20, 30).astype(dtype)
    Y = basis.encode(updates)
    given = torch.from_numpy(Y) if library == "torch" else Y
    result = recover(RecoveryProblem(basis.sensing(), given), "least_norm")
    for array in (result.estimate, result.core, result.coefficients):
        assert isinstance(array, torch.Tensor) == (library == "torch")
        assert str(array.dtype).endswith(np.dtype(dtype).name)
    expected = np.stack([basis.project(update) for update in updates.astype(np.float64)])
    np.testing.assert_allclose(
        np.asarray(result.estimate), expected, atol=1e4 * np.finfo(dtype).eps
    )
    assert result.residual.shape == (3,)
    assert result.statuses == ("optimal",) * 3


def test_rank_deficient_projections_give_the_least_update_with_the_reachable_measurements():
    L, R = gaussian(10, 4), gaussian(3, 8)
    L[:, 3] = L[:, 0]
    basis = CosaBasis(L, R)
    update = gaussian(10, 8, seed=5)
    result = recover(RecoveryProblem(basis.sensing(), basis.encode(update)), "least_norm")
    np.testing.assert_allclose(result.estimate, basis.project(update), atol=1e-12)
    # Measurements that no update has: the normal equations still hold.
    impossible = recover(RecoveryProblem(basis.sensing(), gaussian(4, 3, seed=6)), "least_norm")
    assert impossible.residual > 0.05
    assert impossible.status == "optimal"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_it_computes_on_the_device_of_the_measurements():
    basis = CosaBasis.sample(20, 30, 8, 9, seed=1)
    Y = torch.from_numpy(basis.encode(gaussian(20, 30))).cuda()
    assert recover(RecoveryProblem(basis.sensing(), Y), "least_norm").estimate.is_cuda
