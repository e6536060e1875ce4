"""The gradient of the first training step, matched to the matrices of a pair."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from cosa_theory.deltas.checkpoint import Checkpoint, as_numpy
from cosa_theory.deltas.layers import FLOAT_DTYPES, LayerDelta, Matrix, shape_text, storage_noise
from cosa_theory.deltas.matching import first_few
from cosa_theory.deltas.opening import locate, open_checkpoint
from cosa_theory.deltas.renaming import match_names
from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo

if TYPE_CHECKING:
    import torch

__all__ = ["Gradients", "first_step_gradients", "match_gradients"]


@dataclass(frozen=True)
class Gradients:
    """Gradients of some matrices, read one at a time; made by `match_gradients`.

    Parameters
    ----------
    source : Checkpoint
        Where they are.
    names : dict of str to str
        Name of the matrix to name of its gradient.
    notices : tuple of str
        What was not matched, as plain sentences.
    weights : mapping of str to ndarray
        The weights at which they were taken, by the names of the gradients, where that is known.
    """

    source: Checkpoint
    names: dict[str, str]
    notices: tuple[str, ...] = ()
    weights: Mapping[str, Matrix] = field(default_factory=dict)

    def of(self, layer: LayerDelta) -> LayerDelta | None:
        """Return the gradient of a layer, in place of its update; None where there is no gradient.

        Name and base are those of `layer`, `delta` is the gradient ∂loss/∂W (descent moves W
        against it), `rounding_rms` that of its stored type.

        Raises
        ------
        InputError
            If the gradient holds NaN or Inf, or was taken at weights other than the layer's base.
        """
        name = self.names.get(layer.name)
        if name is None:
            return None
        taken_at = self.weights.get(name)
        # As far apart as storing one of them in bfloat16 can put them, and no further.
        if taken_at is not None and not np.allclose(taken_at, layer.base, rtol=2**-7, atol=1e-30):
            raise InputError(
                f"the gradient {name} was taken at other weights than the base's: take it with the "
                "model that BASE was saved from"
            )
        gradient = self.source.load(name)
        if not np.isfinite(gradient).all():
            raise InputError(
                f"{self.source.label}: the gradient {name} holds NaN or Inf: take it in float32, "
                "or at a smaller loss scale."
            )
        dtype = self.source.infos[name].dtype
        noise = storage_noise(gradient, dtype)
        return LayerDelta(layer.name, gradient, layer.base, None, dtype, dtype, noise)


def match_gradients(source: Any, shapes: Mapping[str, tuple[int, int]]) -> Gradients:
    """Match gradients to the matrices of a pair by name, allowing renamed prefixes.

    Parameters
    ----------
    source : path, mapping of str to array, or iterable of LayerDelta
        A safetensors file (or folder) of gradients under the names of their weights; the same in
        memory; or what `first_step_gradients` yields.
    shapes : mapping of str to (int, int)
        Names and shapes of the matrices.

    Returns
    -------
    Gradients
        Matrices without a gradient and gradients without a matrix are told in its notices.

    Raises
    ------
    InputError
        If `source` is none of these, no gradient has a matrix, or gradients have another shape than
        their matrices or are no floating-point numbers: one sentence for each.
    """
    if not isinstance(source, (str, os.PathLike, Mapping)):
        listed = list(source) if isinstance(source, Iterable) else [source]
        if not all(isinstance(one, LayerDelta) for one in listed):
            must = "a path, a mapping of names to arrays, or what first_step_gradients yields"
            raise refuse("gradients", type(source).__name__, must)
        source = listed
    checkpoint = _open(source)
    found = {name: info for name, info in checkpoint.infos.items() if len(info.shape) == 2}
    wanted = {name: TensorInfo("float32", shape) for name, shape in shapes.items()}
    if {_ending(name) for name in wanted}.isdisjoint(map(_ending, found)):
        raise InputError(
            f"{checkpoint.label}: no gradient of a matrix of the pair: it has "
            f"{first_few(list(found), 3) or 'no matrix'}; the pair has "
            f"{first_few(list(wanted), 3) or 'none'}: save gradients under the names of their "
            "weights."
        )
    match = match_names(wanted, found)
    problems = []
    for name, other in match.pairs.items():
        info = found[other]
        if info.shape != shapes[name]:
            problems.append(
                f"{checkpoint.label}: the gradient {other} is {shape_text(info.shape)}, its matrix "
                f"{shape_text(shapes[name])}: save it as the weight is stored, out × in."
            )
        elif info.dtype not in FLOAT_DTYPES:
            problems.append(
                f"{checkpoint.label}: the gradient {other} is stored as {info.dtype}: save it as "
                "float32."
            )
    if problems:
        raise InputError(*problems)
    known = {one.name: one.base for one in source} if isinstance(source, list) else {}
    notices = tuple(_unmatched(match.pairs, shapes, found))
    return Gradients(checkpoint, match.pairs, notices, known)


def _open(source: Any) -> Checkpoint:
    if isinstance(source, (str, os.PathLike)):
        return open_checkpoint(locate(source, "gradients"), "gradients", allow_pickle=None)
    if not isinstance(source, Mapping):
        source = {one.name: one.delta for one in source}
    checkpoint = open_checkpoint(source, "gradients")
    checkpoint.label = "the gradients in memory"
    return checkpoint


def _ending(name: str) -> tuple[str, ...]:
    """Return the last parts of a name, which any renamed prefix leaves."""
    return tuple(name.rsplit(".", 2)[-2:])


def _unmatched(
    pairs: Mapping[str, str], shapes: Mapping[str, Any], found: Mapping[str, Any]
) -> Iterator[str]:
    without = [name for name in shapes if name not in pairs]
    if without:
        yield f"{len(without)} of {len(shapes)} matrices without a gradient: {first_few(without)}."
    partners = set(pairs.values())
    left = [name for name in found if name not in partners]
    if left:
        yield f"{len(left)} of {len(found)} gradients without a matrix: {first_few(left)}."


def first_step_gradients(
    model: "torch.nn.Module",
    batch: Any,
    *,
    loss: Callable[[Any, Any], "torch.Tensor"] | None = None,
    names: Iterable[str] | None = None,
) -> Iterator[LayerDelta]:
    """Yield the gradient of the loss on one batch for every weight matrix of a model.

    The model is left as it was: its gradients, training mode and frozen parameters are not
    touched. Dropout is off, so the result is that of the weights and the batch alone.

    Parameters
    ----------
    model : torch.nn.Module
        The model, at the weights of the pair's base.
    batch : mapping or any
        What the model is called with, `model(**batch)`.
    loss : callable, optional
        Maps (model, batch) to a scalar tensor; by default the `loss` of the model's output, which
        models of transformers have when the batch holds `labels`.
    names : iterable of str, optional
        The parameters wanted; by default all with two dimensions.

    Yields
    ------
    LayerDelta
        In the order of the model: `delta` is ∂loss/∂W in float32 (float64 for such weights),
        `base` the weight. Parameters that the loss does not depend on are left out. A weight with
        two names comes under both.

    Raises
    ------
    InputError
        If a name is not a parameter of the model, the model gives no loss, or the loss is not
        finite.
    """
    import torch

    known = dict(model.named_parameters(remove_duplicate=False))
    wanted = [name for name, one in known.items() if one.ndim == 2] if names is None else [*names]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise InputError(
            f"{unknown[0]} is not a parameter of the model: it has {first_few(list(known), 3)}."
        )
    parameters = list({id(known[name]): known[name] for name in wanted}.values())
    modes = {module: module.training for module in model.modules()}
    frozen = [one for one in parameters if not one.requires_grad]
    try:
        model.eval()
        for one in frozen:
            one.requires_grad_(True)
        with torch.enable_grad():
            value = _loss_of(model, batch) if loss is None else loss(model, batch)
        if not torch.isfinite(value):
            raise InputError(f"the loss of the batch is {value.item()}: check the data and weights")
        # Returned, not accumulated: the .grad of the parameters stays as it is.
        found = torch.autograd.grad(value, parameters, allow_unused=True)
    finally:
        for one in frozen:
            one.requires_grad_(False)
        for module, mode in modes.items():
            module.training = mode
    gradients = {id(one): grad for one, grad in zip(parameters, found, strict=True)}
    for name in wanted:
        gradient = gradients[id(known[name])]
        if gradient is not None:
            dtype = str(gradient.dtype).removeprefix("torch.")
            weight = known[name]
            yield LayerDelta(name, as_numpy(gradient), as_numpy(weight), None, dtype, dtype)


def _loss_of(model: Any, batch: Any) -> "torch.Tensor":
    value: torch.Tensor | None = getattr(model(**batch), "loss", None)
    if value is None:
        raise InputError(
            f"{type(model).__name__} gives no loss for this batch: add labels to it, or pass a "
            "function that computes the loss."
        )
    return value
