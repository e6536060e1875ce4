"""Subsampled Hadamard projections, applied by two passes of small matrix products."""

from collections.abc import Callable
from typing import Self

import torch
from scipy.linalg import hadamard
from torch import Tensor

from cosa_theory.nn.frozen import FrozenProjection, ProjectionSpec, part_size, product, sign_draw
from cosa_theory.projections import padded_length

__all__ = ["HadamardProjection", "hadamard_pays"]

_Copy = Callable[[Tensor, Tensor], None]


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
        return product(x, self._projected, self._spread)

    def adjoint(self, h: Tensor) -> Tensor:
        """Return h S, shape (..., d)."""
        return product(h, self._spread, self._projected)

    def matrix(self) -> Tensor:
        """Return S, shape (k, d), in float32."""
        return self.adjoint(torch.eye(self.k, device=self.tensors["signs"].device))

    def _numbers(self, like: Tensor) -> Tensor:
        return self.tensors["rows"].to(like.device, torch.long)

    def _projected(self, x: Tensor) -> Tensor:
        signs, rows = self._placed("signs", x), self._numbers(x)

        def enter(part: Tensor, padded: Tensor) -> None:
            padded[:, : self.d].copy_(part).mul_(signs)

        def leave(transformed: Tensor, into: Tensor) -> None:
            torch.index_select(transformed, 1, rows, out=into)

        return self._transformed(x, self.k, enter, leave)

    def _spread(self, h: Tensor) -> Tensor:
        signs, rows = self._placed("signs", h), self._numbers(h)

        def enter(part: Tensor, padded: Tensor) -> None:
            padded.scatter_(1, rows.expand(len(part), -1), part)

        def leave(transformed: Tensor, into: Tensor) -> None:
            torch.mul(transformed[:, : self.d], signs, out=into)

        return self._transformed(h, self.d, enter, leave)

    def _transformed(self, x: Tensor, width: int, enter: _Copy, leave: _Copy) -> Tensor:
        """Return vectors of another width: entered into N zeros, transformed, and what is left.

        The memory in between is that of one part, used again for the next.
        """
        first, second = self._placed("first", x), self._placed("second", x)
        vectors = x.reshape(-1, x.shape[-1])
        size = min(part_size(vectors, self.padded), max(1, len(vectors)))
        made = x.new_empty(len(vectors), width)
        padded = x.new_zeros(size, self.padded)  # where nothing enters it stays zero
        rows, whole = (torch.empty_like(padded) for _ in range(2))
        for part, into in zip(vectors.split(size), made.split(size), strict=True):
            now = padded[: len(part)], rows[: len(part)], whole[: len(part)]
            enter(part, now[0])
            torch.mm(now[0].view(-1, len(second)), second, out=now[1].view(-1, len(second)))
            matrices = [one.view(-1, len(first), len(second)) for one in now]
            torch.bmm(first.expand(len(part), -1, -1), matrices[1], out=matrices[2])
            leave(now[2], into)
        return made.reshape(*x.shape[:-1], width)
