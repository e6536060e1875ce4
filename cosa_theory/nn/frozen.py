"""What all forms of a frozen random projection share: its specification, how it follows a model.

A projection is neither a parameter nor a buffer: optimisers, state dicts and the broadcasts of
distributed training never meet it, because the seed stands for it. It still follows `.to(...)`
and its kin, and draws itself again where a conversion lost its bits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from cosa_theory.projections import (
    ENSEMBLES,
    SRHT,
    draw_fingerprint,
    entry_variance,
    fingerprint,
    make_projection,
)

__all__ = [
    "SIGN_KINDS",
    "FrozenProjection",
    "ProjectionSpec",
    "part_size",
    "product",
    "sign_draw",
]

SIGN_KINDS = tuple(name for name, ensemble in ENSEMBLES.items() if ensemble.signs)
"""Ensembles whose entries are 0 and ± one magnitude: stored as signs, exact in every dtype."""

_PART = 1 << 17  # numbers multiplied at a time on a CPU, see `part_size`

Multiply = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class ProjectionSpec:
    """What `cosa_theory.projections.make_projection` needs to draw a k × d projection.

    `options` are (name, value) pairs of the ensemble, sorted by name.
    """

    kind: str
    k: int
    d: int
    seed: int = 0
    scale: str = "synthesis"
    key: tuple[Any, ...] = ()
    options: tuple[tuple[str, Any], ...] = ()

    def make(self, dtype: str = "float32") -> Any:
        """Draw the projection with numpy: an array, a csr array or an SRHT."""
        return make_projection(*self._sizes, **self._law, dtype=dtype)

    def fingerprint(self) -> str:
        """Return the fingerprint of the float32 draw."""
        return draw_fingerprint(*self._sizes, **self._law, dtype="float32")

    @property
    def _sizes(self) -> tuple[str, int, int]:
        return self.kind, self.k, self.d

    @property
    def _law(self) -> dict[str, Any]:
        return {"seed": self.seed, "scale": self.scale, "key": self.key, **dict(self.options)}


def sign_draw(spec: ProjectionSpec) -> tuple[Any, float, str]:
    """Draw from an ensemble of `SIGN_KINDS`: signs, their magnitude, and the draw's fingerprint.

    Signs and zeros as float32, or the SRHT, whose entries are signs but for its magnitude; the
    magnitude in double precision; the fingerprint of the float32 draw.
    """
    A = spec.make("float32")
    name, of_entries = fingerprint(A), ENSEMBLES[spec.kind].magnitude
    assert of_entries is not None
    variance = entry_variance(spec.k, spec.d, spec.scale)
    magnitude = of_entries(spec.k, spec.d, variance, **dict(spec.options))
    if not isinstance(A, SRHT):
        entries = A if isinstance(A, np.ndarray) else A.data
        np.copysign(1, entries, out=entries)
    return A, magnitude, name


class Product(torch.autograd.Function):
    """A linear map of vectors whose derivative is its transpose, with derivatives of every order.

    `product(x, multiply, transposed)` is multiply(x). Backward keeps no tensor, and can
    therefore be run again: the products of layers that share one are differentiated one by one.
    """

    @staticmethod
    def forward(x: Tensor, multiply: Multiply, transposed: Multiply) -> Tensor:
        """Return multiply(x)."""
        return multiply(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep the two maps."""
        ctx.maps = inputs[1:]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        """Return the transposed product of the gradient."""
        return product(gradient, *reversed(ctx.maps)), None, None

    @staticmethod
    def vmap(
        info: Any, where: tuple[int, None, None], x: Tensor, *maps: Multiply
    ) -> tuple[Tensor, int]:
        """Multiply all vectors of a batch: they lie along the last axis whatever is before it."""
        return product(x.movedim(where[0], 0), *maps), 0


class _ForwardProduct(Product):
    """The same with forward-mode derivatives, which torch.compile does not trace."""

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *_: None) -> Tensor:
        """Return the product of the tangent."""
        return product(tangent, *ctx.maps)


def product(x: Tensor, multiply: Multiply, transposed: Multiply) -> Tensor:
    """Return multiply(x), differentiated by `transposed`: see `Product`."""
    kind = Product if torch.compiler.is_compiling() else _ForwardProduct
    made: Tensor = kind.apply(x, multiply, transposed)
    return made


