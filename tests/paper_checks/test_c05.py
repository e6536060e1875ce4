"""C5 follows the spectra: flat ones flip it, and noise is read beside them."""

from functools import partial

import numpy as np
import pytest

from cosa_theory.projections import stream
from cosa_theory.spectrum.families import crossover
from paper_checks import c05
from paper_checks.base import decide, failed_controls
from tests.paper_checks.updates import LAYERS, ZERO, decaying, flat, layer

measure = partial(c05.measure, others=dict)


def test_c5_holds_for_flat_spectra_alone():
    cases = measure(LAYERS)
    assert decide(cases) == "holds under conditions"
    assert {case.outcome for case in cases if case.group == c05.FLAT} == {"holds"}
    assert {case.outcome for case in cases if case.group == c05.REAL} == {"fails"}


def test_c5_real_updates_with_a_flat_spectrum_flip_it():
    assert decide(measure([flat(64, 64), flat(96, 64)])) == "holds"


def test_c5_the_flat_advantage_is_the_bound():
    """Square: 2 up to the whole numbers in the core's shape; never more."""
    values = {case.name: 1 / case.value for case in measure(LAYERS) if case.group == c05.FLAT}
    assert values["384 × 384, r = 16"] == pytest.approx(2, rel=0.03)
    assert values["768 × 384, r = 16"] == pytest.approx(1.5, rel=0.03)


def test_c5_an_advantage_beyond_the_bound_is_not_trusted():
    def broken(sigma, m, n):
        table = crossover(sigma, m, n)
        return table.assign(crossover_ratio=0.4)

    cases = measure(LAYERS, compare=broken)
    assert [case.threshold for case in failed_controls(cases)] == ["c5_bound"]
    assert decide(cases) == "undecided"


def test_c5_noise_whose_excess_is_not_a_number_is_not_trusted():
    def broken(sigma, m, n):
        table = crossover(sigma, m, n)
        table.loc[table.index[1:], "excess"] = np.nan
        return table

    (control,) = failed_controls(measure(LAYERS, compare=broken))
    assert control.threshold == "c5_noise"
    assert not control.known


def test_c5_without_an_update_nothing_is_decided():
    assert decide(measure([ZERO])) == "undecided"


def test_c5_the_same_seed_gives_the_same_numbers():
    first, again = (measure(LAYERS, 5) for _ in range(2))
    assert first == again


def test_c5_updates_that_others_trained_are_cases_and_have_a_sentence_each():
    label = c05.OTHERS["chgnet"]
    vector = layer(np.ones((1, 40)), "vector")
    updates = [decaying(48, 96, "three"), flat(64, 64), vector]
    cases = measure(LAYERS, others=lambda: {label: updates})
    own = [case for case in cases if case.group == label]
    assert {case.details["layer"] for case in own} == {"three", "flat", "vector"}
    text = c05.describe(cases)
    assert f"On {label} it holds in 4 of 7 pairs of matrix and budget (2 of 3" in text
    assert "at some budget; 1 of these are ties, where both hold everything)" in text
    assert c05.OTHERS["sre_encoder"] not in text


def test_c5_noise_beats_cosa_but_has_no_excess():
    """Low rank is ahead on noise too: only what exceeds that speaks of structure."""
    noise = layer(stream(0, "test", "noise").standard_normal((96, 80)), "noise")
    measured = measure([noise])
    cases = [case for case in measured if case.group == c05.REAL]
    assert {case.outcome for case in cases} == {"fails"}
    assert all(case.value > 1.2 for case in cases)
    assert [case.details["excess"] for case in cases] == pytest.approx([1.0] * 3, abs=0.05)
    text = c05.describe(measured)
    assert "times as much as CoSA, where noise of the same shape gives median 1." in text
    assert "; the excess over it is median" in text


def test_c5_a_null_that_drawn_noise_contradicts_is_not_trusted():
    def broken(sigma, m, n):
        table = crossover(sigma, m, n)
        return table.assign(excess=table["excess"] * 1.2)

    cases = measure(LAYERS, compare=broken)
    assert [case.threshold for case in failed_controls(cases)] == ["c5_noise"]
    assert decide(cases) == "undecided"
