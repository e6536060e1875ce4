"""How the update of some layers grows while they are trained: its size and its ranks."""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from cosa_theory.spectrum import summarize
from experiments.finetune.methods import linear_layers

__all__ = ["Watch", "adapted_layers", "effective_weight"]


_WRAPPER = "base_model.model."  # PEFT's
_MEASURES = {"norm": "frobenius", **{name: name for name in ("stable_rank", "rank_90", "rank_99")}}


class Watch:
    """Some layers evenly spread over a model, and their weights at the start.

    Parameters
    ----------
    model : Module
        Prepared for its training, before the first step.
    count : int
        How many layers, of those whose parameters are trained.
    """

    def __init__(self, model: nn.Module, count: int) -> None:
        modules = dict(model.named_modules())
        trained = [
            name
            for name in adapted_layers(model)
            if any(part.requires_grad for part in modules[name].parameters())
        ]
        chosen = [
            trained[index * len(trained) // count] for index in range(min(count, len(trained)))
        ]
        self._layers = {name: modules[name] for name in dict.fromkeys(chosen)}
        self._start = {name: effective_weight(layer) for name, layer in self._layers.items()}

    def updates(self) -> dict[str, Tensor]:
        """Return ΔW of each layer by its name, on the CPU."""
        return {
            name: effective_weight(layer) - self._start[name]
            for name, layer in self._layers.items()
        }

    def measures(self) -> dict[str, float]:
        """Return of each layer ‖ΔW‖, its stable rank and its ranks for 90 and 99 % of the energy.

        The keys are `update_NAME_norm`, ..., with the layer's name; NaN where ΔW is not finite.
        """
        found = {}
        for name, delta in self.updates().items():
            # What is left of two weights in single precision.
            start = self._start[name]
            rounding = torch.finfo(torch.float32).eps * float(start.square().mean().sqrt())
            diverged = not delta.isfinite().all()
            summary = None if diverged else summarize(delta.numpy(), rounding_rms=rounding)
            for kind, measure in _MEASURES.items():
                value = math.nan if summary is None else getattr(summary, measure) or 0.0
                found[f"update_{name.removeprefix(_WRAPPER)}_{kind}"] = float(value)
        return found


def adapted_layers(model: nn.Module) -> dict[str, str]:
    """Return the outermost linear layers in blocks, whatever adapter is around them.

    By their names in the model, those in the base model.
    """
    inner = list(linear_layers(model, 0))
    suffix = ".base_layer"
    outer = [name.removesuffix(suffix) for name in inner if name.endswith(suffix)] or inner
    return {name: name.removeprefix(_WRAPPER) for name in outer}


@torch.no_grad()
def effective_weight(layer: nn.Module) -> Tensor:
    """Return the matrix that a layer multiplies its input by, with its adapter, in float32.

    It is seen from what the layer makes of the unit vectors, so that it is right for every method.
    """
    inner: Any = getattr(layer, "base_layer", layer)
    if inner.weight.dtype != torch.float32:  # where an update drowns in the rounding of W x
        layer = copy.deepcopy(layer).float()
        inner = getattr(layer, "base_layer", layer)
    weight = inner.weight
    training = layer.training
    layer.eval()
    units = torch.eye(weight.shape[1], dtype=weight.dtype, device=weight.device)
    product = layer(units) - layer(torch.zeros_like(units[:1]))
    layer.train(training)
    return product.T.float().cpu()