class FrozenProjection(nn.Module):
    """A k × d projection A = factor · S in a form that multiplies fast; S is what is stored.

    For the sign ensembles S holds ±1 and 0, which every dtype represents exactly, and `factor` is
    their magnitude: a layer folds it into its own scaling. For the others factor = 1.

    Parameters
    ----------
    tensors : dict of str to Tensor
        What defines S, in the form of the subclass.
    k, d, factor
        Shape of A, and A = factor · S.
    fingerprint : str
        Of the float32 draw of A.
    spec : ProjectionSpec or None
        What to draw again; None if the values were given, and cannot be.

    Attributes
    ----------
    shared : bool
        Whether it is the R of several layers, which may read the same input.
    """

    shared = False

    def __init__(
        self,
        tensors: dict[str, Tensor],
        *,
        k: int,
        d: int,
        factor: float,
        fingerprint: str,
        spec: ProjectionSpec | None,
    ) -> None:
        super().__init__()
        self.k, self.d, self.factor = k, d, factor
        self.fingerprint, self.spec = fingerprint, spec
        # A plain dict, so that torch does not register its tensors.
        self.tensors = tensors

    @classmethod
    def drawn(cls, spec: ProjectionSpec, *, dtype: torch.dtype = torch.float32) -> Self:
        """Draw a projection in this form, on the CPU; parameters as for `frozen_projection`."""
        raise NotImplementedError

    @property
    def flops(self) -> int:
        """Floating-point operations for one vector, either way."""
        raise NotImplementedError

    def effort(self, dtype: torch.dtype) -> float:
        """Return the operations, for one vector, of a dense product in `dtype` that takes as long.

        By this the order of the products is chosen (`cosa_theory.nn.forward.cheapest_order`).
        """
        return self.flops

    @property
    def nbytes(self) -> int:
        """Bytes of what is stored."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    def forward(self, x: Tensor) -> Tensor:
        """Return x Sᵀ: every vector x of length d becomes S x of length k, in the dtype of x."""
        raise NotImplementedError

    def adjoint(self, h: Tensor) -> Tensor:
        """Return h S: every vector h of length k becomes Sᵀ h of length d, in the dtype of h."""
        raise NotImplementedError

    def add_adjoint(self, total: Tensor, h: Tensor) -> Tensor:
        """Add h S to `total`, shape (T, d), in place, for vectors h (T × k); return it."""
        return total.add_(self.adjoint(h))

    def matrix(self) -> Tensor:
        """Return S as a dense k × d tensor."""
        raise NotImplementedError

    def extra_repr(self) -> str:
        """Return the shape and the ensemble for `repr`."""
        kind = "given" if self.spec is None else f"{self.spec.kind}, seed={self.spec.seed}"
        return f"{self.k} × {self.d}, {kind}"

    def _placed(self, name: str, like: Tensor) -> Tensor:
        """Return a stored tensor in the dtype and on the device of `like`.

        A copy is made only where the module was not moved along with its model: under autocast,
        or where weights are offloaded and fetched for one product.
        """
        return self.tensors[name].to(like.device, like.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        """Follow `.to(...)`, `.half()`, `.to_empty(...)`; draw again where bits would be lost."""
        super()._apply(fn, recurse)
        # A probe tells where `fn` leads without trusting it with the values: `to_empty` would
        # leave memory as it finds it. Empty, so that not even a meta tensor is read.
        moved = {
            name: fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device))
            for name, tensor in self.tensors.items()
        }
        if self._loses_bits(moved):
            self.tensors = self._drawn_again(moved)
        else:
            # Places stay integers: `.type(torch.float16)` would round them.
            self.tensors = {
                name: tensor.to(
                    moved[name].device,
                    moved[name].dtype if tensor.is_floating_point() else tensor.dtype,
                )
                for name, tensor in self.tensors.items()
            }
        return self

    def _loses_bits(self, moved: dict[str, Tensor]) -> bool:
        """Return whether the stored values cannot become those that the target would hold."""
        for name, tensor in self.tensors.items():
            if moved[name].device.type == "meta":
                continue
            if tensor.device.type == "meta":
                return True
            wider = moved[name].dtype.itemsize > tensor.dtype.itemsize
            if wider and self.spec is not None and self.spec.kind not in SIGN_KINDS:
                return True
        return False

    def _drawn_again(self, moved: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.spec is None:
            raise RuntimeError(
                f"a projection of {self.k} × {self.d} that was read from a file lost its values "
                "on the meta device; load the adapter again after the model has its memory"
            )
        dtypes = [tensor.dtype for tensor in moved.values() if tensor.is_floating_point()]
        again = type(self).drawn(self.spec, dtype=dtypes[0] if dtypes else torch.float32)
        return {name: tensor.to(moved[name].device) for name, tensor in again.tensors.items()}


def part_size(vectors: Tensor, length: int, least: int = 1) -> int:
    """Return how many vectors of a length to multiply at a time: a power of two, `least` or more.

    On a CPU intermediate results then stay in the cache: half to a quarter of the time. Compiled or
    on another device, all at once.
    """
    if vectors.device.type != "cpu" or torch.compiler.is_compiling():
        return max(1, len(vectors))
    return max(least, 1 << (_PART // length).bit_length() >> 1)
