"""The identity as a frozen projection: a side that is not compressed, which costs nothing."""

from typing import Self

import torch
from torch import Tensor

from cosa_theory.nn.frozen import FrozenProjection, ProjectionSpec

__all__ = ["IdentityProjection"]


class IdentityProjection(FrozenProjection):
    """S is the k × k identity: no tensors, and no operations."""

    @classmethod
    def drawn(cls, spec: ProjectionSpec, *, dtype: torch.dtype = torch.float32) -> Self:
        """Return the identity of a specification with k = d, at either scale."""
        name = spec.fingerprint()
        return cls({}, k=spec.k, d=spec.d, factor=1.0, fingerprint=name, spec=spec)

    @property
    def flops(self) -> int:
        """Floating-point operations for one vector, either way: none."""
        return 0

    def forward(self, x: Tensor) -> Tensor:
        """Return x."""
        return x

    def adjoint(self, h: Tensor) -> Tensor:
        """Return h."""
        return h

    def matrix(self) -> Tensor:
        """Return the identity, shape (k, k), in float32 on the CPU."""
        return torch.eye(self.k)
