"""The ready configurations: all are read, and one of each architecture is run on a shrunk model."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from peft import PeftModel

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from experiments import finetune
from experiments.finetune.__main__ import main, refuse_other_settings
from experiments.finetune.budgets import METHODS
from experiments.finetune.config import Config, read, to_toml
from experiments.finetune.data import DATA
from experiments.finetune.trainer import Progress
from experiments.finetune.training import refuse_lacking_service
from tests.experiments.finetune.shrunk import copies_of_all, model_folder

CONFIGS = Path(finetune.__file__).parent / "configs"
NAMES = sorted(path.stem for path in CONFIGS.glob("*.toml"))
PAPER = [name for name in NAMES if "_" in name]


def test_there_is_one_for_every_run_of_the_paper():
    decoders = ("llama-3.2-1b", "llama-3.1-8b", "llama-2-7b", "qwen2-7b")
    tasks = ("cola", "sst2", "mrpc", "stsb", "qnli", "rte")
    expected = {f"{data}_{model}" for data in ("metamath", "python") for model in decoders}
    expected |= {f"{task}_roberta-{size}" for task in tasks for size in ("base", "large")}
    assert set(PAPER) == expected


@pytest.mark.parametrize("name", NAMES)
def test_every_one_is_read_for_every_method_and_written_back(name, tmp_path):
    for method in METHODS:
        config = read(CONFIGS / f"{name}.toml", [f"method={method}"])
        assert config.data in DATA
        (tmp_path / "written.toml").write_text(to_toml(config))
        assert read(tmp_path / "written.toml") == config


def test_the_methods_have_the_hyperparameters_of_the_original():
    path = CONFIGS / "metamath_llama-3.1-8b.toml"
    found = {method: read(path, [f"method={method}"]) for method in METHODS}
    assert (found["cosa"].core, found["cosa"].scale, found["cosa"].batch) == (
        (1024, 256),
        "analysis",
        2,
    )
    assert (found["lora"].rank, found["lora"].batch, found["lora"].core) == (128, 4, ())
    assert (found["adalora"].rank, found["adalora"].final_rank) == (160, 64)
    assert found["adalora"].alpha * found["adalora"].rank == 128
    assert [found[name].learning_rate for name in ("cosa", "adalora", "full")] == [2e-5, 2e-4, 1e-5]
    assert (found["full"].epochs, found["full"].warm_up, found["full"].clip) == (3.0, 200, 0.5)
    assert all(one.rows == 100_000 and one.tokens == 512 for one in found.values())


RUNS = [
    ("metamath_llama-3.2-1b", "llama", "cosa"),
    ("python_qwen2-7b", "qwen2", "pissa"),
    ("mrpc_roberta-base", "roberta", "adalora"),
]


@pytest.mark.parametrize(("name", "kind", "method"), RUNS)
def test_one_of_each_architecture_trains_resumes_merges_and_is_exported(
    name, kind, method, tmp_path, capsys, monkeypatch
):
    model = model_folder(tmp_path / "model", kind)
    copies = copies_of_all(tmp_path / "copies")
    settings = {
        "method": method,
        "model": model,
        "copies": copies,
        "steps": 3,
        "batch": 4,
        "accumulation": 1,
        "learning_rate": 1e-2,
        "warm_up": 0,
        "rows": 20,
        "items": 8,
        "tokens": 300 if kind == "qwen2" else 40,
        "evaluate": 1,
        "checkpoint": 1,
        "patience": 3,
        "watch": 1,
        "dtype": "float32",
        "merge": "true",
        "threads": 1,
        "grades": [],
        **({"core": [8, 8]} if method == "cosa" else {"rank": 4, "final_rank": 2}),
    }
    command = [str(CONFIGS / f"{name}.toml")]
    for field, value in settings.items():
        command += ["--set", f"{field}={value}"]
    out = tmp_path / "out"

    def stop(self, args, state, *_, **__):
        if state.global_step == 2:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "on_step_end", stop)
        assert main([*command, "--out", str(out)]) == 130
    assert list(out.glob("checkpoints/checkpoint-1/trainer_state.json"))
    assert main([*command, "--out", str(out)]) == 0
    record = json.loads((out / "run.json").read_text())
    assert [row["step"] for row in record["history"] if "loss" in row] == [1, 2, 3]
    assert not (out / "checkpoints").exists()
    _check_record(record)
    assert record["base"] == str(model)
    opened = f"cosa-theory spectrum {model} {out / 'merged'}"
    assert opened in capsys.readouterr().out.replace("\n", " ")
    _check_exports(out, model, kind)
    assert main(["--runs", str(tmp_path)]) == 0
    assert method in capsys.readouterr().out
    (row,) = pd.read_csv(tmp_path / "runs.csv").to_dict(orient="records")
    assert (row["run"], row["method"], row["value"]) == ("out", method, record["scores"]["value"])
    assert main([*command, "--out", str(out), "--set", "batch=2"]) == 2
    assert "batch = 4, and 2 is asked for" in capsys.readouterr().err


def _check_record(record):
    """The fields are those of PEFT's comparison, and every step was followed."""
    assert set(record["run_info"]) == {
        *("created_at", "total_time", "experiment_name", "peft_branch", "train_config"),
        *("peft_config", "error_msg"),
    }
    assert set(record["train_info"]) >= {
        *("accelerator_memory_reserved_avg", "accelerator_memory_max"),
        *("accelerator_memory_reserved_99th", "train_time", "file_size", "num_trainable_params"),
        *("num_total_params", "status", "metrics"),
    }
    names = {"model_info", "dataset_info", "package_info", "system_info", "pytorch_info"}
    assert set(record["meta_info"]) == names
    for row in record["history"]:
        if "loss" in row:
            assert min(row["seconds"], row["tokens"], row["memory"], row["grad_norm"]) > 0
    ranks = [
        value
        for row in record["history"]
        for name, value in row.items()
        if name.startswith("update_") and name.endswith("_rank_99")
    ]
    assert len(ranks) == 3
    least = (
        0 if record["run_info"]["train_config"]["method"] == "adalora" else 1
    )  # it may prune all
    assert all(least <= rank <= 8 for rank in ranks), "cores of 8 × 8, factors of rank 4"


def _check_exports(out, model, kind):
    """The adapter on the base, and the merged model alone, say the same; their ΔW is a pair."""
    labels = {} if kind != "roberta" else {"num_labels": 2}
    loader = transformers.AutoModelForCausalLM
    if labels:
        loader = transformers.AutoModelForSequenceClassification
    adapted = PeftModel.from_pretrained(loader.from_pretrained(model, **labels), out / "adapter")
    merged = loader.from_pretrained(out / "merged")
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        said, again = (one.eval()(input_ids=ids).logits for one in (adapted, merged))
    assert torch.allclose(said, again, atol=1e-5)
    assert any(abs(layer.delta).max() > 0 for layer in open_pair(model, out / "merged"))


def test_settings_may_be_mended_until_a_training_has_left_a_checkpoint(tmp_path):
    (tmp_path / "config.toml").write_text(to_toml(Config(rank=4)))
    refuse_other_settings(tmp_path, Config(rank=2))
    (tmp_path / "checkpoints" / "checkpoint-3").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds a training with rank = 4, and 2 is asked for"):
        refuse_other_settings(tmp_path, Config(rank=2))


def test_a_service_that_is_not_there_is_told_before_training():
    with pytest.raises(InputError, match="report_to is 'tensorbord', which is not installed"):
        refuse_lacking_service(Config(report_to="tensorbord"))


def test_the_defaults_are_a_training():
    assert read(None) == Config()
