"""Layers whose projections are made from data, and one-sided ones, as plain modules."""

import json
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import nn

from cosa_theory import CosaBasis
from cosa_theory.deltas.cosa_adapters import read_cosa_folder
from cosa_theory.ground.errors import InputError
from cosa_theory.nn import CosaLinear, add_cosa, load_cosa, merge_cosa, save_cosa
from cosa_theory.nn.forward import cheapest_order
from cosa_theory.nn.lora import to_lora
from cosa_theory.nn.model import cosa_layers
from cosa_theory.nn.moments import Moments, model_fingerprint, write_moments
from cosa_theory.nn.projection import IdentityProjection, ProjectionSpec, frozen_projection
from cosa_theory.nn.settings import CosaSettings
from tests.nn.made import moments_for, second_moments

SIZES = {"0": (24, 16), "2": (12, 24)}
MOMENTS = moments_for(SIZES)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 24), nn.Tanh(), nn.Linear(24, 12))


def adapted(model=None, moments=MOMENTS, **changes):
    wanted = {"a": 6, "b": 4, "kind": "activation", "init_weights": False, "alpha": 1.5} | changes
    model = net() if model is None else model
    torch.manual_seed(1)
    return add_cosa(model, list(SIZES), moments=moments, **wanted)


def inputs(count=7, dtype=torch.float32):
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(2)).to(dtype)


# The identity


def test_the_identity_returns_what_it_is_given_and_holds_nothing():
    for scale in ("synthesis", "analysis"):
        identity = frozen_projection(ProjectionSpec("identity", 9, 9, scale=scale))
        assert isinstance(identity, IdentityProjection)
        x = torch.randn(3, 9)
        assert identity(x) is x
        assert identity.adjoint(x) is x
        assert torch.equal(identity.matrix(), torch.eye(9))
        assert (identity.flops, identity.nbytes, identity.factor) == (0, 0, 1.0)
    half = frozen_projection(ProjectionSpec("identity", 4, 9)).matrix()
    assert torch.equal(half, torch.eye(9)[:4])


@settings(max_examples=25, deadline=None)
@given(
    m=st.integers(1, 20),
    n=st.integers(2, 20),
    b=st.integers(1, 20),
    scale=st.sampled_from(["synthesis", "analysis"]),
    order=st.sampled_from(["auto", "through", "left", "right"]),
)
def test_a_one_sided_layer_adds_its_core_times_R(m, n, b, scale, order):
    b = min(b, n)
    torch.manual_seed(0)
    base = nn.Linear(n, m, dtype=torch.float64)
    options = {"kind": "haar", "scale": scale, "seed": 3, "key": "q"}
    layer = CosaLinear(
        base,
        7,  # a is m whatever is said
        b,
        left="identity",
        init_weights=False,
        order=order,
        core_dtype=torch.float64,
        **options,
    )
    assert layer.Y.shape == (m, b)
    basis = CosaBasis.sample(m, n, m, b, left="identity", **options)
    delta = layer.Y.detach().numpy() @ basis.R
    assert np.allclose(layer.delta_weight().detach().numpy(), delta, rtol=0, atol=1e-12)
    x = torch.randn(3, n, dtype=torch.float64)
    assert torch.allclose(layer(x) - base(x), x @ torch.from_numpy(delta).T, rtol=0, atol=1e-12)


def test_a_one_sided_layer_runs_through_R_and_keeps_R_x_alone():
    tokens, n, m, b = 600, 256, 192, 16
    layer = CosaLinear(nn.Linear(n, m), 1, b, left="identity")
    assert cheapest_order(tokens, layer.left, layer.right) == "through"
    x = torch.randn(tokens, n, requires_grad=True)
    held = [*layer.parameters(), *layer.right.tensors.values()]
    own = {tensor.untyped_storage().data_ptr() for tensor in held}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = layer(x)
    assert out.requires_grad
    assert sum(storage.nbytes() for storage in kept.values()) == 4 * b * tokens


def test_one_sided_layers_are_as_tall_as_their_weights_and_nothing_warns():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        specs = CosaSettings(1000, 4, left="identity", clip=False).layers(SIZES)
    assert [(one.a, one.left.kind, one.right.kind) for one in specs.values()] == [
        (24, "identity", "gaussian"),
        (12, "identity", "gaussian"),
    ]


