"""One pass over a layer's input: its own product and R x, which layers of one input share.

What is here saves passes over large tensors and products made before. Where something traces or
transforms the computation (torch.compile, torch.func, forward-mode derivatives) none of it is done.
"""

import threading
import weakref
from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import forward_ad

from cosa_theory.nn.frozen import FrozenProjection

__all__ = ["Read", "is_plain", "is_untraced", "shared_product"]

_HOOKS = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")


class Read(torch.autograd.Function):
    """x ↦ (W x + bias, S x) for a frozen layer; the gradient of x is summed in one place.

    Backward keeps nothing, and can be run for one result after the other; its derivatives are those
    of the two products.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, right: FrozenProjection
    ) -> tuple[Tensor, Tensor]:
        """Return both products of the vectors x, shapes (T, m) and (T, k)."""
        ctx.weight, ctx.right = weight, right
        ctx.set_materialize_grads(False)
        return F.linear(x, weight, bias), right(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, None, None, None]:
        """Return the gradient of x, of what gradients there are."""
        of_base, of_product = gradients
        total = None if of_base is None else of_base @ ctx.weight
        if of_product is not None:
            right = ctx.right
            if total is None:
                total = right.adjoint(of_product)
            elif is_untraced():
                total = right.add_adjoint(total, of_product)
            else:
                total = total + right.adjoint(of_product)
        return total, None, None, None


def is_untraced() -> bool:
    """Return whether operations run at once, on the values themselves."""
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and torch._C._functorch.peek_interpreter_stack() is None
        and forward_ad._current_level < 0
    )


def is_plain(layer: Any, x: Tensor) -> bool:
    """Return whether a layer's output is W x + bias and nobody's but the caller's.

    It then can be computed with other products of x, and changed in place: a frozen `nn.Linear`
    itself, without hooks, a forward of its own or another kind of tensor, outside autocast.
    """
    if type(layer) is not nn.Linear or "forward" in layer.__dict__ or not is_untraced():
        return False
    tensors = [x, layer.weight] if layer.bias is None else [x, layer.weight, layer.bias]
    return (
        not any(getattr(layer, f"_{name}") for name in _HOOKS)
        and not any(getattr(nn.modules.module, f"_global_{name}") for name in _HOOKS)
        and all(type(one) in (Tensor, nn.Parameter) and one.dtype == x.dtype for one in tensors)
        and not any(one.requires_grad for one in tensors[1:])
        and not torch.is_autocast_enabled(x.device.type)
    )


class _Made(NamedTuple):
    """A product, the projection's tensors that it was made with, and the layers that used it."""

    tensors: dict[str, Tensor]
    product: Tensor
    readers: set[Hashable]


class _Shared(threading.local):
    """The products of a thread's last input."""

    input: weakref.ref[Tensor] | None = None
    version = 0

    def of(self, x: Tensor) -> dict[Hashable, _Made]:
        """Return the products of this very input; those of another, or of earlier values, go."""
        if self.input is None or self.input() is not x or self.version != x._version:
            products: dict[Hashable, _Made] = {}
            self.products, self.version = products, x._version
            self.input = weakref.ref(x, lambda _: products.clear())
        return self.products


_shared = _Shared()


def shared_product(
    right: FrozenProjection,
    x: Tensor,
    reader: Hashable,
    state: tuple[Hashable, ...],
    multiply: Callable[[], Tensor],
) -> Tensor:
    """Return `multiply()`, R x, or what it was for another layer that has read the same x.

    A product is used again for the same tensor, unchanged as far as autograd counts changes, by a
    `reader` that has not used it yet: one that comes again runs another pass, and computes it
    anew. It was made in the same `state`, mode of gradients and checkpoint: recomputing in backward
    repeats what the forward pass did. It is let go with x, or when the thread reads another input.
    """
    if not right.shared or not is_untraced() or x.is_inference():
        return multiply()
    hooks = torch._C._autograd._top_saved_tensors_default_hooks(True)  # a checkpoint's
    key = (id(right), torch.is_grad_enabled(), x.requires_grad, hooks, *state)
    products = _shared.of(x)
    found = products.get(key)
    if found is None or found.tensors is not right.tensors or reader in found.readers:
        found = products[key] = _Made(right.tensors, multiply(), set())
    found.readers.add(reader)
    return found.product
