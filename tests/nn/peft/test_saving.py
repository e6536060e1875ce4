"""Adapters come back from a folder, in any process, or are refused."""

import hashlib
import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from peft import PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from cosa_theory import InputError
from cosa_theory.nn.peft import CosaConfig, Linear
from tests.nn.peft.models import adapted, gpt2, llama, mlp, same_state, state_of, tokens

ROOT = Path(__file__).resolve().parents[3]
X = torch.randn(5, 10, generator=torch.Generator().manual_seed(3))


def config(**changes):
    settings = {"a": 6, "b": 4, "target_modules": ["lin0", "lin1"], "init_weights": False}
    return CosaConfig(**settings | {"alpha": 1.5, "seed": 3} | changes)


def output(model, x=X):
    with torch.inference_mode():
        result = model(x)
    return getattr(result, "logits", result)


CASES = {
    "gaussian": {},
    "sparse": {"kind": "very_sparse", "options": {"density": 0.5}},
    "haar": {"kind": "haar", "scale": "analysis"},
    "stored": {"save_projections": True},
    "stored signs": {"save_projections": True, "kind": "srht"},
    "shared": {"share_projections": True},
    "clipped": {"a": 18, "b": 12},
    "patterns": {"shape_pattern": {"lin0": [3, 2]}, "alpha_pattern": {"lin1": 0.5}},
}


@pytest.mark.filterwarnings("ignore:the core is larger")
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("low_memory", [False, True], ids=["", "low_cpu_mem_usage"])
def test_an_adapter_comes_back_as_it_was(case, low_memory, tmp_path):
    model = adapted(config(**CASES[case]))
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Found missing adapter keys")
        again = PeftModel.from_pretrained(mlp(), tmp_path, low_cpu_mem_usage=low_memory)
    # Signs that were stored at their true scale are multiplied as any numbers are.
    same = torch.allclose if case == "stored signs" else torch.equal
    assert same(output(again), output(model))
    other = adapted(config(seed=9), seed=1)
    result = other.load_adapter(tmp_path, "second", low_cpu_mem_usage=low_memory)
    assert not result.missing_keys
    other.set_adapter("second")
    assert same(output(other), output(model))


def test_only_cores_are_stored(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "adapter_model.safetensors")
    assert {name: tuple(one.shape) for name, one in tensors.items()} == {
        f"base_model.model.{name}.cosa_Y": (6, 4) for name in ("lin0", "lin1")
    }
    assert all(one.dtype == torch.float32 for one in tensors.values())


def test_the_configuration_describes_every_layer(tmp_path):
    model = adapted(config())
    model.save_pretrained(tmp_path)
    described = json.loads((tmp_path / "adapter_config.json").read_text())["layers"]
    left = model.base_model.model.lin0.cosa_L["default"]
    assert described["lin0"].pop("Y")
    assert described["lin0"] | {"R": ""} == {
        "key": "lin0",
        "size": [20, 10],
        "core": [6, 4],
        "L": left.spec.fingerprint(),
        "R": "",
    }
    assert list(described) == ["lin0", "lin1"]
    assert model.peft_config["default"].layers is None, "a configuration can be used again"


@pytest.mark.parametrize("kind", ["gaussian", "sjlt"])
def test_stored_projections_are_at_their_true_scale_and_are_used_as_given(
    kind, tmp_path, monkeypatch
):
    model = adapted(config(save_projections=True, kind=kind))
    model.save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    layer, at = model.base_model.model.lin0, "base_model.model.lin0."
    assert tensors[at + "cosa_L"].shape == (20, 6)
    assert tensors[at + "cosa_R"].shape == (4, 10)
    core = layer.cosa_Y["default"].detach()
    product = 1.5 * tensors[at + "cosa_L"] @ core @ tensors[at + "cosa_R"]
    assert torch.allclose(product, layer.get_delta_weight("default"), atol=1e-6)
    tensors[at + "cosa_L"] *= 2
    save_file(tensors, path, metadata={"format": "pt"})
    drawn = []
    monkeypatch.setattr("cosa_theory.nn.pairs.draw_projections", drawn.append)
    again = PeftModel.from_pretrained(mlp(), tmp_path).base_model.model.lin0
    assert drawn == []
    assert again.cosa_L["default"].spec is None
    assert torch.allclose(again.get_delta_weight("default"), 2 * product, atol=1e-6)


