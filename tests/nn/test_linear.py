"""CosaLinear: the formula, what trains, what backward keeps, merge and unmerge."""

import warnings

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from cosa_theory import CosaBasis
from cosa_theory.ground.errors import InputError
from cosa_theory.nn import CosaLinear
from cosa_theory.nn.projection import given_projection
from cosa_theory.projections import KINDS


def layer(m=20, n=30, a=7, b=5, *, bias=True, dtype=torch.float64, **settings):
    torch.manual_seed(0)
    base = nn.Linear(n, m, bias=bias, dtype=dtype)
    settings = {"core_dtype": dtype, "init_weights": False, "key": "block.q_proj", **settings}
    return CosaLinear(base, a, b, **settings)


@settings(max_examples=40, deadline=None)
@given(
    m=st.integers(1, 24),
    n=st.integers(1, 24),
    a=st.integers(1, 24),
    b=st.integers(1, 24),
    kind=st.sampled_from(KINDS),
    scale=st.sampled_from(["synthesis", "analysis"]),
    alpha=st.floats(-3, 3),
)
def test_the_output_is_that_of_the_weight_plus_the_basis_synthesis(m, n, a, b, kind, scale, alpha):
    a, b = min(a, m), min(b, n)
    adapted = layer(m, n, a, b, kind=kind, scale=scale, alpha=alpha, seed=4)
    basis = CosaBasis.sample(m, n, a, b, kind=kind, scale=scale, seed=4, key="block.q_proj")
    delta = alpha * torch.from_numpy(basis.synthesize(adapted.Y.detach().numpy()))
    x = torch.randn(3, n, dtype=torch.float64)
    expected = nn.functional.linear(x, adapted.weight + delta, adapted.bias)
    assert torch.allclose(adapted(x), expected, rtol=0, atol=1e-10 * (1 + float(delta.abs().max())))
    assert torch.allclose(
        adapted.delta_weight(), delta, rtol=0, atol=1e-12 * (1 + abs(alpha) * m * n)
    )


@pytest.mark.parametrize("kind", KINDS)
def test_the_stored_factors_and_the_scaling_give_the_update(kind):
    adapted = layer(kind=kind, alpha=2.5)
    x = torch.randn(4, 30, dtype=torch.float64)
    by_hand = adapted.base_layer(x) + adapted.scaling * (
        x @ adapted.R.mT @ adapted.Y.mT @ adapted.L.mT
    )
    assert torch.allclose(adapted(x), by_hand, rtol=0, atol=1e-12)
    assert adapted.L.shape == (20, 7)
    assert adapted.R.shape == (5, 30)


def test_a_fresh_layer_is_its_base_layer_and_only_the_core_trains():
    adapted = layer(init_weights=True)
    x = torch.randn(4, 30, dtype=torch.float64)
    assert torch.equal(adapted(x), adapted.base_layer(x))
    assert [name for name, p in adapted.named_parameters() if p.requires_grad] == ["Y"]
    assert set(adapted.state_dict()) == {"Y", "base_layer.weight", "base_layer.bias"}
    adapted(x).square().sum().backward()
    assert adapted.Y.grad.abs().max() > 0
    assert adapted.base_layer.weight.grad is None


