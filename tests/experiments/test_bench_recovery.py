"""The benchmark times solvers that solve the same problem to the same accuracy."""

import json
import tracemalloc

import numpy as np
import pandas as pd
import pytest

from cosa_theory.ground.errors import InputError
from experiments import bench_recovery, rivals
from experiments.bench_recovery import ACCURACY, Problem, measure, posed, solvers
from experiments.rivals import RIVALS, Attempt, fastest

EASY = Problem(20, 24, 14, 16, 4)
NOISY = Problem(20, 24, 14, 16, 4, noise=0.05)


@pytest.fixture(autouse=True)
def once(monkeypatch):
    """Time a solver once and give up early: how many seconds it takes is no matter here."""
    monkeypatch.setattr(bench_recovery, "_ENOUGH", 0.0)
    monkeypatch.setattr(rivals, "_PATIENCE", 3000)


@pytest.fixture(scope="module")
def tasks():
    return {"easy": posed(EASY), "noisy": posed(NOISY)}


def test_without_noise_the_truth_counts_and_with_noise_the_minimiser_of_the_lasso(tasks):
    easy, noisy = tasks["easy"], tasks["noisy"]
    np.testing.assert_allclose(easy.operator @ easy.target, easy.y, atol=1e-12)
    assert np.count_nonzero(easy.target) == easy.sparsity == 4
    assert (easy.lam, easy.sigma) == (0.0, 0.0)
    correlations = noisy.operator.T @ (noisy.y - noisy.operator @ noisy.target)
    assert np.abs(correlations).max() <= noisy.lam * (1 + 1e-6)
    active = noisy.target != 0
    np.testing.assert_allclose(
        correlations[active], noisy.lam * np.sign(noisy.target[active]), rtol=1e-5
    )
    assert noisy.sigma == pytest.approx(np.linalg.norm(noisy.operator @ noisy.target - noisy.y))


@pytest.mark.parametrize("solver", [*solvers(EASY)])
def test_every_solver_reaches_the_accuracy_on_an_easy_problem(solver):
    row = measure(EASY, solver)
    assert row["status"] == "reached"
    assert row["error"] <= ACCURACY
    assert row["seconds"] > 0


@pytest.mark.parametrize("solver", ["fista", "bpdn", "spgl1", "PyLops FISTA", "celer"])
def test_every_kind_of_solver_reaches_the_accuracy_with_noise(solver):
    row = measure(NOISY, solver)
    assert row["status"] == "reached"
    assert row["error"] <= ACCURACY


def test_the_fastest_attempt_is_chosen_among_those_that_reach_the_accuracy(tasks):
    task = tasks["easy"]
    calls = []

    def slow():
        calls.append("slow")
        return sum(task.target for _ in range(20_000)) / 20_000

    good = Attempt("good", lambda: task.target)
    wrong = Attempt("wrong", lambda: np.zeros_like(task.target))
    assert fastest(task, [Attempt("slow", slow), good, wrong]) is good
    assert calls == ["slow"]
    assert fastest(task, [wrong]) is None


def test_a_solver_that_does_not_get_there_is_listed_without_a_time(monkeypatch):
    hopeless = {"hopeless": lambda task: [Attempt("zero", lambda: np.zeros_like(task.target))]}
    monkeypatch.setattr(bench_recovery, "solvers", lambda case: hopeless)
    assert measure(EASY, "hopeless") == {"status": "does not reach 0.0001"}


def test_processes_of_their_own_give_a_row_each_and_the_verdict_compares_like_with_like():
    names = ["omp", "scikit-learn OMP"]
    table = bench_recovery.run({"easy": EASY}, names, rounds=1)
    assert sorted(table["solver"]) == sorted(names)
    assert (table["error"] <= ACCURACY).all()
    convex = table.assign(solver=["fista", "spgl1"], seconds=[0.5, 2.0])
    text = bench_recovery.verdict(pd.concat([table, convex]))
    omp, other = table.set_index("solver")["seconds"][names]
    assert text == (
        f"easy: fista 4 times as fast as spgl1, omp {other / omp:.3g} times as fast as "
        "scikit-learn OMP."
    )


def test_a_solver_that_takes_too_long_is_given_up_and_a_failure_is_named():
    table = bench_recovery.run({"easy": EASY}, ["fista"], rounds=1, limit=0.05)
    assert table["status"][0] == "more than 0.05 s, pilot runs included"
    assert bench_recovery.verdict(table) == "easy: no ratios."
    broken = bench_recovery._apart(["--measure", json.dumps({"m": 0}), "fista"], 60.0)
    assert broken["status"].startswith("failed: TypeError")


def test_with_noise_there_is_no_greedy_solver_and_no_whitening():
    assert set(solvers(EASY)) - set(solvers(NOISY)) == {
        *("basis_pursuit", "omp", "PyLops OMP", "PyLops OMP, our operator"),
        *("scikit-learn OMP", "spgl1, whitened rows"),
    }


def test_matrices_too_large_to_form_rule_out_the_solvers_that_need_them():
    large = solvers(bench_recovery.PROBLEMS["large"])
    assert set(RIVALS) - set(large) == {"scikit-learn OMP", "celer", "cvxpy"}


def test_a_layer_is_timed_against_the_products_it_must_do():
    row = bench_recovery.layer(96, 128, 40, 32, iterations=30)
    assert row["iterations"] <= 30
    assert row["ratio"] > 0.5
    assert 2 < row["arrays"] < 40  # small arrays: overheads count
    assert not tracemalloc.is_tracing(), "or all that follows would be many times slower"


def test_no_rounds_and_no_time_are_refused(capsys):
    for bad in (["--rounds", "0"], ["--limit", "0"]):
        with pytest.raises(SystemExit):
            bench_recovery.main(bad)
        assert "--rounds must be at least 1, and --limit a positive" in capsys.readouterr().err


def test_a_size_without_a_layer_is_refused(capsys):
    with pytest.raises(SystemExit):
        bench_recovery.main(["--size", "96", "128", "40", "32"])
    assert "--size is that of --layer" in capsys.readouterr().err


def test_what_a_single_layer_does_not_take_is_refused_beside_it(capsys):
    with pytest.raises(SystemExit):
        bench_recovery.main(["--layer", "--cases", "large"])
    assert "--layer solves one problem, and takes no --cases" in capsys.readouterr().err


def test_solvers_that_suit_none_of_the_problems_are_named():
    with pytest.raises(InputError, match="none of the solvers omp suits noisy"):
        bench_recovery.run({"noisy": NOISY}, ["omp"])


def test_where_no_solver_reaches_the_accuracy_the_table_has_its_columns_all_the_same(monkeypatch):
    monkeypatch.setattr(bench_recovery, "_apart", lambda *_: {"status": "failed: why"})
    table = bench_recovery.run({"easy": EASY}, ["omp"], rounds=1)
    assert table[["seconds", "error", "settings"]].isna().all(axis=None)
    assert bench_recovery.verdict(table) == "easy: no ratios."
