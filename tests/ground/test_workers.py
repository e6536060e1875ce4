"""Matrices are worked on several at a time, with the same results and bounded memory."""

import subprocess
import sys
import textwrap
import threading
import time

import pandas as pd
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.workers import map_unordered
from cosa_theory.studies.spectrum.pair import survey_pair
from tests.studies.spectrum.test_pair import QUICK, TABLES, layer


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_every_item_is_worked_on_once(workers):
    results = dict(map_unordered(lambda x: x * x, iter(range(20)), workers))
    assert results == {i: i * i for i in range(20)}


def test_items_are_read_only_while_a_worker_is_free():
    lock, alive, most = threading.Lock(), [0], [0]

    def items():
        for item in range(12):
            with lock:
                alive[0] += 1
                most[0] = max(most[0], alive[0])
            yield item

    def work(item):
        time.sleep(0.002 * (item % 3))
        with lock:
            alive[0] -= 1

    list(map_unordered(work, items(), 3))
    assert most[0] == 3


def test_two_workers_run_at_the_same_time():
    barrier = threading.Barrier(2, timeout=20)
    assert len(list(map_unordered(lambda _: barrier.wait(), range(4), 2))) == 4


@pytest.mark.parametrize("workers", [1, 2])
def test_linear_algebra_runs_on_one_thread_each(workers):
    def threads(_):
        return {library["num_threads"] for library in threadpool_info()}

    with threadpool_limits(2):  # not what the tests run with anyway
        for _, found in map_unordered(threads, range(3), workers):
            assert found == {1}


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_work_or_of_reading_reaches_the_caller(workers):
    def work(item):
        if item == 3:
            raise InputError("item 3 is bad")
        return item

    with pytest.raises(InputError, match="item 3"):
        list(map_unordered(work, range(6), workers))

    def items():
        yield 0
        raise InputError("cannot read item 1")

    with pytest.raises(InputError, match="cannot read"):
        list(map_unordered(work, items(), workers))


def test_an_abandoned_matrix_does_not_keep_the_process_alive():
    code = """
        import threading, time
        from cosa_theory.ground.workers import map_unordered
        started = threading.Event()
        def work(item):
            if item:
                started.set(); time.sleep(60)
            started.wait(); raise KeyboardInterrupt
        try:
            list(map_unordered(work, range(2), 2))
        except KeyboardInterrupt:
            print("interrupted")
    """
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, timeout=30
    )
    assert (run.returncode, run.stdout) == (0, "interrupted\n"), run.stderr


def test_a_survey_does_not_depend_on_the_number_of_workers():
    layers = [layer(f"enc.layer.{i}.q.weight", seed=i) for i in range(5)]
    told = []
    one = survey_pair(layers, **QUICK)
    many = survey_pair(layers, **QUICK, workers=3, progress=lambda *news: told.append(news))
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(one, table), getattr(many, table))
    assert [done for done, _, _ in told] == [1, 2, 3, 4, 5]
    assert {name for _, _, name in told} == {each.name for each in layers}
    with pytest.raises(ValueError, match="workers is 0"):
        survey_pair(layers, workers=0)


def test_spectra_on_a_torch_device_are_those_of_numpy():
    layers = [layer("q.weight"), layer("wide.weight", 6, 40)]
    one, other = survey_pair(layers, **QUICK), survey_pair(layers, **QUICK, device="cpu")
    pd.testing.assert_frame_equal(one.spectra, other.spectra, rtol=1e-9)


@pytest.mark.parametrize("device", ["cuda:99", "abacus"])
def test_a_device_that_is_not_there_is_refused_before_any_work(device):
    with pytest.raises(InputError, match=f"device is '{device}', which torch cannot use"):
        survey_pair([layer("q.weight")], **QUICK, device=device)
