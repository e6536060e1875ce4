"""A training of the study keeps what the tables need, for every arm alike."""

import dataclasses

import pytest

from experiments.finetune.methods import linear_layers
from experiments.finetune.training import fit, isolated
from experiments.subspace import cells as module
from experiments.subspace.__main__ import main
from experiments.subspace.arms import ARMS
from experiments.subspace.cells import Cell, train
from tests.experiments import finetune_tiny

CELL = Cell(
    *("functions", "cosa_gaussian", -8, 3, 3, "test", "smollm2", "functions", 4, 4, 12, 0, 2),
    1e-2,
    0.1,
)


@pytest.fixture(autouse=True)
def tiny(monkeypatch, tmp_path):
    task = finetune_tiny.load(tmp_path, 12, 6)
    sizes = tuple(linear_layers(task.model(), 0).values())
    monkeypatch.setattr(module, "_task", lambda *_: task)
    monkeypatch.setattr(module, "_sizes", lambda *_: sizes)
    return sizes


@pytest.mark.parametrize("arm", ["cosa_gradient", "lora_xs", "lora_corda", "lora_eva", "lora_ga"])
def test_every_arm_trains_within_the_budget_and_is_measured(arm, tmp_path, tiny):
    found = train(dataclasses.replace(CELL, arm=arm), tmp_path / "runs")
    budget = sum(2 * (m + n) for m, n in tiny)
    assert 0.8 * budget <= found["parameters"] <= budget
    assert found["loss"] == pytest.approx(
        sum(found["item_sums"]) / sum(found["item_weights"]), abs=1e-5
    )
    assert len(found["gradient_norms"]) == CELL.steps
    assert min(found["gradient_norms"]) > 0
    assert found["relative_norm"] > 0
    assert found["adapter_bytes"] > 4 * found["parameters"]
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())


def test_the_seed_gives_the_order_and_the_draw_the_projections(tmp_path):
    first = train(CELL, tmp_path)
    assert train(CELL, tmp_path)["loss"] == first["loss"]
    for other in (dataclasses.replace(CELL, seed=4), dataclasses.replace(CELL, draw=4)):
        assert train(other, tmp_path)["loss"] != first["loss"]


def test_arms_of_one_seed_meet_the_same_items_and_dropout(tmp_path):
    # Before the first step every update is zero, so that the model, hence the loss, is the same.
    losses = set()
    for arm in ("lora", "cosa_gaussian", "lora_xs", "lora_eva", "shira"):
        cell = dataclasses.replace(CELL, arm=arm, draw=len(arm))
        task, config = module.task_of(cell), module.training_of(cell)
        with isolated(cell.seed, threads=1):
            history = fit(task, config, tmp_path / arm).history
        losses.add(round(history[0]["loss"], 5))
    assert len(losses) == 1


def test_no_two_arms_are_the_same_and_every_kind_of_subspace_has_one():
    assert {one.subspace for one in ARMS.values()} == {
        "random",
        "activations",
        "gradients",
        "from W",
        "all",
    }
    settings = [str(one.settings) for one in ARMS.values()]
    assert len(set(settings)) == len(settings)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--arms", "lorra"], ["--arms", "lorra", "lora"]),
        (["--tasks", "r9"], ["--tasks", "r9", "r8"]),
        (["--hours", "0"], ["--hours", "0"]),
        (["--config", "none.toml"], ["none.toml"]),
    ],
)
def test_what_cannot_be_asked_for_is_said_in_a_sentence(arguments, names, tmp_path, capsys):
    assert main([*arguments, "--out", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in names)
    assert len(said) <= 300


def test_a_folder_of_another_study_is_refused(tmp_path, capsys):
    from experiments.subspace.study import STATED

    assert main(["--out", str(tmp_path), "--tables"]) == 0
    other = tmp_path / "other.toml"
    other.write_text(STATED.read_text("utf-8").replace("head_rate = 1e-2", "head_rate = 1e-3"))
    capsys.readouterr()
    assert main(["--out", str(tmp_path), "--tables", "--config", str(other)]) == 2
    said = capsys.readouterr().err
    assert all(name in said for name in ("head_rate", "0.01", "0.001", "--out"))
