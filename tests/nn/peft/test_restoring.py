"""Adapters that store how random tokens made their projections, instead of these."""

import json

import numpy as np
import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors import safe_open

from cosa_theory import CosaBasis, InputError
from cosa_theory.deltas.cosa_adapters import read_cosa_folder
from cosa_theory.nn import layer_moments, load_cosa, random_batches, save_cosa
from cosa_theory.nn.peft import CosaConfig, Linear, prepare_cosa
from tests.nn.peft.models import llama, tokens

TARGETS = ["q_proj", "v_proj", "down_proj"]


def adapted(build=llama, **changes):
    wanted = {"kind": "activation", "tokens": "random", "options": {"power": 1}, "seed": 3}
    wanted |= {"a": 6, "b": 4, "init_weights": False, "target_modules": TARGETS}
    base = build()
    prepared = prepare_cosa(base, CosaConfig(**wanted | changes))
    torch.manual_seed(0)
    return get_peft_model(base, prepared).eval()


def output(model, rows=3):
    with torch.inference_mode():
        return model(input_ids=tokens(rows, 7)).logits


def stored(folder):
    with safe_open(folder / "adapter_model.safetensors", "pt") as file:
        return {name.rpartition(".")[2] for name in file.keys()}  # noqa: SIM118


def test_R_is_made_from_the_inputs_that_seeded_random_tokens_give():
    model = adapted()
    recipe = model.peft_config["default"].recipe
    names = [
        f"model.layers.{i}.{part}.weight"
        for i in range(2)
        for part in ("self_attn.q_proj", "self_attn.v_proj", "mlp.down_proj")
    ]
    moments = layer_moments(llama(), random_batches(llama(), **recipe), names, seed=3).inputs
    layer = model.base_model.model.model.layers[1].mlp.down_proj
    name = "model.layers.1.mlp.down_proj"
    own = {"moments": moments[f"{name}.weight"], "power": 1, "seed": 3, "key": name}
    basis = CosaBasis.sample(16, 32, 6, 4, kind="activation", **own)
    R = layer.right("default").matrix().numpy()
    assert np.linalg.norm(R - basis.R) < 1e-5 * np.linalg.norm(R)


def test_the_folder_holds_no_projections_and_one_pass_brings_them_back(tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path / "one")
    assert stored(tmp_path / "one") == {"cosa_Y"}
    assert json.loads((tmp_path / "one" / "adapter_config.json").read_text())["recipe"]
    again = PeftModel.from_pretrained(llama(), tmp_path / "one")
    assert torch.allclose(output(again), output(model), rtol=0, atol=1e-5)
    plain = load_cosa(llama(), tmp_path / "one").eval()
    assert torch.allclose(output(plain), output(model), rtol=0, atol=1e-5)
    again.save_pretrained(tmp_path / "two")
    assert stored(tmp_path / "two") == {"cosa_Y"}
    third = PeftModel.from_pretrained(llama(), tmp_path / "two")
    assert torch.allclose(output(third), output(model), rtol=0, atol=1e-5)


def test_another_adapter_of_the_model_does_not_matter(tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path)
    loud = CosaConfig(a=6, b=4, alpha=100, init_weights=False, target_modules=TARGETS)
    other = get_peft_model(llama(), loud).eval()
    before = output(other)
    other.load_adapter(tmp_path, "informed")
    assert torch.equal(output(other), before)
    other.set_adapter("informed")
    assert torch.allclose(output(other), output(model), rtol=0, atol=1e-5)


def test_a_model_in_bfloat16_makes_nearly_the_same(tmp_path):
    model = adapted()
    model.save_pretrained(tmp_path)
    half = PeftModel.from_pretrained(llama().bfloat16(), tmp_path)
    for name, layer in half.named_modules():
        if isinstance(layer, Linear):
            mine = model.get_submodule(name).right("default").matrix()
            found = layer.right("default").matrix().float()
            assert 0 < (found - mine).norm() < 0.05 * mine.norm()


def test_another_model_is_refused_with_the_remedy(tmp_path):
    adapted().save_pretrained(tmp_path)
    for load in (lambda: PeftModel.from_pretrained(llama(seed=1), tmp_path),
                 lambda: load_cosa(llama(seed=1), tmp_path)):  # fmt: skip
        with pytest.raises(InputError, match=r"R of model\.layers.*0\.05.*save_projections"):
            load()


def test_readers_without_the_model_say_how_it_is_stored(tmp_path):
    adapted().save_pretrained(tmp_path / "recipe")
    folder = read_cosa_folder(tmp_path / "recipe")
    with pytest.raises(InputError, match=r"R of .* load_cosa, and store it with save_cosa"):
        folder.projections(next(iter(folder.layers)))
    save_cosa(load_cosa(llama(), tmp_path / "recipe"), tmp_path / "stored")
    assert stored(tmp_path / "stored") == {"cosa_Y", "cosa_R"}
    folder = read_cosa_folder(tmp_path / "stored")
    assert folder.projections(next(iter(folder.layers)))


@pytest.mark.parametrize(
    "changes", [{"options": {}}, {"save_projections": True}, {"kind": "gradient"}], ids=str
)
def test_what_cannot_be_made_again_exactly_or_is_asked_for_is_stored(tmp_path, changes):
    model = adapted(gradients="samples", **changes)
    model.save_pretrained(tmp_path)
    assert "cosa_R" in stored(tmp_path)
    assert torch.equal(output(PeftModel.from_pretrained(llama(), tmp_path)), output(model))
