"""The one forward of CoSA, x ↦ scaling · L(Y(R x)), in the cheapest of three orders."""

import math
import warnings
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from cosa_theory.laws import product_flops
from cosa_theory.nn.projection import FrozenProjection

__all__ = ["ORDERS", "cheapest_order", "cosa_update", "delta_weight", "left_factor", "update_flops"]

ORDERS = ("through", "left", "right")
"""L(Y(R x)) through the width a; (L Y)(R x) with L Y formed once; L((Y R) x) with Y R formed."""


def cosa_update(
    x: Tensor,
    Y: Tensor,
    left: FrozenProjection,
    right: FrozenProjection,
    scaling: float,
    *,
    dropout: float = 0.0,
    training: bool = False,
    order: str = "auto",
) -> Tensor:
    """Return scaling · L Y R x, shape (..., m), for every vector x, in the cheapest order.

    Backward keeps R x (b numbers a vector) and nothing of the size of x; with dropout one byte for
    every entry of x besides. Gradients are exact in every order; their own derivatives are so
    through a and with L Y formed, while with Y R formed they lack, with a warning, the terms that
    mix x and Y.

    Products run in the dtype of x (..., n), or in that of autocast. Y is the core (a × b), `left`
    the transpose of L (a × m), `right` R (b × n); the factors of both are folded into `scaling`.
    While `training`, an entry of x is dropped with probability `dropout`. `order` is one of
    `ORDERS`, or "auto": that of fewest operations for the number of vectors.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if training and dropout > 0:
        # Its mask takes a byte an entry; that of F.dropout on a CPU is as large as x.
        x = torch.native_dropout(x, dropout, True)[0]
    by_left, by_right = _gain(left, x.dtype), _gain(right, x.dtype)
    # The scaling is applied to the core, the smallest of the factors, before it is rounded. A core
    # that is neither scaled nor rounded is not copied: backward would keep the copy.
    core = _times(Y, scaling / (by_left * by_right)).to(x.dtype)
    learns = torch.is_grad_enabled() and Y.requires_grad
    if order == "auto":
        tokens = x.numel() // max(1, x.shape[-1])
        order = cheapest_order(
            tokens,
            left,
            right,
            training=learns,
            input_gradient=learns and x.requires_grad,
            dtype=x.dtype,
        )
    if order == "through":
        return left.adjoint(_times(F.linear(_times(right(x), by_right), core), by_left))
    if order == "left":
        return _times(right(x), by_right) @ _times(left.adjoint(core.mT), by_left)
    if not learns:
        return left.adjoint(_times(F.linear(x, _times(right.adjoint(core), by_right)), by_left))
    # To differentiate Y R would keep x. So x meets it as a constant, and the core has its gradient
    # from R x, by a term that is zero.
    formed = _times(right.adjoint(core.detach()), by_right)
    projected = _times(right(x.detach()), by_right)
    hidden = F.linear(x, formed) + F.linear(projected, core - core.detach())
    if x.requires_grad and not torch.compiler.is_compiling():
        hidden.register_hook(_tell_of_second_derivatives)
    return left.adjoint(_times(hidden, by_left))


def _tell_of_second_derivatives(gradient: Tensor) -> None:
    """Warn where a gradient is about to be differentiated (`create_graph=True`)."""
    if torch.is_grad_enabled():
        warnings.warn(
            "with Y R formed, derivatives of gradients lack the terms that mix input and core; "
            "order='through' has them all",
            stacklevel=2,
        )


def _gain(projection: FrozenProjection, dtype: torch.dtype) -> float:
    """Return the power of two nearest a projection's factor in float16, and 1 elsewhere.

    Sums of signs are large and their magnitudes, in the core, small: in the narrow range of
    float16 the gradients would overflow and the core would lose its digits. Multiplied by this,
    which rounds nothing, each product is of the size that it has with the projection itself.
    """
    return 2.0 ** round(math.log2(projection.factor)) if dtype == torch.float16 else 1.0


def _times(x: Tensor, gain: float) -> Tensor:
    return x if gain == 1 else x * gain


def update_flops(
    order: str,
    tokens: int,
    left: Any,
    right: Any,
    *,
    training: bool = True,
    input_gradient: bool = True,
) -> int:
    """Return the floating-point operations of the update, forward and (if training) backward.

    Those of `cosa_theory.laws.product_flops` in an order of `ORDERS` for so many vectors, with the
    projections' own for their products; anything with `k`, `d` and `flops` is a projection here.
    """
    return int(
        product_flops(
            left.d,
            right.d,
            left.k,
            right.k,
            tokens,
            order,
            training=training,
            input_gradient=input_gradient,
            by_left=left.flops,
            by_right=right.flops,
        )
    )


def cheapest_order(
    tokens: int,
    left: FrozenProjection,
    right: FrozenProjection,
    *,
    training: bool = True,
    input_gradient: bool = True,
    dtype: torch.dtype = torch.float32,
) -> str:
    """Return the order of least effort, one of `ORDERS`, for products that run in `dtype`.

    Effort is operations, weighted for projections that multiply slower than a dense matrix of as
    many operations would (`FrozenProjection.effort`). While training, L Y or Y R is not formed if
    it takes more than half of the memory of the input: backward keeps it, and one that keeps much
    more than R x gains little, since it serves few tokens. See docs/theory.md, 1.10.

    For dense projections, in float32 and bfloat16 on one core, 1 to 4,096 tokens and layers from
    512 to 8,192, the one of least effort was the fastest to within a tenth.
    """
    by_left, by_right = left.effort(dtype), right.effort(dtype)
    m, n, a, b = left.d, right.d, left.k, right.k
    gradients = {"training": training, "input_gradient": input_gradient}
    formed = {"left": m * b, "right": a * n}
    best, least = "through", math.inf
    for order in ORDERS:  # a loop, because torch.compile does not follow min with a key
        if training and 2 * formed.get(order, 0) > tokens * n:
            continue
        operations = product_flops(
            m, n, a, b, tokens, order, by_left=by_left, by_right=by_right, **gradients
        )
        if operations < least:
            best, least = order, operations
    return best


def left_factor(Y: Tensor, left: FrozenProjection) -> Tensor:
    """Return L Y, shape (m, b), unscaled, in the dtype of Y."""
    return left.adjoint(Y.mT).mT


def delta_weight(
    Y: Tensor, left: FrozenProjection, right: FrozenProjection, scaling: float
) -> Tensor:
    """Return ΔW = scaling · L Y R, shape (m, n); parameters as for `cosa_update`.

    In float32, or float64 for a core in float64.
    """
    core = (Y * scaling).to(torch.promote_types(Y.dtype, torch.float32))
    return right.adjoint(left_factor(core, left))
