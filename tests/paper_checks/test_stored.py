"""What committed tables say of the claims."""

from dataclasses import replace

import pandas as pd
import pytest

from experiments.pairs import PAIRS
from paper_checks import run_checks, stored
from paper_checks.base import decide
from paper_checks.run import CHECKS
from paper_checks.stored import STORED, describe_stored, stored_cases


def test_every_pair_that_reads_texts_speaks_of_function_with_its_controls():
    cases = stored_cases("C4")
    pairs = {case.name.partition(":")[0] for case in cases}
    assert pairs == {name for name, pair in PAIRS.items() if pair.domain is not None}
    controls = [case for case in cases if case.control]
    assert len(controls) == 6 * len(pairs)
    assert all(case.outcome == "holds" for case in controls)
    energies = [case for case in cases if case.group == "energy by least squares, all pairs"]
    assert all(case.value == pytest.approx(case.details["law"], rel=0.3) for case in energies)


def test_every_pair_speaks_of_low_rank_against_cores():
    cases = stored_cases("C5")
    assert {case.name.partition(":")[0] for case in cases} == set(PAIRS)
    assert decide(cases) == "fails"


def test_trainings_count_as_leads_of_cosa_whose_sign_is_that_of_a_lower_loss(monkeypatch):
    rows = pd.DataFrame(
        {
            "method": ["haar", "texts", "haar"],
            "against": ["lora", "lora", "haar_one_sided"],
            "seeds": [5, 5, 5],
            "difference": [0.1, -0.5, 0.0],
            "low": [0.08, -0.6, 0.0],
            "high": [0.12, -0.4, 0.0],
        }
    )
    tables = {"informed_training_compared": rows}
    monkeypatch.setattr(stored, "_table", lambda name: tables.get(name, pd.DataFrame()))
    (case,) = stored_cases("C8")
    assert (case.value, case.low, case.high) == (-0.1, -0.12, -0.08)
    assert case.outcome == "fails"
    assert "orthonormal CoSA" in case.name


@pytest.mark.parametrize(("high", "outcome"), [(0.85, "holds"), (1.0, "undecided")])
def test_gradients_that_vary_less_with_an_isometry_speak_for_steadier_training(
    monkeypatch, high, outcome
):
    row = {"task": "r8", "seeds": 5, "ratio": 0.8, "low": 0.7, "high": high}
    tables = {"subspace_steadiness": pd.DataFrame([row])}
    monkeypatch.setattr(stored, "_table", lambda name: tables.get(name, pd.DataFrame()))
    (case,) = stored_cases("C3")
    assert (case.value, case.low, case.high, case.outcome) == (0.8, 0.7, high, outcome)


def test_claims_without_a_table_have_no_stored_cases():
    assert set(STORED) <= set(CHECKS)
    assert stored_cases("C6") == []
    assert describe_stored([]) == ""


def test_in_full_the_committed_cases_decide_too_and_are_told(monkeypatch):
    check = replace(CHECKS["C8"], measure=lambda layers, seed: [])  # else it trains for a minute
    monkeypatch.setitem(CHECKS, "C8", check)
    (quick,) = run_checks(["C8"])
    (full,) = run_checks(["C8"], full=True)
    added = full.cases[len(quick.cases) :]
    assert list(added) == stored_cases("C8")
    assert full.summary.startswith(quick.summary)
    assert "CoSA against LoRA" in full.summary
