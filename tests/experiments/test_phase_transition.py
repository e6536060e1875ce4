"""Phase transitions: the law is reproduced, Kronecker sensing is told apart, no work is lost."""

import json
import runpy
import shutil
import sys

import numpy as np
import pandas as pd
import pytest

from cosa_theory.laws import uniform_sparsity_limit
from cosa_theory.laws.recovery import l1_weak_threshold
from experiments import phase_transition
from experiments.phase_lines import crossings, verdict
from experiments.phase_transition import PRESETS, Cell, Config, cells, compute, main, run
from experiments.supports import capacity

TINY = Config(
    shape=(10, 8),
    cores=((6, 4),),
    core=(5, 6),
    kinds=("gaussian", "very_sparse"),
    packed_plain=("gaussian",),
    fractions=(0.5, 1.5),
    draws=2,
    updates=2,
    iterations=100,
)
TOML = (
    "shape = [10, 8]\ncores = [[6, 4]]\ncore = [5, 6]\nfractions = [0.5, 1.5]\n"
    'kinds = ["gaussian", "very_sparse"]\npacked_plain = ["gaussian"]\ndraws = 2\n'
    "updates = 2\niterations = 100\n"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of finished cells."""
    return tmp_path_factory.mktemp("cells")


@pytest.fixture(scope="module")
def table(folder):
    return run(TINY, folder=folder, jobs=1, progress=False)


def cell(**changes):
    settings = {
        **{"structure": "kronecker", "kind": "gaussian", "packing": "random"},
        **{"m": 32, "n": 32, "a": 16, "b": 16, "s": 40, "draws": 4, "updates": 10},
        **{"values": "gaussian", "error": 1e-3, "iterations": 300, "seed": 0},
    }
    return Cell(**{**settings, **changes})


# The law ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(6, 10), (12, 12)])
def test_plain_gaussian_measurements_reproduce_the_weak_threshold(a, b):
    """At d = 0.1 and 0.25 half of the updates are found within 0.03 of the law."""
    law = float(l1_weak_threshold(a * b / 576))
    config = Config(
        shape=(24, 24),
        core=(a, b),
        cores=(),
        kinds=("gaussian",),
        packings=("random",),
        fractions=(0.88, 0.96, 1.04, 1.12),
        draws=1,
        updates=20,
        iterations=300,
    )
    planned = [one for one in cells(config) if one.structure == "plain"]
    rows = [{**vars(one), **compute(one), "status": "done"} for one in planned]
    (line,) = crossings(pd.DataFrame(rows)).to_dict(orient="records")
    assert line["trials"] == 80
    assert line["undecided"] <= 8
    error = (line["rho50_high"] - line["rho50_low"]) / (2 * 1.96)
    assert error < 0.01, "the standard error is small beside the tolerance"
    assert abs(line["rho50"] - law) < 0.03
    assert line["expected_rho"] == law


# Kronecker sensing: shares of success over 40 updates or more, with 99 % intervals ---------------


def interval(draws=40, updates=1, **changes):
    """Return the ends of the 99 % interval of a cell's probability of success."""
    from scipy.stats import binomtest

    row = compute(cell(draws=draws, updates=updates, **changes))
    return binomtest(row["successes"], row["trials"]).proportion_ci(0.99)


def test_supports_packed_in_one_row_are_limited_by_b_and_in_one_column_by_a():
    # The same sparsity, the same 192 measurements.
    assert interval(a=24, b=8, s=4, packing="row").high < 0.35
    assert interval(a=24, b=8, s=4, packing="column").low > 0.65


def test_kronecker_sensing_finds_scattered_supports_and_loses_packed_ones():
    scattered = interval(s=40)
    assert 0.55 < scattered.low < scattered.high < 0.98
    packed = interval(s=8, packing="column")
    assert 0.08 < packed.low < packed.high < 0.55
    assert uniform_sparsity_limit(16, 16) == 8
    assert interval(draws=20, updates=4, s=16, packing="column").high < 0.1


def test_plain_sensing_does_not_care_how_a_support_is_packed():
    small = {"structure": "plain", "m": 20, "n": 20, "a": 10, "b": 10, "draws": 2}
    for packing in ("random", "block"):
        row = compute(cell(**small, s=25, packing=packing))
        assert 0.5 < row["share"] < 0.99
    full = compute(cell(**small, s=12, packing="column"))
    assert full["successes"] == full["trials"] == 20


# Rows --------------------------------------------------------------------------------------------


def test_every_cell_is_a_row_with_counts_that_add_up(table):
    assert len(table) == len(cells(TINY))
    assert (table["trials"] == 4).all()
    failures = table["trials"] - table["successes"]
    assert (table["refuted"] + table["undecided"] == failures).all()
    by_draw = [sum(json.loads(counts)) for counts in table["successes_by_draw"]]
    assert by_draw == table["successes"].tolist()
    assert (table["ci_low"] <= table["share"]).all()
    assert (table["share"] <= table["ci_high"]).all()
    np.testing.assert_allclose(table["share"], table["successes"] / 4)
    np.testing.assert_allclose(table["d"], table["a"] * table["b"] / 80)
    np.testing.assert_allclose(table["rho"], table["s"] / (table["a"] * table["b"]))
    assert set(table["structure"]) == {"plain", "kronecker"}


def test_a_failure_is_decided_by_a_competitor_of_no_larger_norm():
    """Far above the threshold every failure is proven, with few iterations and no optimum."""
    row = compute(cell(s=150, draws=1, updates=8, iterations=200))
    assert (row["successes"], row["refuted"], row["undecided"]) == (0, 8, 0)
    assert row["optimal"] < 8
    starved = compute(cell(s=44, draws=2, updates=8, iterations=10))
    assert starved["undecided"] > 0
    fed = compute(cell(s=44, draws=2, updates=8, iterations=1000))
    assert fed["undecided"] <= 2
    assert fed["successes"] > starved["successes"]


def test_columns_that_nothing_measures_lose_their_update():
    """A very sparse factor has empty columns, and the measurements of an entry there are zero."""
    rows = [compute(cell(kind="very_sparse", packing="column", m=30, n=9, a=3, b=3, s=1, draws=20))]
    assert rows[0]["successes"] < rows[0]["trials"]
    assert rows[0]["undecided"] == 0


def test_the_seed_and_the_draw_decide_and_cells_are_independent():
    small = {"s": 44, "draws": 2, "updates": 3}
    row, again = (compute(cell(**small)) for _ in range(2))
    assert {**row, "solver_seconds": 0} == {**again, "solver_seconds": 0}
    other = compute(cell(**small, seed=1))
    assert other["median_error"] != row["median_error"]
    drawn = [(cell(), 0), (cell(), 1), (cell(seed=1), 0), (cell(s=41), 0), (cell(packing="row"), 0)]
    firsts = {phase_transition._operator(*one)[0].factors[0].tobytes() for one in drawn}
    assert len(firsts) == len(drawn)
    updated = [*drawn[:4], (cell(kind="haar"), 0), (cell(structure="plain"), 0), (cell(b=17), 0)]
    updates = {phase_transition._updates(*one).tobytes() for one in updated}
    assert len(updates) == len(updated)


def test_cells_hold_every_packing_up_to_what_fits_in_it():
    planned = cells(Config(fractions=(0.5, 1.0, 4.0)))
    for one in planned:
        assert 1 <= one.s <= capacity(one.m, one.n, one.packing)
        assert one.s <= one.m * one.n
    plain = [one for one in planned if one.structure == "plain"]
    assert max(one.s for one in plain if one.packing == "column") == 32, "clipped, and once"
    packed = {(one.kind, one.a) for one in plain if one.packing == "row"}
    assert packed == {("gaussian", 16), ("srht", 16)}
    assert {one.a for one in plain if one.packing == "random"} == {10, 16, 23}


def test_every_preset_has_cells_that_are_all_different():
    for config in PRESETS.values():
        planned = cells(config)
        assert len(set(planned)) == len(planned)
        assert {one.kind for one in planned} == set(config.kinds)
    assert PRESETS["full"].draws * PRESETS["full"].updates >= 40


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"core": (33, 2)}, r"core is \(33, 2\): .* 1 ≤ a ≤ m = 32"),
        ({"cores": ((4, 0),)}, r"core is \(4, 0\)"),
        ({"draws": 0}, "draws is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"fractions": ()}, "fractions is 0"),
        ({"fractions": (1.0, -1.0)}, "fractions is -1.0"),
        ({"error": 0.0}, "error is 0.0"),
        ({"kinds": ("cauchy",)}, "kinds is 'cauchy': it must be one of gaussian"),
        ({"packings": ("diagonal",)}, "packings is 'diagonal': it must be one of random"),
        ({"values": "ones"}, "values is 'ones': it must be one of gaussian, signs"),
    ],
)
def test_a_setting_out_of_range_is_named(changes, words):
    with pytest.raises(ValueError, match=words):
        Config(**changes)


