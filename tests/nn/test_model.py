"""CoSA on whole models: what is adapted and frozen, merging, unloading, awkward models."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.nn import CosaLinear, add_cosa, merge_cosa, unmerge, unmerge_cosa
from cosa_theory.nn.model import cosa_layers
from cosa_theory.projections import KINDS


def plain(dtype=torch.float64):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(12, 16, dtype=dtype), nn.Tanh(), nn.Linear(16, 10, bias=False, dtype=dtype)
    )


def adapted(dtype=torch.float64, **settings):
    torch.manual_seed(1)
    settings = {"init_weights": False, "alpha": 1.5, "core_dtype": dtype, **settings}
    return add_cosa(plain(dtype), "all-linear", 5, 4, **settings)


def inputs(dtype=torch.float64):
    return torch.randn(7, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64).to(
        dtype
    )


def llama(**settings):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 50,
    }
    return LlamaForCausalLM(LlamaConfig(**(sizes | settings))).eval()


def snapshot(model):
    """Everything a failed call must leave as it was."""
    return (
        [(name, type(module), module.training) for name, module in model.named_modules()],
        {name: p.requires_grad for name, p in model.named_parameters()},
        {name: value.clone() for name, value in model.state_dict().items()},
    )


def assert_unchanged(model, before):
    after = snapshot(model)
    assert after[:2] == before[:2]
    assert all(torch.equal(after[2][name], value) for name, value in before[2].items())


@pytest.mark.parametrize("kind", KINDS)
def test_every_layer_has_the_projections_of_its_name(kind):
    model = adapted(kind=kind, seed=5, scale="analysis")
    for name, layer in cosa_layers(model).items():
        m, n = layer.weight.shape
        basis = CosaBasis.sample(m, n, 5, 4, kind=kind, seed=5, scale="analysis", key=name)
        expected = 1.5 * basis.synthesize(layer.Y.detach().numpy())
        found = layer.delta_weight().detach()
        assert torch.allclose(found, torch.from_numpy(expected), rtol=0, atol=1e-10)


def test_a_fresh_model_computes_what_it_did_and_only_its_cores_train():
    model = llama()
    ids = torch.arange(12)[None]
    before = model(ids).logits
    assert add_cosa(model, ["q_proj", "down_proj"], 8, 4) is model
    assert torch.equal(model(ids).logits, before)
    trainable = [name for name, p in model.named_parameters() if p.requires_grad]
    assert trainable == [
        f"model.layers.{i}.{part}.Y"
        for i in range(2)
        for part in ("self_attn.q_proj", "mlp.down_proj")
    ]
    model(ids, labels=ids).loss.backward()
    assert all(p.grad is None or p.requires_grad for p in model.parameters())
    assert all(layer.Y.grad.abs().max() > 0 for layer in cosa_layers(model).values())


def test_the_new_layers_are_in_the_mode_of_those_they_replace():
    model = plain()
    model[0].eval()
    add_cosa(model, "all-linear", 5, 4, dropout=0.5)
    assert [layer.training for layer in cosa_layers(model).values()] == [False, True]


def test_shapes_and_alphas_go_by_patterns_and_cores_are_clipped_with_one_warning():
    with pytest.warns(UserWarning, match="larger than 4 of 14 layers") as caught:
        model = add_cosa(
            llama(),
            "all-linear",
            24,
            6,
            shape_pattern={"k_proj": (40, 3), "1.mlp.up_proj": [7, 5]},
            alpha_pattern={"v_proj": 0.25},
        )
    assert [w.filename == __file__ for w in caught] == [True]
    shapes = {name: tuple(layer.Y.shape) for name, layer in cosa_layers(model).items()}
    assert shapes["model.layers.0.self_attn.k_proj"] == (16, 3)
    assert shapes["model.layers.0.mlp.up_proj"] == (24, 6)
    assert shapes["model.layers.1.mlp.up_proj"] == (7, 5)
    assert {
        name: layer.scaling for name, layer in cosa_layers(model).items() if "1.self" in name
    } == {
        "model.layers.1.self_attn.q_proj": 1.0,
        "model.layers.1.self_attn.k_proj": 1.0,
        "model.layers.1.self_attn.v_proj": 0.25,
        "model.layers.1.self_attn.o_proj": 1.0,
    }


def test_a_core_larger_than_its_layer_is_refused_where_clipping_is_off():
    model = llama()
    before = snapshot(model)
    with pytest.raises(InputError, match=r"self_attn\.k_proj, 16 × 32: \(24, 6\) to \(16, 6\)"):
        add_cosa(model, ["k_proj"], 24, 6, clip=False)
    assert_unchanged(model, before)


def test_shared_projections_are_one_object_for_each_size():
    model = add_cosa(llama(), "all-linear", 8, 4, share_projections=True)
    layers = cosa_layers(model).values()
    assert {id(layer.left) for layer in layers} == {
        id(one) for one in {layer.spec.m: layer.left for layer in layers}.values()
    }
    assert len({id(layer.left) for layer in layers}) == 3  # 32, 16 and 48 outputs
    assert len({id(layer.right) for layer in layers}) == 2  # 32 and 48 inputs


def test_modules_to_save_train_whole_and_hold_no_cores():
    model = llama()
    add_cosa(model, "all-linear", 8, 4, modules_to_save=["lm_head", "1.mlp"])
    trainable = {
        name for name, p in model.named_parameters() if not name.endswith(".Y") and p.requires_grad
    }
    assert trainable == {
        "lm_head.weight",
        *(f"model.layers.1.mlp.{part}_proj.weight" for part in ("gate", "up", "down")),
    }
    assert not any("layers.1.mlp" in name for name in cosa_layers(model))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
def test_merging_and_unmerging_keep_the_output_to_within_rounding(dtype, kind):
    model = adapted(dtype, kind=kind, alpha=-0.7)
    weights = {name: layer.weight.clone() for name, layer in cosa_layers(model).items()}
    x = inputs(dtype)
    before = model(x).double()
    u = torch.finfo(dtype).eps / 2
    assert merge_cosa(model) is model
    merge_cosa(model)
    assert all(layer.merged for layer in cosa_layers(model).values())
    # Two layers; each rounds the weight, the products and the sum, and tanh passes errors on.
    assert (model(x).double() - before).norm() < 12 * u * before.norm()
    assert unmerge_cosa(model) is model
    unmerge(model)
    for name, layer in cosa_layers(model).items():
        size = layer.weight.abs() + layer.delta_weight().abs()
        assert ((layer.weight - weights[name]).abs() <= 2.01 * u * size).all()
    assert (model(x).double() - before).norm() < 12 * u * before.norm()


def test_unloading_gives_plain_layers_with_the_merged_weights():
    model = adapted()
    before = model(inputs())
    assert merge_cosa(model, unload=True) is model
    assert [type(module) for module in model] == [nn.Linear, nn.Tanh, nn.Linear]
    assert torch.allclose(model(inputs()), before, rtol=0, atol=1e-13)
    assert set(model.state_dict()) == set(plain().state_dict())
    assert set(vars(model)) == set(vars(plain()))
    add_cosa(model, "all-linear", 3, 3)  # and it can be adapted anew
    with pytest.raises(InputError, match="contains no CoSA layers, so there is nothing to merge"):
        merge_cosa(plain())
    with pytest.raises(InputError, match="contains no CoSA layers, so there is nothing to unmerge"):
        unmerge_cosa(plain())


def test_a_core_that_is_not_finite_leaves_every_weight_unmerged():
    model = adapted()
    with torch.no_grad():
        cosa_layers(model)["2"].Y[0, 0] = float("inf")
    before = snapshot(model)
    with pytest.raises(InputError, match="the core of 2 holds NaN or infinite entries"):
        merge_cosa(model)
    assert_unchanged(model, before)
    assert not any(layer.merged for layer in cosa_layers(model).values())


def test_an_overflow_met_while_merging_takes_the_earlier_layers_back():
    model = adapted(torch.float16)
    weights = [layer.weight.clone() for layer in cosa_layers(model).values()]
    cosa_layers(model)["2"].scaling = 1e6
    with pytest.raises(
        InputError, match="2 cannot be merged: its weight with the update is not finite"
    ):
        merge_cosa(model)
    assert not any(layer.merged for layer in cosa_layers(model).values())
    for layer, weight in zip(cosa_layers(model).values(), weights, strict=True):
        assert torch.allclose(layer.weight, weight, rtol=0, atol=2e-3)


def test_a_second_call_is_refused_and_a_peft_model_too():
    model = adapted()
    before = snapshot(model)
    with pytest.raises(InputError, match=r"has 2 CoSA layers already \(0, 2\); name all layers in"):
        add_cosa(model, ["2"], 3, 3)
    assert_unchanged(model, before)
    from peft import LoraConfig, get_peft_model

    with pytest.raises(InputError, match="adapted by PEFT already; merge that first"):
        add_cosa(get_peft_model(plain(), LoraConfig(target_modules=["0"])), "all-linear")


def test_a_tied_head_is_adapted_but_not_merged_into_the_embedding():
    model = llama(tie_word_embeddings=True)
    torch.manual_seed(1)
    add_cosa(model, ["lm_head", "q_proj"], 8, 4, init_weights=False)
    ids = torch.arange(9)[None]
    out, before = model(ids).logits, snapshot(model)
    with pytest.raises(InputError, match=r"lm_head is tied to that of model\.embed_tokens"):
        merge_cosa(model)
    assert_unchanged(model, before)
    layer = model.lm_head
    layer.base_layer.weight = nn.Parameter(layer.base_layer.weight.clone())
    assert torch.allclose(merge_cosa(model)(ids).logits, out, rtol=0, atol=1e-5)


def test_a_layer_used_twice_is_one_layer_with_one_core():
    torch.manual_seed(0)
    shared = nn.Linear(6, 6)
    model = nn.ModuleDict({"first": shared, "second": nn.Sequential(shared)})
    add_cosa(model, "all-linear", 3, 2)
    assert isinstance(model["first"], CosaLinear)
    assert model["first"] is model["second"][0]
    assert list(cosa_layers(model)) == ["first"]
    merge_cosa(model, unload=True)
    assert model["first"] is model["second"][0] is shared


@pytest.mark.parametrize("masked", [False, True])
def test_torchs_own_encoder_does_not_pass_over_the_update_in_inference(masked):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    model = nn.TransformerEncoder(layer, 2)
    x = torch.randn(3, 5, 8)
    mask = torch.zeros(3, 5, dtype=torch.bool)
    mask[:, 3:] = masked
    add_cosa(model, "all-linear", 4, 4, init_weights=False)
    model.eval()
    with_gradient = model(x, src_key_padding_mask=mask)
    with torch.inference_mode():
        found = model(x, src_key_padding_mask=mask)
    assert torch.allclose(found[:, :3], with_gradient[:, :3], rtol=0, atol=1e-5)
    merge_cosa(model)
    with torch.inference_mode():
        merged = model(x, src_key_padding_mask=mask)
    assert torch.allclose(merged[:, :3], found[:, :3], rtol=0, atol=1e-5)


def test_a_layer_keeps_the_dtype_of_its_weight_in_a_model_of_mixed_ones():
    model = nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6).bfloat16())
    add_cosa(model, "all-linear", 3, 3)
    kept = [layer.left.matrix().dtype for layer in cosa_layers(model).values()]
    assert kept == [torch.float32, torch.bfloat16]
    assert {layer.Y.dtype for layer in cosa_layers(model).values()} == {torch.float32}


def test_a_process_with_another_hash_seed_draws_the_same_projections():
    code = (
        "from torch import nn; from cosa_theory.nn import add_cosa; "
        "m = nn.Sequential(nn.Linear(12, 16), nn.Tanh(), nn.Linear(16, 10)); "
        "add_cosa(m, 'all-linear', 5, 4, seed=3); "
        "print(*(p.fingerprint for l in (m[0], m[2]) for p in (l.left, l.right)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONHASHSEED": "1234", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    layers = cosa_layers(adapted(torch.float32, seed=3)).values()
    here = [projection.fingerprint for one in layers for projection in (one.left, one.right)]
    assert run.stdout.split() == here
    assert len(set(here)) == 4


def test_nothing_is_shown_where_no_terminal_is_and_nothing_is_warned_of(capfd):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted(progress=True)
    assert capfd.readouterr() == ("", "")


def test_the_number_of_threads_does_not_change_the_draws():
    one, many = adapted(threads=1), adapted(threads=3)
    assert torch.equal(one(inputs()), many(inputs()))
