"""What a page gives to its scripts."""

import json

import numpy as np
import pandas as pd

from cosa_theory.page.explorer import script_json, short_records
from cosa_theory.studies.spectrum.explorer import explorer
from tests.page.drawing import drawn
from tests.studies.spectrum.survey_tables import toy_tables


def test_text_cannot_end_its_script_and_is_read_back():
    text = "</script><!-- & \u2028\u2029 ΔW"
    made = script_json({"name": text})
    assert not set("<>&\u2028\u2029") & set(made)
    assert json.loads(made) == {"name": text}


def test_numbers_are_short_and_what_does_not_exist_is_null():
    table = pd.DataFrame({"a": [1 / 3, np.nan], "b": ["x\x1b", "y"], "c": [[0.12345678], [np.inf]]})
    assert short_records(table) == [
        {"a": 0.3333, "b": "x\\x1b", "c": [0.1235]},
        {"a": None, "b": "y", "c": [None]},
    ]


def test_every_chart_of_a_survey_is_drawn_with_a_mark_for_every_value():
    made = explorer(toy_tables(blocks=2, zero_layer="pooler.dense.weight"))
    cells, spectrum, held, families = drawn(made)
    assert cells.count('aria-roledescription="rect mark"') == 11  # all but the zero update
    assert spectrum.count('aria-roledescription="point"') == 24 + 24 + 22  # two are not resolved
    assert held.count('aria-roledescription="point"') == 24 + 3  # noise at three budgets
    assert families.count('aria-roledescription="bar"') == 9


def test_the_told_row_has_the_numbers_of_the_chosen_layer_and_budget():
    tables = toy_tables(blocks=2)
    made = explorer(tables)
    chosen = {one.name: one.chosen for one in made.choices}
    (row,) = [
        row
        for row in made.tables["cells"]
        if row["layer"] == chosen["layer"] and row["budget"] == chosen["budget"]
    ]
    assert row["excess"] == max(one["excess"] for one in made.tables["cells"] if one["budget"] == 2)
    assert f"the excess {row['excess']:#.3g}" in row["says"]


def test_without_any_update_there_is_nothing_to_explore():
    tables = toy_tables(blocks=1)
    tables["crossover"][["top_share", "crossover_ratio", "excess", "winner"]] = None
    assert explorer(tables) is None
    assert explorer({name: table[:0] for name, table in tables.items()}) is None
