"""The verdict follows from the cases, and from nothing else."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paper_checks.base import Case, decide, exceptions, judge, spread
from paper_checks.run import CHECKS
from paper_checks.thresholds import THRESHOLDS, Threshold

AT_MOST = Threshold("x", "at most", 1.0, "2026-11-22", "a reason")
AT_LEAST = Threshold("x", "at least", 1.0, "2026-11-22", "a reason")


@pytest.mark.parametrize(
    ("low", "high", "at_most", "at_least"),
    [
        (0.2, 0.9, "holds", "fails"),
        (1.1, 1.2, "fails", "holds"),
        (0.9, 1.1, "undecided", "undecided"),
        (1.0, 1.0, "holds", "holds"),
        (0.9, 1.0, "holds", "undecided"),
        (1.0, 1.1, "undecided", "holds"),
        (math.nan, 0.5, "undecided", "undecided"),
        (0.5, math.nan, "undecided", "undecided"),
    ],
)
def test_an_interval_that_straddles_its_threshold_is_undecided(low, high, at_most, at_least):
    assert judge(low, high, AT_MOST) == at_most
    assert judge(low, high, AT_LEAST) == at_least


def case(outcome, control=False):
    value = {"holds": (0.5, 0.6), "fails": (1.5, 1.6), "undecided": (0.5, 1.5)}[outcome]
    made = Case("name", "group", value[0], *value, "c5_ratio", control=control)
    assert made.outcome == outcome
    return made


@pytest.mark.parametrize(
    ("outcomes", "verdict"),
    [
        (["holds", "holds"], "holds"),
        (["fails"], "fails"),
        (["holds", "fails"], "holds under conditions"),
        (["holds", "fails", "undecided"], "holds under conditions"),
        (["holds", "undecided"], "undecided"),
        (["fails", "undecided"], "undecided"),
        ([], "undecided"),
    ],
)
def test_the_verdict_is_what_the_cases_say(outcomes, verdict):
    assert decide([case(outcome) for outcome in outcomes]) == verdict
    controls = [case("holds", control=True)]
    assert decide([case(outcome) for outcome in outcomes] + controls) == verdict


@given(st.lists(st.sampled_from(["holds", "fails", "undecided"])))
def test_a_control_that_does_not_hold_leaves_everything_undecided(outcomes):
    cases = [case(outcome) for outcome in outcomes]
    assert decide([*cases, case("fails", control=True)]) == "undecided"
    assert decide([*cases, case("undecided", control=True)]) == "undecided"


def test_every_threshold_has_a_reason_and_belongs_to_a_check():
    for name, threshold in THRESHOLDS.items():
        assert name.split("_")[0] in {check.lower() for check in CHECKS}
        assert threshold.reason.endswith(".")
        assert len(threshold.reason) > 20
        assert not math.isnan(threshold.value)


def test_few_exceptions_are_named_and_many_are_not():
    cases = [Case.exact(f"layer {i}", "g", float(i), "c5_ratio") for i in range(9)]
    assert exceptions(cases) == " (it holds for layer 0; layer 1)"
    assert exceptions(cases, most=1) == ""
    assert exceptions(cases[:5][::-1]) == " (it holds for layer 1; layer 0)"
    assert exceptions(cases[:2]) == ""


def test_a_spread_is_median_and_range():
    assert spread([3.0, 1.0, 2.0]) == "median 2 (range 1 to 3)"
    assert spread([]) == "none"
    assert spread([math.nan, 2.0]) == "median 2 (range 2 to 2)"