def test_L_of_informed_layers_is_the_identity_where_the_core_is_as_tall():
    with pytest.warns(UserWarning, match="was reduced"):
        specs = CosaSettings(24, 4, kind="activation").layers(SIZES)
    assert [one.left.kind for one in specs.values()] == ["identity", "identity"]
    shorter = CosaSettings(6, 4, kind="activation").layers(SIZES)
    assert {one.left.kind for one in shorter.values()} == {"haar"}
    assert CosaSettings(6, 4, kind="gradient").layers(SIZES)["0"].left.kind == "gradient"
    other = CosaSettings(6, 4, kind="gradient", left="srht").layers(SIZES)["0"]
    assert (other.left.kind, other.right.kind) == ("srht", "gradient")


# Layers made from moments


@pytest.mark.parametrize("options", [{}, {"power": 1}, {"whiten": True}, {"centre": True}])
@pytest.mark.parametrize("kind", ["activation", "gradient"])
def test_projections_are_those_of_the_basis_from_the_same_moments(kind, options):
    model = adapted(kind=kind, options=options, scale="analysis", seed=5)
    for name, layer in cosa_layers(model).items():
        m, n = SIZES[name]
        sides = {"moments": MOMENTS.inputs[f"{name}.weight"]}
        if kind == "gradient":
            sides["gradients"] = MOMENTS.gradients[f"{name}.weight"]
        basis = CosaBasis.sample(
            m, n, 6, 4, kind=kind, seed=5, scale="analysis", key=name, **sides, **options
        )
        assert np.array_equal(layer.R.numpy(), basis.R.astype(np.float32))
        assert np.array_equal(layer.L.numpy(), basis.L.astype(np.float32))
        delta = 1.5 * basis.synthesize(layer.Y.detach().double().numpy())
        assert np.allclose(layer.delta_weight().detach().numpy(), delta, rtol=0, atol=1e-4)


def test_layers_that_read_one_input_hold_one_projection():
    model = nn.ModuleDict({"q": nn.Linear(16, 24), "k": nn.Linear(16, 24)})
    one = second_moments(16)
    moments = Moments({"q.weight": one, "k.weight": one})
    model = add_cosa(model, ["q", "k"], 6, 4, kind="activation", moments=moments)
    assert model["q"].right is model["k"].right
    assert model["q"].left is not model["k"].left


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "changes", [{"kind": "activation"}, {"kind": "gradient"}, {"left": "identity"}], ids=str
)
def test_a_loaded_adapter_computes_what_the_saved_one_did(tmp_path, changes, weights, dtype):
    model = adapted(net().to(weights), projection_dtype=dtype, **changes)
    save_cosa(model, tmp_path / "one")
    loaded = load_cosa(net().to(weights), tmp_path / "one")
    want = model.requires_grad_(False)(inputs(dtype=weights))
    assert torch.equal(loaded(inputs(dtype=weights)), want)
    save_cosa(loaded, tmp_path / "two")
    again = load_cosa(net().to(weights), tmp_path / "two")
    assert torch.equal(again(inputs(dtype=weights)), want)
    tensors = load_file(tmp_path / "one" / "adapter_model.safetensors")
    projections = {name: one for name, one in tensors.items() if not name.endswith("_Y")}
    sides = (
        "LR" if changes == {"kind": "gradient"} else "R"
    )  # Haar has a seed, the identity needs none
    assert len(projections) == 2 * len(sides)
    narrow = "bfloat16" in (dtype, str(weights).removeprefix("torch."))
    assert {one.dtype for one in projections.values()} == {
        torch.bfloat16 if narrow else torch.float32
    }
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    stored = sum(one.nbytes for one in projections.values())
    assert config["projection_bytes"] == stored
    assert f"{stored:,} bytes of them are stored" in (tmp_path / "one" / "README.md").read_text()


@pytest.mark.parametrize("left", [None, "identity", "srht"])
@pytest.mark.parametrize("kind", ["activation", "gradient", "gaussian"])
def test_an_adapter_is_read_merged_and_exported_as_the_update_it_is(tmp_path, kind, left):
    model = adapted(kind=kind, left=left, moments=None if kind == "gaussian" else MOMENTS)
    save_cosa(model, tmp_path / "cosa")
    folder = read_cosa_folder(tmp_path / "cosa")
    export = to_lora(tmp_path / "cosa", tmp_path / "lora")
    lora = load_file(tmp_path / "lora" / "adapter_model.safetensors")
    for name, layer in cosa_layers(model).items():
        delta = layer.delta_weight().detach().double()
        left_factor, right_factor = folder.projections(name)
        core = folder.core(name).astype(np.float64)
        read = 1.5 * (left_factor.T @ (core @ (right_factor @ np.eye(SIZES[name][1]))))
        assert np.allclose(read, delta, rtol=0, atol=1e-5)
        B, A = (lora[f"base_model.model.{name}.lora_{part}.weight"].double() for part in "BA")
        assert torch.allclose(B @ A, delta, rtol=0, atol=1e-5)
    assert export.energy_lost == 0
    assert export.rank == 4
    want = model(inputs())
    assert torch.allclose(merge_cosa(model)(inputs()), want, rtol=0, atol=1e-4)


