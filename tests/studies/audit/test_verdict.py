"""The verdict follows from the table alone and takes no side."""

import pandas as pd
import pytest

from cosa_theory.studies.audit.assumptions import ASSUMPTIONS
from cosa_theory.studies.audit.verdict import counts, verdict


def table(outcomes, matrices=3, subject="update"):
    """A table of assumptions: name to one outcome for all matrices, or a list of outcomes."""
    rows = []
    for name, given in outcomes.items():
        listed = [given] * matrices if isinstance(given, str) else given
        rows += [
            {
                "layer": f"l.{i}",
                "subject": subject,
                "assumption": name,
                "value": 1.0,
                "outcome": one,
            }
            for i, one in enumerate(listed)
        ]
    return pd.DataFrame(rows)


def everywhere(outcome, **others):
    return dict.fromkeys(ASSUMPTIONS, outcome) | others


@pytest.mark.parametrize(
    ("outcome", "matrices", "said"),
    [
        ("holds", 3, "All 7 assumptions of the theory hold in all 3 matrices."),
        ("fails", 3, "All 7 assumptions of the theory fail in all 3 matrices."),
        ("holds", 1, "All 7 assumptions of the theory hold in the only matrix."),
        ("undecided", 2, "All 7 assumptions of the theory are undecided in all 2 matrices."),
    ],
)
def test_one_outcome_everywhere_is_one_plain_sentence(outcome, matrices, said):
    assert verdict(table(everywhere(outcome), matrices)) == said


def test_different_outcomes_are_counted_and_named():
    mixed = ["holds", "fails", "undecided"]
    found = verdict(table(everywhere("fails", admissible="holds", compressible=mixed)))
    assert found == (
        "Of 7 assumptions of the theory, 1 holds in all 3 matrices, 5 fail in all and 1 differs "
        "from matrix to matrix: core fits the layer holds; near-isometry, flat spectrum, below the "
        "spark wall, enough measurements and decodable fail; compressible holds in 1, fails in 1 "
        "and is undecided in 1."
    )


def test_the_same_words_serve_either_side():
    for one, other in (("holds", "fails"), ("fails", "holds")):
        found = verdict(table(everywhere(one, decodable=other)))
        plural, single = (f"6 {one.removesuffix('s')} in all", f"1 {other} in all")
        assert plural in found
        assert single in found


def test_one_matrix_is_said_so():
    found = verdict(table(everywhere("fails", decodable="holds"), 1))
    assert found.startswith(
        "Of 7 assumptions of the theory, 1 holds in the only matrix and 6 fail in it: "
    )


def test_a_gradient_has_its_part_of_the_sentence():
    update = table(everywhere("fails"))
    about = {name: "fails" for name, one in ASSUMPTIONS.items() if one.of_update}
    gradient = table(about | {"spark_wall": "holds"}, subject="gradient")
    found = verdict(pd.concat([gradient, update]))
    assert found == (
        "All 7 assumptions of the theory fail in all 3 matrices; for the gradient of the first "
        "step, below the spark wall holds; flat spectrum, compressible, enough measurements and "
        "decodable fail."
    )


def test_a_gradient_with_the_same_counts_is_not_listed_again():
    about = {name: "fails" for name, one in ASSUMPTIONS.items() if one.of_update}
    gradient = table(about, subject="gradient")
    found = verdict(pd.concat([table(everywhere("fails", admissible="holds")), gradient]))
    assert found.endswith(
        "decodable fail; what concerns updates has the same counts for the gradient of the first "
        "step."
    )


def test_counts_keep_the_order_of_the_assumptions_whatever_that_of_the_rows():
    rows = table(everywhere("fails")).sample(frac=1, random_state=0)
    found = counts(rows)
    assert found.index.get_level_values("assumption").tolist() == list(ASSUMPTIONS)
    assert (found["fails"] == 3).all()


def test_zero_updates_are_counted():
    rows = table(everywhere("fails"))
    rows.loc[(rows["layer"] == "l.1") & (rows["assumption"] != "admissible"), "value"] = None
    rows.loc[(rows["layer"] == "l.1") & (rows["assumption"] != "admissible"), "outcome"] = (
        "undecided"
    )
    assert verdict(rows).endswith("; 1 zero update is undecided.")
