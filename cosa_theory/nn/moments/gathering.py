"""One pass of a model over batches, for the second moments of its linear layers."""

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.checks import choice, refuse, whole
from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.ground.progress import Advance, progress_bar
from cosa_theory.nn.moments.digests import Digest, model_fingerprint
from cosa_theory.nn.moments.hooks import Gathering
from cosa_theory.nn.moments.losses import go_backwards
from cosa_theory.nn.moments.plan import Plan, linear_weights
from cosa_theory.nn.moments.processes import reduce_sums, this_process
from cosa_theory.nn.moments.resuming import Resume
from cosa_theory.nn.moments.stored import Moments
from cosa_theory.nn.moments.sums import Sum
from cosa_theory.nn.targets import closest
from cosa_theory.projections import SecondMoments, stream

__all__ = ["MOST_BYTES", "layer_moments"]

MOST_BYTES = 2**32
"""What the sums of a pass may take."""


def layer_moments(
    network: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    names: Sequence[str] | None = None,
    *,
    gradients: str | None = None,
    seed: int = 0,
    most_bytes: int = MOST_BYTES,
    directions: int = 256,
    progress: bool = False,
    resume: str | os.PathLike[str] | None = None,
) -> Moments:
    """Gather second moments of linear layers, C = E[x xᵀ] of their inputs, in one pass of a model.

    And, if asked for, E[δ δᵀ] of the gradients δ of a loss by their outputs, going backwards. See
    docs/theory.md, 6.2. Sums are over the batches of all processes where torch.distributed is
    initialised.

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
    gradients : {"labels", "samples"}, optional
        Of which loss: the one that the model returns for the `labels` of a batch, or that of
        samples of the model's own, see `cosa_theory.nn.moments.losses.go_backwards`. The model's
        weights need no gradients.
    seed : int
        Of samples and sketches.
    most_bytes : int
        What the sums may take. Where all of C of every layer would take more, it is sketched for
        the widest ones: their leading eigenpairs are kept.
    directions : int
        How many eigenpairs of those.
    progress : bool
        Whether a bar is shown.
    resume : path, optional
        A file where the sums are stored now and then, and deleted in the end: a pass that was
        killed goes on from there, given the same model, settings and batches.

    Returns
    -------
    Moments
        Layers that are fed the same tensor share one. Of many tokens of a batch one in every so
        many is taken, so that the pass costs little more than the model alone; `count` is how many.

    Raises
    ------
    InputError
        If the seed is no whole number of at least 0, a name is no linear layer's, a batch is no
        mapping or lacks labels, there is no token, a layer's inputs or gradients are not finite
        (the first such layer is named), even sketches take more than `most_bytes`, or `resume` is
        of another pass.

    Warns
    -----
    UserWarning
        If layers meet no input, or no gradient: they are left out.

    Notes
    -----
    Products of all of C are of single precision, some hundred tokens at a time, their sum is of
    double: each entry Cᵢⱼ then has the digits of √(Cᵢᵢ Cⱼⱼ) that the inputs have, and double
    throughout would cost twice the time. Sketches, whose every column holds the largest direction,
    are of double precision.
    """
    if gradients is not None:
        choice("gradients", gradients, ("labels", "samples"))
    seed = whole("seed", seed, 0)
    modules = _chosen(network, names)
    new_sum = Plan(network, modules, gradients is not None, seed, most_bytes, directions)
    gathering, file = Gathering(modules, new_sum, gradients is not None), None
    fingerprint, process = model_fingerprint(network), this_process()[0]
    if resume is not None:
        settings = [list(modules), gradients, seed, most_bytes, directions]
        file = Resume(resume, {"model": fingerprint, "settings": settings}, process)
        file.load(gathering, new_sum)
    with progress_bar("batches", progress and not process) as advance:
        texts = _run(network, batches, gathering, gradients, (seed, process), file, advance)
    texts = reduce_sums(gathering, new_sum, texts)
    if not any(one.seen for one in gathering.inputs.values()):
        raise InputError(
            "batches hold no tokens: give batches of texts with `input_ids` and `attention_mask`",
            argument="batches",
        )
    owners = {name: gathering.owners.get(name, name) for name in modules}
    inputs = _moments("inputs", gathering.inputs, owners)
    by_output = {}
    if gradients is not None:
        by_output = _moments("gradients", gathering.gradients, {name: name for name in modules})
    if file is not None:
        file.finish()
    turned = frozenset(
        name for name, module in modules.items() if not isinstance(module, nn.Linear)
    )
    return Moments(inputs, by_output, model=fingerprint, texts=texts, transposed=turned)


