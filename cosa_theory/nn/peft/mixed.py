"""Batches in which every sample has its own adapter."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTuner
from peft.utils.other import AuxiliaryTrainingWrapper
from torch import nn

from cosa_theory.nn.peft.layer import CosaLayer

__all__ = ["adapters_of_samples"]

BASE = "__base__"
"""The name that stands for no adapter."""


@contextmanager
def adapters_of_samples(
    tuner: BaseTuner, adapter_names: Sequence[str], num_beams: int = 1
) -> Iterator[None]:
    """Hand every adapted module the adapters of the samples, for the calls within the block.

    There is one name for each sample of the batch, "__base__" for the base model. A beam search of
    `num_beams` repeats every sample: an encoder, which runs before the search, sees each once.
    Raises ValueError in training mode, and for an adapter that no layer has.
    """
    if tuner.training:
        raise ValueError("Cannot pass `adapter_names` when the model is in training mode.")
    known = {
        name for layer in tuner.modules() if isinstance(layer, CosaLayer) for name in layer.cosa_Y
    }
    unknown = sorted(set(adapter_names) - known - {BASE})
    if unknown:
        raise ValueError(f"Trying to infer with non-existing adapter(s): {', '.join(unknown)}")
    repeated = [name for name in adapter_names for _ in range(num_beams)]
    once = set() if num_beams == 1 else set(_encoder_modules(tuner.model))
    with ExitStack() as hooks:
        for module in tuner.modules():
            if isinstance(module, (CosaLayer, AuxiliaryTrainingWrapper)):
                names = list(adapter_names) if module in once else repeated
                hooks.enter_context(_with_names(module, names))
        yield


def _encoder_modules(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules of an encoder-decoder's encoder."""
    get_encoder: Any = getattr(model, "get_encoder", None)
    encoder = None if get_encoder is None else get_encoder()
    # A model without an encoder may return itself.
    if encoder is not None and encoder is not model:
        yield from encoder.modules()


def _with_names(module: nn.Module, names: list[str]) -> Any:
    """Return a hook, removed at the end of a block, that passes names to a module's forward."""

    def add(_: nn.Module, args: Any, kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        return args, kwargs | {"adapter_names": names}

    return module.register_forward_pre_hook(add, with_kwargs=True)
