"""What is asked of informed projections is judged by the bounds of the claims, and is none."""

from dataclasses import replace

import pandas as pd
import pytest

from paper_checks import informed
from paper_checks.base import Verdict, decide, failed_controls
from paper_checks.run import CHECKS, headline
from tests.experiments.test_informed import trainings
from tests.paper_checks.updates import studied

CORES = {"one_sided_activation": 0.48, "best_core_activation": 0.22}


def study(**changes):
    found = studied(**(CORES | changes))
    rows = [
        {"layer": layer, "approximation": name, "rank": 8, "gain": 1.0, "energy": 0.1}
        for layer in ("one", "two")
        for name in CORES
    ]
    return lambda seed: replace(found, layers=pd.DataFrame(rows))


def test_what_comes_back_is_judged_by_energy_and_by_function():
    cases = informed.measure_kept(study=study())
    assert decide(cases) == "fails"
    assert not failed_controls(cases)
    assert sum(case.group == informed.FUNCTION for case in cases) == 4  # two cores, two texts
    assert informed.describe_kept(cases).startswith("It holds in 0 of 6: one-sided 3.1 % of the")
    better = informed.measure_kept(study=study(one_sided_activation=0.98))
    assert decide(better) == "holds under conditions"


def test_a_shuffled_update_that_returns_something_is_not_trusted():
    cases = informed.measure_kept(study=study(shuffled=0.2))
    assert decide(cases) == "undecided"


def test_low_rank_is_compared_with_each_core_matrix_by_matrix():
    cases = informed.measure_ratio(study=study(), best=lambda: {"one": 0.3, "two": 0.05})
    assert [case.outcome for case in cases] == ["fails", "holds"] * 2
    assert cases[0].value == pytest.approx(3.0)
    ahead = informed.measure_ratio(study=study(), best=lambda: {"one": 0.3, "two": 0.2})
    assert decide(ahead) == "fails"


def test_trainings_are_compared_with_loras_and_without_them_nothing_is_decided():
    cases = informed.measure_trained(runs=trainings(texts=-0.03, whitened=0.05, haar=-0.5))
    assert [(case.name, case.outcome) for case in cases] == [
        ("of texts", "holds"),
        ("of texts, whitened", "fails"),
    ]
    assert "of texts 0.03 nats ahead (interval of the lead" in informed.describe_trained(cases)
    assert informed.measure_trained(runs=trainings()) == []
    alone = trainings(texts=-0.03)
    assert informed.measure_trained(runs=alone[alone["seed"] == 0]) == []
    assert informed.describe_trained([]) == "There were no trainings with informed projections."


def test_the_headline_counts_the_claims_of_the_paper_alone():
    verdicts = [Verdict(CHECKS[name].claim, "fails", "", (), 0.0) for name in ("C4", "C4i")]
    assert headline(verdicts) == "Of 1 claim of the paper, 1 fails (C4)."
    assert headline(verdicts[1:]) == "Of 1 claim beside those of the paper, 1 fails (C4i)."
