"""What is trained follows from what is finished, and two processes share it."""

import dataclasses
import math

import numpy as np
import pytest

from experiments.subspace import job as module
from experiments.subspace.arms import ARMS
from experiments.subspace.job import Job, work
from experiments.subspace.study import Setting, read_study

ARM = "cosa_gaussian"


@pytest.fixture
def study():
    tasks = {"r8": Setting(steps=10), "functions": Setting("smollm2", "functions", 4, seeds=2)}
    tasks = {
        name: dataclasses.replace(one, arms=("lora", "cosa_gaussian", "cosa_activation"))
        for name, one in tasks.items()
    }
    return dataclasses.replace(read_study(), tasks=tasks, crossed={**_CROSSED, "seeds": 2})


_CROSSED = {"task": "r8", "arm": ARM}


def pretended(best=0, spread=0.001):
    """A training whose loss is least at a rate so many quarters from its arm's guess."""

    def train(cell, runs):
        centre = ARMS[cell.arm].centres[cell.model == "smollm2"]
        noise = spread * np.random.default_rng(cell.seed + 7 * len(cell.arm)).standard_normal()
        return {"loss": abs(cell.quarter - centre - best) + noise, "accuracy": 0.5}

    return train


def test_a_grid_of_rates_grows_until_the_best_is_inside(study, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", pretended(best=3))
    job = Job(study, tmp_path / "cells", ("r8",), (ARM,))
    work(job)
    cells, best = job.tuning("r8", ARM)
    centre = ARMS[ARM].centres[0]
    assert best == centre + 3
    assert [cell.quarter - centre for cell in cells] == [-1, 0, 1, 2, 3, 4]
    assert {cell.seed for cell in cells} == {study.tuning_seeds[0]}
    assert {(cell.part, cell.steps) for cell in cells} == {("validation", 5)}


@pytest.mark.parametrize(("spread", "seeds"), [(0.001, 2), (1.0, 3)])
def test_the_pilot_gives_the_seeds_within_what_was_stated(
    study, tmp_path, monkeypatch, spread, seeds
):
    monkeypatch.setattr(module, "train", pretended(spread=spread))
    study = dataclasses.replace(study, least=2, most=3)
    job = Job(study, tmp_path / "cells", ("r8",))
    assert job.seeds("r8") == 0
    work(job)
    assert job.seeds("r8") == seeds
    tested = job.tested("r8")
    assert len(tested) == 3 * seeds
    assert not {cell.seed for cell in tested} & set(study.tuning_seeds)
    assert all(len(job.finished([cell])) for cell in job.cells())
    assert {(cell.draw, cell.seed) for cell in job.crossed()} == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_what_another_process_trains_is_left_to_it(study, tmp_path, monkeypatch):
    seen = []

    def train(cell, runs):
        seen.append(cell)
        return {"loss": 1.0 if cell.quarter == ARMS[cell.arm].centres[0] else 2.0, "accuracy": 0.5}

    monkeypatch.setattr(module, "train", train)
    job = Job(study, tmp_path / "cells", ("r8",), (ARM,))
    first = job.cells()[0]

    def waited(seconds):
        raise TimeoutError

    monkeypatch.setattr(module.time, "sleep", waited)
    with module._claimed(job.claim(first)) as mine:
        assert mine
        with pytest.raises(TimeoutError):
            work(job)
    assert first not in seen
    assert len(seen) == 2
    work(job)
    assert first in seen
    assert len(seen) == len(set(seen))


def test_a_training_that_fails_does_not_stop_the_others(study, tmp_path, monkeypatch, capsys):
    def train(cell, runs):
        if cell.quarter < ARMS[cell.arm].centres[0]:
            raise ValueError("no such thing")
        return {"loss": float(cell.quarter), "accuracy": 0.5}

    monkeypatch.setattr(module, "train", train)
    job = Job(study, tmp_path / "cells", ("r8",), (ARM,))
    with pytest.raises(RuntimeError, match="1 trainings failed"):
        work(job)
    assert len(job.finished(job.cells())) == 2
    assert "no such thing" in capsys.readouterr().err


def test_no_training_begins_after_the_time(study, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "train", pretended())
    job = Job(study, tmp_path / "cells")
    work(job, until=-math.inf)
    assert not len(job.finished(job.cells()))
