"""Recovery with a prior on the rows of the update."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.laws import explained_share, prior_error
from cosa_theory.projections import SecondMoments
from cosa_theory.recovery import RecoveryProblem, recover

M, N, A, B = 14, 12, 6, 4
_Q = np.linalg.qr(np.random.default_rng(0).standard_normal((N, N)))[0]
C = (_Q * 0.7 ** np.arange(N)) @ _Q.T
REGULAR = N * C / np.trace(C) + 1e-3 * np.eye(N)  # as the prior takes it
BASIS = CosaBasis.sample(M, N, A, B, seed=1, scale="analysis")


def updates(count, seed=2):
    root = np.linalg.cholesky(REGULAR)
    return np.random.default_rng(seed).standard_normal((count, M, N)) @ root.T


@settings(max_examples=20, deadline=None)
@given(
    m=st.integers(1, 7),
    n=st.integers(1, 7),
    a=st.integers(1, 8),
    b=st.integers(1, 8),
    noise=st.sampled_from([0.0, 0.3]),
    seed=st.integers(0, 99),
)
def test_it_is_the_mean_that_the_formula_for_dense_gaussians_gives(m, n, a, b, noise, seed):
    """Φᵀ enters as a whole matrix, and the covariance as I ⊗ C."""
    rng = np.random.default_rng(seed)
    basis = CosaBasis.sample(m, n, a, b, seed=seed, scale="analysis")
    root = rng.standard_normal((n, n))
    covariance = root @ root.T
    Y = basis.encode(rng.standard_normal((m, n)))
    sigma = noise * float(np.linalg.norm(Y))
    result = recover(
        RecoveryProblem(basis.sensing(), Y, noise_level=sigma), "prior", moments=covariance
    )
    assert result.status == "optimal"
    Phi = np.kron(basis.L.T, basis.R)
    regular = n * covariance / np.trace(covariance) + 1e-3 * np.eye(n)
    prior = np.kron(np.eye(m), regular)
    signal = Phi @ prior @ Phi.T
    variance = (np.vdot(Y, Y) - sigma**2) / np.trace(signal)
    noisy = variance * signal + sigma**2 / (a * b) * np.eye(a * b)
    gain = np.linalg.pinv(noisy, rcond=1e-12, hermitian=True)
    mean = variance * prior @ Phi.T @ gain @ Y.ravel()
    np.testing.assert_allclose(result.estimate.ravel(), mean, atol=1e-6 * np.abs(mean).max())


def test_updates_of_the_prior_are_recovered_with_the_error_of_the_law_and_no_estimate_does_better():
    drawn = updates(400)
    problem = RecoveryProblem(BASIS.sensing(), BASIS.encode(drawn))
    result, plain = recover(problem, "prior", moments=C), recover(problem, "least_norm")
    assert result.status == "optimal"
    energy = M * np.trace(REGULAR)
    errors = np.sum((result.estimate - drawn) ** 2, axis=(1, 2)) / energy
    law = prior_error(A, M, explained_share(BASIS.R, REGULAR))
    assert abs(errors.mean() - law) < 4 * errors.std() / 20
    others = np.sum((plain.estimate - drawn) ** 2, axis=(1, 2)) / energy
    assert np.mean(others - errors) > 4 * np.std(others - errors) / 20
    np.testing.assert_allclose(BASIS.encode(result.estimate), problem.Y, atol=1e-9)


def test_with_noise_the_prior_shrinks_what_it_says_is_noise():
    drawn = updates(200)
    drawn /= np.linalg.norm(BASIS.encode(drawn), axis=(1, 2), keepdims=True)
    noise = np.random.default_rng(3).standard_normal((200, A, B))
    noise *= 0.7 / np.linalg.norm(noise, axis=(1, 2), keepdims=True)
    Y = BASIS.encode(drawn) + noise
    told = recover(RecoveryProblem(BASIS.sensing(), Y, noise_level=0.7), "prior", moments=C)
    untold = recover(RecoveryProblem(BASIS.sensing(), Y), "prior", moments=C)
    assert told.status == untold.status == "optimal"
    gains = np.sum((untold.estimate - drawn) ** 2 - (told.estimate - drawn) ** 2, axis=(1, 2))
    assert gains.mean() > 5 * gains.std() / np.sqrt(200)


def test_a_prior_that_knows_nothing_is_the_least_norm_and_says_so():
    problem = RecoveryProblem(BASIS.sensing(), BASIS.encode(updates(1)[0]))
    flat, plain = recover(problem, "prior"), recover(problem, "least_norm")
    np.testing.assert_allclose(flat.estimate, plain.estimate, atol=1e-10)
    assert "knows nothing" in flat.message
    given_flat = recover(problem, "prior", moments=np.eye(N))
    np.testing.assert_allclose(given_flat.estimate, plain.estimate, atol=1e-10)
    assert not given_flat.message


def test_it_returns_the_library_and_type_of_the_measurements():
    Y = torch.tensor(BASIS.encode(updates(1)[0]), dtype=torch.float32)
    result = recover(RecoveryProblem(BASIS.sensing(), Y), "prior", moments=SecondMoments(C))
    assert isinstance(result.estimate, torch.Tensor)
    assert result.estimate.dtype == torch.float32
    assert result.status == "optimal"


def test_leading_eigenpairs_stand_for_all_of_the_moments():
    values, vectors = np.linalg.eigh(C)
    pairs = SecondMoments(vectors=vectors[:, ::-1], values=values[::-1])
    problem = RecoveryProblem(BASIS.sensing(), BASIS.encode(updates(1)[0]))
    whole, leading = (recover(problem, "prior", moments=one).estimate for one in (C, pairs))
    np.testing.assert_allclose(leading, whole, atol=1e-8)


@pytest.mark.parametrize(
    ("moments", "named"),
    [
        (np.eye(N + 1), f"length {N + 1}: the layer has {N}"),
        (np.full((N, N), np.nan), "NaN"),
        (np.zeros((N, N)), "zero"),
        ("moments.safetensors", "moments"),
    ],
)
def test_moments_that_do_not_fit_are_refused(moments, named):
    problem = RecoveryProblem(BASIS.sensing(), BASIS.encode(updates(1)[0]))
    with pytest.raises(InputError, match=named):
        recover(problem, "prior", moments=moments)
