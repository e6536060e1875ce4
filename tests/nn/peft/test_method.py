"""What PEFT's users do with a method: target, switch, disable, merge, delete, convert."""

import copy
import warnings

import pytest
import torch
from peft import PeftModel, get_peft_model, inject_adapter_in_model
from peft.utils.quantization_utils import QuantizationBackend
from torch import nn

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.peft import CosaConfig, CosaLayer, Linear
from cosa_theory.projections import KINDS
from tests.nn.peft.models import adapted, bert, gpt2, llama, mlp, same_state, state_of, t5, tokens

X = torch.randn(5, 10, generator=torch.Generator().manual_seed(3))
BOTH = ["lin0", "lin1"]


def config(**changes):
    return CosaConfig(
        **{"a": 6, "b": 4, "target_modules": BOTH, "init_weights": False, "alpha": 1.5} | changes
    )


def layers(model):
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear)}


def test_the_output_is_that_of_the_basis_with_the_layers_name_as_key():
    model = adapted(config(target_modules=["lin1"], scale="analysis", seed=7))
    basis = CosaBasis.sample(16, 20, 6, 4, seed=7, scale="analysis", key="lin1")
    layer = model.base_model.model.lin1
    core = layer.cosa_Y["default"].detach().double().numpy()
    expected = 1.5 * basis.L @ core @ basis.R
    delta = layer.get_delta_weight("default").detach().double().numpy()
    assert abs(delta - expected).max() < 1e-5 * abs(expected).max()
    x = torch.randn(3, 20, generator=torch.Generator().manual_seed(0))
    update = layer(x) - layer.base_layer(x)
    assert torch.allclose(update, x @ torch.from_numpy(expected).float().T, atol=1e-5)


def test_the_adapter_starts_as_the_base_model_and_only_cores_train():
    base = mlp()
    model = get_peft_model(copy.deepcopy(base), config(init_weights=True))
    assert torch.equal(model(X), base(X))
    trainable = {name for name, one in model.named_parameters() if one.requires_grad}
    assert trainable == {f"base_model.model.{name}.cosa_Y.default" for name in BOTH}
    assert model.get_nb_trainable_parameters() == (48, sum(p.numel() for p in model.parameters()))


@pytest.mark.parametrize("kind", KINDS)
def test_projections_are_neither_parameters_nor_buffers_nor_in_the_state_dict(kind):
    model = adapted(config(kind=kind))
    names = [name for name, _ in (*model.named_parameters(), *model.named_buffers())]
    names += list(model.state_dict())
    assert not any("cosa_L" in name or "cosa_R" in name for name in names)
    assert sum("cosa_Y" in name for name in model.state_dict()) == 2


def test_layers_of_equal_size_draw_different_projections_unless_they_share():
    for shared in (False, True):
        model = adapted(config(target_modules=["q_proj"], share_projections=shared), llama)
        first, second = layers(model).values()
        for role in ("cosa_L", "cosa_R"):
            one, other = (getattr(layer, role)["default"] for layer in (first, second))
            assert torch.equal(one.matrix(), other.matrix()) is shared
            assert (one is other) is shared


TARGETS = [
    (["q_proj"], 2),
    (r".*layers\.1.*(q|v)_proj", 2),
    ("all-linear", 14),
    (None, 4),
    (["model.layers.0.mlp.up_proj"], 1),
]


@pytest.mark.parametrize(
    ("targets", "count"), TARGETS, ids=["list", "regex", "all", "none", "name"]
)
def test_layers_are_targeted_as_with_any_method(targets, count):
    model = adapted(config(target_modules=targets), llama)
    assert len(layers(model)) == count


def test_layers_are_excluded_and_selected_by_index():
    excluded = config(target_modules="all-linear", exclude_modules=["q_proj", "mlp.up_proj"])
    assert len(layers(adapted(excluded, llama))) == 10
    chosen = layers(adapted(config(target_modules=["q_proj"], layers_to_transform=[1]), llama))
    assert [name for name in chosen if "layers.1." in name] == list(chosen)
    assert len(chosen) == 1


def test_shapes_and_alphas_follow_patterns():
    model = adapted(config(shape_pattern={"lin0": [3, 2]}, alpha_pattern={"li.1": 0.25}, alpha=4.0))
    lin0, lin1 = layers(model).values()
    assert lin0.cosa_Y["default"].shape == (3, 2)
    assert lin1.cosa_Y["default"].shape == (6, 4)
    assert (lin0.scaling["default"], lin1.scaling["default"]) == (4.0, 0.25)


