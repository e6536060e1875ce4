"""One pass of a model over batches, for the second moments of its linear layers."""

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import whole
from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.ground.progress import progress_bar
from cosa_theory.nn.moments.digests import Digest, model_fingerprint
from cosa_theory.nn.moments.hooks import Gathering
from cosa_theory.nn.moments.stored import Moments
from cosa_theory.nn.moments.sums import ExactSum, SketchedSum, Sum, Thinning
from cosa_theory.nn.targets import closest

__all__ = ["layer_moments", "linear_weights"]

# Multiplications that cost no time to speak of: tokens are thinned beyond them, ...
_FREE = 2e9
# ... but not below so many of a layer, ...
_FEWEST = 256
# ... and to what this share of the model's own multiplications pays for.
_SHARE = 0.12


def linear_weights(network: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of a model by the names of their weights, each weight once.

    `Conv1D` of transformers counts as well, although it stores in × out.
    """
    found, seen = {}, set()
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim != 2 or id(weight) in seen:
            continue
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            seen.add(id(weight))
            found[f"{name}.weight" if name else "weight"] = module
    return found


def layer_moments(
    network: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    names: Sequence[str] | None = None,
    *,
    seed: int = 0,
    most_bytes: int = 2**32,
    directions: int = 256,
    progress: bool = False,
) -> Moments:
    """Gather the second moments C = E[x xᵀ] of the inputs of linear layers, in one forward pass.

    See docs/theory.md, 6.2.

    Parameters
    ----------
    network : nn.Module
        The model, which is run in evaluation mode and left as it was.
    batches : iterable of mappings
        Arguments of the model by name, such as `input_ids` and `attention_mask`: a DataLoader, or
        a list. Where the mask is 0, on either side, is padding, which does not count.
    names : sequence of str, optional
        Names of linear layers' weights, such as "encoder.layer.0.output.dense.weight"; all by
        default.
    seed : int
        Of the sketches.
    most_bytes : int
        What the sums may take. Where all of C of every layer would take more, it is sketched for
        the widest ones: their leading eigenpairs are kept.
    directions : int
        How many eigenpairs of those.
    progress : bool
        Whether a bar is shown.

    Returns
    -------
    Moments
        Layers that are fed the same tensor share one. Of many tokens of a batch evenly spaced ones
        are taken, so that the pass costs little more than the model alone; `count` is how many.

    Raises
    ------
    InputError
        If a name is no linear layer's, a batch is no mapping, there is no token, a layer's inputs
        are not finite (the first such layer is named), or even sketches take more than
        `most_bytes`.

    Notes
    -----
    Products are of single precision, some hundred tokens at a time, their sum is of double: double
    throughout would cost twice the time for digits that the inputs do not have.
    """
    modules = _chosen(network, names)
    layers = {("inputs", name): _shape(module)[1] for name, module in modules.items()}
    sketched = _sketched(layers, whole("most_bytes", most_bytes), whole("directions", directions))
    price = sum(
        2 * width * directions if key in sketched else width**2 / 2 for key, width in layers.items()
    )
    own = sum(m * n for m, n in map(_shape, linear_weights(network).values()))
    thinning = Thinning(max(_FEWEST, int(_FREE / price)), min(1.0, _SHARE * own / price))

    def new_sum(side: str, name: str) -> Sum:
        width = layers[side, name]
        if (side, name) in sketched:
            return SketchedSum(width, thinning, directions, seed, f"{side} {name}")
        return ExactSum(width, thinning)

    gathering, texts = Gathering(modules, new_sum), Digest()
    total = len(batches) if isinstance(batches, Sized) else None
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    with progress_bar("batches", progress) as advance, _evaluating(network), gathering.hooked():
        for index, batch in enumerate(batches):
            taken = _taken(batch, index, device)
            texts.batch(taken)
            gathering.begin(_mask(taken))
            with torch.no_grad():
                network(**taken)
            advance(index + 1, total)
    if not gathering.inputs:
        raise InputError(
            "batches hold no tokens: give batches of texts with `input_ids` and `attention_mask`",
            argument="batches",
        )
    found = {name: one.moments(name) for name, one in gathering.inputs.items() if one.count}
    owners = {name: gathering.owners[name] for name in modules if name in gathering.owners}
    inputs = {name: found[owner] for name, owner in owners.items() if owner in found}
    return Moments(inputs, model=model_fingerprint(network), texts=texts.hexdigest())


def _chosen(network: nn.Module, names: Sequence[str] | None) -> dict[str, nn.Module]:
    """Return the layers that are named."""
    known = linear_weights(network)
    if names is None:
        if not known:
            raise InputError(f"{type(network).__name__} has no linear layer", argument="network")
        return known
    for name in names:
        if name not in known:
            raise InputError(
                f"names has {quoted(name)}, which is no linear layer's weight; "
                f"{closest(str(name), list(known))}",
                argument="names",
            )
    return {name: known[name] for name in names}


def _shape(module: nn.Module) -> tuple[int, int]:
    """Return outputs and inputs of a linear layer; `Conv1D` of transformers stores in × out."""
    weight: Any = module.weight
    rows, columns = weight.shape
    return (rows, columns) if isinstance(module, nn.Linear) else (columns, rows)


def _sketched(
    layers: Mapping[tuple[str, str], int], most_bytes: int, directions: int
) -> set[tuple[str, str]]:
    """Return which sums are sketched, the widest first, so that all fit into a bound of memory."""
    total, sketched = sum(map(ExactSum.bytes, layers.values())), set()
    for key, width in sorted(layers.items(), key=lambda item: -item[1]):
        saved = ExactSum.bytes(width) - SketchedSum.bytes(width, directions)
        if total <= most_bytes or saved <= 0:
            break
        total -= saved
        sketched.add(key)
    if total > most_bytes:
        raise InputError(
            f"most_bytes is {most_bytes:,}: the moments of {first_few([key[1] for key in layers])} "
            f"take {total:,} with {directions} directions of each; allow as much, or ask for fewer "
            "directions or layers",
            argument="most_bytes",
        )
    return sketched


def _taken(batch: Any, index: int, device: torch.device) -> dict[str, Any]:
    """Return what the model is given of a batch, on its device."""
    if not isinstance(batch, Mapping) and not hasattr(batch, "items"):
        raise InputError(
            f"batch {index} is of type {type(batch).__name__}: it must be a dict of the model's "
            'arguments, such as {"input_ids": …, "attention_mask": …}',
            argument="batches",
        )
    taken = {name: value for name, value in batch.items() if name != "labels"}
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in taken.items()
    }


def _mask(batch: Mapping[str, Any]) -> torch.Tensor | None:
    mask = batch.get("attention_mask")
    return mask.bool() if isinstance(mask, torch.Tensor) and mask.ndim == 2 else None


@contextmanager
def _evaluating(network: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode, and back into its own."""
    training = [module for module in network.modules() if module.training]
    network.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
