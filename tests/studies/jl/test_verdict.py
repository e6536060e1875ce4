"""What the verdict says of Kronecker maps, whose core is cut to smaller matrices."""

import pandas as pd
import pytest

from cosa_theory.studies.jl.verdict import verdict


def kronecker(*cores):
    row = {"participation_ratio": 4.0, "law": 2.0, "unstructured": 1.0, "ci_low": 1, "ci_high": 3}
    return {"kronecker": pd.DataFrame([{"a": a, "b": b, **row} for a, b in cores])}


def test_cores_of_several_sizes_are_not_told_as_one_that_no_matrix_has():
    text = verdict(kronecker((24, 16), (12, 20)))
    assert "24 × 20" not in text
    assert "480" not in text
    assert "cut to the smaller matrices" in text
    assert "exceeds a + b + 1 in 0 of 2 matrices" in text


@pytest.mark.parametrize(
    ("cores", "expected"),
    [
        ([(6, 4)] * 2, "a core of 6 × 4 has 2.00 times the variance of an unstructured one"),
        ([(6, 4)] * 2, "exceeds a + b + 1 = 11 in 0 of 2 matrices."),
        ([(1, 1)], "with 1 row; the participation ratio exceeds a + b + 1 = 3 in 1 of 1 matrix."),
    ],
)
def test_one_size_of_core_is_told_with_its_rows(cores, expected):
    assert expected in verdict(kronecker(*cores))


def test_a_map_that_keeps_a_matrix_exactly_is_not_counted_against_its_law():
    table = kronecker((6, 4), (6, 4))["kronecker"].astype(float)
    table.loc[0, ["law", "ci_low", "ci_high"]] = [0.0, 1e-32, 2e-32]  # measured: rounding alone
    text = verdict({"kronecker": table})
    assert "The law lies in 1 of 1 measured 95 % interval. By the law" in text
    assert text.endswith("By the law the map keeps the norm of 1 of 2 exactly.")
    assert "The law lies" not in verdict({"kronecker": table.iloc[:1]})
