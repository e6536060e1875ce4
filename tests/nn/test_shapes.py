"""The layers of a model, found without its weights, are those of the model with its weights."""

import json
import sys

import pytest
import torch
import transformers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
)
from transformers.pytorch_utils import Conv1D

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.shapes import model_layers, read_config
from paper_checks.models import load_models

SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
DECODER = SMALL | {"intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 8}
PLAIN = SMALL | {"intermediate_size": 48}
CONFIGS = {
    "llama": DECODER,
    "mistral": DECODER,
    "qwen2": DECODER,
    "qwen3": DECODER,
    "gemma": DECODER,
    "gemma2": DECODER,
    "gemma3_text": DECODER,
    "phi": PLAIN,
    "phi3": PLAIN | {"num_key_value_heads": 2, "pad_token_id": 0},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": 64},
    "gpt_neox": PLAIN,
    "opt": SMALL | {"ffn_dim": 48, "word_embed_proj_dim": 24},
    "bert": PLAIN,
    "roberta": PLAIN,
    "distilbert": {"dim": 32, "hidden_dim": 48, "n_layers": 2, "n_heads": 4, "vocab_size": 64},
    "t5": {"d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 2, "num_heads": 4, "vocab_size": 64},
    "bart": {
        "d_model": 32,
        "vocab_size": 64,
        **{f"{side}_layers": 2 for side in ("encoder", "decoder")},
        **{f"{side}_ffn_dim": 48 for side in ("encoder", "decoder")},
        **{f"{side}_attention_heads": 4 for side in ("encoder", "decoder")},
    },
    "mixtral": DECODER | {"num_local_experts": 2},
}


def linear_sizes(model):
    """Every linear layer by name, from the weights themselves."""
    sizes = {}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            sizes[name] = tuple(module.weight.shape)
        elif isinstance(module, Conv1D):
            sizes[name] = tuple(module.weight.shape[::-1])
    return sizes


@pytest.mark.parametrize("kind", CONFIGS)
def test_every_type_has_the_layers_of_the_model_that_transformers_builds(kind):
    found = model_layers({"model_type": kind, **CONFIGS[kind]})
    built = AutoModel.from_config(AutoConfig.for_model(kind, **CONFIGS[kind]))
    assert dict(found.sizes) == linear_sizes(built)
    assert len(found.sizes) >= 8
    assert type(built).__name__ == found.architecture


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_full_sizes_are_those_of_the_full_model(kind):
    """The default configurations of transformers: up to tens of billions of parameters."""
    with torch.device("meta"):
        built = AutoModel.from_config(AutoConfig.for_model(kind))
    assert dict(model_layers({"model_type": kind}).sizes) == linear_sizes(built)


@pytest.mark.parametrize("name", load_models())
def test_real_models_have_their_published_shapes(name):
    model = load_models()[name]
    found = {
        path: size
        for path, size in model_layers(model.config).sizes.items()
        if not path.startswith("pooler")
    }
    expected = {
        f"{block}.{matrix}": size
        for block in range(model.blocks)
        for matrix, size in model.matrices.items()
    }
    assert {
        path.split("layers.")[-1].split("layer.")[-1]: m for path, m in found.items()
    } == expected


@pytest.mark.parametrize(
    ("kind", "build", "class_name"),
    [
        ("llama", AutoModelForCausalLM, "LlamaForCausalLM"),
        ("gpt2", AutoModelForCausalLM, "GPT2LMHeadModel"),
        ("bert", AutoModelForSequenceClassification, "BertForSequenceClassification"),
        ("roberta", AutoModelForSequenceClassification, "RobertaForSequenceClassification"),
        ("t5", None, "T5ForConditionalGeneration"),
    ],
)
def test_all_linear_means_what_peft_means_by_it(kind, build, class_name):
    import transformers
    from peft import LoraConfig, get_peft_model

    config = AutoConfig.for_model(kind, **CONFIGS[kind])
    model = build.from_config(config) if build else getattr(transformers, class_name)(config)
    task = "SEQ_CLS" if class_name.endswith("SequenceClassification") else None
    wanted = LoraConfig(r=2, target_modules="all-linear", task_type=task)
    adapted = get_peft_model(model, wanted)
    found = model_layers({"model_type": kind, "architectures": [class_name], **CONFIGS[kind]})
    assert found.architecture == class_name
    assert set(found.sizes) == set(adapted.base_model.targeted_module_names)


def test_layers_that_read_one_tensor_are_found():
    inputs = model_layers({"model_type": "llama", **DECODER}).inputs
    ends = {
        name.removeprefix("layers.1."): reader.removeprefix("layers.1.")
        for name, reader in inputs.items()
        if name.startswith("layers.1.")
    }
    assert ends == {
        "self_attn.q_proj": "self_attn.q_proj",
        "self_attn.k_proj": "self_attn.q_proj",
        "self_attn.v_proj": "self_attn.q_proj",
        "self_attn.o_proj": "self_attn.o_proj",
        "mlp.gate_proj": "mlp.gate_proj",
        "mlp.up_proj": "mlp.gate_proj",
        "mlp.down_proj": "mlp.down_proj",
    }


def test_cross_attention_reads_the_encoder_once():
    inputs = model_layers({"model_type": "bart", **CONFIGS["bart"]}).inputs
    readers = {inputs[f"decoder.layers.{i}.encoder_attn.{x}_proj"] for i in (0, 1) for x in "kv"}
    assert len(readers) == 1


def test_only_adapted_layers_share_an_input():
    inputs = model_layers({"model_type": "llama", **DECODER}, ["v_proj"]).inputs
    assert inputs == {name: name for name in inputs}


def test_a_model_that_cannot_be_run_without_values_is_said_to_be_counted_above():
    found = model_layers({"model_type": "vit", "num_hidden_layers": 2})
    assert any("upper bound" in notice for notice in found.notices)
    assert all(name == reader for name, reader in found.inputs.items())


def test_stacked_experts_are_said_to_be_left_out():
    (notice,) = model_layers({"model_type": "mixtral", **CONFIGS["mixtral"]}).notices
    assert "experts" in notice
    assert "CoSA does not adapt them" in notice
    assert not any("expert" in name for name in model_layers({"model_type": "mixtral"}).sizes)


def test_building_takes_no_memory_and_leaves_the_random_generator_alone():
    before = torch.get_rng_state()
    model_layers({"model_type": "llama", "hidden_size": 65536, "num_hidden_layers": 3})
    assert torch.equal(before, torch.get_rng_state())


def test_a_quantised_or_specially_computed_model_is_planned_as_its_plain_form():
    plain = model_layers({"model_type": "llama", **DECODER})
    special = {
        "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True},
        "attn_implementation": "flash_attention_2",
        "torch_dtype": "bfloat16",
    }
    assert model_layers({"model_type": "llama", **DECODER, **special}) == plain


def test_a_config_is_read_from_its_file_or_its_folder(tmp_path):
    fields = {"model_type": "llama", **DECODER}
    (tmp_path / "config.json").write_text(json.dumps(fields))
    assert read_config(tmp_path) == read_config(tmp_path / "config.json") == fields
    assert model_layers(tmp_path) == model_layers(fields)


# Bad input -------------------------------------------------------------------------------------


def problem(source, target_modules="all-linear"):
    with pytest.raises(InputError) as caught:
        model_layers(source, target_modules)
    (sentence,) = caught.value.problems
    assert "\n" not in sentence
    return sentence


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("{", "not valid JSON"),
        ("[1]", "expected a JSON object, found a list"),
        ("{}", "has no model_type"),
        ('{"model_type": 3}', "has no model_type"),
        ('{"model_type": "lama"}', "no model type 'lama' (the closest are"),
        ('{"model_type": "own", "auto_map": {}}', "brings its own code, which is not run"),
        ('{"model_type": "llama", "hidden_size": "big"}', "cannot build a llama model"),
        ('{"model_type": "llama", "hidden_size": -64}', "cannot build a llama model"),
        ('{"model_type": "bert", "hidden_act": "nonesuch"}', "cannot build a bert model"),
        ('{"model_type": "bert", "hidden_size": 30}', "cannot build a bert model"),
        ('{"model_type": "llama", "num_hidden_layers": 0}', "leaves no layer to adapt"),
    ],
)
def test_a_bad_configuration_is_one_sentence(tmp_path, content, expected):
    file = tmp_path / "config.json"
    file.write_text(content)
    assert expected in problem(file)


