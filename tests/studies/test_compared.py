"""Several results side by side."""

import dataclasses

import pandas as pd
import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.page.views import Column, View, number
from cosa_theory.studies.compared import beside, compared
from tests.studies.spectrum.survey_page import toy_document

COLUMNS = (Column("layer", "layer", text=True), Column("ratio", "ratio", "its ratio", number))


def view(**rows):
    table = pd.DataFrame({"layer": list(rows), "ratio": list(rows.values())})
    return View.of("Every layer", COLUMNS, table)


def test_rows_are_joined_by_their_names_and_missing_ones_are_dashes():
    (joined,) = beside({"A": [view(first=1.0, second=2.0)], "B": [view(second=3.0, third=4.0)]})
    assert joined.rows == (
        ("first", "1.00", "–"),
        ("second", "2.00", "3.00"),
        ("third", "–", "4.00"),
    )
    assert joined.values == ((None, 1.0, None), (None, 2.0, 3.0), (None, None, 4.0))
    assert joined.groups == (("", 1), ("A", 1), ("B", 1))
    assert [joined.group_of(place) for place in range(3)] == ["", "A", "B"]


def test_equal_names_in_one_result_stay_two_rows():
    twice = View.of("Every layer", COLUMNS, [{"layer": "x", "ratio": one} for one in (1.0, 2.0)])
    (joined,) = beside({"A": [twice], "B": [view(x=3.0)]})
    assert joined.rows == (("x", "1.00", "3.00"), ("x", "2.00", "–"))


def test_tables_of_other_columns_are_not_joined_though_they_are_as_many():
    shape = View.of("Shapes", (COLUMNS[0], Column("m", "m")), [{"layer": "x", "m": 3}])
    joined = beside({"A": [view(x=1.0), shape], "B": [shape, view(x=2.0)]})
    assert [one.title for one in joined] == ["Every layer", "Shapes"]
    assert joined[0].rows == (("x", "1.00", "2.00"),)


def test_a_title_that_names_what_was_asked_for_is_told_of_each_result():
    half, tenth = (dataclasses.replace(view(x=1.0), title=f"Within {one}") for one in ("½", "⅒"))
    (joined,) = beside({"A": [half], "B": [tenth]})
    assert joined.title == "A: Within ½; B: Within ⅒"
    assert beside({"A": [half], "B": [half]})[0].title == "Within ½"


def test_surveys_side_by_side_have_all_their_layers_and_each_verdict():
    documents = {"one": toy_document(blocks=1), "two": toy_document(blocks=2)}
    document, shown = compared(documents)
    assert document.verdict == "2 results of cosa-theory spectrum, side by side: one, two."
    verdicts, modules, _ = shown.views(document)
    assert [row[0] for row in verdicts.rows] == ["one", "two"]
    assert [name for name, _ in modules.groups] == ["", "one", "two"]
    layers = shown.detail_views(document)[0]
    assert [row[0] for row in layers.rows[:5]] == list(
        toy_document(blocks=1).tables["layers"]["layer"][:5]
    )
    assert len(layers.rows) == 12
    assert "one: 17 tensors matched." in document.notices


def test_results_of_different_commands_are_refused_with_their_names():
    other = dataclasses.replace(toy_document(blocks=1), command="audit")
    with pytest.raises(InputError, match=r"spectrum \(A\).*audit \(B\)"):
        compared({"A": toy_document(blocks=1), "B": other})
