"""Approximations by energy and by bits, as a page lets one explore them."""

import pandas as pd

from cosa_theory.studies.function.explorer import explorer
from cosa_theory.studies.function.figures import FIGURES
from tests.page.drawing import drawn

NAMES = (("svd", "truncated SVD", "low rank"), ("adjoint_haar", "adjoint", "CoSA core"))


def tables():
    """Two approximations at two budgets, and ΔW itself."""
    rows = [
        (name, label, group, rank, 1.0, 16e6 * rank, 0.1 * rank if name == "svd" else -30.0)
        for rank in (4, 8)
        for name, label, group in NAMES
    ]
    rows.append(("exact", "ΔW itself", "control", None, 1.0, 3.2e8, 1.0))
    columns = ["approximation", "label", "group", "rank", "gain", "bits", "energy"]
    approximations = pd.DataFrame(rows, columns=columns).astype({"rank": "Int64"})
    approximations["weighted"] = approximations["energy"]
    recovered = [0.9, 0.7, 0.95, 0.8, 1.0]
    function = pd.concat(
        approximations[columns[:5]].assign(
            texts=texts,
            recovered=recovered,
            low=[one - 0.01 for one in recovered],
            high=[one + 0.01 for one in recovered],
        )
        for texts in ("domain", "general")
    )
    return {"approximations": approximations, "function": function}


def test_every_point_is_there_once_for_each_set_of_texts_and_both_charts_are_drawn():
    made = explorer(tables())
    assert len(made.tables["points"]) == 2 * 5
    assert {one.name: one.chosen for one in made.choices} == {
        "texts": "domain",
        "rank": 8,
        "approximation": "truncated SVD",
    }
    for svg in drawn(made):
        # At rank 8: two approximations and ΔW itself.
        assert svg.count('aria-roledescription="point"') == 3


def test_the_words_of_the_figures_are_those_of_the_numbers():
    said = FIGURES["function"].alternative(tables())
    assert "CoSA core, adjoint returns up to 80.0 % of the function with -3,000 %" in said
    said = FIGURES["function_bits"].alternative(tables())
    assert "low rank from 90.0 % with 8.00 MB to 95.0 % with 16.0 MB" in said