def test_a_missing_file_is_named_with_what_to_give(tmp_path):
    assert f"no such file: {tmp_path / 'x.json'}; give the config.json" in problem(
        tmp_path / "x.json"
    )
    assert f"{tmp_path} has no config.json" in problem(tmp_path)


def test_the_folder_of_an_adapter_is_recognised(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    assert "give that of its base model" in problem(tmp_path)


def test_an_unknown_name_on_the_hub_is_explained(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message = problem("nobody/nothing-of-this-name")
    assert "nobody/nothing-of-this-name" in message
    assert "the hub did not give it" in message


def test_unknown_targets_name_the_closest():
    assert "q_proj" in problem({"model_type": "llama", **DECODER}, ["q_poj"])


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "install cosa-theory[llm]" in problem({"model_type": "llama"})


def test_numbers_that_transformers_spells_as_objects_are_read(tmp_path):
    sizes = {"vocab_size": 50, "hidden_size": 32, "state_size": 8, "num_hidden_layers": 2}
    heads = {"num_heads": 8, "head_dim": 8, "n_groups": 1, "chunk_size": 8}
    transformers.Mamba2Config(**sizes, **heads).save_pretrained(tmp_path)
    assert "__float__" in (tmp_path / "config.json").read_text()
    assert model_layers(tmp_path).sizes


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_hidden_layers", 2**31),
        ("num_hidden_layers", float("inf")),
        ("hidden_size", 2**40),
        ("hidden_size", 0),
        ("num_labels", 10**9),
        ("num_key_value_heads", 0),
        ("model_type", ["llama"]),
    ],
)
def test_a_model_that_cannot_be_built_is_refused_in_one_short_sentence(field, value):
    fields = transformers.LlamaConfig(
        vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=4
    ).to_dict()
    with pytest.raises(InputError) as caught:
        model_layers({**fields, field: value})
    (sentence,) = caught.value.problems
    assert len(sentence) <= 300
