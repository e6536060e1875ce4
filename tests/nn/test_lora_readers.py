"""What software makes of an exported adapter: PEFT, and what knows one rank and no patterns."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa, save_cosa
from cosa_theory.nn.lora import to_lora
from cosa_theory.nn.lora_folder import EXPERT_TYPES, MAMBA_TYPES, server_rank
from cosa_theory.nn.peft import CosaConfig
from tests.deltas.cosa_files import cosa_adapter
from tests.nn.kills import killed
from tests.nn.test_lora import EPS, LAST, SECOND, TOKENS, Tiny, trained


class Nest(nn.Module):
    """Names that are ends of others, some of them of other types."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        inner = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
        self.body = nn.ModuleDict({"0": inner, "q": nn.Linear(16, 16)})
        self.q = nn.Sequential(nn.Linear(16, 16), nn.Tanh())
        self.up = nn.Linear(16, 11)

    def forward(self, x):
        return self.up(self.q(self.body["q"](self.body["0"](x))))


CHOICES = {
    "a list": {"target_modules": ["up"]},
    "whole names": {"target_modules": ["body.0.0", "up"]},
    "an expression": {"target_modules": r"body\.0\.2|body\.q"},
    "an expression of ends": {"target_modules": r"(.*\.)?[02u]p?"},
    "all but one": {"target_modules": ["0.0", "0.2", "up"], "exclude_modules": ["0.2"]},
}


@pytest.mark.parametrize("saver", ["peft", "plain"])
@pytest.mark.parametrize("choice", CHOICES.values(), ids=CHOICES)
def test_the_targets_match_the_adapted_layers_alone(tmp_path, choice, saver):
    x = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    wanted = choice
    if choice["target_modules"] == CHOICES["an expression of ends"]["target_modules"]:
        wanted = {"target_modules": r"body\.0\.[02]|up"}
    if saver == "peft":
        model = get_peft_model(Nest(), CosaConfig(a=4, b=3, init_weights=False, **wanted)).eval()
        model.save_pretrained(tmp_path / "cosa")
    else:
        model = add_cosa(Nest(), a=4, b=3, init_weights=False, **wanted)
        save_cosa(model, tmp_path / "cosa")
    export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    loaded = PeftModel.from_pretrained(Nest(), tmp_path / "lora").eval()
    torch.testing.assert_close(loaded(x), model(x), rtol=1e-5, atol=1e-5)
    targets = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["target_modules"]
    assert export.expression == isinstance(targets, str)
    if choice == CHOICES["a list"]:
        assert targets == ["up"], "which software without expressions reads"


def test_software_without_patterns_scales_every_layer_right(tmp_path):
    """llama.cpp takes lora_alpha over the rank of a layer's tensor."""
    exact = cosa_adapter(tmp_path / "cosa", shapes={LAST: (3, 4), SECOND: (2, 7)})
    to_lora(tmp_path / "cosa", tmp_path / "lora")
    alpha = json.loads((tmp_path / "lora" / "adapter_config.json").read_text())["lora_alpha"]
    tensors = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    for name, update in exact.items():
        A, B = (tensors[f"base_model.model.{name}.lora_{side}.weight"].double() for side in "AB")
        found = (alpha / A.shape[0] * B @ A).numpy()
        assert np.linalg.norm(found - update) < 2 * EPS * np.linalg.norm(update)


@pytest.mark.parametrize(("rank", "server"), [(1, 8), (8, 8), (9, 16), (257, 320), (512, 512)])
def test_a_server_is_told_the_rank_that_it_must_allow(rank, server):
    assert server_rank(rank) == server
    assert server_rank(513) is None


def test_what_peft_refuses_or_mistakes_is_what_the_installed_one_does():
    from peft.tuners.tuners_utils import _check_lora_target_modules_mamba
    from peft.utils.transformers_weight_conversion import (
        _MODEL_TO_CONVERSION_PATTERN,
        _MOE_TARGET_MODULE_MAPPING,
    )

    known = {
        name: set(_MOE_TARGET_MODULE_MAPPING[kind])
        for name, kind in _MODEL_TO_CONVERSION_PATTERN.items()
        if kind in _MOE_TARGET_MODULE_MAPPING and name == name.lower()
    }
    ours = {name: set(ends) for name, ends in EXPERT_TYPES.items()}
    assert ours == known
    for name in MAMBA_TYPES:
        model = nn.Module()
        model.config = transformers.PretrainedConfig()
        model.config.model_type = name
        with pytest.raises(ValueError, match="out_proj"):
            _check_lora_target_modules_mamba(LoraConfig(), model, "out_proj")


