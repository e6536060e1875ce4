"""Subsampled Hadamard projections, applied by two passes of small matrix products."""

from collections.abc import Callable
from typing import Self

import torch
import torch.nn.functional as F
from scipy.linalg import hadamard
from torch import Tensor

from cosa_theory.nn.frozen import FrozenProjection, ProjectionSpec, by_parts, sign_draw
from cosa_theory.projections import padded_length

__all__ = ["HadamardProjection", "hadamard_pays"]

_CHUNK = 1 << 18  # numbers transformed at a time: they stay in the cache between the passes


def _radices(padded: int) -> tuple[int, int]:
    """Return N₁ ≤ N₂ with N₁ N₂ = N, powers of two as equal as they can be."""
    first = 1 << ((padded.bit_length() - 1) // 2)
    return first, padded // first


def hadamard_pays(k: int, d: int) -> bool:
    """Return whether the transform is faster than the product with the dense k × d matrix.

    It takes 2N(N₁ + N₂) operations a vector with N, d rounded up to a power of two; dense 2kd. The
    small products take 1.6 times as long for an operation as the large one in float32, 3 times in
    bfloat16 (one core of a 2024 server, 2,048 vectors), hence the factor 2.5.
    """
    padded = padded_length(d)
    return 2.5 * padded * sum(_radices(padded)) <= k * d


class HadamardProjection(FrozenProjection):
    """S = P H D: signs D, the N × N Hadamard matrix H = H₁ ⊗ H₂ of ±1, and k of its rows.

    With the vector padded to N and written as an N₁ × N₂ matrix X, its transform is H₁ X H₂: two
    small products instead of a large one. Stored are d signs, k row numbers and the two small
    matrices; backward keeps nothing besides.
    """

    @classmethod
    def drawn(cls, spec: ProjectionSpec, *, dtype: torch.dtype = torch.float32) -> Self:
        """Draw an SRHT; what is stored is exact in every dtype, so that `dtype` does not matter."""
        operator, factor, name = sign_draw(spec)
        first, second = _radices(operator.padded)
        tensors = {
            "signs": torch.from_numpy(operator.signs),
            "rows": torch.from_numpy(operator.rows).to(torch.int32),
            "first": torch.from_numpy(hadamard(first)).to(torch.int8),
            "second": torch.from_numpy(hadamard(second)).to(torch.int8),
        }
        return cls(tensors, k=spec.k, d=spec.d, factor=factor, fingerprint=name, spec=spec)

    @property
    def padded(self) -> int:
        """The size N of the transform: d rounded up to a power of two."""
        return len(self.tensors["first"]) * len(self.tensors["second"])

    @property
    def flops(self) -> int:
        """Floating-point operations for one vector, either way: 2N(N₁ + N₂) + d."""
        radices = len(self.tensors["first"]) + len(self.tensors["second"])
        return 2 * self.padded * radices + self.d

    def effort(self, dtype: torch.dtype) -> float:
        """Operations of a dense product that takes as long; see `FrozenProjection.effort`."""
        return self.flops * (3.0 if dtype.itemsize == 2 else 1.6)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Sᵀ, shape (..., k)."""
        signs, rows, transform = self._placed("signs", x), self._numbers(x), self._transform(x)
        padding = (0, self.padded - self.d)

        def project(part: Tensor) -> Tensor:
            signed = part * signs
            padded = F.pad(signed, padding) if padding[1] else signed  # it copies even by nothing
            return transform(padded).index_select(1, rows)

        return by_parts(project, x, max(1, _CHUNK // self.padded))

    def adjoint(self, h: Tensor) -> Tensor:
        """Return h S, shape (..., d)."""
        signs, rows, transform = self._placed("signs", h), self._numbers(h), self._transform(h)

        def spread(part: Tensor) -> Tensor:
            # `scatter_` keeps the row numbers for backward; `index_copy` would keep the vectors.
            zeros = part.new_zeros(len(part), self.padded)
            placed = zeros.scatter_(1, rows.expand(len(part), -1), part)
            return transform(placed)[:, : self.d] * signs

        return by_parts(spread, h, max(1, _CHUNK // self.padded))

    def matrix(self) -> Tensor:
        """Return S, shape (k, d), in float32."""
        return self.adjoint(torch.eye(self.k, device=self.tensors["signs"].device))

    def _numbers(self, like: Tensor) -> Tensor:
        return self.tensors["rows"].to(like.device, torch.long)

    def _transform(self, like: Tensor) -> Callable[[Tensor], Tensor]:
        """Return the map from rows x of length N, in the dtype and place of `like`, to H x."""
        first, second = self._placed("first", like), self._placed("second", like)

        def transform(x: Tensor) -> Tensor:
            inner = (x.reshape(-1, len(second)) @ second).reshape(-1, len(first), len(second))
            return torch.bmm(first.expand(len(inner), -1, -1), inner).reshape(x.shape)

        return transform
