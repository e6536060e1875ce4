"""Sweeps: the same table however it is made, nothing computed twice, nothing lost."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cosa_theory.ground.cells import cell_name
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.stoppable import call_within, stop_idle
from cosa_theory.ground.sweep import run_cells
from tests.ground.cells import Cell, cells, compute, sweep

ROOT = Path(__file__).resolve().parent.parent.parent


def run(todo, folder, **settings):
    given = {"name": "cells", "version": 1, "jobs": 1, "progress": False, **settings}
    return run_cells(compute, todo, folder=folder, **given)


def numbers(table):
    return table.drop(columns="seconds")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return run(cells(6), tmp_path_factory.mktemp("plain"))


# The table -------------------------------------------------------------------------------------


def test_a_table_has_the_settings_the_results_and_where_they_come_from(plain):
    assert list(plain.columns) == [
        *("number", "act", "log", "seed", "draw", "place", "note"),
        *("status", "seconds", "library_version", "code_version", "cell"),
    ]
    assert plain["number"].tolist() == [number for number in range(6) for _ in range(2)]
    expected = [row["draw"] for cell in cells(6) for row in compute(cell)]
    assert plain["draw"].tolist() == expected, "not a digit is lost on the way through a file"
    assert set(plain["status"]) == {"done"}
    assert plain["cell"].nunique() == 6


def test_two_jobs_give_the_table_of_one(plain, tmp_path):
    pd.testing.assert_frame_equal(numbers(run(cells(6), tmp_path, jobs=2)), numbers(plain))


def test_the_order_of_the_cells_is_the_order_of_the_table(plain, tmp_path):
    backwards = run(cells(6)[::-1], tmp_path, jobs=2)
    assert backwards["number"].tolist() == plain["number"].tolist()[::-1]


def test_linear_algebra_in_a_cell_runs_on_one_thread(tmp_path):
    from threadpoolctl import threadpool_info, threadpool_limits

    def count(cell):
        return {"threads": max(pool["num_threads"] for pool in threadpool_info())}

    with threadpool_limits(2):
        table = run_cells(
            count, cells(1), name="threads", version=1, folder=tmp_path, jobs=1, progress=False
        )
    assert table["threads"].tolist() == [1]


def test_numpy_numbers_and_lists_survive_and_other_things_are_refused(tmp_path):
    def odd(cell):
        values = {"f": np.float32(0.5), "i": np.int64(3), "t": (1, 2), "x": float("nan")}
        return values if cell.number == 0 else {"what": object()}

    settings = {"name": "odd", "version": 1, "folder": tmp_path, "jobs": 1}
    (row,) = run_cells(odd, cells(1), **settings).to_dict(orient="records")
    assert (row["f"], row["i"], row["t"]) == (0.5, 3, [1, 2])
    assert np.isnan(row["x"])
    with pytest.raises(RuntimeError, match="holds <object object"):
        run_cells(odd, cells(2), **settings)


def test_a_result_cannot_hide_a_setting(tmp_path):
    def clash(cell):
        return {"seed": 1}

    with pytest.raises(RuntimeError, match="column 'seed' has a taken name"):
        run_cells(clash, cells(1), name="clash", version=1, folder=tmp_path, jobs=1)


# Files -----------------------------------------------------------------------------------------


def test_a_finished_cell_is_not_computed_again(tmp_path):
    log = tmp_path / "log"
    todo = cells(4, log=str(log))
    first = run(todo, tmp_path / "cells")
    again = run(todo, tmp_path / "cells")
    pd.testing.assert_frame_equal(again, first)  # seconds too: they come from the files
    run(cells(5, log=str(log)), tmp_path / "cells")
    assert log.read_text().split() == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"name": "other"}, {"library": "9.9"}, {"cells": cells(3, seed=1)}],
    ids=lambda change: next(iter(change)),
)
def test_what_decides_the_numbers_decides_the_files(change, tmp_path, monkeypatch):
    run(cells(3), tmp_path)
    library = change.pop("library", None)
    if library:
        monkeypatch.setattr("cosa_theory.ground.sweep.metadata.version", lambda package: library)
    run(change.pop("cells", cells(3)), tmp_path, **change)
    assert len(list(tmp_path.iterdir())) == 6


def test_the_name_of_a_cell_is_the_hash_of_its_canonical_json():
    # printf '{"a":1,"b":[2,"x"]}' | sha256sum
    expected = "454597f51f0e5988dd7d0864f82e826d91fd43ed815a21bb06cd7181e8547a2f"
    assert cell_name({"b": (2, "x"), "a": 1}) == cell_name({"a": 1, "b": [2, "x"]})
    assert cell_name({"b": (2, "x"), "a": 1}) == expected


def half(text):
    return text[: len(text) // 2]


def one_digit_changed(text):
    head, _, tail = text.partition('"draw": ')
    digit = "1" if tail[3] != "1" else "2"
    return f'{head}"draw": {tail[:3]}{digit}{tail[4:]}'


@pytest.mark.parametrize("damage", [half, one_digit_changed, lambda text: "", lambda text: "\n\n"])
def test_a_damaged_file_is_computed_again_and_mended(damage, tmp_path):
    log = tmp_path / "log"
    todo = cells(3, log=str(log))
    table = run(todo, tmp_path / "cells")
    paths = sorted((tmp_path / "cells").iterdir())
    whole = paths[1].read_text()
    paths[1].write_text(damage(whole))
    assert paths[1].read_text() != whole
    pd.testing.assert_frame_equal(numbers(run(todo, tmp_path / "cells")), numbers(table))
    assert len(log.read_text().split()) == 4
    run(todo, tmp_path / "cells")
    assert len(log.read_text().split()) == 4


def wait_for(condition, seconds=30.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.02)


def started_sweep(folder, log, jobs):
    """Start a sweep of 14 naps in a process group of its own, and wait for four files."""
    command = [sys.executable, "-m", "tests.ground.cells", str(folder), str(log), str(jobs)]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    wait_for(lambda: len(list(folder.glob("[!.]*.json"))) >= 4 if folder.exists() else False)
    return process


def test_nothing_finished_is_computed_again_after_a_kill(tmp_path):
    folder, log = tmp_path / "cells", tmp_path / "log"
    process = started_sweep(folder, log, 1)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    kept = len(list(folder.glob("[!.]*.json")))
    assert 4 <= kept < 14
    before = log.read_text().split()
    table = sweep(folder, log, jobs=1)
    recomputed = log.read_text().split()[len(before) :]
    assert len(recomputed) == 14 - kept
    assert len(table) == 28
    sweep(folder, log, jobs=1)
    assert len(log.read_text().split()) == len(before) + 14 - kept


def test_an_interruption_says_how_to_go_on(tmp_path):
    process = started_sweep(tmp_path / "cells", tmp_path / "log", 2)
    os.killpg(process.pid, signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130
    kept = len(list((tmp_path / "cells").glob("[!.]*.json")))
    assert f"interrupted: {kept} of 14 cells are finished and kept in" in error
    assert "the same command goes on from there" in error


# Failures and limits ---------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_cell_that_raises_loses_no_other(jobs, tmp_path):
    log = tmp_path / "log"
    todo = cells(6, act="raise", log=str(log))
    with pytest.raises(RuntimeError) as failed:
        run(todo, tmp_path / "cells", jobs=jobs)
    first, one, three = str(failed.value).splitlines()
    assert first == "2 of 6 cells failed; the others are finished and kept"
    assert one.startswith("Cell(number=1,")
    assert three.endswith("ValueError: no luck with 3")
    assert "in compute" in failed.value.__notes__[0]
    assert len(list((tmp_path / "cells").iterdir())) == 4
    with pytest.raises(RuntimeError, match="2 of 6 cells failed"):
        run(todo, tmp_path / "cells")
    assert len(log.read_text().split()) == 6 + 2


def test_a_cell_over_its_limit_is_recorded_and_its_process_is_gone(tmp_path):
    todo = cells(4, act="hang")
    started = time.monotonic()
    table = run(todo, tmp_path, jobs=2, timeout=0.5)
    assert time.monotonic() - started < 20
    assert table["number"].tolist() == [0, 0, 1, 1, 2, 3, 3]
    late = table[table["status"] == "timed out"]
    assert late["number"].tolist() == [2]
    assert late["seconds"].tolist() == [0.5]
    assert late["draw"].isna().all()
    # Known to take longer than 0.5 s: not tried again with less, but with more.
    started = time.monotonic()
    pd.testing.assert_frame_equal(run(todo, tmp_path, timeout=0.3), table)
    assert time.monotonic() - started < 0.3
    assert 0.7 in set(run(todo, tmp_path, timeout=0.7)["seconds"])


def test_the_limit_does_not_change_the_numbers(plain, tmp_path):
    pd.testing.assert_frame_equal(numbers(run(cells(6), tmp_path, timeout=60)), numbers(plain))


def test_with_a_limit_a_dying_process_costs_its_cell_alone(tmp_path):
    with pytest.raises(RuntimeError) as failed:
        run(cells(4, act="die"), tmp_path, timeout=30)
    first, problem = str(failed.value).splitlines()
    assert first.startswith("1 of 4 cells failed")
    assert problem.endswith("its process ended by itself, with signal 9")


def test_a_worker_that_dies_is_reported_with_what_is_kept(tmp_path):
    with pytest.raises(RuntimeError, match=r"a worker process ended by itself .* of 4 cells"):
        run(cells(4, act="die"), tmp_path, jobs=2)


# What is called below is Python's own, so that the processes load nothing else.
SPIN = sum, range(10**12)  # stays in compiled code that no handler of Python's interrupts


def test_a_stopped_call_leaves_no_process_and_the_next_one_gets_another():
    first = call_within(30.0, os.getpid)
    assert call_within(30.0, os.getpid) == first != os.getpid()
    with pytest.raises(TimeoutError, match=r"stopped after 0.2 s"):
        call_within(0.2, *SPIN)
    with pytest.raises(ProcessLookupError):
        os.kill(first, 0)
    second = call_within(30.0, os.getpid)
    assert second != first
    stop_idle()
    with pytest.raises(ProcessLookupError):
        os.kill(second, 0)


def test_the_limit_rings_even_if_nobody_waits_any_more():
    """The alarm is the child's own: a killed worker leaves no process that spins for ever."""
    code = (
        "import os, threading, time\n"
        "from cosa_theory.ground.stoppable import call_within\n"
        "print(call_within(30.0, os.getpid), flush=True)\n"
        "threading.Timer(0.5, os._exit, (1,)).start()\n"
        "call_within(1.5, sum, range(10**12))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr

    def gone():
        try:
            os.kill(int(done.stdout), 0)
        except ProcessLookupError:
            return True
        return False

    wait_for(gone, 10.0)


def test_what_a_stopped_call_raises_comes_back():
    with pytest.raises(RuntimeError, match="no luck with 1"):
        call_within(30.0, compute, Cell(1, act="raise"))
    assert len(call_within(30.0, compute, Cell(1))) == 2
    stop_idle()


def test_importing_sweeps_does_not_load_what_workers_do_not_need():
    late = {"dask", "distributed", "pandas", "rich"}
    code = f"import sys, cosa_theory.ground.sweep; assert not {late} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# Arguments -------------------------------------------------------------------------------------


def test_cells_must_be_different_frozen_dataclasses_of_plain_values(tmp_path):
    @dataclasses.dataclass
    class Melted:
        number: int = 0

    for todo, words in (
        ([Melted()], "must be a frozen dataclass"),
        ([{"number": 1}], "must be a frozen dataclass"),
        ([Cell(object())], "not a plain value"),
        ([Cell(float("nan"))], "not a plain value"),
    ):
        with pytest.raises(ValueError, match=words):
            run(todo, tmp_path)


def test_a_setting_that_is_named_twice_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"cells 0 and 2 are both Cell\(.*1.*: name each value"):
        run([Cell(1), Cell(2), Cell(1)], tmp_path)


@pytest.mark.parametrize(("name", "value"), [("jobs", 0), ("timeout", 0.0), ("timeout", -1.0)])
def test_settings_out_of_range_are_named(name, value, tmp_path):
    with pytest.raises(ValueError, match=f"^{name} is {value}"):
        run(cells(1), tmp_path, **{name: value})
