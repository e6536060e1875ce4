"""Dense frozen projections: two matrix products."""

from collections.abc import Callable
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.linalg import hadamard
from torch import Tensor, nn

from cosa_theory.nn.frozen import SIGN_KINDS, FrozenProjection, ProjectionSpec, sign_draw
from cosa_theory.projections import ENSEMBLES, SRHT, fingerprint

__all__ = ["DenseProjection", "GivenProjection"]


def hadamard_rows(rows: NDArray[np.int64], order: int) -> NDArray[np.float32]:
    """Return rows of the N × N Hadamard matrix of ±1 in Sylvester's order, without the others."""
    # H_N = H_p ⊗ H_q: row r is the Kronecker product of row r // q of H_p and row r mod q of H_q.
    q = 1 << (order.bit_length() // 2)
    outer, inner = (hadamard(size).astype(np.float32) for size in (order // q, q))
    made = outer[rows // q][:, :, None] * inner[rows % q][:, None, :]
    return made.reshape(len(rows), order)


class DenseProjection(FrozenProjection):
    """S as a dense k × d tensor: two matrix products."""

    @classmethod
    def drawn(cls, spec: ProjectionSpec, *, dtype: torch.dtype = torch.float32) -> Self:
        """Draw a projection of any kind as a dense matrix; parameters as for `frozen_projection`.

        One copy in single (or double) precision exists while it is made.
        """
        if spec.kind in SIGN_KINDS:
            A, factor, name = sign_draw(spec)
            if isinstance(A, SRHT):
                A = hadamard_rows(A.rows, A.padded)[:, : spec.d] * A.signs
        else:
            A = spec.make("float64" if dtype == torch.float64 else "float32")
            hashed = ENSEMBLES[spec.kind].source is None and A.dtype == np.float32
            factor, name = 1.0, fingerprint(A) if hashed else spec.fingerprint()
        values = A.toarray() if hasattr(A, "toarray") else A
        tensors = {"values": torch.from_numpy(values).to(dtype)}
        return cls(tensors, k=spec.k, d=spec.d, factor=factor, fingerprint=name, spec=spec)

    @property
    def flops(self) -> int:
        """Floating-point operations for one vector, either way: 2kd."""
        return 2 * self.k * self.d

    def forward(self, x: Tensor) -> Tensor:
        """Return x Sᵀ, shape (..., k)."""
        return F.linear(x, self._placed("values", x))

    def adjoint(self, h: Tensor) -> Tensor:
        """Return h S, shape (..., d)."""
        return h @ self._placed("values", h)

    def add_adjoint(self, total: Tensor, h: Tensor) -> Tensor:
        """Add h S to `total` in the course of the product."""
        return total.addmm_(h, self._placed("values", h))

    def matrix(self) -> Tensor:
        """Return S, shape (k, d)."""
        return self.tensors["values"]


class GivenProjection(DenseProjection):
    """S of given values, which no seed brings back; the fingerprint is that of what is held."""

    @classmethod
    def of(cls, A: Tensor) -> Self:
        """Return a projection with the values A, shape (k, d)."""
        values = A.detach().contiguous()
        (k, d), name = values.shape, fingerprint(values.float())
        return cls({"values": values}, k=k, d=d, factor=1.0, fingerprint=name, spec=None)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        before = self.tensors["values"].dtype
        super()._apply(fn, recurse)
        values = self.tensors["values"]
        narrower = values.dtype != before and values.dtype.itemsize <= before.itemsize
        if narrower and values.device.type != "meta":
            self.fingerprint = fingerprint(values.float())
        return self
