"""Ensembles compared: rows needed, time and memory, and the cheapest for a distortion."""

import re

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from cosa_theory.ground.errors import InputError
from cosa_theory.isometry.vectors import synthetic_vectors
from cosa_theory.laws.norms import chi_square_failure
from cosa_theory.projections import KINDS, make_projection
from cosa_theory.studies.jl import comparison, costs
from cosa_theory.studies.jl.comparison import (
    cheapest,
    chi_square_dimension,
    failure_curves,
    jl_ensembles,
    needed_dimensions,
)
from cosa_theory.studies.jl.compute import compared
from cosa_theory.studies.jl.costs import application_seconds, projection_bytes

GAUSSIAN = synthetic_vectors("gaussian", 60, 200)
SPIKES = synthetic_vectors("spike", 60, 200)


@pytest.mark.parametrize("eps", [0.02, 0.1, 0.5, 0.99])
def test_chi_square_dimension_is_the_least_that_meets_the_law(eps):
    k = chi_square_dimension(eps)
    assert chi_square_failure(k, eps) <= 0.05
    assert chi_square_failure(k - 1, eps) > 0.05


def test_the_table_says_what_was_measured():
    table, ratios = jl_ensembles(40, GAUSSIAN, eps=0.3, draws=8, seed=1)
    assert list(table["kind"]) == list(KINDS)
    for row in table.to_dict("records"):
        distortions = np.abs(ratios[row["kind"]] - 1)
        assert distortions.shape == (8, 60)
        assert row["mean"] == pytest.approx(distortions.mean())
        assert row["max"] == pytest.approx(distortions.max())
        assert row["failure"] == pytest.approx(np.mean(distortions > 0.3))
        assert row["quantile"] == pytest.approx(np.quantile(distortions, 0.95, axis=1).mean())
        for name in ("mean", "quantile", "failure"):
            assert row[f"{name}_low"] <= row[name] <= row[f"{name}_high"]
        assert row["chi_square"] == pytest.approx(chi_square_failure(40, 0.3))
        assert row["seconds"] > 0


def test_the_gaussian_row_meets_the_chi_square_law():
    """Mutually orthogonal vectors have independent images: the count is binomial."""
    table, _ = jl_ensembles(20, np.eye(50), eps=0.3, kinds=["gaussian"], draws=20, seed=2)
    failures = table["failure"][0] * 1000
    low, high = stats.binom.ppf([1e-4, 1 - 1e-4], 1000, chi_square_failure(20, 0.3))
    assert low <= failures <= high


def test_curves_are_shares_of_the_same_ratios():
    _, ratios = jl_ensembles(20, GAUSSIAN, eps=0.3, kinds=["sjlt", "haar"], draws=4)
    curves = failure_curves(ratios, 20, [0.1, 0.4])
    assert list(curves["kind"]) == ["sjlt", "sjlt", "haar", "haar"]
    share = np.mean(np.abs(ratios["haar"] - 1) > 0.4)
    assert curves["probability"].iloc[-1] == pytest.approx(share)
    assert curves["chi_square"].iloc[-1] == pytest.approx(chi_square_failure(20, 0.4))


def test_kinds_that_cannot_have_so_many_rows_are_left_out():
    for k, missing in ((230, {"haar"}), (300, {"haar", "srht"})):  # srht is padded to 256
        table, _ = jl_ensembles(k, GAUSSIAN, eps=0.3, draws=2)
        assert set(table["kind"]) == set(KINDS) - missing


def test_bytes_are_those_of_the_form_that_is_multiplied():
    dense = make_projection("gaussian", 30, 200)
    assert projection_bytes(dense) == 30 * 200 * 8
    assert projection_bytes(dense, "float32") == 30 * 200 * 4
    thin = make_projection("sjlt", 100, 200)
    assert projection_bytes(thin) == thin.data.nbytes + thin.indices.nbytes + thin.indptr.nbytes
    third = make_projection("achlioptas", 30, 200)  # one entry in three: multiplied as dense
    assert projection_bytes(third) == 30 * 200 * 8
    srht = make_projection("srht", 30, 200)
    assert projection_bytes(srht) == srht.signs.nbytes + srht.rows.nbytes + 8  # and the scale


