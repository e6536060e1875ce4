"""What moments depend on, in short: digests of a model's weights and of the texts it is given."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["Digest", "batches_digest", "model_fingerprint"]


class Digest:
    """SHA-256 of named tensors, one after another."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()

    def tensor(self, name: str, tensor: torch.Tensor) -> None:
        """Take in a name, a type, a shape and the entries."""
        values = tensor.detach().cpu().contiguous()
        about = json.dumps([name, str(values.dtype), list(values.shape)])
        self._hash.update(about.encode())
        self._hash.update(values.reshape(-1).view(torch.uint8).numpy().data)

    def batch(self, batch: Mapping[str, Any]) -> None:
        """Take in the tensors of a batch, but for labels."""
        for name in sorted(batch):
            if isinstance(batch[name], torch.Tensor) and name != "labels":
                self.tensor(name, batch[name])

    def hexdigest(self) -> str:
        """Return the digest of all so far."""
        return self._hash.hexdigest()


def model_fingerprint(network: nn.Module) -> str:
    """Return a digest of a model's weights by name, in float32, whatever type they are loaded in.

    It is what its moments depend on beside texts. Adapters around its layers do not count: it is
    the same before and after they are put in.
    """
    adapted = [
        f"{name}." for name, one in network.named_modules() if hasattr(one, "base_layer") and name
    ]
    digest = Digest()
    for name, weight in network.named_parameters():
        around = next((one for one in adapted if name.startswith(one)), "")
        if around and not name.startswith(f"{around}base_layer."):
            continue
        plain = f"{around}{name.removeprefix(f'{around}base_layer.')}" if around else name
        digest.tensor(plain, weight.detach().float())
    return digest.hexdigest()


def batches_digest(batches: Iterable[Mapping[str, Any]]) -> str:
    """Return a digest of the tensors that a model is given, but for labels, batch by batch."""
    digest = Digest()
    for batch in batches:
        digest.batch(batch)
    return digest.hexdigest()
