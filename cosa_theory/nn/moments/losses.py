"""What gradients are taken of: a batch's labels, or what the model itself would say."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from cosa_theory.ground.errors import InputError

__all__ = ["go_backwards", "pooled"]

_ROWS = 512  # of logits whose probabilities are computed at a time


def pooled(hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of each text's tokens, shape (texts, width)."""
    if mask is None:
        return hidden.mean(1)
    counted = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * counted).sum(1) / counted.sum(1)


def go_backwards(
    kind: str, outputs: Any, mask: torch.Tensor | None, generator: np.random.Generator
) -> None:
    """Propagate the gradient of a loss of a model's outputs.

    Parameters
    ----------
    kind : {"labels", "samples"}
        Whether it is the loss that the model returns, or minus the logarithm of the probability of
        a sample of its own: of tokens by its softmax, or, where it has no logits, of a standard
        normal vector around the embedding of each text (or around its output), ½‖f − y‖². Sampled
        ones are summed over tokens and texts.
    outputs : tensor or mapping
        As transformers return them.
    mask : tensor, optional
        Of the tokens: padding is not sampled.
    generator : numpy.random.Generator
        Of the samples.

    Raises
    ------
    InputError
        If there is no loss, or nothing that can be sampled.
    """
    if kind == "labels":
        loss = _part(outputs, "loss")
        if loss is None:
            raise InputError(
                "gradients is 'labels', but the model returns no loss: load it with a head for its "
                "task, or take gradients='samples', the model's own",
                argument="gradients",
            )
        start, gradient = loss, torch.ones_like(loss)
    else:
        start, gradient = _sample(outputs, mask, generator)
    if start.requires_grad:  # else no layer that is watched is reached
        torch.autograd.backward(start, gradient)


def _part(outputs: Any, name: str) -> Any:
    return outputs.get(name) if isinstance(outputs, Mapping) else getattr(outputs, name, None)


def _sample(
    outputs: Any, mask: torch.Tensor | None, generator: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what is sampled around, and the gradient of the loss by it."""
    logits, hidden = _part(outputs, "logits"), _part(outputs, "last_hidden_state")
    if isinstance(logits, torch.Tensor):
        return logits, _towards_tokens(logits.detach(), mask, generator)
    if isinstance(hidden, torch.Tensor):
        hidden = pooled(hidden, mask)
    elif isinstance(outputs, torch.Tensor):
        hidden = outputs
    else:
        raise InputError(
            "gradients is 'samples', but the model returns neither logits nor hidden states: take "
            "gradients='labels' with a model that returns a loss",
            argument="gradients",
        )
    normal = torch.from_numpy(generator.standard_normal(tuple(hidden.shape), np.float32))
    return hidden, normal.to(hidden)  # f − y, for y = f − normal


def _towards_tokens(
    logits: torch.Tensor, mask: torch.Tensor | None, generator: np.random.Generator
) -> torch.Tensor:
    """Return softmax(logits) − e_y, for y drawn from it; zero at padding."""
    gradient = torch.empty_like(logits)
    rows, changed = logits.reshape(-1, logits.shape[-1]), gradient.view(-1, logits.shape[-1])
    # From numbers of numpy, which are the same on every device.
    uniform = torch.from_numpy(generator.random(len(rows), np.float32)).to(logits.device)
    for part, into, u in zip(
        rows.split(_ROWS), changed.split(_ROWS), uniform.split(_ROWS), strict=True
    ):
        likely = part.float().softmax(1)
        sums = likely.cumsum(1)
        said = torch.searchsorted(sums, (u * sums[:, -1])[:, None], right=True)
        likely.scatter_add_(1, said.clamp_(max=part.shape[1] - 1), -torch.ones_like(u)[:, None])
        into.copy_(likely)
    if mask is not None and mask.shape == logits.shape[:-1]:
        gradient[~mask] = 0
    return gradient
