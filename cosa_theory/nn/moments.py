"""Second moments of the inputs of linear layers, C = E[x xᵀ], gathered in one pass and stored."""

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import ref

import numpy as np
import torch
from safetensors.torch import save_file
from scipy.linalg.blas import ssyrk
from threadpoolctl import threadpool_limits
from torch import nn

from cosa_theory.ground.cells import cell_name
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.tensor_files import read_header, read_metadata, read_tensor
from cosa_theory.projections import SecondMoments

__all__ = [
    "Moments",
    "gather_moments",
    "kept_tokens",
    "model_fingerprint",
    "read_moments",
    "write_moments",
]

# Tokens that are kept of a layer: as many for each of its inputs, ...
_TOKENS_PER_INPUT = 2
# ... fewer where the products would cost more than this share of the model's own, ...
_SHARE = 0.15
# ... but never fewer than these, which are soon done.
_FEWEST = 512
_FORMAT = "cosa_theory moments 3"
_PARTS = ("matrix", "vectors", "values", "mean")


@dataclass(frozen=True)
class Moments:
    """Second moments of the inputs of some layers, and of the gradients of their outputs.

    Parameters
    ----------
    inputs, gradients : mapping of str to SecondMoments
        From the name of a weight (m × n) to C = Σ x xᵀ / count, n × n, float32, not centred, and
        to the same of the gradients δ of a loss by the layer's outputs, m × m.
    model, texts : str
        Digests of the model's weights (`model_fingerprint`) and of the tokens it was run on.
    """

    inputs: Mapping[str, SecondMoments]
    gradients: Mapping[str, SecondMoments] = field(default_factory=dict)
    model: str = ""
    texts: str = ""


class _Gathered:
    """Σ x xᵀ of one layer, over a share of its tokens: its upper triangle."""

    def __init__(self, width: int, keep: float) -> None:
        self.total = np.zeros((width, width), order="F")
        self.sum = np.zeros(width)
        self.count = 0
        self.keep = keep
        self.due = 0.0
        self.waiting: list[torch.Tensor] = []

    def add(self, inputs: torch.Tensor) -> None:
        """Add evenly spaced ones of the tokens (rows)."""
        due = self.due + self.keep * len(inputs)
        taken = int(due)
        self.due = due - taken
        if not taken:
            return
        places = torch.linspace(0, len(inputs) - 1, taken).round().long()
        self.waiting.append(inputs[places].float())
        self.count += taken
        if sum(map(len, self.waiting)) >= len(self.total):
            self.sum_up()

    def sum_up(self) -> None:
        """Add the products of the tokens that wait, in single precision, to the sum in double.

        They wait until they are as many as the layer has inputs, so that the sum is seldom touched.
        """
        if self.waiting:
            rows = torch.cat(self.waiting).cpu().numpy()
            self.waiting = []
            self.total += ssyrk(1.0, rows.T)
            self.sum += rows.sum(0, dtype=np.float64)

    def mean(self, name: str) -> SecondMoments:
        """Return C, all of it, and the mean; the sum is used up."""
        self.sum_up()
        # What is the upper triangle by columns is the lower by rows, which torch mirrors fastest.
        lower = torch.from_numpy(self.total.T).div_(self.count).float()
        lower.diagonal().mul_(0.5)
        whole = lower.add_(lower.T.contiguous()).numpy()
        mean = (self.sum / self.count).astype(np.float32)
        return SecondMoments(whole, mean=mean, count=self.count, where=name)


