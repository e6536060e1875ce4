"""Arms are measured at their start against one full fine-tuning."""

import dataclasses

import pandas as pd
import pytest

from experiments.finetune.methods import linear_layers
from experiments.subspace import cells, predictors
from experiments.subspace.predictors import PREDICTORS, measure, path_of, predicted
from tests.experiments import finetune_tiny
from tests.experiments.subspace.test_cells import CELL


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    """The file of a full fine-tuning of the tiny model, on which all is measured."""
    folder = tmp_path_factory.mktemp("paths")
    task = finetune_tiny.load(folder, 12, 6)
    sizes = tuple(linear_layers(task.model(), 0).values())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cells, "_task", lambda *_: task)
        patch.setattr(cells, "_sizes", lambda *_: sizes)
        full = dataclasses.replace(CELL, arm="full", part="start")
        path_of(full, folder / "functions.safetensors", folder / "runs")
        yield folder


@pytest.mark.parametrize("arm", ["full", "cosa_haar", "lora_fa"])
def test_full_fine_tuning_holds_all_and_a_small_arm_a_share(arm, paths):
    found = measure(dataclasses.replace(CELL, arm=arm, part="start"), paths)
    assert tuple(found) == PREDICTORS
    if arm == "full":
        assert list(found.values()) == pytest.approx([1.0] * 4, abs=1e-5)
    else:
        assert all(0 < found[name] < 0.9 for name in ("energy", "weighted", "gradients"))
        assert found["function"] < 0.99


def test_a_path_is_trained_once(paths, monkeypatch):
    monkeypatch.setattr(predictors, "fit", None)
    found = path_of(CELL, paths / "functions.safetensors", paths / "runs")
    assert {name.partition(".")[0] for name in found} == {
        "update",
        *(f"gradient{number}" for number in range(4)),
    }


def test_a_measure_that_ranks_the_arms_is_told_from_one_that_does_not():
    names = [f"arm{number}" for number in range(12)]
    losses = [1.0 - 0.01 * number for number in range(12)]
    shuffled = [5, 0, 9, 2, 11, 7, 1, 10, 4, 3, 8, 6]
    measured = pd.DataFrame({"task": "r8", "arm": names, "energy": range(12), "weighted": shuffled})
    measured = measured.assign(function=measured["energy"], gradients=-measured["energy"])
    arms = pd.DataFrame({"task": "r8", "arm": names, "loss": losses})
    table = predicted(measured, arms).set_index("predictor")
    assert table.loc["energy", "spearman"] == pytest.approx(-1)
    assert table.loc["energy", "high"] < 0
    assert table.loc["gradients", "low"] > 0
    assert table.loc["weighted", "low"] < 0 < table.loc["weighted", "high"]
    assert not len(predicted(measured[:3], arms))
