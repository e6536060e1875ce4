"""What a step costs: saved activations, operations, the choice of their order."""

import itertools

import pytest
import torch

from cosa_theory.nn import forward
from cosa_theory.nn.forward import (
    ORDERS,
    cheapest_order,
    cosa_update,
    delta_weight,
    update_flops,
)
from cosa_theory.nn.linear import CosaLinear
from cosa_theory.nn.projection import ProjectionSpec, frozen_projection, given_projection
from cosa_theory.projections import KINDS

FORMS = {
    # kind and sizes (m, n, a, b) at which the fast form of each ensemble is chosen
    "gaussian": (48, 40, 16, 8),
    "sjlt": (130, 140, 70, 65),
    "srht": (1024, 512, 256, 128),
    "srht, dense": (48, 40, 16, 8),
}


def pair(kind, m, n, a, b, dtype=torch.float32):
    kind = kind.partition(",")[0]
    return tuple(
        frozen_projection(ProjectionSpec(kind, k, d, seed=2, key=(role,)), dtype=dtype)
        for k, d, role in ((a, m, "L"), (b, n, "R"))
    )


def numbers(*shape, seed=1, dtype=torch.float32):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def bytes_saved(call, *excluded):
    """Return the bytes of the distinct storages that autograd keeps, but for the excluded."""
    kept = {}
    skip = {tensor.untyped_storage().data_ptr() for tensor in excluded}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in skip:
            kept[storage.data_ptr()] = storage  # held, so that no other takes its address
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = call()
    assert result.requires_grad
    return sum(storage.nbytes() for storage in kept.values())


def frozen_tensors(*projections):
    return [tensor for one in projections for tensor in one.tensors.values()]


def small(left, right, order):
    """Return the bytes that do not grow with tokens: cores, L Y or Y R, what a form casts."""
    a, m, b, n = left.k, left.d, right.k, right.d
    core = 2 * 4 * a * b
    formed = {"through": 0, "left": 4 * b * m, "right": 4 * a * n}[order]
    casts = sum(64 * (one.k + one.d) + 4 * one.flops for one in (left, right))
    return core + formed + casts


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("name", FORMS)
def test_training_saves_the_compressed_input_and_nothing_of_the_size_of_x(name, order):
    m, n, a, b = FORMS[name]
    left, right = pair(name, m, n, a, b)
    Y = torch.zeros(a, b, requires_grad=True)

    def saved(tokens, dropout=0.0):
        x = numbers(tokens, n).requires_grad_()
        return bytes_saved(
            lambda: cosa_update(
                x, Y, left, right, 0.5, dropout=dropout, training=True, order=order
            ),
            Y,
            *frozen_tensors(left, right),
        )

    few, many = 1024, 3072
    # Gathered sums are of 512 vectors, and keep two short integers for every row and column.
    bags = 4 * 8 * (a + b + m + n) if name == "sjlt" else 0
    for dropout, each in ((0.0, 4 * b), (0.1, 4 * b + n)):  # the mask takes a byte an entry of x
        growth = saved(many, dropout) - saved(few, dropout)
        assert 0 <= growth - each * (many - few) <= bags
        assert saved(few, dropout) <= each * few + bags + small(left, right, order)


def test_a_core_that_needs_no_scaling_and_no_rounding_is_not_copied():
    m, n, a, b = 48, 40, 16, 8
    left, right = pair("gaussian", m, n, a, b)
    Y, x = torch.zeros(a, b, requires_grad=True), numbers(64, n).requires_grad_()
    held = (Y, *frozen_tensors(left, right))
    for scaling, extra in ((1.0, 0), (0.5, 4 * a * b)):
        kept = bytes_saved(
            lambda scaling=scaling: cosa_update(x, Y, left, right, scaling, order="through"), *held
        )
        assert kept == 4 * b * 64 + extra


def test_a_layer_saves_less_than_its_input():
    base = torch.nn.Linear(256, 256)
    layer = CosaLinear(base, 64, 16)
    x = numbers(512, 256).requires_grad_()
    kept = bytes_saved(
        lambda: layer(x), layer.Y, base.weight, *frozen_tensors(layer.left, layer.right)
    )
    assert kept < 4 * 512 * 256 / 4


@pytest.mark.parametrize("kind", KINDS)
def test_all_orders_give_the_same_output_and_gradients(kind):
    m, n, a, b = 130, 140, 33, 19
    left, right = pair(kind, m, n, a, b, torch.float64)
    Y = numbers(a, b, seed=3, dtype=torch.float64).requires_grad_()
    x = numbers(3, 7, n, dtype=torch.float64).requires_grad_()
    gradient = numbers(3, 7, m, seed=4, dtype=torch.float64)
    exact = 0.7 * x @ (left.matrix().double().mT @ Y @ right.matrix().double()).mT
    expected = [exact, *torch.autograd.grad(exact, (x, Y), gradient)]
    for order in ORDERS:
        y = cosa_update(x, Y, left, right, 0.7, order=order)
        for mine, true in zip(
            [y, *torch.autograd.grad(y, (x, Y), gradient)], expected, strict=True
        ):
            assert (mine - true).norm() <= 1e-10 * true.norm()


