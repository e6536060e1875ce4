"""Layers of one input share R x, and a layer's update is added in the course of its products."""

import copy
import gc
import threading

import pytest
import torch
from peft import PeftModel, get_peft_model
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.utils.checkpoint import checkpoint

from cosa_theory.nn import CosaLinear, add_cosa, load_cosa, reading, save_cosa
from cosa_theory.nn.peft import CosaConfig
from cosa_theory.nn.projection import DenseProjection
from cosa_theory.nn.reading import is_plain

NAMES = "qkv"
KINDS = pytest.mark.parametrize("kind", ["gaussian", "sjlt", "srht"])


class Attention(nn.Module):
    """Three layers of one input, in the order q, k, v."""

    def __init__(self, n=40, m=30, dtype=torch.float32):
        super().__init__()
        for name in NAMES:
            setattr(self, name, nn.Linear(n, m, dtype=dtype))

    def forward(self, x):
        return self.q(x) * self.k(x) + self.v(x)


def filled(model, seed=1):
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, one in model.named_parameters():
            if name.endswith(".Y") or "cosa_Y" in name:
                one.normal_()
    return model


def attention(dtype=torch.float64, **settings):
    torch.manual_seed(0)
    made = add_cosa(
        Attention(dtype=dtype), list(NAMES), 8, 6, **{"share_projections": True} | settings,
        core_dtype=dtype if dtype == torch.float64 else torch.float32,
    )  # fmt: skip
    return filled(made)


def alone(model):
    """Return a copy whose layers compute everything for themselves, as a sum of two outputs."""
    apart = copy.deepcopy(model)
    for layer in apart.modules():
        if isinstance(layer, CosaLinear):
            layer.right.shared = False
            layer.base_layer.register_forward_hook(lambda *_: None)  # so that it is not plain
    return apart


@pytest.fixture
def products(monkeypatch):
    """The number of vectors of every product with R, as they are made."""
    made = []

    def counted(self, x, _call=DenseProjection.forward):
        made.append(len(x))
        return _call(self, x)

    monkeypatch.setattr(DenseProjection, "forward", counted)
    return made


def inputs(*shape, dtype=torch.float64, seed=2):
    x = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return x.to(dtype).requires_grad_()


def results(model, x, call=None):
    """Return the output, and the gradients of the input and of all cores."""
    model.zero_grad(set_to_none=True)
    y = (call or model)(x)
    (of_x,) = torch.autograd.grad((y**2).sum(), x, retain_graph=True)
    (y**2).sum().backward()
    return [y.detach(), of_x, *(one.Y.grad for one in model.modules() if hasattr(one, "Y"))]


def close(got, want, unit=1e-13):
    for one, other in zip(got, want, strict=True):
        assert one.dtype == other.dtype
        assert float((one - other).norm()) <= unit * float(other.norm())


@KINDS
@pytest.mark.parametrize("left", [None, "identity"])
@pytest.mark.parametrize("order", ["auto", "through", "left", "right"])
def test_outputs_and_gradients_are_those_of_layers_by_themselves(kind, left, order):
    model = attention(kind=kind, left=left, order=order)
    for shape in ((40,), (7, 40), (2, 300, 40), (0, 40)):
        close(results(model, inputs(*shape)), results(alone(model), inputs(*shape)))