def test_times_are_per_vector_and_the_best_of_rounds_taken_in_turn(monkeypatch):
    lengths = [9, 20, 3, 40, 5, 30, 8, 21, 7, 22]  # of the first, the second, the first, …
    clock = iter(np.cumsum([step for length in lengths for step in (0, length)]))
    monkeypatch.setattr(costs.time, "perf_counter", lambda: float(next(clock)))
    times = application_seconds([np.ones((3, 200)), np.ones((4, 200))], GAUSSIAN)
    assert times == pytest.approx([3 / 60, 20 / 60])


@pytest.mark.parametrize("kind", ["gaussian", "sjlt", "haar"])
def test_the_dimension_found_meets_the_target_and_the_next_smaller_does_not(kind):
    row = needed_dimensions({"": GAUSSIAN}, 0.4, kinds=[kind], draws=10, seed=3).iloc[0]
    assert row["quantile_high"] <= 0.4
    grid = comparison._grid(200)
    smaller = grid[grid.index(int(row["k"])) - 1]
    below = jl_ensembles(smaller, GAUSSIAN, eps=0.4, kinds=[kind], draws=10, seed=3)[0].iloc[0]
    assert below["quantile_high"] > 0.4


def test_signs_keep_a_spike_in_one_row_and_very_sparse_entries_never_do():
    table = needed_dimensions({"s": SPIKES}, 0.4, draws=5, seed=4).set_index("kind")
    assert table.loc["rademacher", "k"] == table.loc["sjlt", "k"] == table.loc["srht", "k"] == 1
    assert table.loc["gaussian", "k"] > 20
    assert np.isnan(table.loc["very_sparse", "k"])
    assert table.loc["haar", "k"] < table.loc["gaussian", "k"]


def test_sets_are_measured_by_themselves_and_timed_together():
    settings = {"kinds": ["gaussian", "sjlt"], "draws": 5, "seed": 5}
    both = needed_dimensions({"g": GAUSSIAN, "s": SPIKES}, 0.4, **settings)
    assert list(both["vectors_of"]) == ["g", "g", "s", "s"]
    alone = needed_dimensions({"s": SPIKES}, 0.4, **settings)
    measured = ["kind", "k", "quantile", "failure", "bytes"]
    assert both[both["vectors_of"] == "s"][measured].reset_index(drop=True).equals(alone[measured])


def test_progress_names_every_kind():
    seen = []
    needed_dimensions({"s": SPIKES}, 0.4, kinds=["sjlt", "srht"], draws=2, progress=seen.append)
    assert seen == ["sjlt", "srht"]


def test_the_cheapest_is_the_fastest_that_meets_the_distortion():
    table = pd.DataFrame(
        {
            "kind": ["a", "b", "c", "d"],
            "quantile_high": [0.1, 0.2, 0.3, np.nan],
            "seconds": [3.0, 2.0, 1.0, 0.1],
        }
    )
    assert cheapest(table, 0.2)["kind"] == "b"
    assert cheapest(table, 0.5)["kind"] == "c"
    assert cheapest(table, 0.05) is None


def test_the_search_finds_the_first_index_from_any_start():
    for last in (0, 1, 7):
        for start in range(last + 1):
            for first in range(last + 2):
                found = comparison._first_true(lambda i, first=first: i >= first, start, last)
                assert found == (first if first <= last else None)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"draws": 1}, "draws is 1"),
        ({"eps": 1.0}, "eps is 1.0"),
        ({"sets": {"a": np.zeros((2, 9))}}, "vector 0 is zero"),
    ],
)
def test_bad_arguments_are_named(changes, message):
    settings = {"sets": {"a": SPIKES}, "eps": 0.5, "k": 5, "draws": 2, "seed": 0}
    with pytest.raises(InputError, match=re.escape(message)):
        compared(**{**settings, **changes}, progress=lambda *_: None)
