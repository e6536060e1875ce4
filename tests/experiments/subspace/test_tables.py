"""Tables come from whatever is finished."""

import dataclasses
import shutil

import numpy as np
import pandas as pd
import pytest

from cosa_theory.ground.sweep import run_cells
from experiments.command import REFERENCE, write_reference
from experiments.subspace import __main__ as command
from experiments.subspace import job as module
from experiments.subspace.arms import ARMS
from experiments.subspace.job import MEASURED, VERSION, Job, work
from experiments.subspace.predictors import PREDICTORS
from experiments.subspace.study import STATED, Setting, read_study
from experiments.subspace.tables import TABLES, tables_of, verdict

EFFECTS = {
    "lora": 0.0,
    "cosa_gaussian": 0.1,
    "cosa_activation": 0.0,
    "cosa_haar": 0.1,
    "full": -0.3,
}


def pretended(cell, runs):
    """A training with a known effect of its arm, the language model's without accuracy."""
    decoder = cell.model == "smollm2"
    generator = np.random.default_rng([cell.seed, cell.draw, len(cell.arm)])
    loss = 1 + EFFECTS[cell.arm] + 0.002 * generator.standard_normal()
    loss += 0.1 * abs(cell.quarter - ARMS[cell.arm].centres[decoder])
    names = ("train_loss", "parameters", "step_seconds", "saved_bytes", "state_bytes")
    more = ("frozen_bytes", "adapter_bytes", "relative_norm", "stable_rank", "rank_90", "rank_99")
    found = dict.fromkeys((*names, *more), 2.0) | {"intruders": 0.0, "intruders_null": None}
    norms = (1 + 0.1 * generator.standard_normal(30)).tolist()
    items = {"item_sums": [loss] * 4, "item_weights": [1.0] * 4} if cell.part == "test" else {}
    accuracy = None if decoder else 0.9 - loss / 10
    return {"loss": loss, "accuracy": accuracy, "gradient_norms": norms, **found, **items}


@pytest.fixture(scope="module")
def job(tmp_path_factory):
    """A finished job of two and three seeds and five arms."""
    arms = tuple(EFFECTS)
    tasks = {
        "r8": Setting(steps=10, arms=arms),
        "functions": Setting("smollm2", "functions", 4, seeds=3, arms=("lora", "full")),
    }
    crossed = {"task": "r8", "arm": "cosa_gaussian", "seeds": 2}
    study = dataclasses.replace(
        read_study(), tasks=tasks, crossed=crossed, least=2, most=2, resamples=200
    )
    job = Job(study, tmp_path_factory.mktemp("subspace") / "cells")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "train", pretended)
        work(job)
    _, starts = job.measured("r8")
    run_cells(
        lambda cell: dict.fromkeys(PREDICTORS, EFFECTS[cell.arm]),
        starts,
        name=MEASURED,
        version=VERSION,
        folder=job.folder,
        jobs=1,
        progress=False,
    )
    return job


def test_every_table_has_what_is_finished(job):
    tables = tables_of(job)
    assert set(tables) == set(TABLES)
    assert all(len(table) for table in tables.values())
    arms = tables["arms"].set_index(["task", "arm"])
    assert len(arms) == len(EFFECTS) + 2
    assert set(arms["seeds"]) == {2, 3}
    assert arms.loc[("r8", "full"), "loss"] == pytest.approx(0.7, abs=0.01)
    assert np.isnan(arms.loc[("functions", "full"), "accuracy"])
    assert set(arms["memory"]) == {6.0}
    compared = tables["compared"].set_index(["task", "arm", "against"])
    assert compared.loc[("functions", "full", "lora"), "outcome"] == "better"
    assert compared.loc[("r8", "cosa_gaussian", "lora"), "difference"] == pytest.approx(
        0.1, abs=0.02
    )
    rates = tables["rates"]
    assert rates["chosen"].sum() == len(EFFECTS) + 2
    assert tables["pilot"]["seeds"].tolist() == [2]
    assert "r8: CoSA" in verdict(tables["compared"])


def test_arms_are_compared_when_all_their_seeds_are_there_and_not_before(job, tmp_path):
    folder = shutil.copytree(job.folder, tmp_path / "cells")
    parts = ('"task": "functions", "arm": "full"', '"seed": 1, "draw": 1, "part": "test"')
    for path in folder.glob("*.json"):
        text = path.read_text()
        if all(part in text for part in parts):
            path.unlink()
    tables = tables_of(dataclasses.replace(job, folder=folder, _chosen={}))
    assert tables["arms"].set_index(["task", "arm"])["seeds"]["functions", "full"] == 2
    assert set(tables["compared"]["task"]) == {"r8"}


def test_nothing_finished_is_said_and_stored(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command, "KEPT", tmp_path / "none")
    assert not any(len(table) for table in tables_of(Job(read_study(), tmp_path)).values())
    assert command.main(["--tables", "--out", str(tmp_path / "out")]) == 0
    assert "two seeds" in capsys.readouterr().out
    assert len(pd.read_parquet(tmp_path / "out" / "subspace.parquet")) == 0
    assert read_study(STATED).date


def test_the_committed_tables_follow_from_the_committed_trainings(tmp_path):
    command._copied(command.KEPT, tmp_path / "cells")
    tables = tables_of(Job(read_study(), tmp_path / "cells"))
    for name in ("arms", "compared", "steadiness", "rates", "judged"):
        stored = REFERENCE / f"subspace_{name}.csv"
        if not len(tables[name]):
            assert not stored.is_file()
            continue
        write_reference({"found": tables[name]}, tmp_path)
        found, committed = (pd.read_csv(at) for at in (tmp_path / "found.csv", stored))
        pd.testing.assert_frame_equal(found, committed, rtol=1e-3)