@pytest.mark.parametrize(("dtype", "unit"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_in_lower_precision_they_differ_by_rounding(dtype, unit):
    model, x = attention(dtype), inputs(50, 40, dtype=dtype)
    close(results(model, x), results(alone(model), x.detach().requires_grad_()), unit)


def test_layers_of_one_input_multiply_by_r_once_and_those_of_others_by_themselves(products):
    model, x = attention(), inputs(7, 40)
    model(x)
    assert products == [7]
    model.q(x)
    model.k(x + 1)
    assert products == [7, 7, 7]
    with torch.no_grad():
        model(x)
    assert len(products) == 4
    unshared = attention(share_projections=False)
    unshared(x)
    assert len(products) == 7


@pytest.mark.parametrize("change", ["in place", "through a view", "behind autograd's back"])
def test_a_product_of_earlier_values_is_never_used(change):
    model = attention()
    x = torch.ones(3, 40, dtype=torch.float64)
    with torch.no_grad():
        model(x)
        if change == "in place":
            model.q(x)
            x.mul_(2)
            assert torch.equal(model.k(x), model.k(x.clone()))
        elif change == "through a view":
            model.q(x)
            x[1].fill_(7)
            assert torch.equal(model.k(x), model.k(x.clone()))
        else:  # autograd does not count it; the next pass begins with a layer that has read x
            x.numpy()[:] = 5
        assert torch.allclose(model(x), alone(model)(x), rtol=1e-12)


def test_a_product_is_not_used_in_another_mode_of_gradients_or_of_another_projection(products):
    model, x = attention(), inputs(3, 40)
    with torch.no_grad():
        model.q(x)
    model.k(x).sum().backward()
    assert x.grad is not None
    other = attention(seed=5)
    model.q(x)
    assert torch.equal(other.k(x), other.k(x.clone()))
    model.q(x)
    model.k.right.double().float()  # its tensors are others now
    assert len(products) == 5
    model.v(x)
    assert len(products) == 6
    with torch.inference_mode():
        model(x.detach().clone())  # whose changes nobody counts
    assert len(products) == 9


def test_what_was_shared_is_let_go_with_its_input():
    model, x = attention(), inputs(3, 40) * 1
    model.q(x)
    assert len(reading._shared.products) == 1
    del x
    gc.collect()
    assert not reading._shared.products


@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_recomputing_in_backward_gives_the_same_gradients(reentrant, dropout, products):
    model, x = attention(dropout=dropout), inputs(7, 40)

    def run(call):
        torch.manual_seed(3)
        model.zero_grad()
        y = call(x)
        (y**2).sum().backward()
        found = [y.detach(), x.grad, *(getattr(model, one).Y.grad for one in NAMES)]
        x.grad = None
        return found

    want = run(model)
    products.clear()
    got = run(lambda x: checkpoint(model, x, use_reentrant=reentrant))
    assert len(products) == 2
    close(got, want)
    if not reentrant:  # single layers, each recomputed by itself

        def apart(x):
            q, k, v = (checkpoint(getattr(model, one), x, use_reentrant=False) for one in NAMES)
            return q * k + v

        if not dropout:
            close(run(apart), want)


def test_layers_are_differentiated_one_after_the_other():
    model, x = attention(), inputs(3, 40)
    want = torch.autograd.grad(model(x).sum() + model.q(x).sum() + model.k(x).sum(), x)
    first, second = model.q(x), model.k(x)
    first.sum().backward()
    second.sum().backward()
    model(x).sum().backward()
    close([x.grad], want)


@KINDS
def test_second_derivatives_are_exact(kind):
    model, x = attention(kind=kind, order="through"), inputs(3, 40)
    apart, cores = alone(model), [getattr(model, one).Y for one in NAMES]

    def second(one, cores):
        first = torch.autograd.grad((one(x) ** 3).sum(), [x, *cores], create_graph=True)
        return torch.autograd.grad(sum((part**2).sum() for part in first), [x, *cores])

    close(second(model, cores), second(apart, [getattr(apart, one).Y for one in NAMES]))
    rows = torch.autograd.functional.jacobian(model, x, vectorize=True)
    close([rows], [torch.autograd.functional.jacobian(apart, x)])


def test_dropout_drops_the_same_entries_for_layers_that_share():
    model = attention(dropout=0.5)
    for name in "kv":
        getattr(model, name).Y.data.copy_(model.q.Y)
    updates = []
    x = inputs(7, 40)
    for name in NAMES:
        layer = getattr(model, name)
        updates.append(layer(x) - layer.base_layer(x))
    assert torch.allclose(updates[0], updates[1], rtol=0, atol=1e-12)
    assert torch.allclose(updates[0], updates[2], rtol=0, atol=1e-12)
    again = model.q(x) - model.q.base_layer(x)
    assert not torch.allclose(updates[0], again, rtol=0, atol=1e-3)
    model.eval()
    close(results(model, x), results(alone(model), x))


def test_autocast_merging_and_transforms_work_with_shared_products():
    model, x = attention(torch.float32), inputs(3, 40, dtype=torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.allclose(model(x), alone(model)(x), rtol=0.1, atol=0.1)
    want = model(x).detach()
    model.k.merge()
    assert torch.allclose(model(x), want, rtol=1e-4, atol=1e-4)
    model.k.unmerge()
    cores = {f"{one}.Y": getattr(model, one).Y.detach() for one in NAMES}

    def loss(cores, sample):
        return (functional_call(model, cores, (sample,)) ** 2).sum()

    each = vmap(grad(loss), in_dims=(None, 0))(cores, x.detach())
    (want,) = torch.autograd.grad((model(x.detach()[:1]) ** 2).sum(), model.q.Y)
    assert torch.allclose(each["q.Y"][0], want, rtol=1e-3, atol=1e-3)
    several = vmap(lambda Y: functional_call(model, {"q.Y": Y}, (x.detach(),)))(
        torch.zeros(2, 8, 6)
    )
    assert several.shape == (2, 3, 30)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert torch.allclose(compiled(x), model(x), rtol=1e-4, atol=1e-4)


def test_threads_do_not_meet():
    model, found, barrier = attention(), {}, threading.Barrier(2)

    def run(seed):
        x = inputs(5, 40, seed=seed)
        for _ in range(20):
            barrier.wait(10)
            found[seed] = results_of_output(model, x)

    def results_of_output(model, x):
        with torch.no_grad():
            return model(x)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in (1, 2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    for seed, y in found.items():
        assert torch.allclose(y, alone(model)(inputs(5, 40, seed=seed)), rtol=1e-12)


def test_an_adapter_with_shared_projections_is_read_again_bit_by_bit(tmp_path, products):
    model, x = attention(torch.float32), inputs(3, 40, dtype=torch.float32)
    save_cosa(model, tmp_path)
    torch.manual_seed(0)
    again = load_cosa(Attention(), tmp_path)
    products.clear()
    assert torch.equal(again(x), model(x))
    assert len(products) == 2
    torch.manual_seed(0)
    third = PeftModel.from_pretrained(Attention(), tmp_path)
    assert torch.equal(third(x), model(x))


def test_adapters_of_peft_share_by_themselves(products):
    torch.manual_seed(0)
    config = CosaConfig(
        a=8, b=6, target_modules=list(NAMES), share_projections=True, init_weights=False
    )
    model = get_peft_model(Attention(), config)
    x = inputs(5, 40, dtype=torch.float32)
    one = model(x)
    assert products == [5]
    other = copy.deepcopy(config)
    other.seed = 1
    model.add_adapter("other", other)
    model.base_model.set_adapter(["default", "other"])
    products.clear()
    both = model(x)
    assert products == [5, 5]
    layers = [getattr(model.base_model.model, name) for name in NAMES]
    weights = [
        one.base_layer.weight + one.get_delta_weight("default") + one.get_delta_weight("other")
        for one in layers
    ]
    q, k, v = (x @ W.T + one.base_layer.bias for W, one in zip(weights, layers, strict=True))
    assert torch.allclose(both, q * k + v, rtol=1e-4, atol=1e-4)
    model.set_adapter("default")
    assert torch.equal(model(x), one)
    with model.disable_adapter():
        assert torch.equal(model(x), model.base_model.model(x))


def test_only_a_frozen_plain_linear_layer_is_computed_together_with_its_update():
    x = torch.ones(2, 4)
    layer = nn.Linear(4, 3).requires_grad_(False)
    assert is_plain(layer, x)
    assert not is_plain(nn.Linear(4, 3), x)
    assert not is_plain(layer, x.double())
    with torch.autocast("cpu"):
        assert not is_plain(layer, x)
    kept = []
    handle = layer.register_forward_hook(lambda _, __, output: kept.append(output))
    assert not is_plain(layer, x)
    adapted = filled(CosaLinear(layer, 2, 2, core_dtype=torch.float32))
    nn.init.normal_(adapted.Y)
    adapted(x)
    assert torch.equal(kept[-1], layer(x))  # who keeps the base layer's output keeps that
    handle.remove()
    layer.forward = lambda x: x[:, :3]
    assert not is_plain(layer, x)