def kept_tokens(shapes: Sequence[tuple[int, int]], tokens: int) -> list[int]:
    """Return how many tokens are kept for the moments of each layer's inputs.

    Twice its width, or as many as there are; and where 15 % of the multiplications of the layers
    themselves, mn a token, does not pay for that, at n(n + 1)/2 a token, one number for all layers
    that it does pay for, or 512 tokens. So the pass costs little more than the model alone.

    Parameters
    ----------
    shapes : sequence of (int, int)
        Rows m and inputs n of the layers.
    tokens : int
        How many there will be.
    """
    wanted = np.array([min(tokens, _TOKENS_PER_INPUT * n) for _, n in shapes])
    price = np.array([n * (n + 1) / 2 for _, n in shapes])
    allowance = _SHARE * tokens * sum(m * n for m, n in shapes)
    most = bisect_right(
        range(tokens + 1), allowance, key=lambda most: np.minimum(wanted, most) @ price
    )
    kept: list[int] = np.minimum(wanted, max(most - 1, _FEWEST)).tolist()
    return kept


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
        it yields the mask of its tokens (1 for a token, 0 for padding on either side), or None
        where all are: as in a batch of packed sequences. A layer that sees only the tokens, or a
        choice of them, has another number of rows than the mask, and all its rows count.
    tokens : int
        How many tokens there will be, padding left out; of more than `kept_tokens` evenly spaced
        ones are kept.

    Returns
    -------
    Moments
        In memory of one n × n matrix per layer; layers that are fed the same tensor share one.

    Notes
    -----
    Products are of single precision, some hundred tokens at a time, their sum is of double: double
    throughout would cost twice the time for digits that the inputs do not have.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    shapes = [_shape(modules[name.removesuffix(".weight")]) for name in names]
    kept = dict(zip(names, kept_tokens(shapes, tokens), strict=True))
    gathered: dict[str, _Gathered] = {}
    shared: dict[str, str] = {}
    mask: torch.Tensor | None = None
    seen: dict[int, tuple[str, Any]] = {}

    def hook(name: str) -> Callable[..., None]:
        def before(module: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
            inputs = arguments[0]
            first = seen.get(id(inputs))
            owner = shared.get(name)
            if first is not None and owner in (None, first[0]) and first[1]() is inputs:
                shared[name] = first[0]
                return
            seen[id(inputs)] = name, ref(inputs)
            shared.setdefault(name, name)
            width = inputs.shape[-1]
            if name not in gathered:
                gathered[name] = _Gathered(width, min(1.0, kept[name] / max(tokens, 1)))
            rows = inputs.reshape(-1, width)
            fits = mask is not None and mask.numel() == len(rows)
            gathered[name].add(rows[mask.reshape(-1).bool()] if fits and mask is not None else rows)

        return before

    hooks = [(modules[name.removesuffix(".weight")], hook(name)) for name in names]
    # numpy's threads, which wait for work, would take cores from the model's.
    with threadpool_limits(1, user_api="blas"):
        with _hooked(hooks), torch.inference_mode():
            for mask in run():  # noqa: B007 (the hooks read it)
                seen.clear()
        means = {name: one.mean(name) for name, one in gathered.items() if one.count}
    owners = {name: shared[name] for name in names if name in shared}
    return Moments({name: means[owner] for name, owner in owners.items() if owner in means})


def _shape(module: nn.Module) -> tuple[int, int]:
    """Return outputs and inputs of a linear layer; `Conv1D` of transformers stores in × out."""
    weight: Any = module.weight
    rows, columns = weight.shape
    return (rows, columns) if isinstance(module, nn.Linear) else (columns, rows)


@contextmanager
def _hooked(hooks: Sequence[tuple[nn.Module, Callable[..., None]]]) -> Iterator[None]:
    handles = [module.register_forward_pre_hook(hook) for module, hook in hooks]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def model_fingerprint(network: nn.Module) -> str:
    """Return a digest of a model's weights, by name: what its moments depend on beside texts."""
    state = dict(network.named_parameters())
    weights = [one.detach().float().cpu().numpy() for one in state.values()]
    return cell_name({"names": list(state)}, weights)


def write_moments(moments: Moments, path: str | os.PathLike[str]) -> None:
    """Write moments as safetensors: the tensors of each distinct one, and its layers."""
    tensors: dict[str, torch.Tensor] = {}
    described: dict[str, dict[str, Any]] = {}
    for side, by_layer in (("inputs", moments.inputs), ("gradients", moments.gradients)):
        known: dict[int, str] = {}
        for name, one in by_layer.items():
            owner = known.setdefault(id(one), name)
            described[f"{side} {name}"] = {"owner": owner, "count": one.count, "trace": one.trace}
            parts = {part: getattr(one, part) for part in _PARTS if owner == name}
            for part, values in parts.items():
                if values is not None:
                    tensors[f"{side}.{name}.{part}"] = torch.from_numpy(np.asarray(values))
    metadata = {
        "format": _FORMAT,
        "layers": json.dumps(described),
        "model": moments.model,
        "texts": moments.texts,
    }
    with atomic_path(path) as temporary:
        save_file(tensors, temporary, metadata)


def read_moments(path: str | os.PathLike[str], model: str | None = None) -> Moments:
    """Read what `write_moments` wrote.

    Parameters
    ----------
    path : path
        The file.
    model : str, optional
        What `model_fingerprint` gives of the model that they must be of.

    Raises
    ------
    InputError
        If the file is damaged, is not one of moments, or its moments are of another model.
    """
    path = Path(path)
    infos, metadata = read_header(path), read_metadata(os.fspath(path))
    remedy = "make it with the option --save-moments of cosa-theory function"
    sides: dict[str, dict[str, SecondMoments]] = {"inputs": {}, "gradients": {}}
    try:
        if metadata["format"] != _FORMAT:
            raise KeyError
        texts, found = metadata["texts"], metadata["model"]
        for key, about in json.loads(metadata["layers"]).items():
            side, name = key.split(" ", 1)
            owner = about["owner"]
            if owner != name:
                sides[side][name] = sides[side][owner]
                continue
            stored = {part: f"{side}.{name}.{part}" for part in _PARTS}
            parts = {part: read_tensor(infos[at]) for part, at in stored.items() if at in infos}
            count, trace = int(about["count"]), float(about["trace"])
            sides[side][name] = SecondMoments(**parts, trace=trace, count=count, where=name)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} holds no moments of layers' inputs: {remedy}") from error
    if model is not None and found != model:
        raise InputError(f"{path}: its moments are not of this base model: {remedy} on this one")
    return Moments(**sides, model=found, texts=texts)