def test_a_pattern_that_matches_nothing_is_named():
    with pytest.warns(UserWarning, match=r"shape_pattern has \['lin9'\], which match no"):
        adapted(config(shape_pattern={"lin9": [3, 2]}))


def test_a_core_larger_than_its_layer_is_reduced_with_one_warning():
    with pytest.warns(UserWarning, match="reduced") as record:
        model = adapted(config(a=18, b=12))
    assert sum("reduced" in str(one.message) for one in record) == 1
    shapes = [tuple(layer.cosa_Y["default"].shape) for layer in layers(model).values()]
    assert shapes == [(18, 10), (16, 12)]


def two_adapters():
    model = adapted(config())
    torch.manual_seed(5)
    model.add_adapter("other", config(a=3, b=5, seed=9, kind="srht", alpha=0.5))
    return model


def test_adapters_of_different_shape_seed_and_kind_live_side_by_side():
    model, base = two_adapters(), mlp()
    first = model(X)
    model.set_adapter("other")
    second = model(X)
    with model.disable_adapter():
        assert torch.equal(model(X), base(X))
    model.base_model.set_adapter(["default", "other"])
    together = model(X)
    outputs = [base(X), first, second, together]
    for one in range(4):
        assert all(not torch.allclose(outputs[one], other) for other in outputs[one + 1 :])


def test_a_further_adapter_is_neither_active_nor_trainable():
    model = adapted(config(target_modules=["lin0"]))
    expected = model(X)
    model.add_adapter("other", config(target_modules=["lin0", "lin1"]))
    assert torch.equal(model(X), expected)
    trainable = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trainable == ["base_model.model.lin0.cosa_Y.default"]
    model.set_adapter("other")
    trainable = [name for name, one in model.named_parameters() if one.requires_grad]
    assert trainable == [f"base_model.model.{name}.cosa_Y.other" for name in BOTH]


@pytest.mark.parametrize("name", ["a.b", "", "keys", "training"])
@pytest.mark.filterwarnings("ignore:Adapter name")
def test_a_name_that_no_adapter_can_have_is_told_and_leaves_the_others(name):
    with pytest.raises(InputError, match=f"adapter_name is '{name}': it must be a name without a "):
        get_peft_model(mlp(), config(), adapter_name=name)
    model = adapted(config())
    before = model(X)
    for add in (
        lambda: model.add_adapter(name, config()),
        lambda: model.add_weighted_adapter(["default"], [1.0], name),
    ):
        with pytest.raises(InputError, match=f"adapter_name is '{name}': "):
            add()
    assert list(model.peft_config) == ["default"]
    assert torch.equal(model(X), before)


def test_an_equal_draw_is_kept_in_memory_once():
    model = adapted(config())
    model.add_adapter("same", config())
    layer = model.base_model.model.lin0
    assert layer.cosa_L["same"] is layer.cosa_L["default"]
    assert layer.cosa_R["same"] is layer.cosa_R["default"]


def test_deleting_an_adapter_leaves_nothing_of_it():
    model = two_adapters()
    model.delete_adapter("default")
    assert model.active_adapters == ["other"]
    for layer in layers(model).values():
        for name in (*CosaLayer.adapter_layer_names, *CosaLayer.other_param_names):
            assert list(getattr(layer, name)) == ["other"], name


def test_merge_and_unmerge_honour_alpha():
    model, base = adapted(config(alpha=3.0)), mlp()
    expected = model(X)
    model.merge_adapter()
    assert torch.allclose(model(X), expected, atol=1e-5)
    merged = model.base_model.model.lin0.base_layer.weight
    update = model.base_model.model.lin0.get_delta_weight("default")
    assert torch.allclose(merged - base.lin0.weight, update, atol=1e-6)
    assert update.abs().max() > 0.01
    model.unmerge_adapter()
    assert torch.allclose(
        model.base_model.model.lin0.base_layer.weight, base.lin0.weight, atol=1e-6
    )
    assert torch.allclose(model(X), expected, atol=1e-6)
    with model.disable_adapter():
        assert torch.allclose(model(X), base(X), atol=1e-6)


