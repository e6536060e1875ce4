"""What a user can get wrong: one clear sentence each, and a model that is as it was."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn import add_cosa, load_cosa, save_cosa
from tests.nn.test_model import assert_unchanged, snapshot
from tests.nn.test_saving import CONFIG, PREFIX, WEIGHTS, Net, adapted, released_folder


@pytest.fixture
def folder(tmp_path):
    save_cosa(adapted(modules_to_save=["head"]), tmp_path / "adapter")
    return tmp_path / "adapter"


def edit_settings(folder, **changes):
    settings = json.loads((folder / CONFIG).read_text())
    settings.update(changes)
    (folder / CONFIG).write_text(json.dumps(settings))


def edit_tensors(folder, change):
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def edit_layer(folder, name, **changes):
    layers = json.loads((folder / CONFIG).read_text())["layers"]
    layers[name].update(changes)
    edit_settings(folder, layers=layers)


def refusal(folder, model=None):
    """The sentences with which a folder is refused; the model must not have changed."""
    model = Net() if model is None else model
    before = snapshot(model)
    with pytest.raises(InputError) as caught:
        load_cosa(model, folder)
    assert_unchanged(model, before)
    assert all("\n" not in sentence for sentence in caught.value.problems)
    return "\n".join(caught.value.problems)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target_modules": ["qq"]}, "target_modules has 'qq', which is no module of the model"),
        ({"modules_to_save": ["heat"]}, "modules_to_save has 'heat', .* the closest is head"),
        ({"modules_to_save": "head"}, "modules_to_save is 'head': it must be a list"),
        ({"exclude_modules": "("}, r"exclude_modules is '\(': it must be a regular expression"),
        ({"a": 0}, "a is 0: "),
        ({"b": 2.5}, "b is 2.5: "),
        ({"alpha": float("nan")}, "alpha is nan: "),
        ({"alpha": "1"}, "alpha is '1': "),
        ({"seed": -1}, "seed is -1: "),
        ({"kind": "cauchy"}, "kind is 'cauchy': "),
        ({"scale": "unit"}, "scale is 'unit': "),
        ({"options": {"density": 0.5}}, "option density is 0.5: gaussian takes no option"),
        ({"kind": "very_sparse", "options": {"density": 2}}, "density is 2"),
        ({"kind": "sjlt", "options": {"nonzeros": 99}}, "nonzeros is 99"),
        ({"dropout": 1}, "dropout is 1: "),
        ({"dropout": "0.1"}, "dropout is '0.1': "),
        ({"order": "fast"}, "order is 'fast': "),
        ({"core_dtype": torch.int8}, "core_dtype is torch.int8: "),
        ({"core_dtype": "float32"}, "core_dtype is 'float32': "),
        ({"threads": "x"}, "threads is 'x': it must be a whole number of at least 1"),
        ({"threads": 0}, "threads is 0: "),
        ({"shape_pattern": {"q": (3,)}}, r"shape_pattern of 'q' is \(3,\): it must be two"),
        ({"alpha_pattern": {"q": None}}, "alpha_pattern of 'q' is None: "),
        ({"alpha_pattern": {"(": 1.0}}, r"alpha_pattern is '\(': it must be a regular"),
        ({"options": [1]}, r"options is \[1\]: "),
        ({"shape_pattern": [1]}, r"shape_pattern is \[1\]: "),
        ({"alpha_pattern": {1: 1.0}}, "alpha_pattern is 1: it must be a regular"),
        ({"a": 99, "clip": False}, "choose a smaller core, or let clip=True reduce it"),
    ],
    ids=lambda value: ", ".join(map(str, value)) if isinstance(value, dict) else "",
)
def test_a_bad_setting_leaves_the_model_as_it_was(settings, message):
    model = Net()
    before = snapshot(model)
    with pytest.raises(InputError, match=message) as caught:
        add_cosa(model, **({"target_modules": ["q", "up"], "a": 6, "b": 4} | settings))
    assert len(caught.value.problems) == 1
    assert "\n" not in str(caught.value)
    assert_unchanged(model, before)


def test_a_bad_number_of_threads_is_told_before_a_folder_is_loaded(folder):
    with pytest.raises(InputError, match="threads is None: it must be a whole number"):
        load_cosa(Net(), folder, threads=None)


def test_several_bad_settings_are_all_named():
    with pytest.raises(InputError) as caught:
        add_cosa(Net(), ["q"], a=-1, kind="cauchy", alpha=float("inf"))
    assert len(caught.value.problems) == 3


def test_a_folder_that_is_no_adapter_is_refused(tmp_path):
    found = refusal(tmp_path / "nowhere")
    assert "no such folder: name that of a saved CoSA adapter" in found
    (tmp_path / CONFIG).write_text(json.dumps({"peft_type": "LORA", "r": 8, "lora_alpha": 8}))
    (tmp_path / WEIGHTS).write_bytes(b"")
    assert "peft_type is 'LORA'" in refusal(tmp_path)
    (tmp_path / CONFIG).write_text("{")
    assert "not valid JSON" in refusal(tmp_path)


def test_a_pickled_adapter_is_refused_and_not_opened(folder):
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")
    assert "adapter_model.bin, a pickle, which can run code" in refusal(folder)
    (folder / "adapter_model.bin").unlink()
    torch.save({}, folder / WEIGHTS)
    assert "a pickle, which can run any code" in refusal(folder)


def test_a_damaged_file_is_refused(folder):
    whole = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(whole[:-5])
    assert "truncated: its header announces" in refusal(folder)
    (folder / WEIGHTS).write_bytes(whole[:20])
    assert "truncated within its header" in refusal(folder)
    (folder / WEIGHTS).write_bytes(b"\xff" * 100)
    assert "not a safetensors file" in refusal(folder)


def test_an_adapter_of_another_model_is_refused_with_the_closest_names(folder):
    model = nn.ModuleDict(
        {"trunk": nn.ModuleDict({"up": nn.Linear(16, 24)}), "head": nn.Linear(24, 5)}
    )
    found = refusal(folder, model)
    assert "3 of 3 layers are not in the model (body.k, body.q, up)" in found
    assert "load it into the model that it was trained on" in found
    model = Net()
    model.up = nn.Linear(16, 32)
    found = refusal(folder, model)
    assert "1 of 3 layers have another size: up (32 × 16 in the model, 24 × 16 in the" in found
    model = Net()
    model.up = nn.Identity()
    assert "up is of type Identity, and only nn.Linear is adapted" in refusal(folder, model)


def test_every_layer_that_does_not_fit_is_counted_and_other_problems_are_listed_too(folder):
    model = Net()
    model.up, model.body["q"] = nn.Linear(16, 32), nn.ReLU()
    model.head = nn.Linear(24, 6)
    found = refusal(folder, model).split("\n")
    assert len(found) == 4  # the size of up, the type of q, weight and bias of the head
    assert any("head.weight has shape (5, 24), but (6, 24) in the model" in one for one in found)


def test_a_missing_core_is_named(folder):
    edit_tensors(folder, lambda tensors: tensors.pop(f"{PREFIX}up.cosa_Y"))
    assert "up is in adapter_config.json, but adapter_model.safetensors has no core" in refusal(
        folder
    )


def test_unexpected_tensors_are_named(folder):
    edit_tensors(folder, lambda tensors: tensors.update({f"{PREFIX}up.cosa_Z": torch.zeros(2)}))
    assert "the tensor base_model.model.up.cosa_Z is not understood" in refusal(folder)


def test_a_tensor_that_the_model_lacks_is_named(folder):
    edit_tensors(folder, lambda tensors: tensors.update({f"{PREFIX}heat.weight": torch.zeros(2)}))
    found = refusal(folder)
    assert "base_model.model.heat.weight is none of the model's" in found
    assert "the closest are head.weight" in found


def test_a_core_of_the_wrong_shape_is_named(folder):
    edit_tensors(folder, lambda tensors: tensors.update({f"{PREFIX}up.cosa_Y": torch.zeros(6, 5)}))
    assert "cosa_Y is 6 × 5, but 6 × 4 is expected of Y" in refusal(folder)
    edit_tensors(folder, lambda tensors: tensors.update({f"{PREFIX}up.cosa_Y": torch.zeros(24)}))
    assert "must be a matrix of floating-point numbers" in refusal(folder)


def test_a_core_with_nan_is_named(folder):
    edit_tensors(folder, lambda tensors: tensors[f"{PREFIX}up.cosa_Y"].fill_(float("nan")))
    assert "the core of up holds NaN or infinite entries" in refusal(folder)


@pytest.mark.parametrize("patterns", [{"(": 1.0}, [1]], ids=["expression", "list"])
def test_patterns_that_are_none_are_named(folder, patterns):
    edit_settings(folder, alpha_pattern=patterns)
    assert "alpha_pattern is" in refusal(folder)


def test_a_module_saved_whole_must_be_complete_and_hold_numbers(folder):
    name = "base_model.model.head.weight"
    kept = load_file(folder / WEIGHTS)
    edit_tensors(folder, lambda tensors: tensors.pop(name))
    assert "head.weight is missing in adapter_model.safetensors" in refusal(folder)
    save_file(kept | {name: kept[name].fill_(float("nan"))}, folder / WEIGHTS)
    assert f"{name} holds NaN entries" in refusal(folder)
    save_file(kept | {name: torch.ones_like(kept[name], dtype=torch.int32)}, folder / WEIGHTS)
    assert f"{name} is of type int32; it must be of a floating-point type" in refusal(folder)


def test_the_weight_of_an_adapted_layer_is_not_replaced(folder):
    (layer, *_), model = json.loads((folder / CONFIG).read_text())["layers"], Net()
    weight = model.get_submodule(layer).weight.detach() + 1
    edit_tensors(
        folder, lambda tensors: tensors.update({f"base_model.model.{layer}.weight": weight})
    )
    assert "is the weight of a layer that the adapter adapts" in refusal(folder)


def test_stored_projections_with_nan_are_named(tmp_path):
    save_cosa(adapted(), tmp_path, save_projections=True)
    edit_tensors(tmp_path, lambda tensors: tensors[f"{PREFIX}up.cosa_L"].fill_(float("inf")))
    assert "base_model.model.up.cosa_L holds NaN or infinite entries" in refusal(tmp_path)


def test_draws_that_differ_from_the_fingerprints_are_named(folder):
    edit_layer(folder, "up", L="0" * 32)
    found = refusal(folder)
    assert "L of up, drawn from seed 0, has the fingerprint" in found
    assert "use the versions of cosa-theory and numpy that saved it" in found
    edit_settings(folder, seed=1)
    assert "L of body.k (and 5 more), drawn from seed 1, has the fingerprint" in refusal(folder)


def test_stored_projections_load_where_a_draw_would_differ(tmp_path):
    model = adapted()
    save_cosa(model, tmp_path, save_projections=True)
    edit_settings(tmp_path, seed=1)
    x = torch.randn(3, 16)
    assert torch.allclose(load_cosa(Net(), tmp_path)(x), model(x), rtol=0, atol=1e-5)


def test_an_ensemble_that_this_version_lacks_is_named(folder):
    edit_settings(folder, kind="butterfly")
    found = refusal(folder)
    assert "kind is 'butterfly'" in found
    assert "gaussian, rademacher" in found


def test_settings_that_the_ensemble_refuses_are_named(folder):
    edit_settings(folder, kind="sjlt", options={"nonzeros": 99})
    assert "nonzeros is 99" in refusal(folder)


def test_an_adapter_of_the_released_code_without_projections_is_refused_with_the_reason(tmp_path):
    released_folder(tmp_path / "released", Net())
    edit_tensors(
        tmp_path / "released",
        lambda tensors: [tensors.pop(name) for name in list(tensors) if "lora_L" in name],
    )
    found = refusal(tmp_path / "released")
    assert "L and R are not in the file for 2 of 2 layers" in found
    assert "so no seed brings them back: save the adapter there together with lora_L" in found


def test_a_model_with_adapters_is_not_loaded_into(folder):
    model = adapted()
    assert "has 3 CoSA layers already" in refusal(folder, model)


def test_saving_what_holds_no_layers_or_into_a_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="no CoSA layers, so there is nothing to save"):
        save_cosa(Net(), tmp_path / "adapter")
    with pytest.raises(InputError, match="task_type is 'CHAT': it must be one of SEQ_CLS, "):
        save_cosa(adapted(), tmp_path / "adapter", task_type="CHAT")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="file: a file is in the way: name a folder"):
        save_cosa(adapted(), tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"