def test_the_gradient_of_the_core_is_the_encoded_gradient_of_the_weight():
    adapted = layer(alpha=1.5)
    x = torch.randn(6, 30, dtype=torch.float64)
    adapted(x).pow(3).sum().backward()
    full = nn.Linear(30, 20, dtype=torch.float64)
    with torch.no_grad():
        full.weight.copy_(adapted.weight + adapted.delta_weight())
        full.bias.copy_(adapted.bias)
    full(x).pow(3).sum().backward()
    encoded = adapted.scaling * adapted.L.mT @ full.weight.grad @ adapted.R.mT
    assert torch.allclose(adapted.Y.grad, encoded, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", [(7, 5), (5, 13), (13, 5)])
@pytest.mark.parametrize("order", ["through", "left", "right"])
def test_every_order_has_the_same_output_and_the_same_gradients(order, shape):
    reference, tried = layer(20, 30, *shape, order="through"), layer(20, 30, *shape, order=order)
    x = torch.randn(2, 6, 30, dtype=torch.float64)
    results = []
    for adapted in (reference, tried):
        inputs = x.clone().requires_grad_()
        out = adapted(inputs)
        out.pow(3).sum().backward()
        results.append((out, inputs.grad, adapted.Y.grad))
    for expected, found in zip(*results, strict=True):
        assert torch.allclose(expected, found, rtol=1e-10, atol=1e-10)


def saved_for_backward(adapted, x):
    """Shapes and bytes of what forward keeps for backward, parameters and projections aside."""
    own = {t.untyped_storage().data_ptr() for t in adapted.parameters()}
    for projection in (adapted.left, adapted.right):
        own |= {t.untyped_storage().data_ptr() for t in projection.tensors.values()}
    kept = {}

    def pack(tensor):
        if tensor.untyped_storage().data_ptr() not in own:
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        out = adapted(x)
    del out
    return list(kept.values())


@pytest.mark.parametrize("order", ["auto", "through", "left", "right"])
@pytest.mark.parametrize("kind", ["gaussian", "rademacher"])
def test_backward_keeps_the_sketch_of_the_input_and_not_the_input(kind, order):
    tokens = 400
    adapted = layer(48, 64, 12, 8, kind=kind, order=order, dtype=torch.float32)
    x = torch.randn(tokens, 64, requires_grad=True)
    kept = saved_for_backward(adapted, x)
    by_token = [t for t in kept if tokens in t.shape]
    assert sum(t.nbytes for t in by_token) == tokens * 8 * 4
    weights = sum(t.nbytes for t in kept) - tokens * 8 * 4
    assert weights <= 4 * (12 * 8 + 48 * 8 + 12 * 64)  # at most the core, L Y and Y R


def test_dropout_keeps_one_byte_more_for_every_entry_of_the_input():
    tokens = 400
    adapted = layer(48, 64, 12, 8, dropout=0.25, dtype=torch.float32)
    x = torch.randn(tokens, 64, requires_grad=True)
    kept = saved_for_backward(adapted, x)
    assert sum(t.nbytes for t in kept if tokens in t.shape) == tokens * (8 * 4 + 64)


def test_dropout_acts_in_training_only_and_keeps_the_mean():
    adapted = layer(4, 50, 3, 3, dropout=0.4)
    x = torch.ones(1, 50, dtype=torch.float64)
    adapted.eval()
    quiet = adapted(x)
    assert torch.equal(quiet, adapted(x))
    adapted.train()
    torch.manual_seed(1)
    noisy = torch.cat([adapted(x) for _ in range(4000)])
    error = noisy.std(0) / 4000**0.5
    assert error.min() > 0
    assert ((noisy.mean(0) - quiet).abs() < 5 * error).all()


@pytest.mark.parametrize("alpha", [1.0, -2.5])
@pytest.mark.parametrize("kind", ["gaussian", "sjlt"])
def test_merging_keeps_the_output_and_unmerging_gives_the_weight_back(kind, alpha):
    adapted = layer(kind=kind, alpha=alpha)
    weight = adapted.weight.clone()
    x = torch.randn(4, 30, dtype=torch.float64)
    out = adapted(x)
    adapted.merge()
    adapted.merge()  # a second time changes nothing
    assert adapted.merged
    assert torch.allclose(adapted(x), out, rtol=0, atol=1e-12)
    assert torch.allclose(adapted.weight, weight + adapted.delta_weight(), rtol=0, atol=1e-14)
    adapted.unmerge()
    adapted.unmerge()
    assert torch.allclose(adapted.weight, weight, rtol=0, atol=1e-14)
    assert torch.allclose(adapted(x), out, rtol=0, atol=1e-12)


def test_a_core_that_is_not_finite_is_not_merged():
    adapted = layer()
    weight = adapted.weight.clone()
    with torch.no_grad():
        adapted.Y[0, 0] = float("nan")
    with pytest.raises(
        InputError,
        match=r"block\.q_proj cannot be merged: its weight with the update is not finite",
    ):
        adapted.merge()
    assert torch.equal(adapted.weight, weight)
    assert not adapted.merged


def test_a_core_in_float32_takes_steps_that_bfloat16_would_lose():
    adapted = layer(dtype=torch.bfloat16, core_dtype=torch.float32)
    assert adapted.Y.dtype == torch.float32
    assert adapted.left.tensors["values"].dtype == torch.bfloat16
    before = adapted.Y.detach().clone()
    with torch.no_grad():
        adapted.Y.add_(before.abs().max() * 1e-4)
    assert (adapted.Y - before).abs().min() > 0
    assert torch.equal(
        (before.bfloat16() + before.abs().max() * 1e-4)[0, 0], before.bfloat16()[0, 0]
    )


def test_half_precision_is_as_accurate_as_its_rounding_allows():
    exact, coarse = layer(64, 96, 24, 16), layer(64, 96, 24, 16)
    with torch.no_grad():
        for adapted in (exact, coarse):
            adapted.base_layer.weight.zero_()
            adapted.base_layer.bias.zero_()
            adapted.Y.copy_(adapted.Y.bfloat16())
    coarse.bfloat16()
    coarse.Y.data = coarse.Y.data.float()
    x = torch.randn(50, 96).bfloat16()
    expected, found = exact(x.double()), coarse(x)
    assert found.dtype == torch.bfloat16
    # three products, each with factors and result rounded to 8 bits: u = 2⁻⁹ each, at random
    assert (found.double() - expected).norm() / expected.norm() < 6 * 2**-9


def test_layers_with_other_names_draw_other_projections():
    assert not torch.equal(layer(key="p").L, layer(key="q").L)
    assert torch.equal(layer(key="p").L, layer(key="p").L)
    assert not torch.equal(layer(20, 20, 5, 5).L, layer(20, 20, 5, 5).R.mT)


def test_a_core_too_large_is_clipped_with_a_warning_or_refused():
    with pytest.warns(UserWarning, match=r"the layer, 20 × 30: \(30, 40\) to \(20, 30\)"):
        adapted = layer(a=30, b=40, key="")
    assert adapted.Y.shape == (20, 30)
    with pytest.raises(InputError, match="smaller core"):
        layer(a=30, b=4, clip=False)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dropout": 1.0}, "dropout is 1.0: it must be"),
        ({"order": "best"}, "order is 'best': it must be"),
        ({"kind": "cauchy"}, "kind is 'cauchy': it must be"),
        ({"a": 0}, "a is 0: it must be"),
        ({"clip": "no"}, "clip is 'no': it must be true or false"),
        ({"init_weights": "no"}, "init_weights is 'no': it must be true or false"),
        ({"kind": "activation"}, "kind is 'activation', .* with add_cosa, which takes the moments"),
        ({"m": 0}, r"block\.q_proj is 0 × 30, which leaves nothing to adapt"),
    ],
)
def test_a_bad_setting_is_one_clear_sentence(changes, message):
    with pytest.raises(InputError, match=message):
        layer(**changes)


def test_projections_that_are_given_bring_their_own_core_and_fit_the_layer():
    """Also with a larger core than the layer, which adapters of the released code may have."""
    pair = given_projection(torch.randn(25, 20)), given_projection(torch.randn(4, 30))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        adapted = CosaLinear(nn.Linear(30, 20), projections=pair)
    assert (adapted.Y.shape, adapted.spec.a, adapted.spec.b) == ((25, 4), 25, 4)
    with pytest.raises(InputError, match=r"'25 × 20 and 4 × 30': it must be a × 7 and b × 8"):
        CosaLinear(nn.Linear(8, 7), 5, 4, projections=pair)


def test_only_linear_layers_are_adapted():
    with pytest.raises(InputError, match="base_layer is of type Embedding"):
        CosaLinear(nn.Embedding(3, 4), 2, 2)