# Lines and words ----------------------------------------------------------------------------------


def curve(shares, **names):
    base = {"structure": "plain", "kind": "gaussian", "packing": "random", "m": 10, "n": 8}
    base |= {"a": 5, "b": 6, "d": 0.375, "expected_rho": 0.3, "weak_threshold": 0.3, **names}
    return [
        {
            **base,
            **{"rho": 0.1 * (place + 1), "share": share, "trials": 20, "draws": 2},
            "successes_by_draw": json.dumps([round(10 * share)] * 2),
            **{"undecided": 1, "status": "done"},
        }
        for place, share in enumerate(shares)
    ]


def test_lines_are_fitted_to_each_curve_and_only_to_its_own():
    rows = curve([1.0, 0.9, 0.1, 0.0]) + curve([0.9, 0.1, 0.0, 0.0], structure="kronecker")
    rows += curve([1.0], packing="column") + curve([0.9, 0.2], kind="haar")
    lines = crossings(pd.DataFrame(rows).sample(frac=1.0, random_state=0))
    found = {(row.structure, row.kind, row.packing): row for row in lines.itertuples()}
    assert len(found) == 4
    assert found["plain", "gaussian", "random"].rho50 == pytest.approx(0.25, abs=1e-6)
    assert found["kronecker", "gaussian", "random"].rho50 == pytest.approx(0.15, abs=0.01)
    single = found["plain", "gaussian", "column"]
    assert np.isnan(single.rho50)
    assert (single.rho50_low, single.rho50_high) == (0.1, np.inf)
    assert found["plain", "gaussian", "random"].undecided == 4