def _run(
    network: nn.Module,
    batches: Iterable[Mapping[str, Any]],
    gathering: Gathering,
    gradients: str | None,
    key: tuple[int, int],
    file: Resume | None,
    advance: Advance,
) -> str:
    """Run the model over all batches that are not done, and return the digest of all of them."""
    texts, number = Digest(), 0
    total = len(batches) if isinstance(batches, Sized) else None
    device = next((one.device for one in network.parameters()), torch.device("cpu"))
    done = file.done if file is not None else 0
    with _left_as_it_was(network), gathering.hooked():
        for number, batch in enumerate(batches, 1):
            taken = _taken(batch, number - 1, device, gradients == "labels")
            texts.batch(taken)
            if file is not None and number == done and texts.hexdigest() != file.texts:
                raise file.other("other texts")
            if number > done:
                mask = _mask(taken)
                gathering.begin(mask)
                with torch.set_grad_enabled(gradients is not None):
                    outputs = network(**taken)
                if gradients is not None:
                    draws = stream(key[0], "samples", key[1], number)
                    go_backwards(gradients, outputs, mask, draws)
                if file is not None:
                    file.store(gathering, number, texts.hexdigest())
            advance(number, total)
    if file is not None and number < done:
        raise file.other("more texts")
    return texts.hexdigest()


def _moments(
    side: str, sums: Mapping[str, Sum], owners: Mapping[str, str]
) -> dict[str, SecondMoments]:
    """Return the moments by name, without those of layers that met nothing."""
    for one in sums.values():
        one.sum_up()
    met = {name for name, one in sums.items() if one.trace() != 0}
    missing = [name for name, owner in owners.items() if owner not in met]
    if missing:
        what = "is fed no token" if side == "inputs" else "is reached by no gradient of the loss"
        warnings.warn(
            f"{first_few(missing)}: left out of the moments of {side}, for it {what}", stacklevel=3
        )
    found = {name: one.moments(name) for name, one in sums.items() if name in met}
    return {name: found[owner] for name, owner in owners.items() if owner in met}


def _chosen(network: nn.Module, names: Sequence[str] | None) -> dict[str, nn.Module]:
    """Return the layers that are named."""
    known = linear_weights(network)
    if names is None:
        if not known:
            raise InputError(f"{type(network).__name__} has no linear layer", argument="network")
        return known
    if not names:
        raise refuse("names", names, "a list of linear layers' weights, or None for all")
    for name in names:
        if name not in known:
            raise InputError(
                f"names has {quoted(name)}, which is no linear layer's weight; "
                f"{closest(str(name), list(known))}",
                argument="names",
            )
    return {name: known[name] for name in names}


def _taken(batch: Any, index: int, device: torch.device, labels: bool) -> dict[str, Any]:
    """Return what the model is given of a batch, on its device."""
    if not isinstance(batch, Mapping):
        raise InputError(
            f"batch {index} is of type {type(batch).__name__}: it must be a dict of the model's "
            'arguments, such as {"input_ids": …, "attention_mask": …}',
            argument="batches",
        )
    if labels and "labels" not in batch:
        raise InputError(
            f"gradients is 'labels', and batch {index} has none: give batches with `labels`, or "
            "take gradients='samples', the model's own",
            argument="gradients",
        )
    return {
        name: value.to(device) if isinstance(value, torch.Tensor) else value
        for name, value in batch.items()
        if labels or name != "labels"
    }


def _mask(batch: Mapping[str, Any]) -> torch.Tensor | None:
    mask = batch.get("attention_mask")
    return mask.bool() if isinstance(mask, torch.Tensor) and mask.ndim == 2 else None


@contextmanager
def _left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Put the model into evaluation mode, its weights without gradients, and all back."""
    training = [module for module in network.modules() if module.training]
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    network.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for module in training:
            module.training = True
        for parameter in trained:
            parameter.requires_grad_(True)
