"""Every method for sparse unknowns finds the same easy ones, without any option."""

import numpy as np
import pytest

from cosa_theory.recovery import METHODS, recover
from tests.recovery.sparse_problems import dictionary, kronecker, plain

# Not about sparse unknowns, or about unknowns that are sparse in another sense.
OTHERS = {"least_norm", "best_core", "analysis", "nuclear", "prior"}
SPARSE = sorted(set(METHODS) - OTHERS)
LARGE = sorted(set(SPARSE) - {"reference"})  # which is for small problems

SMALL = {
    "plain": plain(60, 150, 6),
    "kronecker": kronecker(20, 24, 12, 13, 5),
    "sparse core": dictionary(24, 20, 8, 9, 6),
}


@pytest.mark.parametrize("method", SPARSE)
@pytest.mark.parametrize("name", SMALL)
def test_an_easy_problem_is_solved_without_options(method, name):
    known = SMALL[name]
    result = recover(known.problem(), method)
    assert result.status in {"optimal", "fitted"}
    estimate = result.core if name == "sparse core" else result.estimate
    assert np.linalg.norm(estimate - known.truth) < 1e-4 * np.linalg.norm(known.truth)


@pytest.mark.parametrize("method", LARGE)
@pytest.mark.parametrize("scale", ["analysis", "synthesis"])
def test_sixty_entries_of_a_layer_come_back_from_a_quarter_of_the_numbers(method, scale):
    known = kronecker(128, 128, 64, 64, 60, scale=scale)
    result = recover(known.problem(), method)
    assert result.relative_error(known.truth) < 1e-4
