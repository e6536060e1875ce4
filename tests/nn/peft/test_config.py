"""The configuration checks its fields and survives a file."""

import copy
import json
import pickle

import pytest
from peft import PeftConfig

from cosa_theory import InputError
from cosa_theory.nn.peft import CosaConfig

FULL = {
    "a": 12,
    "b": 6,
    "alpha": 2.5,
    "seed": 2**70,
    "kind": "very_sparse",
    "options": {"density": 0.25},
    "scale": "analysis",
    "clip": False,
    "shape_pattern": {"lin0": (3, 2)},
    "alpha_pattern": {"l.n1": 0.5},
    "share_projections": True,
    "save_projections": True,
    "dropout": 0.1,
    "init_weights": False,
    "target_modules": ["lin1", "lin0"],
    "exclude_modules": ["head"],
    "modules_to_save": ["head"],
    "layers_to_transform": [0, 1],
    "layers_pattern": ["layers"],
    "fan_in_fan_out": True,
    "bias": "cosa_only",
    "model_type": "llama",
    "left": "srht",
    "projection_dtype": "bfloat16",
    "projection_bytes": 80,
    "gradients": "samples",
    "tokens": "random",
    "recipe": {"count": 3, "length": 5, "size": 2, "seed": 0},
    "layers": {"lin0": {"key": "lin0", "size": [4, 5], "core": [3, 2], "L": "0", "R": "1"}},
    "task_type": "CAUSAL_LM",
    "inference_mode": True,
    "revision": "main",
    "base_model_name_or_path": "somewhere",
}


def test_every_field_survives_a_file(tmp_path):
    config = CosaConfig(**FULL)
    fields = set(CosaConfig.__dataclass_fields__)
    assert set(FULL) >= fields - {"peft_type", "auto_mapping", "peft_version"}
    config.save_pretrained(tmp_path)
    for again in (CosaConfig.from_pretrained(tmp_path), PeftConfig.from_pretrained(tmp_path)):
        assert again == config
        assert again.to_dict() == config.to_dict()
    assert (again.seed, again.shape_pattern) == (2**70, {"lin0": [3, 2]})


def test_the_file_does_not_depend_on_the_order_of_a_set(tmp_path):
    texts = []
    for names in (["b", "a", "c"], ["c", "a", "b"]):
        CosaConfig(target_modules=names).save_pretrained(tmp_path)
        texts.append((tmp_path / "adapter_config.json").read_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy], ids=["copy", "deepcopy"])
def test_a_copy_is_equal(again):
    assert again(CosaConfig(**FULL)) == CosaConfig(**FULL)


def test_a_pickled_configuration_comes_back_equal():
    assert pickle.loads(pickle.dumps(CosaConfig(**FULL))) == CosaConfig(**FULL)


def test_the_defaults_are_those_of_the_paper_with_a_plain_alpha():
    config = CosaConfig()
    assert (config.a, config.b, config.alpha, config.scale) == (1024, 256, 1.0, "synthesis")
    assert (config.dropout, config.kind, config.bias) == (0.0, "gaussian", "none")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"a": 0}, "a is 0: it must be"),
        ({"kind": "fourier"}, "kind is 'fourier': it must be"),
        ({"dropout": 1.0}, "dropout is 1.0: it must be"),
        ({"bias": "lora_only"}, "bias is 'lora_only': it must be"),
        ({"layers": {"q": {"key": "q"}}}, "layers of q: size is None"),
        ({"layers": 3}, "layers is 3: it must be"),
        ({"layers_pattern": "h"}, "layers_pattern is 'h' without layers_to_transform"),
        (
            {"target_modules": ".*q", "layers_to_transform": 1},
            "layers_to_transform is 1, but target_modules is the regular expression '.*q'",
        ),
        ({"shape_pattern": {"q": 3}}, "shape_pattern of 'q' is 3: it must be two"),
        ({"alpha": float("nan")}, "alpha is nan: it must be"),
        ({"modules_to_save": "head"}, r"modules_to_save is 'head': .* such as \['lm_head'\]"),
        ({"target_modules": 3}, "target_modules is 3: it must be a list of names, or a regular"),
        ({"exclude_modules": "("}, r"exclude_modules is '\(': it must be a regular expression"),
        ({"layers_to_transform": "0"}, "layers_to_transform is '0': it must be an index"),
        ({"layers_to_transform": [0, True]}, r"layers_to_transform is \[0, True\]: it must be"),
        ({"layers_to_transform": 0, "layers_pattern": 3}, "layers_pattern is 3: it must be"),
        ({"clip": "no"}, "clip is 'no': it must be true or false"),
        ({"save_projections": "false"}, "save_projections is 'false': it must be true or false"),
        ({"init_weights": "gaussian"}, "init_weights is 'gaussian': it must be true or false"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_value_that_cannot_be_used_is_named(changes, message):
    with pytest.raises(InputError, match=message):
        CosaConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"r": 8}, "'r': .* give a and b"),
        ({"rank_pattern": {"q": 4}}, "'rank_pattern': .* shape_pattern"),
        ({"lora_alpha": 16}, "'lora_alpha': give alpha, which is not divided by a rank"),
        ({"lora_dropout": 0.1}, "'lora_dropout': give dropout"),
        ({"use_rslora": True}, "'use_rslora': it is a setting of LoRA"),
        ({"target_parameters": ["w"]}, "'target_parameters': .* give target_modules"),
        ({"aplha": 2.0}, "'aplha': the closest setting is alpha"),
        ({"zzzz": 2.0}, "'zzzz': leave it out"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else None,
)
def test_a_setting_that_there_is_not_is_answered_with_what_stands_for_it(changes, message):
    with pytest.raises(InputError, match=message):
        CosaConfig(a=4, b=4, **changes)


def test_settings_of_a_later_version_are_left_out_of_a_file_with_a_warning(tmp_path):
    CosaConfig(a=4, b=4).save_pretrained(tmp_path)
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"zzzz": 1, "lora_alpha": 16}))
    with pytest.warns(UserWarning, match=r"Unexpected keyword arguments \['lora_alpha', 'zzzz'\]"):
        assert CosaConfig.from_pretrained(tmp_path) == CosaConfig(a=4, b=4)


def test_all_problems_are_reported_together():
    with pytest.raises(InputError) as caught:
        CosaConfig(a=-1, dropout=2, bias="some")
    assert len(caught.value.problems) == 3


def test_settings_of_a_lora_adapter_stay_those_of_lora(tmp_path):
    from peft import LoraConfig

    LoraConfig(r=4, target_modules=["q"]).save_pretrained(tmp_path)
    assert type(CosaConfig.from_pretrained(tmp_path)) is LoraConfig
