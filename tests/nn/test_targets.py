"""Which layers are meant: PEFT's rules for names, what cannot be adapted, short lists."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.targets import linear_layers, minimal_targets, replace_modules
from cosa_theory.nn.wrappers import named_places

LINEARS = [
    f"layers.{i}.{part}" for i in range(2) for part in ("attn.q", "attn.my_q", "attn.out", "mlp.up")
]


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.my_q, self.out = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4)


class Feedforward(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.norm = nn.Linear(4, 8), nn.LayerNorm(4)


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.attn, self.mlp = Attention(), Feedforward()


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(3, 4)
        self.layers = nn.ModuleList([Block(), Block()])
        self.out = nn.Linear(4, 3)


def named(target, **settings):
    return list(linear_layers(Model(), target, **settings))


def test_a_list_holds_names_or_their_ends_after_a_dot():
    assert named(["q"]) == ["layers.0.attn.q", "layers.1.attn.q"]
    assert named(["0.attn.q", "layers.1.mlp.up"]) == ["layers.0.attn.q", "layers.1.mlp.up"]
    assert named(["out"]) == ["layers.0.attn.out", "layers.1.attn.out", "out"]


def test_a_string_is_a_regular_expression_for_the_whole_name():
    assert named(r".*\.attn\.(q|out)") == [
        f"layers.{i}.attn.{part}" for i in range(2) for part in ("q", "out")
    ]


def test_excluded_layers_and_those_within_saved_modules_are_left_out():
    assert named(["q", "up"], exclude_modules=["0.attn.q"], modules_to_save=["layers.1.mlp"]) == [
        "layers.0.mlp.up",
        "layers.1.attn.q",
    ]
    assert named("all-linear", exclude_modules=r"layers\.0\..*") == [
        *(name for name in LINEARS if name.startswith("layers.1")),
        "out",
    ]


PATTERNS = [
    ["q"],
    ["q", "out"],
    ["attn.q", "out"],
    ["layers.0.attn.q"],
    r".*q",
    r".*\.(up|out)",
    r"layers\.1\.attn\..*",
    "all-linear",
    "ALL-LINEAR",
]


EXCLUDED, SAVED = (["0.attn.q", "out"], r".*\.1\..*"), (["layers.1"], ["mlp"])
CHOICES = [
    *((target, None, None) for target in PATTERNS),
    *((["q", "out"], None, exclude) for exclude in EXCLUDED),
    *((r".*q", None, exclude) for exclude in EXCLUDED),
    *(
        (target, save, EXCLUDED[1])
        for target in (["attn.q", "out"], "all-linear")
        for save in SAVED
    ),
    *((target, save, None) for target in ([["q"], r".*\.(up|out)"]) for save in SAVED),
]


@pytest.mark.parametrize(("target", "save", "exclude"), CHOICES, ids=str)
def test_names_are_matched_as_peft_matches_them(target, save, exclude):
    from peft import LoraConfig, get_peft_model

    try:
        config = LoraConfig(target_modules=target, exclude_modules=exclude, modules_to_save=save)
        adapted = get_peft_model(Model(), config)
    except ValueError:
        with pytest.raises(InputError):
            named(target, exclude_modules=exclude, modules_to_save=save or ())
        return
    expected = list(adapted.base_model.targeted_module_names)
    assert named(target, exclude_modules=exclude, modules_to_save=save or ()) == expected


def test_all_linear_leaves_out_the_output_head_of_a_language_model_and_of_a_classifier():
    from transformers import (
        BertConfig,
        BertForMaskedLM,
        BertForSequenceClassification,
        LlamaConfig,
        LlamaForCausalLM,
    )

    sizes = {"hidden_size": 8, "intermediate_size": 16, "num_attention_heads": 2}
    llama = LlamaForCausalLM(
        LlamaConfig(num_hidden_layers=1, vocab_size=20, num_key_value_heads=1, **sizes)
    )
    config = BertConfig(num_hidden_layers=1, vocab_size=20, **sizes)
    for model, head in (
        (llama, "lm_head"),
        (BertForMaskedLM(config), "cls.predictions.decoder"),
        (BertForSequenceClassification(config), "classifier"),
    ):
        everything = [n for n, m in model.named_modules() if isinstance(m, nn.Linear)]
        found = list(linear_layers(model, "all-linear"))
        assert head in everything
        assert found == [name for name in everything if name != head]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (["qq"], r"target_modules has 'qq', which is no module .* the closest is q"),
        (
            ["layers.0.atn.q"],
            "the closest are layers.0.attn.q, layers.1.attn.q, layers.0.attn.my_q",
        ),
        (["zzz"], "the linear layers end in q, my_q, out, up"),
        ("my_q", r"no module's whole name; for all names that end so, give the list \['my_q'\]"),
        ("zzz", "no module's whole name; its linear layers end in q, my_q, out, up"),
        ("(", r"target_modules is '\(': it must be a regular expression"),
        ([], r"target_modules is \[\]: it must be a list of names"),
        (["q", 3], r"must be a list of names"),
        (None, "target_modules is None: it must be a list of names"),
        (["attn"], "matches layers.0.attn, layers.1.attn, of type Attention, and only nn.Linear"),
        (["embed", "norm"], "of type Embedding"),
    ],
)
def test_names_that_cannot_be_meant_are_one_clear_sentence(target, message):
    with pytest.raises(InputError, match=message):
        named(target)


def test_excluding_everything_is_an_error():
    with pytest.raises(InputError, match="leaves no layer to adapt; loosen exclude_modules"):
        named(["q"], exclude_modules=["q"])


def test_layers_that_cannot_be_adapted_are_refused_with_the_reason():
    parametrised = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 4)))
    with pytest.raises(InputError, match="whose weight is computed"):
        linear_layers(parametrised, ["0"])
    quantised = nn.Sequential(nn.Linear(4, 4))
    quantised[0].weight = nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    with pytest.raises(InputError, match="a quantised linear layer, which only the PEFT method"):
        linear_layers(quantised, "all-linear")
    with pytest.raises(InputError, match=r"adapt it with CosaLinear\(model, a, b\)"):
        linear_layers(nn.Linear(4, 4), "all-linear")
    with pytest.raises(InputError, match=r"it has no nn\.Linear"):
        linear_layers(nn.Sequential(nn.ReLU()), "all-linear")


def test_attention_that_uses_a_weight_without_calling_its_layer_is_not_adapted():
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    assert list(linear_layers(encoder, "all-linear")) == ["linear1", "linear2"]
    with pytest.raises(InputError, match=r"whose weight MultiheadAttention\.forward reads"):
        linear_layers(encoder, ["out_proj"])


def test_a_layer_used_in_two_places_is_named_once_and_replaced_in_both():
    model = Model()
    model.again = model.layers[0].attn.q
    assert list(linear_layers(model, ["again", "q"])) == ["layers.0.attn.q", "layers.1.attn.q"]
    assert list(linear_layers(model, ["again"])) == ["again"]
    other = nn.Linear(4, 4)
    replace_modules(model, {model.again: other})
    assert model.again is other
    assert model.layers[0].attn.q is other


@given(st.sets(st.sampled_from([*LINEARS, "out"]), min_size=1))
def test_a_short_list_of_targets_means_exactly_the_layers_it_was_made_from(chosen):
    model = Model()
    names = [name for name in (*LINEARS, "out") if name in chosen]
    targets = minimal_targets(names, named_places(model))
    assert list(linear_layers(model, targets)) == names


def test_a_list_of_targets_is_as_short_as_the_model_allows():
    places = [*named_places(Model())]
    assert minimal_targets([name for name in LINEARS if name.endswith(".q")], places) == ["q"]
    assert minimal_targets(["layers.0.attn.q"], places) == ["layers.0.attn.q"]
    assert minimal_targets(["out"], places) == "out"  # a regular expression: a list means three