def test_two_adapters_merge_into_the_sum_of_both_and_come_out_again():
    model, base = two_adapters(), mlp()
    model.base_model.set_adapter(["default", "other"])
    expected = model(X)
    model.merge_adapter(["default"])
    model.merge_adapter(["other"])
    assert torch.allclose(model(X), expected, atol=1e-5)
    model.unmerge_adapter()
    assert torch.allclose(
        model.base_model.model.lin1.base_layer.weight, base.lin1.weight, atol=1e-6
    )


def test_a_safe_merge_of_a_broken_core_leaves_the_weight_as_it_is():
    model = adapted(config())
    with torch.no_grad():
        model.base_model.model.lin0.cosa_Y["default"][0, 0] = float("nan")
    before = state_of(model)
    with pytest.raises(ValueError, match="NaNs detected in the merged weights"):
        model.merge_adapter(safe_merge=True)
    assert torch.equal(
        model.base_model.model.lin0.base_layer.weight,
        before["base_model.model.lin0.base_layer.weight"],
    )
    assert model.base_model.model.lin0.merged_adapters == []


def test_unloading_gives_the_plain_model_back():
    model = adapted(config())
    expected = model(X)
    merged = copy.deepcopy(model).merge_and_unload()
    assert type(merged.lin0) is nn.Linear
    assert torch.allclose(merged(X), expected, atol=1e-5)
    assert torch.equal(model.unload()(X), mlp()(X))


@pytest.mark.parametrize("share", [False, True], ids=["own", "shared"])
def test_conv1d_layers_of_gpt2_are_adapted_and_merged(share):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = adapted(config(target_modules=None, share_projections=share), gpt2)
    assert model.peft_config["default"].fan_in_fan_out
    expected = model(tokens()).logits
    assert not torch.allclose(expected, gpt2().eval()(tokens()).logits, atol=1e-3)
    layer = next(iter(layers(model).values()))
    assert layer.get_delta_weight("default").shape == layer.base_layer.weight.shape == (16, 48)
    merged = model.merge_and_unload()
    assert torch.allclose(merged(tokens()).logits, expected, atol=1e-4)


def test_a_wrong_fan_in_fan_out_is_corrected_with_a_warning():
    with pytest.warns(UserWarning, match="Setting fan_in_fan_out to False"):
        model = adapted(config(fan_in_fan_out=True))
    assert model.peft_config["default"].fan_in_fan_out is False


class Int8(QuantizationBackend):
    """A base weight kept as whole multiples of 1/8, behind PEFT's interface for such layers."""

    supports_merge, backend_name, layer_type = True, "eighths", "linear"

    def get_base_weight(self, base_layer):
        return base_layer.eighths.float() / 8

    def set_base_weight(self, peft_layer, weight_data):
        peft_layer.get_base_layer().eighths = torch.round(weight_data * 8).to(torch.int8)


class Eighths(nn.Module):
    def __init__(self, m, n):
        super().__init__()
        self.in_features, self.out_features = n, m
        self.register_buffer("eighths", torch.randint(-8, 8, (m, n), dtype=torch.int8))

    def forward(self, x):
        return x @ self.eighths.to(x.dtype).T / 8


@pytest.mark.filterwarnings("ignore:Unsupported layer type")
def test_quantised_layers_are_read_and_written_through_pefts_backend(monkeypatch):
    def resolve(base, **kwargs):
        return Int8() if isinstance(base, Eighths) else None

    for module in ("layer", "targeting"):
        monkeypatch.setattr(f"cosa_theory.nn.peft.{module}.resolve_quantization_backend", resolve)
    torch.manual_seed(0)
    net = nn.Sequential(Eighths(12, 10))
    base = net(X)
    model = get_peft_model(net, config(target_modules=["0"], alpha=1.0)).eval()
    expected, layer = model(X), model.base_model.model[0]
    before, delta = layer.base_layer.eighths.clone(), layer.get_delta_weight("default")
    assert "eighths" in repr(layer)
    model.merge_adapter()
    assert torch.equal(
        layer.base_layer.eighths, torch.round((before.float() / 8 + delta) * 8).to(torch.int8)
    )
    assert not torch.allclose(expected, base)


def test_injection_without_a_peft_model_adapts_the_same():
    base, bare = llama().eval(), llama().eval()
    torch.manual_seed(0)
    injected = inject_adapter_in_model(config(target_modules=["q_proj"]), bare)
    expected = adapted(config(target_modules=["q_proj"]), llama)(tokens()).logits
    assert torch.equal(injected(tokens()).logits, expected)
    assert not torch.allclose(base(tokens()).logits, expected, atol=1e-3)


