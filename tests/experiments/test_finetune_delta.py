"""The fine-tuning experiment: repeatable, resumable, and it leaves the process as it was."""

import json
import math
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from cosa_theory.assets import asset_folder
from cosa_theory.ground.errors import InputError
from experiments import finetune_delta
from experiments.command import read_config
from experiments.finetune_delta import Config, main, run

TINY = Config(steps=2, batch=2, max_tokens=8, test_texts=4, threads=1)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """One tiny run: its folder, its loss curve, and the random state and threads around it."""
    out = tmp_path_factory.mktemp("finetune") / "a"
    usual = torch.get_num_threads()
    torch.set_num_threads(TINY.threads + 1)
    before = torch.get_rng_state(), torch.get_num_threads()
    curve = run(TINY, out)
    after = torch.get_rng_state(), torch.get_num_threads()
    torch.set_num_threads(usual)
    return out, curve, before, after


def test_base_is_the_encoder_and_tuned_has_the_same_names(tiny):
    out, *_ = tiny
    base, tuned = load_file(out / "base.safetensors"), load_file(out / "tuned.safetensors")
    encoder = load_file(asset_folder("encoder") / "model.safetensors")
    assert list(base) == list(tuned)
    for name, weight in base.items():
        assert torch.equal(weight, encoder[name]), name
        assert tuned[name].shape == weight.shape
    changed = {name for name in base if not torch.equal(base[name], tuned[name])}
    assert changed == set(base), "full fine-tuning trains every tensor"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_does_not(tiny, tmp_path):
    out, *_ = tiny
    run(TINY, tmp_path / "b")
    run(Config(**{**vars(TINY), "seed": 1}), tmp_path / "c")
    read = {folder: (folder / "tuned.safetensors").read_bytes() for folder in tmp_path.iterdir()}
    assert read[tmp_path / "b"] == (out / "tuned.safetensors").read_bytes()
    assert read[tmp_path / "c"] != (out / "tuned.safetensors").read_bytes()


def test_a_run_leaves_the_random_state_and_the_threads_alone(tiny):
    _, _, (state, threads), (state_after, threads_after) = tiny
    assert torch.equal(state, state_after)
    assert threads == threads_after


def test_an_equal_run_is_read_back_and_another_setting_recomputes(tiny, monkeypatch):
    out, curve, *_ = tiny

    def fail(_):
        raise AssertionError("fine-tuned again")

    monkeypatch.setattr(finetune_delta, "_fine_tune", fail)
    pd.testing.assert_frame_equal(run(TINY, out), curve)
    with pytest.raises(AssertionError, match="fine-tuned again"):
        run(Config(**{**vars(TINY), "steps": 3}), out)
    assert run(TINY, out) is not None, "a failed run leaves the older result whole"


def test_an_interrupted_save_is_no_result(tiny, tmp_path, monkeypatch):
    out, curve, *_ = tiny
    weights = (load_file(out / f"{side}.safetensors") for side in ("base", "tuned"))
    trained = (*weights, curve, (2, 4))
    monkeypatch.setattr(finetune_delta, "_fine_tune", lambda _: trained)

    def interrupt(_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(finetune_delta, "save", interrupt)
        with pytest.raises(KeyboardInterrupt):
            run(TINY, tmp_path)
    assert list(tmp_path.iterdir()) == []
    run(TINY, tmp_path)
    assert (tmp_path / "summary.json").is_file()


def test_the_summary_says_how_sure_the_accuracy_is(tiny):
    out, *_ = tiny
    summary = json.loads((out / "summary.json").read_text())
    low, high = summary["accuracy_ci95"]
    # Wilson's interval, written out, at n = 4 texts and z = 1.96.
    n, p, z = 4, summary["accuracy"], 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * math.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    assert (low, high) == pytest.approx((centre - half, centre + half), abs=1e-9)
    assert summary["provenance"]["arguments"] == vars(TINY)


def test_a_short_run_learns(tmp_path):
    """Above the share of the largest class, 49.5 %, by more than four standard errors (20 %)."""
    curve = run(
        Config(steps=20, batch=8, max_tokens=20, test_texts=100, threads=1), tmp_path / "short"
    )
    accuracy = json.loads((tmp_path / "short" / "summary.json").read_text())["accuracy"]
    assert list(curve.columns) == ["step", "loss", "learning_rate"]
    assert curve.loss.iloc[-5:].mean() < 0.6 * curve.loss.iloc[:5].mean()
    assert accuracy > 0.495 + 4 * math.sqrt(0.25 / 100)


def test_every_text_comes_once_before_any_comes_twice():
    batches = list(finetune_delta.batches(10, Config(steps=5, batch=4)))
    indices = [index for batch in batches for index in batch]
    assert [len(batch) for batch in batches] == [4] * 5
    assert sorted(indices[:10]) == list(range(10))
    assert sorted(indices[10:]) == list(range(10))
    assert indices[:10] != indices[10:]


def test_the_rate_rises_to_its_peak_and_falls_towards_zero():
    config = Config(steps=100, warm_up=0.1)
    rates = [finetune_delta._rate(step, config) for step in range(100)]
    assert max(rates) == 1 == rates[10]
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert rates[10:] == sorted(rates[10:], reverse=True)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0),
        ("batch", 2.5),
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("warm_up", 1.0),
        ("seed", -1),
    ],
)
def test_a_bad_setting_is_named_with_its_value(field, value):
    with pytest.raises(InputError, match=f"^{field} is {value!r}: it must be"):
        Config(**{field: value})


def test_the_stored_configuration_loads_and_the_command_line_wins():
    path = Path(finetune_delta.__file__).parent / "configs" / "finetune_delta.toml"
    assert read_config(Config(), path).steps > Config().steps
    assert read_config(Config(), path, steps=7, seed=None).steps == 7


def test_a_broken_configuration_is_one_line_and_exit_code_2(tmp_path, capsys):
    path = tmp_path / "config.toml"
    path.write_text("stepz = 3")
    assert main(["--config", str(path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "stepz" in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()
