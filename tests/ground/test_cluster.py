"""On a Dask cluster: the same results, files read and written here alone, clear refusals."""

import dataclasses
import sys
import threading

import pandas as pd
import pytest
from distributed import LocalCluster

from cosa_theory.ground import cluster
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.workers import map_cells
from cosa_theory.studies.spectrum.pair import survey_pair
from tests.ground.cells import cells
from tests.ground.test_sweep import numbers, run, wait_for
from tests.studies.spectrum.test_pair import QUICK, TABLES, layer


@pytest.fixture(scope="module")
def address():
    """The scheduler of two workers, each a process."""
    before = threading.active_count()
    with LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, scheduler_port=0
    ) as local:
        yield local.scheduler_address
    wait_for(lambda: threading.active_count() <= before + 1)  # Dask keeps one idle daemon


def test_a_sweep_is_the_same_table(address, tmp_path):
    table = run(cells(4), tmp_path / "here")
    pd.testing.assert_frame_equal(
        numbers(run(cells(4), tmp_path / "there", dask=address)), numbers(table)
    )
    with pytest.raises(RuntimeError, match="no luck with 3"):
        run(cells(4, act="raise"), tmp_path / "c", dask=address)


def test_a_sweep_has_its_time_limit(address, tmp_path):
    late = run(cells(3, act="hang"), tmp_path, dask=address, timeout=0.5)
    assert late["status"].tolist().count("timed out") == 1


def test_a_survey_is_the_same_and_its_cells_are_here(address, tmp_path):
    layers = [layer(f"enc.layer.{i}.q.weight", seed=i) for i in range(3)]
    one = survey_pair(layers, **QUICK)
    many = survey_pair(layers, **QUICK, dask=address, cells=tmp_path)
    for table in TABLES:
        pd.testing.assert_frame_equal(getattr(one, table), getattr(many, table))
    assert len(list(tmp_path.iterdir())) == 3


@dataclasses.dataclass(frozen=True)
class Item:
    """What a worker is sent."""

    number: int


def square(item):
    if item.number == 7:
        raise InputError("item 7 is bad")
    return {"square": item.number**2}


def test_no_more_items_are_read_than_there_are_workers(address):
    read, finished = [], []

    def items(count):
        for number in range(count):
            assert number - len(finished) < 2, "more in flight than workers"
            read.append(number)
            yield Item(number)

    def advance(done, result):
        finished.append(done)

    settings = {"identity": lambda item: ({}, []), "dask": address, "advance": advance}
    assert map_cells(square, items(5), **settings) == [{"square": n**2} for n in range(5)]
    assert read == list(range(5))
    with pytest.raises(InputError, match="item 7"):
        map_cells(square, [Item(7)], **settings)


def test_a_worker_of_another_version_is_refused(monkeypatch, tmp_path):
    with LocalCluster(
        n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None
    ) as local:
        answers = iter(["cosa-theory 1", "cosa-theory 2"])
        monkeypatch.setattr(cluster, "worker_version", lambda: next(answers))
        with pytest.raises(InputError, match="has 'cosa-theory 2' where this process has"):
            run(cells(2), tmp_path, dask=local.scheduler_address)


def test_an_address_without_a_scheduler_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    with pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9: "):
        run(cells(2), tmp_path, dask="tcp://127.0.0.1:9")
    with pytest.raises(InputError, match="no Dask scheduler answers at nowhere"):
        run(cells(2), tmp_path, dask="nowhere")


def test_a_cluster_without_workers_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(cluster, "_PATIENCE", 0.5)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=None) as local,
        pytest.raises(InputError, match="has no worker: start some with `dask worker"),
    ):
        run(cells(2), tmp_path, dask=local.scheduler_address)


def test_missing_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(InputError, match=r"install cosa-theory\[cluster\]"):
        run(cells(2), tmp_path, dask="tcp://127.0.0.1:9")
