"""What an adapter can add to a weight at first order: the space that its training begins in."""

from collections.abc import Callable
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from peft.tuners.randlora import RandLoraLayer
from peft.tuners.shira import ShiraLayer
from torch import Tensor, nn

from cosa_theory.nn.peft import CosaLayer

__all__ = ["tangent"]

Projection = Callable[[Tensor], Tensor]

_NAME = "default"  # PEFT's, of the only adapter


@torch.no_grad()
def tangent(layer: nn.Module) -> Projection:
    """Return the orthogonal projection of an m × n matrix onto an adapter's tangent space.

    The span of the derivatives of the layer's weight by all trained numbers, as they are at the
    moment. Of CoSA, a mask, and LoRA with a frozen first factor it is all that they ever reach; of
    LoRA it turns while both factors are trained.
    """
    inner: Any = layer
    if isinstance(layer, CosaLayer):
        left = _basis(inner.left(_NAME).matrix().T)
        right = _basis(inner.right(_NAME).matrix().T)
        return lambda X: left @ (left.T @ X.double() @ right) @ right.T
    if isinstance(layer, LoraLayer):
        first, second = inner.lora_A[_NAME].weight, inner.lora_B[_NAME].weight
        rows, columns = _basis(first.T), _basis(second)
        if not first.requires_grad:
            columns = columns[:, :0]
        return lambda X: X.double() - _beside(columns, _beside(rows, X.double().T).T)
    if isinstance(layer, ShiraLayer):
        places = inner.shira_indices[_NAME].long()
        kept = torch.zeros(layer.out_features, layer.in_features, dtype=torch.float64)
        kept[places[0], places[1]] = 1
        return lambda X: X.double() * kept
    if isinstance(layer, RandLoraLayer):
        return _of_pairs(*_pairs(inner))
    return lambda X: X.double()


def _basis(columns: Tensor) -> Tensor:
    """Return an orthonormal basis of the span of columns."""
    left, values, _ = torch.linalg.svd(columns.detach().double(), full_matrices=False)
    rank = int((values > 1e-6 * values.max()).sum()) if values.max() > 0 else 0
    return left[:, :rank]


def _beside(basis: Tensor, X: Tensor) -> Tensor:
    return X - basis @ (basis.T @ X)


def _pairs(layer: Any) -> tuple[Tensor, Tensor]:
    """Return columns (m × k) and rows (k × n) of which the update is a weighted sum of products."""
    weights = layer.randlora_lambda[_NAME].data
    kept = weights.clone()
    weights.fill_(1.0)
    rows, columns = layer.get_scaled_bases(_NAME)
    weights.copy_(kept)
    return columns.double(), rows.double()


def _of_pairs(columns: Tensor, rows: Tensor) -> Projection:
    gram = (columns.T @ columns) * (rows @ rows.T)
    inverse = torch.linalg.pinv(gram, hermitian=True, rtol=1e-10)

    def project(X: Tensor) -> Tensor:
        products = ((columns.T @ X.double()) * rows).sum(1)
        return (columns * (inverse @ products)) @ rows

    return project
