"""C3 follows from exact spectra: better factors or shapes flip it, and its formulas are right."""

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.projections import make_projection
from paper_checks import c03
from paper_checks.base import decide, failed_controls
from paper_checks.models import Model

LARGE = {"large": Model("large", 1, {"q": (1024, 1024)}, 0, {})}
SMALL = {"small": Model("small", 1, {"q": (96, 80)}, 0, {})}


def haar(kind, k, d, **settings):
    return make_projection("haar", k, d, **settings)


def by_group(cases):
    return {case.group: case for case in cases if not case.control}


def test_typical_cores_keep_their_norm_and_the_worst_do_not():
    cases = c03.measure(models=LARGE, core=lambda m, n: (64, 64))
    assert decide(cases) == "holds under conditions"
    assert not failed_controls(cases)
    found = by_group(cases)
    assert found[c03.EVERY].outcome == "fails"
    assert found[c03.ISOTROPIC].outcome == found[c03.RANK_ONE].outcome == "holds"
    assert "Trainings are judged by the committed study alone" in c03.describe(cases)


def test_a_core_far_smaller_than_the_layer_flips_it():
    assert decide(c03.measure(models=LARGE, core=lambda m, n: (8, 8))) == "holds"


def test_a_small_layer_flips_it():
    """One direction of 80 or 96 dimensions is not close to its mean."""
    cases = c03.measure(models=SMALL, core=lambda m, n: (24, 16))
    assert by_group(cases)[c03.RANK_ONE].outcome == "fails"


def test_orthonormal_factors_flip_it():
    cases = c03.measure(models=SMALL, core=lambda m, n: (24, 16), draw=haar)
    assert decide(cases) == "holds"
    found = by_group(cases)
    assert found[c03.EVERY].value == pytest.approx(0, abs=1e-12)
    assert found[c03.EVERY].details["delta_synthesis"] == pytest.approx(0, abs=1e-12)
    assert found[c03.ISOTROPIC].value < 1e-6


def test_a_core_too_tall_for_the_layer_is_clipped_to_a_nearly_singular_one():
    model = {"k": Model("k", 1, {"k": (64, 256)}, 0, {})}
    (case, *_) = c03.measure(models=model, core=lambda m, n: (1024, 32))
    assert case.name == "k k, 64 × 256 with core 64 × 32"
    assert case.details["squared_condition"] > 1e3
    assert case.value > 0.999


def test_at_the_shape_of_a_large_layer_the_numbers_are_those_known():
    """One draw had singular values in [0.376, 1.855]: δ = 2.44, at the released scale 219."""
    model = {"q": Model("q", 1, {"q": (4096, 4096)}, 0, {})}
    found = by_group(c03.measure(models=model))
    every = found[c03.EVERY]
    assert every.value == pytest.approx(0.92, abs=0.005)
    assert every.details["delta_synthesis"] == pytest.approx(2.44, abs=0.06)
    assert every.details["delta_as_released"] == pytest.approx(219, abs=5)
    # Wishart moments: k tr G²/(tr G)² − 1 is a/m and b/n, up to one part in the sizes.
    dense = (2 * ((1 + 1024 / 4096) * (1 + 256 / 4096) - 1) / (1024 * 256)) ** 0.5
    assert found[c03.ISOTROPIC].value == pytest.approx(dense, rel=0.01)
    # Of the squared norm; a norm varies half as much, by 1.6 %.
    assert found[c03.RANK_ONE].value == pytest.approx((2 / 4096 + 2 / 4096) ** 0.5, rel=0.02)


def test_its_numbers_are_those_of_the_explicit_dictionary():
    """Of the eigenvalues λ of ΨᵀΨ: their range, and 2 (N Σλ²/(Σλ)² − 1)/(N + 2)."""
    basis = CosaBasis.sample(9, 8, 4, 3, seed=2)
    values = np.linalg.svd(np.kron(basis.L, basis.R.T), compute_uv=False) ** 2
    left, right = c03.Side.of(basis.L.T), c03.Side.of(basis.R)
    assert left.least * right.least == pytest.approx(values.min())
    assert left.greatest * right.greatest == pytest.approx(values.max())
    variance = 2 * (12 * (values**2).sum() / values.sum() ** 2 - 1) / 14
    assert c03.dense_spread(left, right) == pytest.approx(variance**0.5)


@pytest.mark.parametrize("name", ["dense_spread", "rank_one_spread"])
def test_a_spread_that_random_cores_contradict_is_not_trusted(name, monkeypatch):
    right = getattr(c03, name)
    monkeypatch.setattr(c03, name, lambda *sides: 1.1 * right(*sides))
    cases = c03.measure(models=SMALL, core=lambda m, n: (8, 8))
    assert [case.threshold for case in failed_controls(cases)] == ["c3_law"]
    assert decide(cases) == "undecided"


def test_the_same_seed_gives_the_same_numbers():
    first, again = (c03.measure((), 5, models=SMALL) for _ in range(2))
    assert first == again
    assert first != c03.measure((), 6, models=SMALL)
