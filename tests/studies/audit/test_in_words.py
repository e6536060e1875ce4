"""What the figures of an audit say to readers who do not see them."""

import pandas as pd

from cosa_theory.studies.audit.in_words import decay_in_words, outcomes_in_words


def test_outcomes_are_counted_for_each_assumption_of_the_subject():
    rows = [("update", "spark_wall", "fails", 5.0), ("update", "spark_wall", "holds", 7.0)]
    rows.append(("gradient", "spark_wall", "holds", 100.0))
    table = pd.DataFrame(rows, columns=["subject", "assumption", "outcome", "value"])
    said = outcomes_in_words({"assumptions": table})
    assert "holds in 1 of 2 matrices (median 6.00)" in said
    assert "holds in 1 of 1" in outcomes_in_words({"assumptions": table}, "gradient")


def test_decay_is_told_for_each_basis_that_was_measured():
    table = pd.DataFrame(
        {"basis": ["coordinate", "dct"], "effective": [60, 50], "entries": [100, 100]}
    )
    assert "60.0 % in the entries, 50.0 % in the cosine transform." in decay_in_words(
        {"sparsity": table}
    )
