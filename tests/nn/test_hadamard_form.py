"""Subsampled Hadamard projections: two passes of small products equal the dense matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from cosa_theory.nn.hadamard_form import HadamardProjection, hadamard_pays
from cosa_theory.nn.projection import DenseProjection, ProjectionSpec, frozen_projection
from cosa_theory.projections import make_projection


def form(k=13, d=37, **changes):
    return HadamardProjection.drawn(ProjectionSpec("srht", k, d, seed=3, key=("l", "R"), **changes))


def numbers(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("scale", ["analysis", "synthesis"])
def test_the_signs_are_those_of_the_draw(scale):
    made = form(scale=scale)
    A = make_projection("srht", 13, 37, seed=3, scale=scale, key=("l", "R"))
    assert np.allclose(made.factor * made.matrix().double().numpy(), A @ np.eye(37), rtol=1e-14)
    dense = DenseProjection.drawn(made.spec)
    assert torch.equal(dense.matrix(), made.matrix())
    assert dense.fingerprint == made.fingerprint


@pytest.mark.parametrize("size", [(13, 37), (32, 64), (1, 1), (2, 2), (5, 200), (100, 100)])
def test_both_products_and_their_gradients_are_those_of_the_matrix(size):
    k, d = size
    made = form(k, d)
    S = made.matrix().double()
    x, h = numbers(2, 700, d).requires_grad_(), numbers(2, 700, k, seed=2).requires_grad_()
    into, out = numbers(2, 700, k, seed=3), numbers(2, 700, d, seed=4)
    for product, vector, gradient, matrix in ((made, x, into, S.mT), (made.adjoint, h, out, S)):
        result = product(vector)
        assert torch.allclose(result, vector @ matrix, rtol=0, atol=1e-11)
        (back,) = torch.autograd.grad(result, vector, gradient)
        assert torch.allclose(back, gradient @ matrix.mT, rtol=0, atol=1e-11)


def test_gradients_agree_with_finite_differences():
    made = form(5, 11)
    assert torch.autograd.gradcheck(made, numbers(3, 11).requires_grad_())
    assert torch.autograd.gradcheck(made.adjoint, numbers(3, 5).requires_grad_())


@settings(max_examples=40, deadline=None)
@given(d=st.integers(1, 300), share=st.floats(0, 1), vectors=st.integers(0, 5))
def test_it_equals_the_dense_form_at_any_size(d, share, vectors):
    k = max(1, round(share * d))
    made = form(k, d)
    S = DenseProjection.drawn(made.spec, dtype=torch.float64).matrix()
    x, h = numbers(vectors, d), numbers(vectors, k)
    assert torch.allclose(made(x), x @ S.mT, rtol=0, atol=1e-11)
    assert torch.allclose(made.adjoint(h), h @ S, rtol=0, atol=1e-11)


def test_the_result_does_not_depend_on_how_many_vectors_are_transformed_at_a_time():
    made = form(100, 2000)
    x = numbers(300, 2000)  # 300 · 2048 numbers: three parts
    alone = torch.stack([made(row) for row in x[::60]])
    assert torch.allclose(made(x)[::60], alone, rtol=0, atol=1e-11)


def test_half_precision_is_rounded_once_a_pass():
    made = form(64, 500)
    S, unit = made.matrix().double(), torch.finfo(torch.bfloat16).eps
    x = numbers(40, 500).bfloat16().requires_grad_()
    result = made(x)
    assert result.dtype == torch.bfloat16
    exact = x.detach().double() @ S.mT
    error = (result.double() - exact).norm() / exact.norm()
    assert error < unit  # two roundings of relative size unit/2 at most, which partly cancel
    gradient = numbers(40, 64, seed=2).bfloat16()
    (back,) = torch.autograd.grad(result, x, gradient)
    exact = gradient.double() @ S
    assert (back.double() - exact).norm() / exact.norm() < unit


def test_what_is_stored_is_signs_row_numbers_and_two_small_matrices():
    made = form(1024, 2048)
    assert made.nbytes == 2048 + 4 * 1024 + 32**2 + 64**2
    assert made.flops == 2 * 2048 * (32 + 64) + 2048


def test_the_transform_is_chosen_where_it_is_faster_and_the_dense_matrix_elsewhere():
    assert hadamard_pays(256, 2048)
    assert not hadamard_pays(256, 576)
    transform = frozen_projection(ProjectionSpec("srht", 256, 2048))
    assert isinstance(transform, HadamardProjection)
    assert isinstance(frozen_projection(ProjectionSpec("srht", 8, 64)), DenseProjection)
    assert transform.flops < transform.effort(torch.float32) < transform.effort(torch.bfloat16)


def test_backward_keeps_nothing_of_the_vectors():
    made = form(64, 500)
    kept = []
    x, h = (numbers(700, size, dtype=torch.float32).requires_grad_() for size in (500, 64))
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        (made(x).sum() + made.adjoint(h).sin().sum()).backward()
    assert [tensor.shape for tensor in kept] == [(700, 500)], "what the sine keeps, and no more"


def test_it_can_be_compiled():
    made = form(64, 500)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    xs = [numbers(700, 500).requires_grad_() for _ in range(2)]
    for product, x in zip((made, compiled), xs, strict=True):
        product(x).square().sum().backward()
    assert torch.allclose(xs[0].grad, xs[1].grad, rtol=1e-12, atol=1e-8)


def test_forward_mode_and_batched_derivatives_are_those_of_the_matrix():
    made, x = form(), numbers(37)
    S = made.matrix().double()
    assert torch.allclose(torch.func.jacfwd(made)(x), S, rtol=0, atol=1e-12)
    assert torch.allclose(torch.func.jacrev(made)(x), S, rtol=0, atol=1e-12)
    assert torch.allclose(torch.func.jacfwd(made.adjoint)(numbers(13)), S.mT, rtol=0, atol=1e-12)
