"""A result as a table and in a notebook."""

import numpy as np
import pandas as pd
import pytest

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.recovery import METHODS, RecoveryProblem, recover
from cosa_theory.recovery.result import relative_error

BASIS = CosaBasis.sample(8, 7, 6, 5, seed=0, scale="analysis")
UPDATES = np.zeros((3, 8, 7))
UPDATES[0, 1, 2] = UPDATES[1, 3, 3] = UPDATES[2, 0, 0] = UPDATES[2, 7, 6] = 1.0


def test_a_frame_has_one_row_for_each_right_hand_side_and_every_number():
    batch = recover(RecoveryProblem(BASIS.sensing(), BASIS.encode(UPDATES)), "omp")
    frame = batch.to_frame()
    assert frame["nonzeros"].tolist() == [1, 1, 2]
    assert frame["residual"].tolist() == batch.residual.tolist()
    assert (frame["method"] == "omp").all()
    for item, update in enumerate(UPDATES):
        one = recover(RecoveryProblem(BASIS.sensing(), BASIS.encode(update)), "omp").to_frame()
        pd.testing.assert_frame_equal(
            one.drop(columns="seconds"), frame.iloc[[item]].reset_index(drop=True)[list(one)].drop(
                columns="seconds"), check_dtype=False, atol=1e-12,
        )  # fmt: skip


def test_every_method_makes_a_frame_that_parquet_takes_and_a_notebook_shows(tmp_path):
    for method in METHODS:
        result = recover(RecoveryProblem(BASIS.sensing(), BASIS.encode(UPDATES[0])), method)
        result.to_frame().to_parquet(tmp_path / "one.parquet")
        shown = result._repr_html_()
        assert shown.startswith("<table")
        assert result.status in shown


def test_a_missing_debiased_estimate_is_told_by_its_method_and_not_by_a_guess():
    basis = CosaBasis.sample(8, 6, 5, 4, seed=1, scale="analysis")
    update = np.zeros((8, 6))
    update[1, 2] = 1.0
    problem = RecoveryProblem(basis.sensing(), basis.encode(update))
    for method, debiasing in (("omp", False), ("least_norm", True)):
        result = recover(problem, method, debiasing=debiasing)
        with pytest.raises(InputError, match=rf"{method}.*debiasing=True"):
            result.relative_error(update, debiased=True)


def test_errors_are_relative_to_nested_lists_too_but_to_no_truth_with_nan():
    assert relative_error([[3.0, 0.0]], [[0.0, 4.0]]) == pytest.approx(1.25)
    with pytest.raises(InputError, match="truth has a NaN") as error:
        relative_error([[3.0, 0.0]], [[np.nan, 4.0]])
    assert error.value.argument == "truth"
