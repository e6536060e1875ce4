"""The end-to-end check: equal sizes, resumable trainings, scores of the right tokens."""

import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from experiments import finetune_check
from experiments.finetune.scoring import score
from experiments.finetune.tasks import TASKS
from experiments.finetune_check import GRID, PRESETS, Config, main, run
from experiments.finetune_check_results import (
    METHODS,
    best_rates,
    read_rates,
)
from tests.experiments.finetune_results import results
from tests.experiments.finetune_tiny import CELL, TinyTask, asked, load, train

NUMBERS = ["value", "low", "high", "train_loss"]


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """Every "decoder" of these tests is the tiny one; one thread."""
    monkeypatch.setitem(TASKS, "decoder", load)
    usual = torch.get_num_threads()
    torch.set_num_threads(1)
    asked.clear()
    yield
    torch.set_num_threads(usual)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Uninterrupted trainings by every method: folder and rows."""
    TASKS["decoder"], kept = load, TASKS["decoder"]
    out = tmp_path_factory.mktemp("whole")
    rows = {
        method: train(dataclasses.replace(CELL, method=method), out, checkpoint=100)
        for method in METHODS
    }
    TASKS["decoder"] = kept
    return out, rows


# Interruption ------------------------------------------------------------------------------------


def test_a_killed_training_goes_on_from_its_checkpoint_to_the_same_numbers(whole, tmp_path):
    out, rows = whole
    root = Path(finetune_check.__file__).parent.parent
    command = [sys.executable, "-m", "tests.experiments.finetune_tiny", str(tmp_path), "9"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    (state,) = tmp_path.glob("runs/*/checkpoint-6/trainer_state.json")
    # What a kill in the middle of writing leaves: a newer folder without the state.
    (state.parent.parent / "checkpoint-9").mkdir()
    row = train(CELL, tmp_path)
    assert row[NUMBERS].tolist() == rows["cosa"][NUMBERS].tolist()
    # One batch to count bytes, four for the steps that were left and one ahead, one to score.
    assert len(asked) == 7, "steps 1 to 6 are skipped, not trained again"
    name = "adapter_model.safetensors"
    resumed, uninterrupted = (load_file(path / row["adapter"] / name) for path in (tmp_path, out))
    assert resumed.keys() == uninterrupted.keys()
    assert all(torch.equal(resumed[key], uninterrupted[key]) for key in resumed)
    assert list(tmp_path.glob("runs/*")) == []


@pytest.mark.parametrize("method", ["full", "lora"])
def test_the_other_methods_resume_to_the_same_numbers_too(whole, tmp_path, monkeypatch, method):
    _, rows = whole
    cell = dataclasses.replace(CELL, method=method)

    class Stopped(TinyTask):
        def collate(self, examples):
            if len(asked) == 9:
                raise RuntimeError("stopped")
            return super().collate(examples)

    def loaded(*settings):
        task = load(*settings)
        return Stopped(*(getattr(task, field.name) for field in dataclasses.fields(task)))

    with monkeypatch.context() as patch:
        patch.setitem(TASKS, "decoder", loaded)
        with pytest.raises(RuntimeError, match="stopped"):
            train(cell, tmp_path)
    assert list(tmp_path.glob("runs/*/checkpoint-6"))
    assert train(cell, tmp_path)[NUMBERS].tolist() == rows[method][NUMBERS].tolist()


def test_a_finished_training_is_not_repeated(whole):
    out, rows = whole
    assert train(CELL, out, checkpoint=100)[NUMBERS].tolist() == rows["cosa"][NUMBERS].tolist()
    assert asked == []


def test_a_training_leaves_every_global_generator_and_the_threads_alone(tmp_path):
    random.seed(5), np.random.seed(5), torch.manual_seed(5)  # noqa: NPY002
    torch.set_num_threads(2)
    expected = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state()  # noqa: NPY002
    train(dataclasses.replace(CELL, steps=2), tmp_path)
    assert torch.get_num_threads() == 2
    assert random.getstate() == expected[0]
    assert np.random.get_state()[1].tolist() == expected[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), expected[2])


# What is trained ---------------------------------------------------------------------------------


def test_every_method_learns_and_its_row_says_what_it_cost(whole):
    out, rows = whole
    before = score(load(out, 12, 6), load(out, 12, 6).model(), load(out, 12, 6).test).value
    for method, row in rows.items():
        assert row["metric"] == "loss"
        assert row["low"] <= row["value"] <= row["high"]
        assert row["value"] < before, method
        assert row["state_bytes"] == 12 * row["trainable_parameters"]
        assert row["seconds_per_step"] > 0
        assert row["saved_bytes"] > 0
        if method == "full":
            assert row["adapter"] is None
            assert row["frozen_bytes"] == 0
            assert row["adapter_bytes"] == 4 * row["trainable_parameters"]
        else:
            size = (out / row["adapter"] / "adapter_model.safetensors").stat().st_size
            assert row["adapter_bytes"] == size > 4 * row["trainable_parameters"]
            assert (row["frozen_bytes"] > 0) == method.startswith("cosa")


@pytest.mark.parametrize("method", ["lora", "cosa", "cosa_haar", "cosa_released"])
def test_a_trained_adapter_opens_as_an_update_of_its_base(whole, tmp_path, method):
    out, rows = whole
    task = load(tmp_path, 12, 6)
    task.model().save_pretrained(task.base)
    layers = {layer.name: layer for layer in open_pair(task.base, out / rows[method]["adapter"])}
    assert len(layers) == 14
    assert all(np.linalg.norm(layer.delta) > 0 for layer in layers.values())


def test_the_seed_decides_the_result_and_a_head_is_equal_for_all_methods(whole, tmp_path):
    _, rows = whole
    other = train(dataclasses.replace(CELL, seed=4), tmp_path)
    assert other["value"] != rows["cosa"]["value"]


# Results -----------------------------------------------------------------------------------------


def test_stored_results_without_the_outcomes_of_items_are_refused(tmp_path):
    old = results({"lora": [0.9], "cosa": [0.9]}).drop(columns=["item_sums", "item_weights"])
    finetune_check.store(old.assign(status="done"), pd.DataFrame(), TINY, tmp_path)
    with pytest.raises(InputError, match=r"finetune_check\.parquet is of an older version.*again"):
        finetune_check.stored_or_short(tmp_path)


def test_the_stored_grid_is_that_of_the_quick_settings():
    grid, quick = read_rates(), PRESETS["quick"]
    planned = finetune_check.grid_cells(dataclasses.replace(quick, methods=tuple(METHODS)))
    for row in grid.to_dict(orient="records"):
        names = ("part", "seed", "rank", "steps", "batch", "tokens", "blocks", "items")
        alike = [
            cell
            for cell in planned
            if (cell.model, cell.method) == (row["model"], row["method"])
            and cell.learning_rate == row["learning_rate"]
        ]
        assert [row[name] for name in names] == [getattr(alike[0], name) for name in names]
    tried = {key: set(part.learning_rate) for key, part in grid.groupby(["model", "method"])}
    for key in [(model, method) for model in quick.models for method in quick.methods]:
        assert tried[key] == set(GRID[key])


def test_the_short_run_is_part_of_the_quick_one():
    grid = read_rates()
    quick = finetune_check.test_cells(PRESETS["quick"], grid)
    short = finetune_check.test_cells(PRESETS["short"], grid)
    assert set(short) < set(quick)
    assert {cell.seed for cell in short if cell.method == "cosa"} == {0, 1, 2}


# The command -------------------------------------------------------------------------------------

TINY = Config(
    models=("decoder",),
    methods=("lora", "cosa"),
    tune=True,
    rank=2,
    decoder_steps=4,
    decoder_tokens=12,
    decoder_blocks=0,
    decoder_items=6,
    seeds=2,
    threads=1,
)


def test_the_command_tunes_trains_and_stores_and_a_second_run_trains_nothing(
    tmp_path, capsys, monkeypatch
):
    rates = {("decoder", "lora"): (1e-3, 1e-2), ("decoder", "cosa"): (1e-3, 1e-1)}
    monkeypatch.setattr(finetune_check, "GRID", rates)
    monkeypatch.setitem(PRESETS, "quick", TINY)
    assert main(["--jobs", "1", "--out", str(tmp_path)]) == 0
    first = capsys.readouterr()
    assert first.out.startswith("With as many trainable parameters as LoRA of rank 2 has")
    table = pd.read_parquet(tmp_path / "finetune_check.parquet")
    assert table["method"].tolist() == ["start", "lora", "lora", "cosa", "cosa"]
    assert table["seed"].tolist() == [0, 0, 1, 0, 1]
    assert (table["before"] == table["value"].iloc[0]).all()
    grid = pd.read_parquet(tmp_path / "finetune_check_grid.parquet")
    assert set(grid["part"]) == {"validation"}
    best = best_rates(grid).set_index("method")["learning_rate"]
    assert set(table.loc[table.method == "cosa", "learning_rate"]) == {best["cosa"]}
    stored = json.loads((tmp_path / "finetune_check.json").read_text())
    assert stored["verdict"] == first.out.splitlines()[0]
    assert stored["provenance"]["arguments"]["decoder_steps"] == 4
    adapters = {path.name for path in (tmp_path / "adapters").iterdir()}
    assert adapters == {f"decoder-{name}-{seed}" for name in ("lora", "cosa") for seed in (0, 1)}
    asked.clear()
    assert main(["--jobs", "1", "--out", str(tmp_path)]) == 0
    assert asked == []
    assert capsys.readouterr().out == first.out


def test_without_a_stored_result_the_short_run_is_made_once_and_said_so(
    tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(finetune_check, "GRID", {("decoder", name): (1e-2,) for name in METHODS})
    monkeypatch.setitem(PRESETS, "short", dataclasses.replace(TINY, seeds=1))
    first = finetune_check.stored_or_short(tmp_path, seed=5, jobs=1)
    assert "making a short one" in capsys.readouterr().err
    assert set(first["seed"]) == {5}
    second = finetune_check.stored_or_short(tmp_path, seed=6, jobs=1)
    assert capsys.readouterr().err == ""
    assert second["value"].tolist() == first["value"].tolist()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": ("encodr",)}, "models is 'encodr': it must be one of encoder, decoder"),
        ({"methods": ("lora", "dora")}, "methods is 'dora': it must be one of full, lora, cosa"),
        ({"methods": ()}, "at least one name, and each once"),
        ({"methods": ("cosa", "cosa")}, "each once"),
        ({"methods": ("cosa",)}, "repeated is 'lora': it must be one of cosa"),
        ({"decoder_steps": 0}, "decoder_steps is 0: it must be"),
        ({"encoder_blocks": -1}, "encoder_blocks is -1: it must be"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_bad_setting_is_named_with_its_value(changes, words):
    with pytest.raises(ValueError, match=words):
        Config(**changes)


def test_where_only_the_untrained_model_was_scored_in_time_the_limit_is_named(
    monkeypatch, tmp_path
):
    table = pd.DataFrame({"model": "encoder", "method": ["start", "lora"], "value": [0.1, np.nan]})
    table["status"] = ["done", "timed out"]
    monkeypatch.setattr(finetune_check, "run_cells", lambda *_, **__: table)
    with pytest.raises(InputError, match=r"no training was finished within 20 s: raise --timeout"):
        run(PRESETS["short"], tmp_path, timeout=20.0)


def test_a_method_without_a_stored_rate_is_refused_before_anything_is_trained(
    tmp_path, monkeypatch
):
    grid = read_rates()
    monkeypatch.setattr(finetune_check, "read_rates", lambda: grid[grid["method"] != "cosa"])
    config = dataclasses.replace(TINY, tune=False)
    with pytest.raises(InputError, match="no learning rate is known for cosa on the decoder: set"):
        run(config, tmp_path)
    assert asked == []


def test_the_stored_configuration_is_one_of_its_settings():
    path = Path(finetune_check.__file__).parent / "configs" / "finetune_check.toml"
    config = finetune_check.read_config(PRESETS["quick"], path)
    assert config != PRESETS["quick"]
