"""A merge that checks itself: the merged layer computes what it did with its update beside it."""

from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn

from cosa_theory.ground.errors import InputError

__all__ = ["MergeTrial"]

_LEAST = {"cpu": 1e-5}
"""Relative error that sums of float32 may have; elsewhere products may round to fewer digits."""


@dataclass(frozen=True)
class MergeTrial:
    """A random input of a layer, and what the layer makes of it before its weight is changed."""

    layer: nn.Module
    x: Tensor
    output: Tensor

    @classmethod
    def of(cls, layer: nn.Module, weight: Tensor, n: int) -> Self | None:
        """Try a layer; None where it cannot be called so.

        An InputError if its weight has no memory yet.
        """
        if weight.device.type == "meta":
            raise InputError("its weight is on the meta device; load the model's weights first")
        if not weight.is_floating_point():
            return None
        x: Tensor = torch.randn(1, 8, n, generator=torch.Generator().manual_seed(0))
        x = x.to(weight.device, weight.dtype)
        try:
            output: Any = layer(x)
        except Exception:  # the layer may be somebody's, or its dtype have no product here
            return None
        usable = isinstance(output, Tensor) and bool(torch.isfinite(output).all())
        return cls(layer, x, output.to(_wide(output))) if usable else None

    @property
    def wide(self) -> Tensor:
        """The input in float32 at least, for an update that is not rounded."""
        return self.x.to(_wide(self.x))

    def check(self, update: Tensor) -> None:
        """Compare the changed layer with the one before and its update; InputError if they differ.

        The tolerance is a few roundings of the weight's dtype.
        """
        after = self.layer(self.x).to(self.output.dtype)
        size = torch.linalg.vector_norm(self.output) + torch.linalg.vector_norm(update)
        error = torch.linalg.vector_norm(after - self.output - update)
        rounding = 8 * torch.finfo(self.x.dtype).eps
        tolerance = max(rounding, _LEAST.get(self.x.device.type, 2e-3))
        if not error <= tolerance * size:
            raise InputError(
                f"merged, it computes something else than with its update beside it (off by "
                f"{float(error / size):.1g} of its output), so its weight is not all it computes "
                "with; keep the adapter unmerged, or leave this layer out"
            )


def _wide(values: Tensor) -> torch.dtype:
    return torch.promote_types(values.dtype, torch.float32)
