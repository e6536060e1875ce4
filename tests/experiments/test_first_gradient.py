"""The saved gradient is that of the fine-tuning's first step, under the names of its base."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from cosa_theory.ground.errors import InputError
from experiments import finetune_delta
from experiments.finetune_delta import Config
from experiments.first_gradient import check, main, run

TINY = Config(steps=1, batch=2, max_tokens=8, test_texts=2, warm_up=0.0, threads=1)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradient")
    finetune_delta.run(TINY, folder)
    run(TINY, folder / "gradient.safetensors")
    return folder


def test_every_matrix_of_the_base_has_a_gradient_of_its_shape(made):
    base, gradient = (load_file(made / f"{name}.safetensors") for name in ("base", "gradient"))
    assert {name: value.shape for name, value in gradient.items()} == {
        name: value.shape for name, value in base.items() if value.ndim == 2
    }
    assert all(np.isfinite(value).all() and np.abs(value).max() > 0 for value in gradient.values())


def test_the_first_step_goes_against_the_signs_of_the_gradient(made):
    base, tuned, gradient = (
        load_file(made / f"{name}.safetensors") for name in ("base", "tuned", "gradient")
    )
    for name in (one for one in gradient if "layer.5" in one):
        large = np.abs(gradient[name]) > np.quantile(np.abs(gradient[name]), 0.8)
        # The first step of Adam is −rate · sign; dropout, off in the gradient, turns some of them.
        moved = np.sign(tuned[name] - base[name])[large]
        assert np.mean(moved == -np.sign(gradient[name][large])) > 0.8, name


def test_the_settings_are_in_the_file_and_equal_settings_give_equal_bytes(made, tmp_path):
    again = tmp_path / "again.safetensors"
    run(TINY, again)
    assert again.read_bytes() == (made / "gradient.safetensors").read_bytes()
    with safe_open(again, framework="numpy") as file:
        assert json.loads(file.metadata()["config"])["batch"] == 2


def test_random_state_and_threads_are_left_alone(tmp_path):
    before = torch.get_rng_state(), torch.get_num_threads()
    run(TINY, tmp_path / "g.safetensors")
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_num_threads()


def test_the_command_names_a_bad_configuration(tmp_path, capsys):
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("speed = 3\n")
    assert main(["--config", str(wrong), "--out", str(tmp_path / "g.safetensors")]) == 2
    assert "no field 'speed'" in capsys.readouterr().err


def test_a_file_of_somebody_else_is_refused_before_anything_is_computed(tmp_path, monkeypatch):
    monkeypatch.setattr(finetune_delta.Task, "load", lambda config: pytest.fail("computed"))
    mine = tmp_path / "gradient.safetensors"
    mine.write_text("mine")
    for attempt in (check, lambda out: run(TINY, out)):
        with pytest.raises(InputError, match=r"gradient\.safetensors is in the way"):
            attempt(mine)
