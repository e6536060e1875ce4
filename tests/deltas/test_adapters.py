"""LoRA adapters, checked against PEFT's own merge."""

import copy
import json

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.pytorch_utils import Conv1D

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from tests.deltas.files import save

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning:peft")


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.query = nn.Linear(6, 8)
        self.value = nn.Linear(8, 8)
        self.conv = nn.Conv2d(3, 4, (2, 3))


class Tiny(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 6)
        self.layers = nn.ModuleList([Block(), Block()])
        self.classifier = nn.Linear(8, 3)

    def forward(self, x):
        return self.classifier(self.layers[0].query(self.embed(x)))


class TinyGPT(nn.Module):
    """Conv1D stores in × out: one square weight, one rectangular."""

    def __init__(self):
        super().__init__()
        self.c_attn = Conv1D(18, 6)  # weight 6 × 18
        self.c_proj = Conv1D(6, 6)

    def forward(self, x):
        return self.c_proj(self.c_attn(x)[..., :6])


def trained(model, config, folder):
    """Save base and a "trained" adapter of it; return the exact updates by PEFT's merge."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save(folder / "base" / "model.safetensors", before)
    peft = get_peft_model(model, config)
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if parameter.requires_grad or "lora_" in name:
                parameter += torch.randn(parameter.shape, generator=generator) * 0.3
    peft.save_pretrained(folder / "adapter")
    after = copy.deepcopy(peft).merge_and_unload().state_dict()
    return {name: (after[name] - value).numpy() for name, value in before.items()}


def assert_equals_merge(pair, merged, names):
    assert set(pair.names) == set(names)
    for layer in pair:
        expected = merged[layer.name].reshape(layer.shape)
        assert np.abs(expected).max() > 1e-3
        np.testing.assert_allclose(layer.delta, expected, rtol=1e-4, atol=1e-6)
        if layer.factors is not None:
            left, right = layer.factors
            assert left.shape[1] == right.shape[0]
            np.testing.assert_allclose(left @ right, layer.delta, rtol=1e-5, atol=1e-7)
            assert layer.rounding_rms == 0.0


LINEAR = [f"layers.{i}.{kind}.weight" for i in (0, 1) for kind in ("query", "value")]
SETTINGS = {
    "alpha over r": {"r": 4, "lora_alpha": 6},
    "rsLoRA": {"r": 4, "lora_alpha": 6, "use_rslora": True},
    "rank pattern": {"r": 4, "lora_alpha": 6, "rank_pattern": {"value": 2, "layers.0.query": 3}},
    "alpha pattern": {"r": 4, "lora_alpha": 6, "alpha_pattern": {r"layers\.\d\.query": 20}},
    "patterns that match only a part of a name": {
        "r": 4,
        "rank_pattern": {"alue": 2, "^layers.1.value": 3},
        "alpha_pattern": {"layers.1": 30},
    },
    "both patterns with rsLoRA": {
        "r": 4,
        "use_rslora": True,
        "rank_pattern": {"0.value": 2, "value": 3},
        "alpha_pattern": {"value": 9},
    },
    "orthogonal start": {"r": 4, "init_lora_weights": "orthogonal"},
    "gaussian start": {"r": 4, "init_lora_weights": "gaussian"},
    "fan_in_fan_out set for linear layers": {"r": 4, "fan_in_fan_out": True},
    "a bias in B": {"r": 4, "lora_bias": True},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_the_update_of_an_adapter_equals_its_merge(tmp_path, setting):
    torch.manual_seed(0)
    config = LoraConfig(target_modules=["query", "value"], **SETTINGS[setting])
    merged = trained(Tiny(), config, tmp_path)
    pair = open_pair(tmp_path / "base", tmp_path / "adapter")
    assert_equals_merge(pair, merged, LINEAR)
    assert all(layer.factors is not None for layer in pair)
    assert pair.report.only_in_base == ()
    assert any("tuned is an adapter" in notice for notice in pair.report.notices)


def test_replaced_modules_and_embeddings_equal_the_merge(tmp_path):
    torch.manual_seed(0)
    config = LoraConfig(r=3, target_modules=["embed", "query"], modules_to_save=["classifier"])
    merged = trained(Tiny(), config, tmp_path)
    pair = open_pair(tmp_path / "base", tmp_path / "adapter")
    names = ["embed.weight", "layers.0.query.weight", "layers.1.query.weight", "classifier.weight"]
    assert_equals_merge(pair, merged, names)
    factors = {layer.name: layer.factors for layer in pair}
    assert factors["classifier.weight"] is None
    left, right = factors["embed.weight"]
    assert (left.shape, right.shape) == ((11, 3), (3, 6))
    assert ("classifier.bias", "one-dimensional") in pair.report.skipped


def test_conv1d_layers_get_the_transposed_product(tmp_path):
    torch.manual_seed(0)
    config = LoraConfig(r=3, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    merged = trained(TinyGPT(), config, tmp_path)
    pair = open_pair(tmp_path / "base", tmp_path / "adapter")
    assert_equals_merge(pair, merged, ["c_attn.weight", "c_proj.weight"])


def test_a_square_weight_of_unknown_orientation_is_refused(tmp_path):
    torch.manual_seed(0)
    config = LoraConfig(r=3, target_modules=["c_attn", "c_proj"], fan_in_fan_out=True)
    merged = trained(TinyGPT(), config, tmp_path)
    edit(tmp_path / "adapter", fan_in_fan_out=False)
    with pytest.raises(InputError, match=r"fan_in_fan_out is false .*1, first c_proj.weight"):
        open_pair(tmp_path / "base", tmp_path / "adapter")
    pair = open_pair(tmp_path / "base", tmp_path / "adapter", exclude="c_proj")
    assert_equals_merge(pair, merged, ["c_attn.weight"])


def test_an_adapted_convolution_is_skipped_or_flattened(tmp_path):
    torch.manual_seed(0)
    config = LoraConfig(r=2, target_modules=["conv", "query"])
    merged = trained(Tiny(), config, tmp_path)
    folders = tmp_path / "base", tmp_path / "adapter"
    queries = ["layers.0.query.weight", "layers.1.query.weight"]
    assert_equals_merge(open_pair(*folders), merged, queries)
    names = [*queries, "layers.0.conv.weight", "layers.1.conv.weight"]
    assert_equals_merge(open_pair(*folders, on_other="flatten"), merged, names)


def test_a_module_in_memory_and_a_renamed_prefix_work_with_an_adapter(tmp_path):
    torch.manual_seed(0)
    model = Tiny()
    base = copy.deepcopy(model)
    merged = trained(model, LoraConfig(r=4, target_modules=["query", "value"]), tmp_path)
    assert_equals_merge(open_pair(base, tmp_path / "adapter"), merged, LINEAR)
    wrapped = {f"model.{name}": value for name, value in base.state_dict().items()}
    pair = open_pair(wrapped, tmp_path / "adapter")
    assert pair.names[0] == "model.layers.0.query.weight"
    assert pair.report.renamed == (("model.", ""),)
    name = "layers.1.value.weight"
    (layer,) = open_pair(wrapped, tmp_path / "adapter", include=name)
    np.testing.assert_allclose(layer.delta, merged[name], rtol=1e-4, atol=1e-6)


def test_a_longer_adapted_vocabulary_can_be_truncated(tmp_path):
    torch.manual_seed(0)
    merged = trained(Tiny(), LoraConfig(r=3, target_modules=["embed"]), tmp_path)
    short = {"embed.weight": torch.ones(7, 6)}
    with pytest.raises(InputError, match="7 × 6 in base, 11 × 6 in tuned"):
        open_pair(short, tmp_path / "adapter")
    (layer,) = open_pair(short, tmp_path / "adapter", on_shape="truncate")
    np.testing.assert_allclose(layer.delta, merged["embed.weight"][:7], rtol=1e-4, atol=1e-6)
    assert layer.factors[0].shape == (7, 3)


def test_the_weights_file_of_an_adapter_is_the_adapter(tmp_path):
    torch.manual_seed(0)
    merged = trained(Tiny(), LoraConfig(r=4, target_modules=["query", "value"]), tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    assert_equals_merge(open_pair(tmp_path / "base", file), merged, LINEAR)


def test_a_pickled_adapter_needs_the_flag(tmp_path):
    torch.manual_seed(0)
    merged = trained(Tiny(), LoraConfig(r=4, target_modules=["query", "value"]), tmp_path)
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    torch.save(load_file(file), tmp_path / "adapter" / "adapter_model.bin")
    file.unlink()
    folders = tmp_path / "base", tmp_path / "adapter"
    with pytest.raises(InputError, match="a pickle"):
        open_pair(*folders)
    assert_equals_merge(open_pair(*folders, allow_pickle=True), merged, LINEAR)


def test_a_converted_pissa_adapter_is_read_as_the_update_of_the_original(tmp_path):
    torch.manual_seed(0)
    model = Tiny()
    original = {name: value.clone() for name, value in model.state_dict().items()}
    config = LoraConfig(r=2, target_modules=["query"], init_lora_weights="pissa")
    peft = get_peft_model(model, config)
    peft.peft_config["default"].init_lora_weights = True
    peft.save_pretrained(tmp_path / "start")
    peft.peft_config["default"].init_lora_weights = "pissa"
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter += 0.1
    peft.save_pretrained(
        tmp_path / "adapter", path_initial_model_for_weight_conversion=str(tmp_path / "start")
    )
    peft.save_pretrained(tmp_path / "raw")
    edit(tmp_path / "raw", init_lora_weights="pissa_niter_4", r=2, lora_alpha=8)
    after = peft.merge_and_unload().state_dict()
    merged = {name: (after[name] - value).numpy() for name, value in original.items()}
    names = ["layers.0.query.weight", "layers.1.query.weight"]
    pair = open_pair(original, tmp_path / "adapter")
    assert set(pair.names) == set(names)
    for layer in pair:
        np.testing.assert_allclose(layer.delta, merged[layer.name], atol=1e-5)
    with pytest.raises(InputError, match=r"init_lora_weights is 'pissa_niter_4'.*changed the base"):
        open_pair(original, tmp_path / "raw")


# What is refused


def edit(folder, **settings):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))


def adapter(folder, **settings):
    """A hand-written adapter of one layer, and its base."""
    folder.mkdir(exist_ok=True)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, **settings}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    factors = {
        "base_model.model.query.lora_A.weight": torch.ones(2, 6),
        "base_model.model.query.lora_B.weight": torch.ones(8, 2),
    }
    save_file(factors, folder / "adapter_model.safetensors")
    return {"query.weight": torch.zeros(8, 6)}, folder


def test_a_hand_written_adapter_has_its_product_as_update(tmp_path):
    (layer,) = open_pair(*adapter(tmp_path / "a"))
    np.testing.assert_allclose(layer.delta, 4.0)  # alpha / r = 2, times a sum of two ones


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"use_dora": True}, "use_dora is set, and DoRA also rescales"),
        ({"peft_type": "VERA"}, "a VERA adapter; only LoRA and CoSA adapters are read"),
        ({"peft_type": None}, "a None adapter"),
        ({"layer_replication": [[0, 2], [1, 3]]}, "layer_replication is set"),
        ({"alora_invocation_tokens": [1]}, "alora_invocation_tokens is set"),
        ({"use_qalora": True}, "use_qalora is set"),
        ({"target_parameters": ["experts.w"]}, "target_parameters is set"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices is set"),
        ({"kasa_config": {"beta": 1}}, "kasa_config is set"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        ({"init_lora_weights": "olora"}, "init_lora_weights is 'olora'"),
        ({"init_lora_weights": "corda"}, "init_lora_weights is 'corda'"),
        ({"init_lora_weights": "loftq"}, "init_lora_weights is 'loftq'"),
        ({"init_lora_weights": "lora_ga"}, "init_lora_weights is 'lora_ga'"),
        ({"r": 3}, "query should have rank 3 by adapter_config.json, but its factors are"),
        ({"rank_pattern": {"query": 5}}, "query should have rank 5"),
    ],
)
def test_an_adapter_whose_update_is_not_its_product_is_refused(tmp_path, settings, says):
    base, folder = adapter(tmp_path / "a", **settings)
    with pytest.raises(InputError, match=says) as caught:
        open_pair(base, folder)
    assert len(caught.value.problems) == 1
    assert str(folder) in str(caught.value)


def test_settings_that_are_off_are_not_refused(tmp_path):
    base, folder = adapter(tmp_path / "a", use_dora=False, layer_replication=None)
    assert len(open_pair(base, folder)) == 1


def rewrite(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("base_model.model.query.lora_magnitude_vector", "is not understood"),
        ("base_model.model.embed.token_adapter.trainable_tokens_delta", "is not understood"),
        ("base_model.model.value.lora_A.weight", "has only one of the two LoRA factors"),
    ],
)
def test_a_tensor_that_is_not_understood_is_refused(tmp_path, name, says):
    base, folder = adapter(tmp_path / "a")
    rewrite(folder, lambda tensors: tensors.update({name: torch.ones(2, 6)}))
    with pytest.raises(InputError, match=says) as caught:
        open_pair(base, folder)
    assert "value" in str(caught.value) or name in str(caught.value)


def test_damaged_adapter_folders_are_refused(tmp_path):
    base, folder = adapter(tmp_path / "a")
    weights = folder / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    with pytest.raises(InputError, match="truncated"):
        open_pair(base, folder)
    weights.unlink()
    with pytest.raises(InputError, match=r"no adapter_model.safetensors beside"):
        open_pair(base, folder)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match="not valid JSON"):
        open_pair(base, folder)


def test_a_product_of_the_wrong_shape_is_refused(tmp_path):
    _, folder = adapter(tmp_path / "a")
    with pytest.raises(InputError, match=r"query.weight: shapes differ: 8 × 5 in base, 8 × 6"):
        open_pair({"query.weight": torch.ones(8, 5)}, folder)


def test_an_adapter_cannot_be_the_base(tmp_path):
    base, folder = adapter(tmp_path / "a")
    with pytest.raises(InputError, match="is an adapter; give the model it was trained on"):
        open_pair(folder, base)


def test_nan_in_a_factor_is_refused(tmp_path):
    base, folder = adapter(tmp_path / "a")
    rewrite(folder, lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    with pytest.raises(InputError, match=r"48 NaN, first at .* in tuned"):
        list(open_pair(base, folder))


def test_unmerged_factors_inside_a_model_are_refused_with_the_remedy():
    model = get_peft_model(Tiny(), LoraConfig(r=2, target_modules=["query"]))
    with pytest.raises(InputError, match=r"LoRA layers that are not merged.*merge_and_unload"):
        open_pair(Tiny(), model)


def test_nan_in_the_base_of_an_adapter_is_refused(tmp_path):
    base, folder = adapter(tmp_path / "a")
    base["query.weight"][1, 2] = float("nan")
    with pytest.raises(InputError, match=r"1 NaN, first at \[1, 2\], in base;"):
        list(open_pair(base, folder))
