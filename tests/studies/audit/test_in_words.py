"""What the figures of an audit say to readers who do not see them."""

import pandas as pd

from cosa_theory.studies.audit.in_words import (
    decay_in_words,
    outcomes_in_words,
    participation_in_words,
)


def test_outcomes_are_counted_for_each_assumption_of_the_subject():
    rows = [("update", "spark_wall", "fails", 5.0), ("update", "spark_wall", "holds", 7.0)]
    rows.append(("gradient", "spark_wall", "holds", 100.0))
    table = pd.DataFrame(rows, columns=["subject", "assumption", "outcome", "value"])
    said = outcomes_in_words({"assumptions": table})
    assert "holds in 1 of 2 matrices (median 6.00)" in said
    assert "holds in 1 of 1" in outcomes_in_words({"assumptions": table}, "gradient")


def test_decay_is_told_for_each_subject_and_basis_that_was_measured():
    rows = [("update", "coordinate", 60), ("update", "dct", 50), ("gradient", "coordinate", 2)]
    table = pd.DataFrame(rows, columns=["subject", "basis", "effective"]).assign(entries=100)
    said = decay_in_words({"sparsity": table})
    assert "of updates 60.0 % in the entries, 50.0 % in the cosine transform; " in said
    assert said.endswith("of gradients 2.0 % in the entries.")


def test_participation_is_told_of_what_is_not_zero_and_of_gradients_too():
    rows = [("update", None, 9.0, "undecided"), ("update", 6.0, 5.0, "holds")]
    rows.append(("gradient", 2.0, 5.0, "fails"))
    table = pd.DataFrame(rows, columns=["subject", "value", "threshold", "outcome"])
    said = participation_in_words({"assumptions": table.assign(assumption="flat_spectrum")})
    assert "of 1 update: median 6.00, from 6.00 to 6.00, where a median of 5.00 is needed; " in said
    assert "of 1 gradient: median 2.00" in said
    assert said.endswith("enough in 0.")
