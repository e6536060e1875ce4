"""All layers of a pair are found where a configuration tells how; a part is never the whole."""

import json

import numpy as np
import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model

from cosa_theory.cli import main
from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.peft import CosaConfig
from cosa_theory.studies.audit.pair import audit_pair
from cosa_theory.studies.spectrum.pair import survey_pair
from tests.deltas.files import moved, save, save_pair, total

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::RuntimeWarning:peft")

METHODS = ("lora", "cosa")


def vit():
    config = transformers.ViTConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=8,
    )
    return transformers.ViTForImageClassification(config)


def qwen2_vl():
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e4}
    config = transformers.Qwen2VLConfig(
        text_config={
            "vocab_size": 40,
            "hidden_size": 16,
            "intermediate_size": 24,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "num_key_value_heads": 2,
            "rope_parameters": rope,
        },
        vision_config={"depth": 1, "embed_dim": 16, "hidden_size": 16, "num_heads": 2},
    )
    return transformers.Qwen2VLForConditionalGeneration(config)


def llama():
    config = transformers.LlamaConfig(
        vocab_size=40,
        hidden_size=12,
        intermediate_size=20,
        num_hidden_layers=1,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    return transformers.LlamaForCausalLM(config)


def t5():
    config = transformers.T5Config(
        vocab_size=40, d_model=12, d_kv=6, d_ff=20, num_layers=1, num_heads=2
    )
    return transformers.T5ForConditionalGeneration(config)


def saved_with_adapter(folder, model, method, targets):
    """Save a model and an adapter with random factors; return both folders and its updates.

    The updates are by the name of the module that PEFT adapts.
    """
    model.save_pretrained(folder / "base")
    made = {
        "lora": lambda: LoraConfig(r=2, target_modules=targets),
        "cosa": lambda: CosaConfig(a=4, b=3, target_modules=targets),
    }[method]()
    peft = get_peft_model(model, made)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, value in peft.named_parameters():
            if "lora_" in name or "cosa_Y" in name:
                value.copy_(torch.randn(value.shape, generator=generator))
    peft.save_pretrained(folder / "adapter", save_embedding_layers=False)
    updates = {
        name: module.get_delta_weight("default").detach().numpy()
        for name, module in peft.base_model.model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    return (folder / "base", folder / "adapter"), updates


def assert_all_found(pair, updates):
    """Every update of the adapter is there, of its own values."""
    assert pair.coverage == (len(updates), len(updates))
    left = [np.array(layer.delta) for layer in pair]
    for name, update in updates.items():
        places = [i for i, delta in enumerate(left) if delta.shape == update.shape]
        close = [i for i in places if np.allclose(left[i], update, atol=1e-5)]
        assert len(close) == 1, name
        del left[close[0]]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("make", [vit, qwen2_vl])
def test_layers_that_transformers_renames_on_loading_are_all_found(tmp_path, make, method):
    targets = "all-linear" if make is vit else ["q_proj", "down_proj", "qkv", "attn.proj", "fc1"]
    sources, updates = saved_with_adapter(tmp_path, make(), method, targets)
    assert len(updates) >= 5
    pair = open_pair(*sources)
    assert_all_found(pair, updates)
    said = "transformers gives" if make is vit else "prefix renamed"
    assert any(said in notice for notice in pair.report.notices)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("make", "targets", "stored"),
    [
        (llama, ["q_proj", "lm_head"], "model.embed_tokens.weight"),
        (t5, ["q", "lm_head"], "shared.weight"),
    ],
)
def test_an_adapter_of_a_tied_head_is_compared_with_the_matrix_stored(
    tmp_path, make, targets, stored, method
):
    torch.manual_seed(0)
    model = make()
    model.config.tie_word_embeddings = True
    sources, updates = saved_with_adapter(tmp_path, model, method, targets)
    pair = open_pair(*sources)
    assert_all_found(pair, updates)
    said = f"lm_head.weight is tied to {stored} in base: compared with that."
    assert said in pair.report.notices
    head = next(layer for layer in pair if layer.name == "lm_head.weight")
    np.testing.assert_array_equal(head.base, model.get_input_embeddings().weight.detach().numpy())


def test_a_head_is_not_taken_for_tied_where_the_configuration_says_no(tmp_path):
    sources, _ = saved_with_adapter(tmp_path, llama(), "lora", ["q_proj", "lm_head"])
    path = sources[0] / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    with pytest.raises(InputError, match=r"1 of 2 layers are not in base \(lm_head\.weight\)"):
        open_pair(*sources)
    assert open_pair(*sources, partial=True).coverage == (1, 2)


# New and dropped heads -------------------------------------------------------------------------


def stack(**more):
    """Four layers of a stack, each with entries of its own."""
    rng = np.random.default_rng(0)
    layers = {f"model.layers.{i}.q.weight": rng.standard_normal((6, 5)) for i in range(4)}
    others = {name.replace("_of_", "."): rng.standard_normal(size) for name, size in more.items()}
    tensors = layers | others
    return {name: torch.tensor(value, dtype=torch.float32) for name, value in tensors.items()}


@pytest.mark.parametrize(
    ("base", "tuned"),
    [
        ({}, {"classifier.weight": (3, 5)}),
        ({}, {"score.weight": (1, 5)}),
        ({"lm_head.weight": (40, 5)}, {}),
        ({"lm_head.weight": (40, 5)}, {"classifier.weight": (40, 5)}),
        ({"pooler.dense.weight": (5, 5)}, {}),
        ({"cls.predictions.transform.dense.weight": (5, 5)}, {"classifier.weight": (3, 5)}),
    ],
)
def test_a_new_or_dropped_head_has_no_update_and_the_rest_is_judged(base, tuned):
    pair = open_pair(stack(**base), moved(stack(**tuned)))
    assert len(pair) == 4
    assert pair.coverage == (4, 4 + len(base) + len(tuned))
    assert any(notice.startswith("left out of the verdict: ") for notice in pair.report.notices)


@pytest.mark.parametrize(
    ("base", "tuned"),
    [
        ({}, {"model.layers.4.q.weight": (6, 5)}),
        ({"model.layers.4.q.weight": (6, 5)}, {}),
        ({"embed_tokens.weight": (40, 5)}, {}),
        ({}, {"embed_tokens.weight": (40, 5)}),
        ({"pooler.weight": (7, 5)}, {"classifier.weight": (7, 5)}),  # perhaps one renamed
    ],
)
def test_a_layer_of_the_stack_or_a_vocabulary_is_missed(base, tuned):
    with pytest.raises(InputError, match="have no partner") as caught:
        open_pair(stack(**base), moved(stack(**tuned)))
    for name in {*base, *tuned}:
        assert name in str(caught.value)


# A part is not the whole -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Files of five layers, of which four have a partner."""
    base = stack(**{"model.layers.4.q.weight": (6, 5)})
    tuned = moved(stack())
    return [str(path) for path in save_pair(tmp_path_factory.mktemp("parts"), base, tuned)]


@pytest.mark.parametrize("command", [["spectrum"], ["audit"], ["jl", "--pair"]])
def test_a_part_is_refused_with_count_names_and_the_option(parts, command, capsys):
    assert main([*command, *parts]) == 2
    said = capsys.readouterr().err
    for part in ("1 of 5 layers", "model.layers.4.q.weight", "--partial", "other 4"):
        assert part in " ".join(said.split())


def test_verdicts_on_a_part_begin_with_how_many(parts):
    pair = open_pair(*parts, partial=True)
    quick = survey_pair(pair, families=[], matrices=["delta"])
    assert quick.verdict.startswith("4 of 5 layers")
    assert audit_pair(pair, draws=2).verdict.startswith("4 of 5 layers")
    whole = survey_pair(open_pair(stack(), moved(stack())), families=[], matrices=["delta"])
    assert " of 4 layers" not in whole.verdict[:20]


@pytest.mark.parametrize(
    "options",
    [
        ("spectrum", "--families", "none", "--matrices", "delta"),
        ("audit", "--draws", "2"),
    ],
)
def test_text_and_json_of_a_part_begin_with_how_many(parts, options, tmp_path, capsys):
    command, *rest = options
    common = [command, *parts, *rest, "--threads", "1", "--partial"]
    assert main(common) == 0
    assert capsys.readouterr().out.lstrip().startswith("4 of 5 layers")
    assert main([*common, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"].startswith("4 of 5 layers")


def test_layers_left_out_for_what_they_hold_are_counted_too():
    base = stack()
    tuned = moved(base)
    tuned["model.layers.2.q.weight"][0, 0] = torch.nan
    pair = open_pair(base, tuned, on_nonfinite="skip")
    assert set(total(pair)) == {name for name in base if ".2." not in name}
    assert pair.coverage == (3, 4)


def test_an_adapter_layer_without_partner_is_refused_with_count_and_name(tmp_path):
    base = stack()
    sources = save(tmp_path / "base.safetensors", base), tmp_path / "adapter"
    factors = {}
    for i in (0, 1, 9):
        stem = f"base_model.model.model.layers.{i}.q"
        factors |= {
            f"{stem}.lora_A.weight": torch.ones(2, 5),
            f"{stem}.lora_B.weight": torch.ones(6, 2),
        }
    save(tmp_path / "adapter" / "adapter_model.safetensors", factors)
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q"]}
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps(config))
    named = r"1 of 3 layers are not in base \(model\.layers\.9\.q\.weight\)"
    with pytest.raises(InputError, match=named):
        open_pair(*sources)
    assert open_pair(*sources, partial=True).coverage == (2, 3)
