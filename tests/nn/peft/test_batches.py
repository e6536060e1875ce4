"""Batches of mixed adapters, and weighted sums of adapters."""

import pytest
import torch
from peft import convert_to_lora
from torch import nn

from cosa_theory import InputError
from cosa_theory.nn.peft import CosaConfig, Linear
from tests.nn.peft.models import adapted, bert, llama, mlp, same_state, state_of, t5, tokens

X = torch.randn(6, 10, generator=torch.Generator().manual_seed(3))
NAMES = ["one", "__base__", "two", "one", "two", "__base__"]


def config(**changes):
    settings = {"a": 6, "b": 4, "target_modules": ["lin0", "lin1"], "init_weights": False}
    return CosaConfig(**settings | changes)


def two(build=mlp, first=None, **second):
    model = adapted(config(**first or {}), build, adapter_name="one")
    torch.manual_seed(1)
    model.add_adapter("two", config(**(first or {}) | second))
    return model


def alone(model, rows, name, call):
    """The outputs of some samples when the whole batch has one adapter."""
    if name == "__base__":
        with model.disable_adapter():
            return call(model)[rows]
    model.set_adapter(name)
    return call(model)[rows]


@torch.inference_mode()
def test_each_sample_gets_its_own_adapter():
    model = two(seed=5, a=3, alpha=2.0)
    mixed = model(X, adapter_names=NAMES)
    for name in dict.fromkeys(NAMES):
        rows = [row for row, wanted in enumerate(NAMES) if wanted == name]
        expected = alone(model, rows, name, lambda model: model(X))
        assert torch.allclose(mixed[rows], expected, atol=1e-6), name
        others = alone(model, rows, "two" if name == "one" else "one", lambda model: model(X))
        assert not torch.allclose(mixed[rows], others, atol=1e-3), name


@torch.inference_mode()
def test_heads_follow_the_adapters_of_the_samples():
    model = two(bert, {"target_modules": ["query"], "task_type": "SEQ_CLS"})
    for name, factor in (("one", 2.0), ("two", -3.0)):
        model.base_model.model.classifier.modules_to_save[name].weight.mul_(factor)
    ids, names = tokens(4), ["one", "two", "__base__", "two"]
    mixed = model(ids, adapter_names=names).logits
    for row, name in enumerate(names):
        expected = alone(model, [row], name, lambda model: model(ids).logits)
        assert torch.allclose(mixed[[row]], expected, atol=1e-5), name


@pytest.mark.parametrize(
    ("build", "targets"), [(llama, ["q_proj", "up_proj"]), (t5, ["q", "wi"])], ids=["decoder", "t5"]
)
@torch.inference_mode()
def test_a_beam_search_keeps_the_adapters_of_the_samples(build, targets):
    model = two(build, {"target_modules": targets, "alpha": 40.0}, seed=2)
    settings = {"max_new_tokens": 5, "num_beams": 3, "do_sample": False, "min_new_tokens": 5}
    names = ["one", "__base__", "two"]

    def generate(model, **kwargs):
        return model.generate(input_ids=tokens(1).repeat(3, 1), **settings, **kwargs)

    mixed = generate(model, adapter_names=names)
    for row, name in enumerate(names):
        assert torch.equal(mixed[[row]], alone(model, [row], name, generate)), name
    assert len({tuple(row) for row in mixed.tolist()}) == 3


def test_what_a_mixed_batch_cannot_have_is_said():
    model = two()
    with pytest.raises(ValueError, match=r"non-existing adapter\(s\): three"):
        model(X, adapter_names=["three"] * 6)
    with pytest.raises(ValueError, match="should be the same as the number of inputs"):
        model(X, adapter_names=["one"])
    model.train()
    with pytest.raises(ValueError, match="training mode"):
        model(X, adapter_names=NAMES)
    model.eval().merge_adapter(["one"])
    with pytest.raises(ValueError, match="merged adapters"):
        model(X, adapter_names=NAMES)
    assert not any(module._forward_pre_hooks for module in model.modules())


def deltas(model, name):
    return {
        at: layer.get_delta_weight(name).double()
        for at, layer in model.named_modules()
        if isinstance(layer, Linear) and name in layer.cosa_Y
    }