def test_shared_projections_are_stored_once_and_saved_again_alike(tmp_path):
    wanted = config(target_modules=["q_proj"], share_projections=True, save_projections=True)
    model = adapted(wanted, llama)
    model.save_pretrained(tmp_path / "first")
    again = PeftModel.from_pretrained(llama(), tmp_path / "first")
    assert torch.equal(output(again, tokens()), output(model, tokens()))
    again.save_pretrained(tmp_path / "second")
    first, second = (
        load_file(tmp_path / folder / "adapter_model.safetensors") for folder in ("first", "second")
    )
    assert sorted(name.rpartition(".")[2] for name in first) == [
        "cosa_L",
        "cosa_R",
        *["cosa_Y"] * 2,
    ]
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


def digest(model):
    """A hash of a model's output and of the projections of its layers."""
    parts = [output(model, tokens())]
    for layer in model.modules():
        if isinstance(layer, Linear):
            parts += [layer.cosa_L["default"].matrix(), layer.cosa_R["default"].matrix()]
    assert len(parts) == 9
    return hashlib.sha256(b"".join(part.numpy().tobytes() for part in parts)).hexdigest()


PROCESS = """
import sys, torch
torch.set_num_threads(int(sys.argv[2]))
from peft import PeftModel
from tests.nn.peft.models import llama
from tests.nn.peft.test_saving import digest
print(digest(PeftModel.from_pretrained(llama(), sys.argv[1])))
"""


