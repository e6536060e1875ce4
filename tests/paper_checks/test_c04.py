"""C4 follows what comes back by energy and by function; controls that fail leave it undecided."""

import dataclasses
from functools import partial

import numpy as np
import pytest

from cosa_theory import CosaBasis
from cosa_theory.projections import stream
from paper_checks import c04
from paper_checks.base import decide, failed_controls
from tests.paper_checks.updates import LAYERS, ZERO, decaying, layer, studied

measure = partial(c04.measure, function=lambda seed: studied())


def of(cases, group):
    return [case for case in cases if case.group == group]


def test_c4_a_small_core_does_not_bring_a_real_update_back():
    cases = measure([*LAYERS, ZERO])
    assert decide(cases) == "fails"
    assert not failed_controls(cases)
    assert {case.name.split(",")[0] for case in of(cases, c04.REAL)} == {"one", "two"}


def test_c4_a_core_as_large_as_the_layer_flips_it():
    """At rank 30 LoRA trains 2,760 numbers on 40 × 52, more than the layer has."""
    cases = measure([decaying(40, 52)], ranks=(30,))
    assert {case.outcome for case in of(cases, c04.REAL)} == {"holds"}
    assert cases[0].value == pytest.approx(1.0, abs=1e-5)


def test_c4_a_straddling_interval_is_undecided():
    """A core of 95 % of the entries on few draws of a rank-one update."""
    generator = stream(3, "test")
    update = np.outer(generator.standard_normal(8), generator.standard_normal(8))
    cases = measure([layer(update)], ranks=(2, 3))
    assert "undecided" in {case.outcome for case in cases if not case.control}


def test_c4_a_measurement_against_the_law_is_not_trusted():
    """Factors that look at the update first bring back more than any oblivious ones."""
    target = LAYERS[0].delta.astype(np.float64)

    def cheat(m, n, a, b, *, seed, key, dtype):
        U, _, Vt = np.linalg.svd(target)
        return CosaBasis(U[:, :a].astype(dtype), Vt[:b].astype(dtype))

    cases = measure(LAYERS[:1], draw=cheat)
    assert [case.threshold for case in failed_controls(cases)] == ["c4_law"]
    assert decide(cases) == "undecided"
    assert "no more" not in c04.describe(cases)


def test_c4_tiny_updates_lose_nothing_to_underflow():
    tiny = dataclasses.replace(LAYERS[0], delta=LAYERS[0].delta * np.float32(1e-24))
    shares = [case.value for case in measure([tiny])]
    assert shares == pytest.approx([case.value for case in measure(LAYERS[:1])], rel=1e-3)


def test_c4_without_an_update_nothing_is_decided():
    assert decide(measure([ZERO])) == "undecided"
    assert c04.describe(measure([ZERO])) == "There was no update to encode."


def test_c4_the_same_seed_gives_the_same_numbers_and_reaches_the_study():
    seeds = []

    def function(seed):
        seeds.append(seed)
        return studied()

    first, again = (measure(LAYERS, 5, function=function) for _ in range(2))
    assert first == again
    assert seeds == [5, 5]


def test_c4_every_decoder_is_a_case_by_energy_and_on_both_sets_of_texts():
    cases = measure(LAYERS)
    by_energy = {case.name: case for case in of(cases, c04.ENERGY)}
    by_function = {case.name: case for case in of(cases, c04.FUNCTION)}
    assert len(by_energy) == 6
    assert len(by_function) == 12
    assert by_energy["adjoint, Gaussian"].value == -32
    assert by_energy["q times adjoint, Gaussian"].value == pytest.approx(-32 * 0.64)
    assert by_function["adjoint, orthonormal, domain texts"].value == 0.86
    assert by_function["q times adjoint, orthonormal, domain texts"].value == 0.88
    assert by_function["least squares, Gaussian, general texts"].value == 0.03
    assert {case.threshold for case in by_function.values()} == {"c4_function"}
    assert {case.outcome for case in by_function.values()} == {"fails"}


def test_c4_the_sentence_has_energy_function_error_null_and_what_equal_numbers_return():
    text = c04.describe(measure(LAYERS))
    assert "least squares keeps 3.1 % of the energy and returns 3 % of the function" in text
    assert (
        "adjoint has an error of 33 times the update's energy and yet returns 71 % to 86 % of the "
        "function (holds in 0 of 4)"
    ) in text
    assert "Of as many numbers the truncated SVD 88 % to 98 % and a random mask over p 87 %" in text
    assert "noise alone and the update shuffled return 0 % at most" in text


def test_c4_a_decoder_that_returns_the_function_flips_its_cases():
    cases = c04.function_cases(studied(adjoint_haar=0.95))
    good = [case for case in cases if case.outcome == "holds" and case.group == c04.FUNCTION]
    assert {case.name for case in good} == {
        "adjoint, orthonormal, domain texts",
        "q times adjoint, orthonormal, domain texts",
    }
    assert decide(cases) == "holds under conditions"


def test_c4_an_interval_over_texts_that_straddles_the_bound_is_undecided():
    cases = c04.function_cases(studied(adjoint_haar=0.895))
    (case,) = (one for one in cases if one.name == "adjoint, orthonormal, domain texts")
    assert case.outcome == "undecided"


def test_c4_a_gain_of_one_is_still_a_case_of_its_own():
    study = studied(gained=0.0)
    tables = {
        name: getattr(study, name).assign(gain=1.0) for name in ("approximations", "function")
    }
    cases = c04.function_cases(dataclasses.replace(study, **tables))
    assert len(of(cases, c04.FUNCTION)) == 12


@pytest.mark.parametrize(
    ("changes", "threshold"),
    [({"noise": 0.2}, "c4_null"), ({"shuffled": 0.06}, "c4_null"), ({"exact": 0.99}, "c4_exact")],
)
def test_c4_function_is_not_trusted_where_noise_returns_something_or_the_update_does_not(
    changes, threshold
):
    cases = measure(LAYERS, function=lambda seed: studied(**changes))
    assert {case.threshold for case in failed_controls(cases)} == {threshold}
    assert decide(cases) == "undecided"