def test_a_model_moved_to_another_type_stores_what_it_holds(tmp_path):
    model = adapted().bfloat16()
    save_cosa(model, tmp_path)
    loaded = load_cosa(net().bfloat16(), tmp_path)
    want = model.requires_grad_(False)(inputs(dtype=torch.bfloat16))
    assert torch.equal(loaded(inputs(dtype=torch.bfloat16)), want)


def test_the_file_of_moments_of_this_model_is_read(tmp_path):
    moments = moments_for(SIZES, model=model_fingerprint(net()))
    write_moments(moments, tmp_path / "moments.safetensors")
    model = adapted(moments=tmp_path / "moments.safetensors")
    other = adapted(moments=moments)
    assert torch.equal(model(inputs()), other(inputs()))


def test_progress_says_how_many_bytes_are_stored(tmp_path, capsys):
    model = adapted(progress=True)
    save_cosa(model, tmp_path)
    stored = json.loads((tmp_path / "adapter_config.json").read_text())["projection_bytes"]
    assert stored == sum(layer.right.nbytes for layer in cosa_layers(model).values())
    assert f"{stored:,} bytes" in capsys.readouterr().err


# What is refused


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"moments": None}, ["activation", "R of 0", "prepare_cosa", "moments"]),
        ({"moments": 3}, ["moments", "int", "path"]),
        ({"kind": "gaussian"}, ["gaussian", "moments", "activation"]),
        ({"moments": Moments({"0.weight": MOMENTS.inputs["0.weight"]})}, ["inputs", "2", "names"]),
        (
            {"kind": "gradient", "moments": Moments(MOMENTS.inputs)},
            ["output gradients", "0", "left='identity'"],
        ),
        ({"moments": Moments(MOMENTS.inputs, model="another")}, ["another model", "gather"]),
        (
            {"moments": Moments({"0.weight": second_moments(9), "2.weight": second_moments(24)})},
            ["R of 0", "length 9", "16"],
        ),
        (
            {"moments": moments_for(SIZES, count=3)},
            ["R of 0", "3 independent", "4", "texts"],
        ),
        ({"share_projections": True}, ["share_projections", "activation", "False"]),
        ({"left": "activation"}, ["left", "activation", "identity"]),
        ({"projection_dtype": "float16"}, ["projection_dtype", "float16", "bfloat16"]),
        ({"options": {"moments": 1}}, ["moments", "power, whiten, centre"]),
        ({"options": {"whiten": "yes"}}, ["whiten", "yes", "true or false"]),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_made_is_refused_and_the_model_is_as_it_was(changes, words):
    model = net()
    before = list(model.named_modules())
    with pytest.raises(InputError) as caught:
        adapted(model, **changes)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert max(map(len, text.splitlines())) <= 300
    assert list(model.named_modules()) == before


def test_projections_of_another_saving_are_refused(tmp_path):
    save_cosa(adapted(), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    tensors = load_file(file)
    save_file(
        tensors | {"base_model.model.0.cosa_R": 2 * tensors["base_model.model.0.cosa_R"]}, file
    )
    with pytest.raises(InputError, match=r"R of 0 .* different savings; save the adapter again"):
        load_cosa(net(), tmp_path)


def test_a_file_without_what_was_made_from_data_is_refused(tmp_path):
    save_cosa(adapted(), tmp_path)
    file = tmp_path / "adapter_model.safetensors"
    save_file({k: one for k, one in load_file(file).items() if not k.endswith("0.cosa_R")}, file)
    with pytest.raises(InputError, match=r"made from data.* not in .*\(R of 0\)"):
        read_cosa_folder(tmp_path)


def test_a_one_sided_adapter_with_another_core_is_refused(tmp_path):
    save_cosa(adapted(kind="gaussian", moments=None), tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"left": "identity"}))
    with pytest.raises(InputError, match=r"core of 0 is 6 × 4.* m = 24.*identity"):
        read_cosa_folder(tmp_path)