def test_a_weighted_sum_is_exact_whatever_the_alphas():
    model = two(first={"kind": "rademacher", "alpha": 3.0}, alpha=0.5, dropout=0.2)
    model.base_model.add_weighted_adapter(["one", "two"], [0.75, -2.0], "sum")
    one, other, total = (deltas(model, name) for name in ("one", "two", "sum"))
    for at, value in total.items():
        expected = 0.75 * one[at] - 2.0 * other[at]
        assert (value - expected).norm() < 1e-6 * expected.norm()
    assert len(total) == 2
    assert model.active_adapters == ["one"]
    assert not any(p.requires_grad for name, p in model.named_parameters() if "sum" in name)


def test_layers_that_one_adapter_lacks_count_as_zero(tmp_path):
    model = two(target_modules=["lin1"], alpha_pattern={"lin1": 4.0})
    model.base_model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "sum")
    one, other, total = (deltas(model, name) for name in ("one", "two", "sum"))
    lin0, lin1 = total
    assert torch.allclose(total[lin0], one[lin0], atol=1e-6)
    assert torch.allclose(total[lin1], one[lin1] + other[lin1], atol=1e-6)
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    again = adapted(config(), adapter_name="one")
    again.load_adapter(tmp_path / "sum", "sum")
    for at, value in deltas(again, "sum").items():
        assert torch.equal(value, total[at])


def test_a_sum_is_put_on_the_layers_of_its_terms_and_on_no_others_whose_names_end_alike():
    model = nn.Module()
    model.lin, model.block = nn.Linear(10, 10), nn.Module()
    model.block.lin = nn.Linear(10, 10)
    model = adapted(config(target_modules="lin"), lambda: model, adapter_name="one")
    model.base_model.add_weighted_adapter(["one"], [2.0], "sum")
    assert list(deltas(model, "sum")) == ["base_model.model.lin"]


DIFFERENT = [
    ({"seed": 1}, "seed is 0 for one and 1 for two"),
    ({"kind": "haar"}, "kind is 'gaussian' for one and 'haar' for two"),
    ({"a": 5}, "a is 6 for one and 5 for two"),
    ({"scale": "analysis"}, "scale is 'synthesis' for one and 'analysis' for two"),
    ({"bias": "all"}, "bias is 'all' for two; biases cannot be added"),
]


@pytest.mark.parametrize(
    ("changes", "message"), DIFFERENT, ids=[next(iter(changes)) for changes, _ in DIFFERENT]
)
def test_adapters_with_other_projections_cannot_be_added(changes, message):
    model = two(**changes)
    before = state_of(model)
    with pytest.raises(InputError, match=message) as caught:
        model.base_model.add_weighted_adapter(["one", "two"], [1.0, 1.0], "sum", "linear")
    assert len(caught.value.problems) == 1  # and not one for each layer
    assert same_state(model, before)
    assert set(model.peft_config) == {"one", "two"}


def test_terms_that_make_no_sum_are_named():
    add = two().base_model.add_weighted_adapter
    for adapters, weights, name, message in (
        (["one", "three"], [1, 1], "sum", "Adapter three does not exist"),
        (["one"], [1, 1], "sum", "there are 1 adapters and 2 weights"),
        (["one"], [1], "two", "adapter_name is 'two', which exists already"),
        ([], [], "sum", "adapters is empty"),
        (["one"], [float("inf")], "sum", "weights has inf"),
        (["one"], ["1"], "sum", "weights has '1'; it must be a finite number"),
        ("one", [1], "sum", r"adapters is 'one'; give a list of names, such as \['one'\]"),
    ):
        with pytest.raises(InputError, match=message):
            add(adapters, weights, name)
    with pytest.raises(InputError, match="combination_type is 'svd': it must be"):
        add(["one", "two"], [1, 1], "sum", combination_type="svd")


def test_pefts_conversion_to_lora_reproduces_the_update():
    model = adapted(config(alpha=2.0), adapter_name="default")
    lora, tensors = convert_to_lora(model, rank=4)
    assert lora.r == lora.lora_alpha == 4
    for at, delta in deltas(model, "default").items():
        name = "base_model.model." + at.removeprefix("base_model.model.")
        product = tensors[f"{name}.lora_B.weight"] @ tensors[f"{name}.lora_A.weight"]
        assert torch.allclose(product.double(), delta, atol=1e-5)
