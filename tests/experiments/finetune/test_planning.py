"""What a training is foreseen to take: the paper's models at full size, nothing loaded."""

import json
from pathlib import Path

import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.shapes import model_layers
from experiments import finetune
from experiments.finetune import planning
from experiments.finetune.__main__ import run
from experiments.finetune.config import Config, read
from experiments.finetune.planning import plan_training
from paper_checks.models import load_models, released_core

CONFIGS = Path(finetune.__file__).parent / "configs"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of Llama-3.1-8B's configuration, without weights, and its layers."""
    folder = tmp_path_factory.mktemp("llama")
    config = load_models()["Llama-3.1-8B"].config
    fields = {**config, "architectures": ["LlamaForCausalLM"]}
    (folder / "config.json").write_text(json.dumps(fields))
    return folder, model_layers(fields)


@pytest.fixture
def llama(folder, monkeypatch):
    """The same, whose layers are found once: that takes a second."""
    monkeypatch.setattr(planning, "model_layers", lambda fields: folder[1])
    return folder[0]


def planned(folder, method, *settings):
    path = CONFIGS / "metamath_llama-3.1-8b.toml"
    return plan_training(read(path, [f"model={folder}", f"method={method}", *settings]))


def test_the_papers_largest_run_is_counted_without_its_weights(llama):
    model = load_models()["Llama-3.1-8B"]
    plan = planned(llama, "cosa")
    assert plan.base_parameters == model.parameters
    assert plan.memory["weights"] == 2 * model.parameters
    assert plan.trained == model.count(lambda m, n: released_core(m, n)[0] * 256)
    assert plan.layers == 7 * 32
    lora = planned(llama, "lora")
    assert lora.trained == model.count(lambda m, n: 128 * (m + n))
    # 2 · 4 P a token for base and adapter, 16 batches of 2 × 512 tokens in the two of LoRA's four.
    tokens = 2 * 8 * 512
    assert plan.flops > 4 * model.parameters * tokens
    assert lora.flops == pytest.approx((4 * model.parameters + 6 * lora.trained) * 2 * tokens)
    full = planned(llama, "full")
    assert full.trained == model.parameters
    assert full.layers == 0
    assert "everywhere" in full.text(10, 1e12), "whatever layers the adapters' targets are"
    block = planned(llama, "full", "blocks=1", 'targets=["q_proj"]')
    assert (block.layers, block.trained) == (7, model.count(lambda m, n: m * n) // 32)
    assert full.memory["gradients and moments"] == 6 * model.parameters
    less = planned(llama, "lora", "recompute=true")
    assert less.memory["activations"] < lora.memory["activations"] / 10


def test_a_training_that_cannot_fit_is_refused_before_anything_is_read(llama, monkeypatch):
    monkeypatch.setattr(planning, "_free", lambda: 20 * 10**9)
    with pytest.raises(InputError, match=r"training of about .* \(most for .* 20\.0 GB are free"):
        planned(llama, "full").refuse()
    monkeypatch.setattr(planning, "_free", lambda: None)
    planned(llama, "full").refuse()


def test_a_plan_of_so_many_rows_needs_neither_data_nor_weights(llama, tmp_path, capsys):
    path = CONFIGS / "metamath_llama-3.1-8b.toml"
    config = read(path, [f"model={llama}", "method=lora", f"copies={tmp_path / 'none'}"])
    assert run(config, tmp_path / "out", plan_only=True) is None
    # 100,000 rows in batches of 4, eight of which make a step.
    assert "\n3,125 steps of " in capsys.readouterr().out
    assert not (tmp_path / "out").exists()


def test_the_embedded_models_are_planned_as_they_are():
    encoder = plan_training(Config(model="minilm", method="lora", rank=8, steps=10))
    assert encoder.trained == 8 * 6 * (4 * (384 + 384) + 2 * (384 + 1536))
    assert 22e6 < encoder.base_parameters < 23e6
    decoder = plan_training(Config(model="smollm2", data="functions", steps=10))
    assert decoder.base_parameters == 134_515_008
    assert "logits" in decoder.memory
    lines = decoder.text(10, 1e12).splitlines()
    assert "134,515,008" in lines[0]
    assert lines[2].startswith("10 steps of ")


def test_moments_that_take_more_than_the_training_after_them_are_counted():
    def beforehand(kind, tokens):
        settings = {"model": "smollm2", "data": "functions", "batch": 1, "tokens": tokens}
        return plan_training(Config(kind=kind, **settings)).memory["moments beforehand"]

    assert beforehand("gaussian", 4) == 0
    # The sums of 30 blocks: three inputs of 576 and one of 1,536; and seven outputs.
    inputs = 30 * 8 * (3 * 576**2 + 1536**2)
    assert 0.5 * inputs <= beforehand("activation", 4) <= 1.3 * inputs
    assert beforehand("gradient", 4) >= beforehand("activation", 4) + 1e9
    assert beforehand("activation", 4096) == 0