def test_projections_and_outputs_are_equal_bit_for_bit_in_another_process(tmp_path):
    model = adapted(CosaConfig(a=6, b=4, seed=11, init_weights=False), llama)
    model.save_pretrained(tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", PROCESS, str(tmp_path), str(torch.get_num_threads())],
        env=os.environ | {"PYTHONHASHSEED": "2", "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == digest(model)


def test_pickled_weights_load_too(tmp_path):
    model = adapted(config(save_projections=True, kind="rademacher"))
    model.save_pretrained(tmp_path, safe_serialization=False)
    assert not (tmp_path / "adapter_model.safetensors").exists()
    again = PeftModel.from_pretrained(mlp(), tmp_path)
    assert torch.allclose(output(again), output(model), atol=1e-6)
    assert again.base_model.model.lin0.cosa_L["default"].spec is not None, "equal to the draw"


def test_transformers_own_adapter_methods_save_and_load(tmp_path):
    model = llama()
    torch.manual_seed(0)
    model.add_adapter(config(target_modules=["q_proj"]))
    model.eval()
    model.save_pretrained(tmp_path)
    again = llama()
    again.load_adapter(str(tmp_path))
    assert torch.equal(output(again.eval(), tokens()), output(model, tokens()))
    through_peft = PeftModel.from_pretrained(llama(), tmp_path)
    assert torch.equal(output(through_peft, tokens()), output(model, tokens()))


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_an_adapter_of_conv1d_layers_comes_back(tmp_path):
    model = adapted(config(target_modules=["c_attn", "c_fc"]), gpt2)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(gpt2(), tmp_path)
    assert torch.equal(output(again, tokens()), output(model, tokens()))


@pytest.mark.parametrize("shared", [False, True], ids=["own", "shared"])
def test_a_state_dict_moves_an_adapter_between_models(shared):
    wanted = {"target_modules": ["q_proj"], "share_projections": shared}
    model = adapted(config(save_projections=True, **wanted), llama)
    other = adapted(config(seed=8, **wanted), llama, seed=4)
    result = set_peft_model_state_dict(other, get_peft_model_state_dict(model))
    assert not result.unexpected_keys
    assert torch.allclose(output(other, tokens()), output(model, tokens()), atol=1e-5)
    first, second = (block.self_attn.q_proj for block in other.base_model.model.model.layers)
    assert (first.cosa_L["default"] is second.cosa_L["default"]) is shared


def test_an_adapter_named_like_a_module_is_saved_whole(tmp_path):
    model = adapted(config(save_projections=True), adapter_name="lin0")
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(mlp(), tmp_path / "lin0", adapter_name="lin1")
    assert torch.equal(output(again), output(model))


def test_each_adapter_is_saved_with_its_own_layers(tmp_path):
    model = adapted(config())
    model.add_adapter("other", config(target_modules=["lin1"], seed=5))
    model.save_pretrained(tmp_path)
    for folder, count in ((tmp_path, 2), (tmp_path / "other", 1)):
        described = json.loads((folder / "adapter_config.json").read_text())["layers"]
        with safe_open(folder / "adapter_model.safetensors", "pt") as file:
            assert len(described) == len(file.keys()) == count


def edit(folder, change):
    path = folder / "adapter_config.json"
    settings = json.loads(path.read_text())
    change(settings)
    path.write_text(json.dumps(settings))


def refused(folder, match, build=mlp):
    """The folder is refused by both ways to load it, and neither changes the model."""
    base = build()
    before, kinds = state_of(base), [type(module) for module in base.modules()]
    with pytest.raises(ValueError, match=match) as caught:
        PeftModel.from_pretrained(base, folder)
    assert same_state(base, before)
    assert [type(module) for module in base.modules()] == kinds
    other = adapted(config(target_modules=["lin0"]), build) if build is mlp else None
    if other is not None:
        before, out = state_of(other), output(other)
        with pytest.raises(ValueError, match=match):
            other.load_adapter(folder, "second")
        assert same_state(other, before)
        assert list(other.peft_config) == ["default"]
        assert torch.equal(output(other), out)
    return caught.value


def test_a_fingerprint_that_does_not_match_is_refused_by_the_layers_name(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    edit(tmp_path, lambda settings: settings["layers"]["lin1"].update(R="0" * 32))
    error = refused(tmp_path, r"R of lin1, drawn from seed 3, has the fingerprint \w+, and")
    assert isinstance(error, InputError)


def test_another_seed_is_refused_where_it_draws_other_projections(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    edit(tmp_path, lambda settings: settings.update(seed=4))
    refused(tmp_path, r"L of lin0 \(and 3 more\), drawn from seed 4")


def test_a_configuration_of_a_saved_adapter_cannot_start_another_by_accident(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    loaded = CosaConfig.from_pretrained(tmp_path)
    loaded.seed = 5
    with pytest.raises(InputError, match="drawn from seed 5"):
        get_peft_model(mlp(), loaded)


def wider():
    from torch import nn

    base = mlp()
    base.lin1 = nn.Linear(20, 24)
    base.head = nn.Linear(24, 3)
    return base


def test_an_adapter_of_another_base_model_is_refused(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    refused(tmp_path, "lin1 is 24 × 20 in this model and 16 × 20 for the adapter", wider)
    adapted(config(target_modules=["q_proj"]), llama).save_pretrained(tmp_path / "llama")
    match = "has a core for model.layers.1.self_attn.q_proj, which is not among"
    refused(tmp_path / "llama", match, lambda: llama(num_hidden_layers=1))
    match = "has no core for model.layers.2.self_attn.q_proj, which target_modules"
    refused(tmp_path / "llama", match, lambda: llama(num_hidden_layers=3))


def test_a_truncated_file_is_refused(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-20])
    refused(tmp_path, "adapter_model.safetensors")
    path.write_bytes(b"no tensors at all")
    refused(tmp_path, "adapter_model.safetensors")


def rewritten(folder, change):
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


def test_a_missing_core_is_refused(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    rewritten(tmp_path, lambda tensors: tensors.pop("base_model.model.lin1.cosa_Y"))
    refused(tmp_path, "lin1")


@pytest.mark.parametrize("role", ["Y", "L", "R"])
def test_values_that_are_no_numbers_are_refused(role, tmp_path):
    adapted(config(save_projections=True)).save_pretrained(tmp_path)

    def spoil(tensors):
        tensors[f"base_model.model.lin1.cosa_{role}"][0, 0] = float("nan")

    rewritten(tmp_path, spoil)
    refused(tmp_path, "lin1.* holds NaN or infinite entries")


def test_a_state_dict_with_values_that_are_no_numbers_is_refused():
    model = adapted(config())
    tensors = get_peft_model_state_dict(model)
    before = state_of(model)
    bad = {name: torch.full_like(value, float("inf")) for name, value in tensors.items()}
    with pytest.raises(InputError, match="the core of lin0 holds NaN or infinite entries"):
        set_peft_model_state_dict(model, bad)
    assert same_state(model, before)


def test_a_module_saved_whole_must_be_complete_and_hold_numbers(tmp_path):
    name = "base_model.model.head.bias"
    adapted(config(modules_to_save=["head"])).save_pretrained(tmp_path)
    rewritten(tmp_path, lambda tensors: tensors[name].fill_(float("nan")))
    refused(tmp_path, f"{name} holds NaN entries")
    rewritten(tmp_path, lambda tensors: tensors.pop(name))
    refused(tmp_path, "head.bias is missing in adapter_model.safetensors")


def test_a_core_of_another_shape_is_refused(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    rewritten(tmp_path, lambda ts: ts.update({"base_model.model.lin1.cosa_Y": torch.ones(4, 6)}))
    refused(tmp_path, "lin1")


def test_an_ensemble_that_this_version_lacks_is_refused(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    edit(tmp_path, lambda settings: settings.update(kind="butterfly"))
    refused(tmp_path, "kind is 'butterfly': it must be one of gaussian")


def test_settings_that_contradict_the_cores_are_refused(tmp_path):
    adapted(config()).save_pretrained(tmp_path)
    edit(tmp_path, lambda settings: settings.update(a=5))
    refused(tmp_path, "the core of lin0 is 6 × 4 in the adapter, and 5 × 4 by its settings")
    edit(tmp_path, lambda settings: settings.update(a=6, share_projections=True))
    refused(tmp_path, r"lin0 was drawn with the key 'lin0', not '\*'")


def test_a_state_dict_that_does_not_fit_is_refused_before_anything_is_loaded():
    model = adapted(config())
    state = get_peft_model_state_dict(model)
    del state["base_model.model.lin0.cosa_Y"]
    state["base_model.model.lin1.cosa_Y"] = torch.ones(2, 2)
    before = state_of(model)
    with pytest.raises(InputError) as caught:
        set_peft_model_state_dict(model, state)
    assert [problem.split(";")[0] for problem in caught.value.problems] == [
        "the adapter for 'default': there is no core for lin0",
        "the adapter for 'default': the core of lin1 is (2, 2), and (6, 4) is expected",
    ]
    assert same_state(model, before)


def test_unknown_targets_are_answered_with_the_closest_names():
    base = llama()
    before = state_of(base)
    match = "target_modules has 'q_prj', which is no module of the model; the closest are q_proj"
    with pytest.raises(ValueError, match=match):
        get_peft_model(base, config(target_modules=["q_prj"]))
    with pytest.raises(ValueError, match=r"Target module model.embed_tokens is a Embedding"):
        get_peft_model(base, config(target_modules=["q_proj", "embed_tokens"]))
    with pytest.raises(ValueError, match="larger than 2 of 2 layers"):
        get_peft_model(base, config(target_modules=["q_proj"], a=17, clip=False))
    assert same_state(base, before)


class Under(torch.nn.Module):
    """A model whose only child has a name that later versions may change."""

    def __init__(self, **parts):
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x):
        for part in self.children():
            x = part(x)
        return x


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("mapping", [None, {"^model": "lm"}])
def test_an_adapter_follows_its_layers_into_a_model_that_names_them_otherwise(
    stored, mapping, tmp_path
):
    inner = mlp()
    settings = {"save_projections": stored, "alpha_pattern": {r"^model\.lin1": 3.0}}
    model = adapted(config(**settings), lambda: Under(model=mlp()))
    expected = model(X)
    model.save_pretrained(tmp_path / "old")
    again = PeftModel.from_pretrained(Under(lm=inner), tmp_path / "old", key_mapping=mapping).eval()
    assert torch.equal(again(X), expected)
    again.save_pretrained(tmp_path / "new")  # by the new names, drawn for the old
    third = PeftModel.from_pretrained(Under(lm=mlp()), tmp_path / "new").eval()
    assert torch.allclose(third(X), expected, atol=1e-6)
    with pytest.raises(InputError, match=r"no core for|core for model\.lin"):
        PeftModel.from_pretrained(Under(lm=mlp(), more=mlp()), tmp_path / "old")


def test_a_key_mapping_to_other_layers_than_the_projections_are_of_is_refused(tmp_path):
    square = {"a": torch.nn.Linear(4, 4), "b": torch.nn.Linear(4, 4)}
    model = adapted(config(target_modules=["a", "b"], a=2, b=2), lambda: Under(old=Under(**square)))
    model.save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"key_mapping gives new\.a another core than that of old"):
        PeftModel.from_pretrained(
            Under(new=Under(**square)), tmp_path, key_mapping={"^old.a": "new.b", "^old.b": "new.a"}
        )
