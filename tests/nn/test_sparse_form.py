"""Sparse projections: sums of gathered rows equal the product with the dense matrix."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.func import grad, vmap

from cosa_theory.nn.projection import (
    DenseProjection,
    ProjectionSpec,
    SparseProjection,
    frozen_projection,
)
from cosa_theory.projections import make_projection

KINDS = ("achlioptas", "very_sparse", "sjlt")
BOTH = pytest.mark.parametrize("gathers", [True, False], ids=["gathered", "formed"])


def form(kind, k=13, d=37, gathers=None, **options):
    spec = ProjectionSpec(kind, k, d, seed=3, key=("layer", "R"), options=tuple(options.items()))
    made = SparseProjection.drawn(spec)
    if gathers is not None:
        made._gathers = lambda x: gathers
    return made


def numbers(*shape, seed=1, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_the_signs_are_those_of_the_draw(kind):
    made = form(kind)
    A = make_projection(kind, 13, 37, seed=3, scale="synthesis", key=("layer", "R")).toarray()
    assert np.allclose(made.factor * made.matrix().double().numpy(), A, rtol=1e-14, atol=0)
    dense = DenseProjection.drawn(made.spec)
    assert torch.equal(dense.matrix(), made.matrix())
    assert dense.fingerprint == made.fingerprint


@BOTH
@pytest.mark.parametrize("kind", KINDS)
def test_both_products_and_their_gradients_are_those_of_the_matrix(kind, gathers):
    made = form(kind, gathers=gathers)
    S = made.matrix().double()
    x, h = numbers(2, 700, 37).requires_grad_(), numbers(2, 700, 13, seed=2).requires_grad_()
    into, out = numbers(2, 700, 13, seed=3), numbers(2, 700, 37, seed=4)
    for product, vector, gradient, matrix in (
        (made, x, into, S.mT),
        (made.adjoint, h, out, S),
    ):
        result = product(vector)
        assert result.is_contiguous()
        assert torch.allclose(result, vector @ matrix, rtol=0, atol=1e-12)
        (back,) = torch.autograd.grad(result, vector, gradient)
        assert torch.allclose(back, gradient @ matrix.mT, rtol=0, atol=1e-12)


@BOTH
def test_gradients_agree_with_finite_differences(gathers):
    made = form("sjlt", 5, 9, gathers=gathers, nonzeros=2)
    assert torch.autograd.gradcheck(made, numbers(3, 9).requires_grad_())
    assert torch.autograd.gradcheck(made.adjoint, numbers(3, 5).requires_grad_())


@settings(max_examples=40, deadline=None)
@given(
    k=st.integers(1, 40),
    d=st.integers(1, 70),
    density=st.floats(0.001, 1.0),
    vectors=st.integers(0, 6),
)
def test_gathered_equals_formed_at_any_size_and_density(k, d, density, vectors):
    made = form("very_sparse", k, d, density=density)
    S, x, h = made.matrix().double(), numbers(vectors, d), numbers(vectors, k)
    assert torch.allclose(made(x), x @ S.mT, rtol=0, atol=1e-11)
    assert torch.allclose(made.adjoint(h), h @ S, rtol=0, atol=1e-11)


def test_a_draw_without_any_nonzero_is_the_zero_map():
    made = form("very_sparse", 3, 4, density=1e-9)
    assert made.flops == 0
    assert torch.equal(made(numbers(2, 4)), torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(made.adjoint(numbers(2, 3)), torch.zeros(2, 4, dtype=torch.float64))


@BOTH
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once_with_and_without_gradients(dtype, gathers):
    made = form("sjlt", 64, 640, gathers=gathers)
    S, unit = made.matrix().double(), torch.finfo(dtype).eps
    for learns in (False, True):
        x = numbers(40, 640).to(dtype).requires_grad_(learns)
        result = made(x)
        assert result.dtype == dtype
        exact = x.detach().double() @ S.mT
        assert (result.double() - exact).abs().max() <= unit * exact.abs().max()
    gradient = numbers(40, 64, seed=5).to(dtype)
    (back,) = torch.autograd.grad(result, x, gradient)
    exact = gradient.double() @ S
    assert back.dtype == dtype
    assert (back.double() - exact).abs().max() <= unit * exact.abs().max()


def test_rows_are_gathered_on_a_cpu_and_no_matrix_is_formed_there(monkeypatch):
    made = form("sjlt", 256, 2048)
    monkeypatch.setattr(SparseProjection, "_formed", None)
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.zeros(3, 2048, dtype=dtype, requires_grad=True)
        made(x).sum().backward()
        made.adjoint(torch.zeros(3, 256, dtype=dtype, requires_grad=True)).sum().backward()
    assert not made._gathers(torch.zeros(512, 2048, device="meta"))


def test_sparse_ensembles_are_dense_where_gathering_takes_longer():
    assert isinstance(frozen_projection(ProjectionSpec("sjlt", 256, 2048)), SparseProjection)
    assert isinstance(frozen_projection(ProjectionSpec("sjlt", 64, 384)), DenseProjection)
    assert isinstance(frozen_projection(ProjectionSpec("achlioptas", 256, 2048)), DenseProjection)


@BOTH
def test_second_derivatives_and_those_of_each_sample_are_exact(gathers):
    made = form("sjlt", 5, 9, gathers=gathers, nonzeros=2)
    S, x = made.matrix().double(), numbers(4, 3, 9)

    def cubed(product):
        return lambda sample: (product(sample) ** 3).sum()

    ours, theirs = cubed(made), cubed(lambda sample: sample @ S.mT)
    assert torch.autograd.gradgradcheck(lambda x: made(x) ** 3, x[0].requires_grad_())
    each = vmap(grad(ours))(x)
    assert torch.allclose(each, vmap(grad(theirs))(x), rtol=0, atol=1e-11)


def test_what_is_stored_is_ten_bytes_a_nonzero_and_where_rows_and_columns_start():
    made = form("sjlt", 256, 2048)
    assert made.nbytes == 10 * 8 * 2048 + 4 * (256 + 1) + 4 * (2048 + 1)
    assert made.flops == 2 * 8 * 2048


def test_backward_keeps_nothing_of_the_vectors():
    made = form("sjlt", 64, 512, gathers=True)
    kept = []
    x = numbers(700, 512, dtype=torch.float32).requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        made(x)
    assert not kept


def test_it_can_be_compiled_and_runs_under_autocast():
    made = form("sjlt", 64, 512, gathers=True)
    x = numbers(700, 512, dtype=torch.float32)
    compiled = torch.compile(made, backend="aot_eager", fullgraph=True)
    xs = [x.clone().requires_grad_() for _ in range(2)]
    results = [made(xs[0]), compiled(xs[1])]
    assert torch.allclose(*results, rtol=0, atol=1e-4)
    for result in results:
        result.square().sum().backward()
    assert torch.allclose(xs[0].grad, xs[1].grad, rtol=0, atol=1e-3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(made(x.bfloat16()), made(x.bfloat16()))


def test_forward_mode_derivatives_are_those_of_the_matrix():
    made = form("sjlt", gathers=True)
    found = torch.func.jacfwd(made)(numbers(37))
    assert torch.allclose(found, made.matrix().double(), rtol=0, atol=1e-12)
