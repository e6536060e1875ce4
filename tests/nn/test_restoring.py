"""What tells a projection that was made again from the one of the training, and what it does."""

import base64

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.forward import delta_weight
from cosa_theory.nn.projection import given_projection
from cosa_theory.nn.restoring import difference, sketch


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("rank", [1, 2, 10])
def test_the_mean_square_of_a_sketchs_changes_is_that_of_the_projection(rank):
    ratios = []
    for n in range(20, 120):  # other probes for every shape
        R, D = numbers(10, n), numbers(10, rank, seed=n) @ numbers(rank, n, seed=-n)
        D *= 0.01 * R.norm() / D.norm()
        estimate = difference(R + D, sketch(R)) * (R + D).norm() / D.norm()
        ratios.append(float(estimate) ** 2)
    # (uᵀ D g)² has variance 8‖D‖⁴ for rank one, and less for higher ranks; 64 probes, 100 shapes.
    assert abs(np.mean(ratios) - 1) < 3 * np.sqrt(8 / 64 / 100)


def test_a_sketch_is_equal_for_equal_projections_and_small():
    R = numbers(6, 50)
    assert difference(R, sketch(R)) == 0
    assert difference(R.float(), sketch(R.float())) == 0
    assert len(sketch(R)) == 344


@pytest.mark.parametrize("text", ["", "no base 64!", base64.b64encode(b"1234" * 63).decode()])
def test_what_is_no_sketch_is_refused(text):
    with pytest.raises(InputError, match=r"sketch is .* 64 numbers"):
        difference(numbers(6, 50), text)


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(0, 1000), st.sampled_from([1e-6, 0.1, 5])
)
def test_the_update_changes_by_no_more_than_its_bound(a, b, seed, size):
    L, Y, R = numbers(12, a, seed=seed), numbers(a, b, seed=seed + 1), numbers(b, 14, seed=seed + 2)
    other = R + size * numbers(b, 14, seed=seed + 3)
    left = given_projection(L.T)
    deltas = [delta_weight(Y, left, given_projection(one), -1.5) for one in (R, other)]
    bound = 1.5 * torch.linalg.matrix_norm(L @ Y, 2) * (other - R).norm()
    assert (deltas[1] - deltas[0]).norm() <= bound * (1 + 1e-9)
