"""The page of the checks: a figure for each claim, of its own numbers."""

import numpy as np
import pytest

from paper_checks.run import claims, run_checks
from paper_checks.shown import claim_figure, page_files, shown
from paper_checks.thresholds import THRESHOLDS


@pytest.fixture(scope="module")
def document():
    return claims(run_checks(["C1", "C6"]), {})


def test_every_measured_claim_has_a_figure_with_its_threshold_and_all_its_cases(document):
    drawings = shown(document).drawings()
    assert list(drawings) == ["C1", "C6"]
    for name in drawings:
        cases = document.tables["cases"].query("id == @name and not control")
        axes = claim_figure(document.tables, name).axes
        drawn = np.concatenate(
            [one.get_xdata() for ax in axes for one in ax.lines if one.get_marker() in "oXs"]
        )
        assert sorted(set(cases["value"]) - set(drawn)) == []
        bounds = {float(ax.lines[-1].get_xdata()[0]) for ax in axes}
        assert bounds == {THRESHOLDS[key].value for key in cases["threshold"]}


def test_the_words_of_a_figure_count_its_cases_and_give_their_range(document):
    said = shown(document).drawings()["C1"].alternative(document.tables)
    cases = document.tables["cases"].query("id == 'C1'")
    assert f"{len(cases)} cases from" in said
    assert f"({len(cases)} holds)" in said


def test_the_page_gives_every_criterion_with_its_day(document):
    (view,) = shown(document).views(document)
    assert all("(set on 20" in row[-1] for row in view.rows)
    assert page_files(["C1"]) == {"report.html", "figures/C1.pdf", "figures/C1.png"}
