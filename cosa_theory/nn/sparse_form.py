"""Sparse sign projections, applied by sums of gathered rows."""

from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor

from cosa_theory.nn.frozen import FrozenProjection, ProjectionSpec, part_size, product, sign_draw

__all__ = ["SparseProjection"]

_LEAST = 64  # vectors gathered at a time, where there are as many

# Costs of a product, for one vector, in entries of a dense matrix (30 ps in float32 on one core of
# a 2021 server): of a nonzero, and of a number of the vectors, which are transposed.
_NONZERO, _MOVED = 6, 90
# Half precision multiplies dense matrices 4.6 times as fast where the processor has it, and gathers
# 1.3 times as fast.
_HALF = 3.5


class SparseProjection(FrozenProjection):
    """S as the places of its signs, by rows and by columns.

    With the vectors as columns, a row of the result is a sum of rows, each with its sign: an
    embedding bag. Its derivative is the bag of the transpose. On other devices than a CPU S is
    formed for the product.
    """

    @classmethod
    def drawn(cls, spec: ProjectionSpec, *, dtype: torch.dtype = torch.float32) -> Self:
        """Draw from a sparse ensemble; signs are exact in every dtype, `dtype` does not matter."""
        A, factor, name = sign_draw(spec)
        by_column = A.tocsc()
        tensors = {
            "columns": torch.from_numpy(A.indices).to(torch.int32),
            "row_starts": torch.from_numpy(A.indptr).to(torch.int32),
            "row_signs": torch.from_numpy(A.data).to(torch.int8),
            "rows": torch.from_numpy(by_column.indices).to(torch.int32),
            "column_starts": torch.from_numpy(by_column.indptr).to(torch.int32),
            "column_signs": torch.from_numpy(by_column.data).to(torch.int8),
        }
        return cls(tensors, k=spec.k, d=spec.d, factor=factor, fingerprint=name, spec=spec)

    @property
    def flops(self) -> int:
        """Floating-point operations for one vector, either way: two for each nonzero."""
        return 2 * len(self.tensors["columns"])

    @property
    def pays(self) -> bool:
        """Whether this form is worth while: gathering takes less time than a dense product.

        Its nonzeros of ten bytes then take less memory as well.
        """
        return self._gathering <= self.k * self.d

    def effort(self, dtype: torch.dtype) -> float:
        """Operations of a dense product that takes as long; see `FrozenProjection.effort`."""
        return 2 * self._gathering * (_HALF if dtype.itemsize == 2 else 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return x Sᵀ, shape (..., k)."""
        if not self._gathers(x):
            return F.linear(x, self._formed(x.device, x.dtype))
        return product(x, self._sums, self._transposed_sums)

    def adjoint(self, h: Tensor) -> Tensor:
        """Return h S, shape (..., d)."""
        if not self._gathers(h):
            return h @ self._formed(h.device, h.dtype)
        return product(h, self._transposed_sums, self._sums)

    def matrix(self) -> Tensor:
        """Return S, shape (k, d), in float32."""
        return self._formed(self.tensors["columns"].device, torch.float32)

    def _gathers(self, x: Tensor) -> bool:
        return x.device.type == "cpu"

    @property
    def _gathering(self) -> float:
        """The cost of gathering for one vector, in entries of a dense matrix."""
        return _NONZERO * len(self.tensors["columns"]) + _MOVED * (self.k + self.d)

    def _formed(self, device: torch.device, dtype: torch.dtype) -> Tensor:
        columns, starts, signs = (
            self.tensors[name].to(device) for name in ("columns", "row_starts", "row_signs")
        )
        rows = torch.arange(self.k, device=device).repeat_interleave(
            starts.diff(), output_size=len(columns)
        )
        S = torch.zeros(self.k, self.d, device=device, dtype=dtype)
        return S.index_put_((rows, columns.long()), signs.to(dtype))

    def _sums(self, x: Tensor) -> Tensor:
        return self._gathered(x, "columns", "row_starts", "row_signs")

    def _transposed_sums(self, h: Tensor) -> Tensor:
        return self._gathered(h, "rows", "column_starts", "column_signs")

    def _gathered(self, x: Tensor, numbers: str, starts: str, signs: str) -> Tensor:
        places, offsets, weights = (
            self.tensors[name].to(x.device) for name in (numbers, starts, signs)
        )
        weights, vectors = weights.to(x.dtype), x.reshape(-1, x.shape[-1])
        made = x.new_empty(len(vectors), len(offsets) - 1)
        size = part_size(vectors, max(self.k, self.d), _LEAST)
        parts = zip(vectors.split(size), made.split(size), strict=True)
        for part, into in parts if made.numel() else ():
            sums = F.embedding_bag(
                places,
                part.mT.contiguous(),
                offsets,
                mode="sum",
                per_sample_weights=weights,
                include_last_offset=True,
            )
            into.copy_(sums.mT)
        return made.reshape(*x.shape[:-1], made.shape[1])