def test_injection_from_the_keys_of_a_state_dict():
    state = {"model.layers.1.self_attn.v_proj.cosa_Y": torch.zeros(6, 4)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        model = inject_adapter_in_model(
            config(target_modules=["q_proj"]), llama(), state_dict=state
        )
    assert list(layers(model)) == ["model.layers.1.self_attn.v_proj"]


def test_heads_are_trained_and_saved_beside_the_cores(tmp_path):
    model = adapted(config(target_modules=["query"], task_type="SEQ_CLS"), lambda: bert())
    trainable = {name for name, one in model.named_parameters() if one.requires_grad}
    assert any("classifier.modules_to_save" in name for name in trainable)
    with torch.no_grad():
        model.base_model.model.classifier.modules_to_save["default"].weight.mul_(3)
    expected = model(tokens()).logits
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(bert().eval(), tmp_path)
    assert torch.allclose(again(tokens()).logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    ("bias", "count"), [("all", 3), ("cosa_only", 2)], ids=["all", "of adapted layers"]
)
def test_biases_are_trained_saved_and_loaded(bias, count, tmp_path):
    model = adapted(config(bias=bias))
    trained = [name for name, one in model.named_parameters() if one.requires_grad]
    assert sum(name.endswith("bias") for name in trained) == count
    with torch.no_grad():
        model.base_model.model.lin0.base_layer.bias += 1
    expected = model(X)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(mlp(), tmp_path)
    assert torch.allclose(again(X), expected, atol=1e-6)


def test_an_encoder_decoder_generates_and_trains():
    model = adapted(config(target_modules=["q", "v"], task_type="SEQ_2_SEQ_LM"), t5)
    out = model.generate(input_ids=tokens(), max_new_tokens=4)
    assert out.shape[0] == 3
    model.train()
    model(input_ids=tokens(), labels=tokens()).loss.backward()
    assert all(layer.cosa_Y["default"].grad.abs().max() > 0 for layer in layers(model).values())


def test_dropout_acts_in_training_only():
    model = adapted(config(dropout=0.5))
    assert torch.equal(model(X), model(X))
    model.train()
    torch.manual_seed(0)
    assert not torch.equal(model(X), model(X))


def test_training_moves_the_cores_and_nothing_else():
    model = get_peft_model(mlp(), config(init_weights=True))
    before = state_of(model)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        optimizer.zero_grad()
        (model(X) ** 2).sum().backward()
        optimizer.step()
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed == {f"base_model.model.{name}.cosa_Y.default" for name in BOTH}


def test_an_attention_block_that_bypasses_its_output_layer_is_left_out_or_refused():
    def build():
        return nn.ModuleDict({"att": nn.MultiheadAttention(8, 2), "lin": nn.Linear(8, 8)})

    assert list(layers(get_peft_model(build(), config(target_modules="all-linear")))) == [
        "base_model.model.lin"
    ]
    net = build()
    before = state_of(net)
    with pytest.raises(ValueError, match=r"matches att\.out_proj, a layer whose weight Multihead"):
        get_peft_model(net, config(target_modules=["out_proj", "lin"]))
    assert same_state(net, before)


def test_torchs_own_encoder_calls_its_adapted_layers_in_evaluation_too():
    torch.manual_seed(0)
    block = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    net = nn.Sequential(nn.TransformerEncoder(block, 2))
    model = get_peft_model(net, config(target_modules=["linear1", "linear2"]))
    x = torch.randn(2, 3, 16)
    expected = model.train()(x).detach()
    with torch.no_grad():
        assert torch.allclose(model.eval()(x), expected, atol=1e-5)


def test_a_projection_without_entries_is_told():
    net = nn.Sequential(nn.Linear(8, 2))
    with pytest.warns(UserWarning, match=r"L of 0 \(2 × 2\): all entries were drawn as zero"):
        get_peft_model(net, config(a=2, kind="achlioptas", target_modules=["0"], seed=4))


def test_names_that_a_compiler_adds_do_not_change_the_draw():
    net = nn.Sequential()
    net.add_module("_orig_mod", mlp())
    model = get_peft_model(net, config(target_modules=["lin0"]))
    layer = model.base_model.model._orig_mod.lin0
    assert layer.cosa_L["default"].spec.key == ("lin0", "L")
