"""Without a method, the default is chosen by what is known, and is as fast as basis pursuit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory import CosaBasis
from cosa_theory.recovery import RecoveryProblem, default_method, recover


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(2, 24),
    n=st.integers(2, 24),
    a=st.integers(1, 12),
    b=st.integers(1, 12),
    scale=st.sampled_from(["analysis", "synthesis"]),
    dtype=st.sampled_from(["float64", "float32"]),
    share=st.sampled_from([0.0, 0.02, 0.2, 1.0]),
    seed=st.integers(0, 99),
)
def test_no_noiseless_draw_takes_more_iterations_than_five_times_basis_pursuit(
    m, n, a, b, scale, dtype, share, seed
):
    basis = CosaBasis.sample(m, n, a, b, seed=seed, scale=scale)
    rng = np.random.default_rng(seed)
    update = np.where(rng.random((m, n)) < share, rng.standard_normal((m, n)), 0.0)
    update.flat[rng.integers(m * n)] = 1.0
    problem = RecoveryProblem(basis.sensing(), basis.encode(update).astype(dtype))
    pursued, found = recover(problem, "basis_pursuit"), recover(problem)
    assert found.iterations <= 5 * pursued.iterations
    assert found.converged or not pursued.converged


BASIS = CosaBasis.sample(12, 10, 7, 6, seed=0, scale="analysis")
UPDATE = np.zeros((12, 10))
UPDATE[3, 4] = 1.0


def posed(**known):
    return RecoveryProblem(BASIS.sensing(), BASIS.encode(UPDATE), **known)


@pytest.mark.parametrize(
    ("problem", "options", "method"),
    [
        (posed(), {}, "basis_pursuit"),
        (posed(), {"lam": None, "tolerance": 1e-6}, "basis_pursuit"),
        (posed(noise_level=1e-3), {}, "fista"),
        (posed(), {"lam": 0.1}, "fista"),
        (posed(), {"lam_ratio": 0.1}, "fista"),
        # No core gives this update, and none of rank below 12 these measurements as rounded.
        (RecoveryProblem(BASIS.dictionary(), UPDATE), {}, "fista"),
        (RecoveryProblem(BASIS.dictionary(), BASIS.synthesize(np.eye(7, 6))), {}, "basis_pursuit"),
    ],
)
def test_the_default_follows_noise_level_options_and_range(problem, options, method):
    assert default_method(problem, options) == method
    result = recover(problem, **options)
    assert result.method == method
    assert result.status in ("optimal", "fitted")


def test_measurements_that_were_rounded_have_an_answer_by_default():
    # A core larger than the update has no exact explanation once it is stored in single precision.
    basis = CosaBasis.sample(8, 6, 12, 9, seed=1, scale="analysis")
    update = np.zeros((8, 6))
    update[2, 3] = 1.0
    stored = basis.encode(update).astype(np.float32).astype(np.float64)
    result = recover(RecoveryProblem(basis.sensing(), stored))
    assert (result.method, result.status) == ("fista", "optimal")
    np.testing.assert_allclose(result.estimate, update, atol=1e-5)