def test_the_count_of_operations_is_that_of_the_products():
    """Counted by torch itself, forward and backward, in every order."""
    from torch.utils.flop_counter import FlopCounterMode

    m, n, a, b, tokens = 48, 40, 16, 8, 64
    left, right = pair("gaussian", m, n, a, b)
    Y = torch.zeros(a, b, requires_grad=True)
    for order, learns, into in itertools.product(ORDERS, [False, True], [False, True]):
        x = numbers(tokens, n).requires_grad_(learns and into)
        with FlopCounterMode(display=False) as counter:
            y = cosa_update(x, Y.requires_grad_(learns), left, right, 1.0, order=order)
            if learns:
                y.sum().backward()
        counted = update_flops(order, tokens, left, right, training=learns, input_gradient=into)
        # Through a, the gradient of R x is needed only for that of x.
        spared = 2 * tokens * a * b if order == "through" and learns and not into else 0
        spared += 2 * tokens * b * m if order == "left" and learns and not into else 0
        assert counter.get_total_flops() == counted - spared, (order, learns, into)


def test_the_operations_of_a_step_are_the_closed_forms():
    m = n = 2048
    a, b, tokens = 1024, 256, 4096
    left, right = given_projection(torch.empty(a, m)), given_projection(torch.empty(b, n))
    through = tokens * (4 * (b * n + a * b + a * m) + 2 * a * b)
    formed = tokens * (4 * b * (m + n) + 2 * b * m) + 4 * a * b * m
    assert update_flops("through", tokens, left, right) == through
    assert update_flops("left", tokens, left, right) == formed
    assert round(through / tokens / 1e6, 1) == 12.1
    assert round(formed / tokens / 1e6, 1) == 5.8


def test_the_cheapest_order_forms_a_factor_once_there_are_many_tokens():
    def matrix(k, d):
        return given_projection(torch.empty(k, d))

    tall = matrix(1024, 2048), matrix(256, 2048)
    assert cheapest_order(1, *tall) == "through"
    assert cheapest_order(4096, *tall) == "left"
    wide = matrix(256, 2048), matrix(1024, 2048)
    assert cheapest_order(4096, *wide) == "right"
    assert cheapest_order(4096, matrix(256, 2048), matrix(256, 2048)) == "through"


def test_a_factor_that_would_keep_more_than_half_of_the_input_is_formed_without_gradients_only():
    tall = (given_projection(torch.empty(1024, 8192)), given_projection(torch.empty(256, 2048)))
    assert update_flops("left", 512, *tall) < update_flops("through", 512, *tall)
    assert cheapest_order(512, *tall) == "through"
    assert cheapest_order(512, *tall, training=False, input_gradient=False) == "left"
    assert cheapest_order(2048, *tall) == "left"


def test_the_chosen_order_is_the_one_that_runs(monkeypatch):
    left, right = pair("gaussian", 48, 40, 16, 8)
    Y, asked = torch.zeros(16, 8), []

    def chosen(tokens, *pair, **flags):
        asked.append((tokens, flags))
        return "through"

    monkeypatch.setattr(forward, "cheapest_order", chosen)
    cosa_update(numbers(3, 5, 40).bfloat16(), Y, left, right, 1.0)
    Y.requires_grad_()
    cosa_update(numbers(6, 40).requires_grad_(), Y, left, right, 1.0)
    with torch.no_grad():
        cosa_update(numbers(7, 40).requires_grad_(), Y, left, right, 1.0)
    no, yes = (
        {"training": flag, "input_gradient": flag, "dtype": torch.float32} for flag in (False, True)
    )
    assert asked == [(15, no | {"dtype": torch.bfloat16}), (6, yes), (7, no)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["auto", *ORDERS])
def test_an_empty_batch_has_an_empty_update(kind, order):
    left, right = pair(kind, 130, 140, 70, 65)
    Y = torch.ones(70, 65, requires_grad=True)
    x = torch.zeros(2, 0, 140, requires_grad=True)
    y = cosa_update(x, Y, left, right, 1.0, order=order)
    assert y.shape == (2, 0, 130)
    y.sum().backward()
    assert torch.equal(Y.grad, torch.zeros(70, 65))


@pytest.mark.parametrize("kind", KINDS)
def test_the_update_in_half_precision_is_near_the_exact_one(kind):
    m, n, a, b = 130, 140, 70, 65
    left, right = pair(kind, m, n, a, b, torch.bfloat16)
    Y, x = numbers(a, b, seed=3), numbers(64, n).bfloat16()
    scaling = left.factor * right.factor
    exact = x.double() @ delta_weight(Y.double(), left, right, scaling).mT
    for order in ORDERS:
        y = cosa_update(x, Y, left, right, scaling, order=order)
        assert y.dtype == torch.bfloat16
        # Up to four roundings, each of relative size 2⁻⁹ on average at most.
        assert (y.double() - exact).norm() <= 4 * 2**-9 * exact.norm(), order