def test_timed_out_cells_are_left_out_of_the_lines():
    rows = pd.DataFrame(curve([1.0, 0.9, 0.1, 0.0]))
    late = pd.DataFrame([{**rows.iloc[0].to_dict(), "status": "timed out", "share": np.nan}])
    pd.testing.assert_frame_equal(crossings(pd.concat([rows, late])), crossings(rows))


def test_the_verdict_names_the_lines_their_intervals_and_what_is_undecided():
    rows = curve([1.0, 0.9, 0.1, 0.0]) + curve([1.0, 1.0, 0.9, 0.1], kind="haar")
    rows += curve([0.9, 0.1, 0.0, 0.0], structure="kronecker")
    rows += curve([0.1, 0.0, 0.0], structure="kronecker", kind="haar")
    rows += curve([0.4, 0.0], structure="kronecker", packing="column")
    text = verdict(pd.DataFrame(rows), Config(**{**vars(TINY), "packings": ("random", "column")}))
    assert text.startswith(
        "At (m, n, a, b) = (10, 8, 5, 6), with ρ = s/(ab) for s nonzero entries, "
    )
    assert "at ρ = 0.250 [" in text
    assert "from 0.250, gaussian, to 0.350, haar), where the weak threshold is 0.326" in text
    assert "Kronecker ones at ρ = 0.150 [" in text
    assert "(gaussian; below 0.100, haar)." in text
    assert "in one column at ρ below 0.100 (gaussian)." in text
    assert text.endswith("Of 340 trials 17 are undecided and count as failures.")


def test_an_interval_that_few_trials_do_not_bound_has_no_minus_sign():
    rows = [
        {**row, "trials": 2, "draws": 1, "successes_by_draw": f"[{2 - place}]"}
        for place, row in enumerate(curve([1.0, 0.5, 0.0]))
    ]
    text = verdict(pd.DataFrame(rows), TINY)
    assert "at ρ = 0.200 [0.000, ∞] (gaussian)" in text


# The command --------------------------------------------------------------------------------------


def test_the_command_writes_a_table_that_its_figure_reads(
    table, folder, tmp_path, capsys, monkeypatch
):
    """From a file of the settings whose cells are finished: none is computed again."""
    path = tmp_path / "tiny.toml"
    path.write_text(TOML)
    out = tmp_path / "out"
    shutil.copytree(folder, out / "cells")
    monkeypatch.setattr(phase_transition, "compute", None)
    assert main(["--config", str(path), "--out", str(out), "--jobs", "1"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith(
        "At (m, n, a, b) = (10, 8, 5, 6), with ρ = s/(ab) for s nonzero entries, "
    )
    stored = pd.read_parquet(out / "phase_transition.parquet")
    pd.testing.assert_frame_equal(stored, table)
    assert second.startswith(f"{len(stored)} rows are in")
    monkeypatch.setattr(sys, "argv", ["x", str(out), "--out", str(tmp_path / "figures")])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module("figures.phase_transition", run_name="__main__")
    assert ended.value.code == 0
    written = tmp_path / "figures" / "phase_transition.png"
    assert written.read_bytes().startswith(b"\x89PNG")
