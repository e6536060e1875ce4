"""Second moments of the inputs of linear layers, C = E[x xᵀ], gathered in one pass and stored."""

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.tensor_files import read_header, read_metadata, read_tensor

__all__ = ["Moments", "gather_moments", "read_moments", "write_moments"]

# Tokens that are kept of a layer at least, over its width: enough for every direction.
_TOKENS_PER_INPUT = 2
_FORMAT = "cosa_theory moments 1"


@dataclass(frozen=True)
class Moments:
    """Second moments of the inputs of some layers, not centred.

    Parameters
    ----------
    matrices : mapping of str to array
        From the name of a weight (m × n) to C = Σ x xᵀ / count, n × n, float32.
    counts : mapping of str to int
        Tokens that each is the mean of.
    """

    matrices: Mapping[str, NDArray[Any]]
    counts: Mapping[str, int]


class _Gathered:
    """Σ x xᵀ of one layer, over a share of its tokens."""

    def __init__(self, width: int, keep: float) -> None:
        self.total = torch.zeros(width, width)
        self.count = 0
        self.keep = keep
        self.due = 0.0

    def add(self, inputs: torch.Tensor) -> None:
        """Add evenly spaced ones of the tokens (rows)."""
        due = self.due + self.keep * len(inputs)
        taken = int(due)
        self.due = due - taken
        if not taken:
            return
        places = torch.linspace(0, len(inputs) - 1, taken).round().long()
        chosen = inputs[places].float()
        self.total.addmm_(chosen.T, chosen)
        self.count += taken


def gather_moments(
    network: nn.Module,
    names: Sequence[str],
    run: Callable[[], Iterator[torch.Tensor | None]],
    tokens: int,
) -> Moments:
    """Gather C = E[x xᵀ] of the inputs of linear layers while a model runs.

    See docs/theory.md, 6.2.

    Parameters
    ----------
    network : nn.Module
        The model.
    names : sequence of str
        Names of its linear layers' weights, such as "encoder.layer.0.output.dense.weight".
    run : callable
        Returns an iterator that runs the model over the texts, batch by batch; before each batch
        it yields the mask of its tokens (1 for a token, 0 for padding), or None for all of them.
    tokens : int
        How many tokens there will be. Where there are more than twice a layer's width, evenly
        spaced ones are kept, that many, so that the pass costs little more than the model itself.

    Returns
    -------
    Moments
        In memory of one n × n matrix per layer; layers that are fed the same tensor share one.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    gathered: dict[str, _Gathered] = {}
    shared: dict[str, str] = {}
    mask: torch.Tensor | None = None
    seen: dict[int, tuple[str, Any]] = {}

    def hook(name: str) -> Callable[..., None]:
        def before(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            inputs = arguments[0]
            first = seen.get(id(inputs))
            owner = shared.get(name)
            if first is not None and owner in (None, first[0]) and first[1] is inputs:
                shared[name] = first[0]
                return
            # The tensor is held, so that its id means it alone until the batch is done.
            seen[id(inputs)] = name, inputs
            shared.setdefault(name, name)
            width = inputs.shape[-1]
            if name not in gathered:
                keep = min(1.0, _TOKENS_PER_INPUT * width / max(tokens, 1))
                gathered[name] = _Gathered(width, keep)
            rows = inputs.reshape(-1, width)
            fits = mask is not None and mask.numel() == len(rows)
            gathered[name].add(rows[mask.reshape(-1).bool()] if fits and mask is not None else rows)

        return before

    hooks = [(modules[name.removesuffix(".weight")], hook(name)) for name in names]
    with _hooked(hooks), torch.inference_mode():
        for mask in run():  # noqa: B007 (the hooks read it)
            seen.clear()
    owners = {name: shared[name] for name in names if name in shared}
    means = {
        name: (gathered[name].total / gathered[name].count).numpy()
        for name in set(owners.values())
        if gathered[name].count
    }
    return Moments(
        {name: means[owner] for name, owner in owners.items() if owner in means},
        {name: gathered[owner].count for name, owner in owners.items() if owner in means},
    )


@contextmanager
def _hooked(hooks: Sequence[tuple[nn.Module, Callable[..., None]]]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def write_moments(moments: Moments, path: str | os.PathLike[str], about: Mapping[str, Any]) -> None:
    """Write moments as safetensors: one tensor per distinct C, and which layers it belongs to.

    `about` says where they come from, as plain JSON values.
    """
    tensors: dict[str, torch.Tensor] = {}
    owners: dict[str, str] = {}
    known: dict[int, str] = {}
    for name, matrix in moments.matrices.items():
        owners[name] = known.setdefault(id(matrix), name)
        tensors.setdefault(owners[name], torch.from_numpy(matrix))
    metadata = {
        "format": _FORMAT,
        "owners": json.dumps(owners),
        "counts": json.dumps(dict(moments.counts)),
        "about": json.dumps(dict(about)),
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def read_moments(path: str | os.PathLike[str]) -> Moments:
    """Read what `write_moments` wrote.

    Raises
    ------
    InputError
        If the file is damaged, or is not one of moments.
    """
    path = Path(path)
    infos, metadata = read_header(path), read_metadata(os.fspath(path))
    try:
        if metadata["format"] != _FORMAT:
            raise KeyError
        owners, counts = json.loads(metadata["owners"]), json.loads(metadata["counts"])
        means = {name: read_tensor(infos[name]) for name in set(owners.values())}
        matrices = {name: means[owner] for name, owner in owners.items()}
        numbers = {name: int(counts[name]) for name in owners}
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path} holds no moments of layers' inputs: make it with the option --save-moments of "
            "cosa-theory function"
        ) from error
    for name, matrix in matrices.items():
        if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1] or not np.isfinite(matrix).all():
            raise InputError(f"{path}: the moments of {name} are no finite square matrix")
    return Moments(matrices, numbers)
