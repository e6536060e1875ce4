"""The benchmark of the isometry constants measures what it names, the search far ahead."""

import sys

import numpy as np
import pytest

from cosa_theory.isometry import rip_exact
from experiments import bench_isometry

SMALL = {"rows": 30, "columns": 60, "rounds": 3, "drawn": 20_000, "matrices": 2}
LAYER = {"m": 48, "n": 40, "a": 12, "b": 8}


@pytest.fixture(scope="module")
def table():
    return bench_isometry.run(bench_isometry.Config(**SMALL, **LAYER, sdp_columns=0))


def test_the_plain_loop_bounds_both_eigenvalues_of_every_support():
    A = np.random.default_rng(0).standard_normal((6, 8)) / np.sqrt(6)
    constant, count = bench_isometry.plain_loop(A, 2, 0.2, seed=0)
    assert count > 28  # of so many supports all are drawn, many times over
    assert constant == pytest.approx(rip_exact(A, 2).value)


def test_candidates_are_bounded_at_least_eight_times_as_fast_as_by_the_loop(table):
    rows = table.set_index("quantity")
    drawn = rows.loc["random supports, order 4 of 60 columns"]
    search = rows.loc["search with swaps, order 4 of 60 columns"]
    assert drawn["ratio"] > 8
    assert search["ratio"] > 8
    loop = rows.loc["plain loop over eigvalsh, order 4 of 60 columns"]
    assert search["constant"] >= max(drawn["constant"], loop["constant"])


def test_the_search_finds_what_enumeration_finds(table):
    equal = table[table["quantity"].str.startswith("search equals enumeration")]
    assert len(equal) == 3
    assert (equal["value"] == 100).all()


def test_the_command_leads_with_its_verdict(monkeypatch, capsys):
    settings = {**SMALL, **LAYER, "rounds": 1, "sdp_columns": 0}
    arguments = [part for name, value in settings.items() for part in (f"--{name}", str(value))]
    monkeypatch.setattr(sys, "argv", ["bench_isometry", *arguments])
    bench_isometry.main()
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith("Against a plain loop over eigvalsh, random supports are bounded ")