@pytest.mark.parametrize("told", [{"model_type": "mamba2"}, {}])
def test_a_layer_on_which_peft_takes_no_lora_is_refused_by_its_name(tmp_path, told):
    sizes = {
        "backbone.layers.0.mixer.in_proj": (20, 16),
        "backbone.layers.0.mixer.out_proj": (16, 16),
    }
    part = "backbone.layers.0.mixer"
    mapping = {"base_model_class": "Mamba2ForCausalLM", "parent_library": "transformers"}
    cosa_adapter(tmp_path / "cosa", sizes, auto_mapping=mapping, **told)
    with pytest.raises(InputError, match=f"no LoRA on {part}.out_proj, .*mamba2"):
        to_lora(tmp_path / "cosa", tmp_path / "lora")
    assert not (tmp_path / "lora").exists()


def test_layers_that_peft_mistakes_for_experts_are_named(tmp_path):
    part = "model.layers.1.mlp.shared_experts"
    sizes = {f"{part}.gate_proj": (20, 16), "model.layers.1.self_attn.o_proj": (16, 16)}
    cosa_adapter(tmp_path / "cosa", sizes, model_type="deepseek_v3")
    with pytest.warns(UserWarning, match=f"PEFT takes 1 layers .*{part}.gate_proj; merge"):
        export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    assert export.mistaken == (f"{part}.gate_proj",)


def test_a_model_whose_experts_peft_converts_is_told_when_it_is_saved(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 24, "moe_intermediate_size": 8}
    config = transformers.Qwen3MoeConfig(
        **sizes,
        vocab_size=11,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        num_experts=2,
        num_experts_per_tok=1,
        mlp_only_layers=[0],
    )
    model = transformers.Qwen3MoeForCausalLM(config)
    save_cosa(
        add_cosa(model, ["up_proj", "q_proj"], 4, 3), tmp_path / "cosa", task_type="CAUSAL_LM"
    )
    with pytest.warns(UserWarning, match="model.layers.0.mlp.up_proj"):
        to_lora(tmp_path / "cosa", tmp_path / "lora")


def test_a_kill_leaves_an_export_that_is_old_or_new_or_none_to_other_software(tmp_path):
    base = Tiny()
    _, new = trained(Tiny(), tmp_path / "cosa")
    old = PeftModel.from_pretrained(base, earlier_export(tmp_path)).eval()
    expected = [old(TOKENS).detach(), new]
    found, hidden, at = [], [], 1
    while killed(at, lambda: to_lora(tmp_path / "cosa", tmp_path / "lora")):
        at += 1
        try:
            values = PeftModel.from_pretrained(Tiny(), tmp_path / "lora").eval()(TOKENS)
            found.append([torch.allclose(values, one, atol=1e-4) for one in expected].index(True))
        except ValueError as error:
            hidden.append("adapter_config.json" in str(error))
        open_pair(Tiny().state_dict(), tmp_path / "lora")  # finishes what was interrupted
        values = PeftModel.from_pretrained(Tiny(), tmp_path / "lora").eval()(TOKENS)
        assert any(torch.allclose(values, one, atol=1e-4) for one in expected)
        earlier_export(tmp_path)
    assert found[0] == 0
    assert found[-1] == 1
    assert all(hidden)


def earlier_export(folder):
    """Export the adapter with cores of a third of the size; return where."""
    shutil.rmtree(folder / "third", ignore_errors=True)
    shutil.copytree(folder / "cosa", folder / "third")
    path = folder / "third" / "adapter_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({**settings, "alpha": settings["alpha"] / 3}))
    to_lora(folder / "third", folder / "lora")
    return folder / "lora"
