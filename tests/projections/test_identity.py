"""The identity as a factor: of a side that is not compressed."""

import numpy as np
import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.projections import INFORMED, KINDS, make_projection


def test_it_is_the_first_unit_vectors_at_both_scales_and_neither_random_nor_informed():
    A = make_projection("identity", 3, 12, scale="synthesis")
    np.testing.assert_array_equal(A.toarray(), np.eye(3, 12))
    longer = make_projection("identity", 3, 12, dtype="float32")
    np.testing.assert_array_equal(longer.toarray(), 2 * np.eye(3, 12, dtype="float32"))
    for scale in ("analysis", "synthesis"):
        whole = make_projection("identity", 5, 5, scale=scale, seed=9)
        np.testing.assert_array_equal(whole.toarray(), np.eye(5))
    assert "identity" not in KINDS + INFORMED


def test_with_it_on_the_left_only_the_rows_energy_is_lost():
    update = np.random.default_rng(0).standard_normal((6, 40))
    basis = CosaBasis.sample(6, 40, 6, 10, kind="haar", left="identity", scale="synthesis")
    share = np.linalg.norm(update @ basis.R.T) ** 2 / np.linalg.norm(update) ** 2
    assert basis.captured_energy(update) == pytest.approx(share)
    np.testing.assert_allclose(basis.best_core(update), update @ basis.R.T, atol=1e-12)
    with pytest.raises(InputError, match=r"a is 5.*m = 6.*identity"):
        CosaBasis.sample(6, 40, 5, 10, left="identity")
