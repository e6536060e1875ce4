"""A full fine-tuning: the whole model is kept, without its head, and equal settings train once."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from transformers import BertConfig, BertModel

from cosa_theory.ground.errors import InputError
from experiments.finetune import training as finetune_training
from experiments.finetune.embedded import LabelledClassifier
from experiments.finetune.tasks import TASKS
from experiments.full_finetuning import Config, run
from tests.experiments import finetune_tiny

TINY = Config("functions", 4, batch=4, tokens=12, items=6, learning_rate=1e-2)


@pytest.fixture
def tiny(monkeypatch):
    monkeypatch.setitem(TASKS, "decoder", finetune_tiny.load)
    return finetune_tiny.load(Path("."), 12, 6)


def test_every_weight_is_trained_and_kept_under_its_name(tiny, tmp_path):
    _, tuned = run(TINY, tmp_path / "pair")
    before = tiny.model().state_dict()
    after = load_file(tuned / "model.safetensors")
    assert set(after) == set(before)
    assert all(not torch.equal(after[name], before[name]) for name in after)


def test_equal_settings_train_once_and_others_anew(tiny, tmp_path, monkeypatch):
    run(TINY, tmp_path / "pair")
    monkeypatch.setattr(finetune_training, "train", None)
    run(TINY, tmp_path / "pair")
    with pytest.raises(TypeError):
        run(Config(**{**vars(TINY), "seed": 1}), tmp_path / "pair")


def test_a_model_that_is_gone_is_trained_again_though_its_summary_is_there(tiny, tmp_path):
    _, tuned = run(TINY, tmp_path / "pair")
    shutil.rmtree(tuned)
    assert (run(TINY, tmp_path / "pair")[1] / "model.safetensors").is_file()


def test_a_classifier_is_kept_without_its_head(tmp_path):
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1}
    encoder = BertModel(BertConfig(vocab_size=9, num_attention_heads=1, **sizes))
    model = LabelledClassifier(encoder, 8, 3)
    trainer = SimpleNamespace(
        args=SimpleNamespace(output_dir=str(tmp_path / "run")),
        is_fsdp_enabled=False,
        is_deepspeed_enabled=False,
        is_world_process_zero=lambda: True,
    )
    stored = finetune_training.store(
        SimpleNamespace(model=model, trainer=trainer), tmp_path / "tuned"
    )
    weights = load_file(tmp_path / "tuned" / "model.safetensors")
    assert set(weights) == set(encoder.state_dict())
    assert stored == (tmp_path / "tuned" / "model.safetensors").stat().st_size


def test_an_unknown_corpus_is_refused():
    with pytest.raises(InputError, match="r9"):
        Config("r9", 10)
