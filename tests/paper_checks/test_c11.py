"""C11 follows from the numbers of each ensemble: a broken one flips its own cases."""

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.isometry.jl_curves import jl_ratios
from cosa_theory.projections import KINDS, stream
from paper_checks import c11
from paper_checks.base import decide, failed_controls


@pytest.fixture(autouse=True)
def _fewer_draws(monkeypatch):
    for name, value in (("NORM_DRAWS", 500), ("DELTA_DRAWS", 6), ("CONDITION_DRAWS", 12)):
        monkeypatch.setattr(c11, name, value)


def by_name(cases):
    return {case.name: case for case in cases}


@pytest.fixture(scope="module")
def cases():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(c11, "ENERGY_DRAWS", 60)
        patch.setattr(c11, "DELTA_DRAWS", 6)
        return c11.measure()


def test_it_holds_for_some_ensembles_and_not_for_very_sparse_ones(cases):
    assert decide(cases) == "holds under conditions"
    assert not failed_controls(cases)
    assert {case.group for case in cases if not case.control} == set(KINDS)
    found = by_name(cases)
    assert found["norm of a spike, very_sparse"].outcome == "fails"
    assert found["norm of a spike, rademacher"].value == 0.0
    assert {case.group for case in cases if case.outcome == "fails"} == {"very_sparse"}
    assert "very_sparse" in c11.describe(cases)


def test_a_spike_on_sparse_entries_fails_as_often_as_the_binomial_law_says(cases):
    """‖Ax‖² of a spike is (1/kq) times a binomial (k, q) count, q the density."""
    from scipy.stats import binom

    q = 1 / np.sqrt(c11.LENGTH)
    counts = np.arange(c11.ROWS + 1)
    off = np.abs(counts / (c11.ROWS * q) - 1) > c11.EPS
    chance = binom.pmf(counts, c11.ROWS, q)[off].sum()
    case = by_name(cases)["norm of a spike, very_sparse"]
    trials = case.details["draws"]
    z = (case.details["failures"] - trials * chance) / np.sqrt(trials * chance * (1 - chance))
    assert abs(z) < 4


def test_one_good_ensemble_alone_holds(monkeypatch):
    monkeypatch.setattr(c11, "ENERGY_DRAWS", 250)
    cases = c11.measure(kinds=("rademacher",))
    assert decide(cases) == "holds"
    assert c11.describe(cases) == ("It holds in 5 of 5 comparisons; in all of them for rademacher.")


def test_norms_against_the_law_are_not_trusted():
    def inflated(*arguments, **settings):
        return 1.2 * jl_ratios(*arguments, **settings)

    cases = c11.measure(kinds=("rademacher",), ratios=inflated)
    assert [case.threshold for case in failed_controls(cases)] == ["c11_gaussian"]
    assert decide(cases) == "undecided"


def test_factors_that_repeat_a_row_flip_everything_about_the_dictionary():
    def repeating(m, n, a, b, **settings):
        basis = CosaBasis.sample(m, n, a, b, **settings)
        left = basis.L @ np.eye(a)  # dense
        left[:, a // 2 :] = left[:, : a - a // 2]
        return CosaBasis(left, basis.R)

    found = by_name(c11.measure(kinds=("achlioptas",), draw=repeating))
    for name in ("captured energy", "δ of the dictionary", "inverse condition"):
        assert found[f"{name}, achlioptas"].outcome == "fails", name


def test_the_interval_of_a_quotient_covers_it():
    """Fieller's interval is exact for normal samples of equal size and variance, nearly so here."""
    generator = stream(0, "quotient")
    trials, hits = 5000, 0
    for _ in range(trials):
        x, y = generator.normal(3.0, 0.6, 12), generator.normal(2.0, 0.4, 12)
        estimate = c11.quotient(x, y)
        hits += estimate.low <= 1.5 <= estimate.high
    # At least 95 %, less four standard deviations of the count; and not everything.
    assert 0.95 - 4 * np.sqrt(0.95 * 0.05 / trials) <= hits / trials <= 0.995


def test_the_quotient_of_known_numbers_is_known():
    estimate = c11.quotient([3.0, 3.0, 3.0], [2.0, 2.0, 2.0])
    assert estimate == pytest.approx((1.5, 1.5, 1.5))


def test_the_same_seed_gives_the_same_numbers(monkeypatch):
    monkeypatch.setattr(c11, "ENERGY_DRAWS", 8)
    first, again = (c11.measure((), 5, kinds=("sjlt",)) for _ in range(2))
    assert first == again
    assert first != c11.measure((), 6, kinds=("sjlt",))


def test_a_norm_that_is_not_a_number_is_a_failure():
    def missing(*arguments, **options):
        return np.full_like(jl_ratios(*arguments, **options), np.nan)

    counted = c11._failures("gaussian", 0, missing)
    assert set(counted.values()) == {c11.NORM_DRAWS}
