"""The one forward of CoSA, x ↦ scaling · L(Y(R x)), in the cheapest of three orders."""

import math
import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from cosa_theory.laws import product_flops
from cosa_theory.nn.frozen import product
from cosa_theory.nn.projection import FrozenProjection, IdentityProjection
from cosa_theory.nn.reading import Read, is_plain, is_untraced, shared_product

__all__ = [
    "ORDERS",
    "Update",
    "cheapest_order",
    "cosa_update",
    "delta_weight",
    "left_factor",
    "update_flops",
    "with_updates",
]

ORDERS = ("through", "left", "right")
"""L(Y(R x)) through the width a; (L Y)(R x) with L Y formed once; L((Y R) x) with Y R formed."""


class Update(NamedTuple):
    """An update scaling · L Y R of a layer: what `cosa_update` takes, and by whom R x is read.

    Layers whose `right` is one projection compute R x once where they read the same input (see
    `cosa_theory.nn.reading.shared_product`). Dropout is then shared as well: what one of them does
    not see of the input, the others do not see either. Without a `reader` nothing is shared.
    """

    Y: Tensor
    left: FrozenProjection
    right: FrozenProjection
    scaling: float
    dropout: float = 0.0
    order: str = "auto"
    reader: Hashable = None


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
    one = Update(Y, left, right, scaling, dropout if training else 0.0, order)
    update = _last_product(*_before_last(x, one, _multiply))
    return update.reshape(*x.shape[:-1], left.d)


def with_updates(
    base_layer: Callable[..., Tensor],
    x: Tensor,
    updates: Sequence[Update],
    *arguments: Any,
    training: bool = False,
    **named: Any,
) -> Tensor:
    """Return base_layer(x) plus updates of it, as `cosa_update` computes them, shape (..., m).

    Further arguments are the base layer's. Where it `is_plain`, the last product adds itself to its
    output, and in backward that with R to the gradient of x: no tensor of the size of either is
    made for the update.
    """
    if not training:
        updates = [one._replace(dropout=0.0) for one in updates]
    if arguments or named or not updates or not is_plain(base_layer, x):
        result = base_layer(x, *arguments, **named)
        for one in updates:
            update = _last_product(*_before_last(x, one, _multiply))
            result = result + update.reshape(*x.shape[:-1], one.left.d).to(result.dtype)
        return result
    weight, bias = base_layer.weight, base_layer.bias  # type: ignore[attr-defined]
    read: list[Tensor] = []

    def at_once(right: FrozenProjection, vectors: Tensor) -> Tensor:
        output, product = Read.apply(vectors, weight, bias, right)
        read.append(output)
        return product

    learns = x.requires_grad and torch.is_grad_enabled()
    output: Tensor | None = None
    for one in updates:
        first = learns and output is None and not one.dropout
        hidden, last = _before_last(x, one, at_once if first else _multiply)
        if output is None:
            output = read[0] if read else F.linear(x.reshape(-1, x.shape[-1]), weight, bias)
        if isinstance(last, Tensor):
            output = output.addmm_(hidden, last)
        else:
            output = last.add_adjoint(output, hidden)
    assert output is not None
    return output.reshape(*x.shape[:-1], len(weight))


def _multiply(right: FrozenProjection, vectors: Tensor) -> Tensor:
    """Return R x; what may be shared so that its backward can be run for each layer by itself."""
    if right.shared and is_untraced():
        return product(vectors, right.forward, right.adjoint)
    return right(vectors)


def _last_product(hidden: Tensor, last: Tensor | FrozenProjection) -> Tensor:
    return hidden @ last if isinstance(last, Tensor) else last.adjoint(hidden)


def _before_last(
    x: Tensor, one: Update, project: Callable[[FrozenProjection, Tensor], Tensor]
) -> tuple[Tensor, Tensor | FrozenProjection]:
    """Return vectors (T × c) and what they are multiplied by last: c × m, or the transpose of L.

    `project` multiplies by R.
    """
    Y, left, right, scaling, dropout, order, reader = one
    autocast = torch.is_autocast_enabled(x.device.type)
    dtype = torch.get_autocast_dtype(x.device.type) if autocast else x.dtype
    by_left, by_right = _gain(left, dtype), _gain(right, dtype)
    # The scaling is applied to the core, the smallest of the factors, before it is rounded. A core
    # that is neither scaled nor rounded is not copied: backward would keep the copy.
    core = _times(Y, scaling / (by_left * by_right)).to(dtype)
    learns = torch.is_grad_enabled() and Y.requires_grad
    if order == "auto":
        order = cheapest_order(
            x.numel() // max(1, x.shape[-1]),
            left,
            right,
            training=learns,
            input_gradient=learns and x.requires_grad,
            dtype=dtype,
        )

    def vectors() -> Tensor:
        flat = x.reshape(-1, x.shape[-1]).to(dtype)
        # Its mask takes a byte an entry; that of F.dropout on a CPU is as large as x.
        return torch.native_dropout(flat, dropout, True)[0] if dropout else flat

    if order == "right":
        hidden = _with_right_formed(vectors(), core, right, by_right, learns=learns)
        return _times(hidden, by_left), left
    if reader is None:
        product = project(right, vectors())
    else:
        state = dtype, dropout
        product = shared_product(right, x, reader, state, lambda: project(right, vectors()))
    product = _times(product, by_right)
    if order == "left" or isinstance(left, IdentityProjection):  # whose L Y is the core
        return product, _times(left.adjoint(core.mT), by_left)
    return _times(F.linear(product, core), by_left), left


def _with_right_formed(
    x: Tensor, core: Tensor, right: FrozenProjection, by_right: float, *, learns: bool
) -> Tensor:
    """Return (Y R) x, of which backward keeps R x and not x."""
    if not learns:
        return F.linear(x, _times(right.adjoint(core), by_right))
    # To differentiate Y R would keep x. So x meets it as a constant, and the core has its gradient
    # from R x, by a term that is zero.
    formed = _times(right.adjoint(core.detach()), by_right)
    projected = _times(right(x.detach()), by_right)
    hidden = F.linear(x, formed) + F.linear(projected, core - core.detach())
    if x.requires_grad and not torch.compiler.is_compiling():
        hidden.register_hook(_tell_of_second_derivatives)
    return hidden


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
