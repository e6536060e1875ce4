"""Hooks on linear layers, which sum up what goes in, and the gradients of what comes out."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import ref

import torch
from torch import nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.moments.sums import Sum

__all__ = ["Gathering"]


class Gathering:
    """Sums over the tokens that some linear layers of a model meet.

    Parameters
    ----------
    modules : mapping of str to nn.Module
        The layers, by the names of their weights.
    new_sum : callable
        From "inputs" or "gradients" and a name to an empty sum.
    gradients : bool
        Whether those of the outputs are summed too, when a caller goes backwards.

    Attributes
    ----------
    inputs, gradients : dict of str to Sum
        By the names of weights; layers that are fed the same tensor share a sum of inputs.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        new_sum: Callable[[str, str], Sum],
        gradients: bool = False,
    ) -> None:
        self.inputs: dict[str, Sum] = {}
        self.gradients: dict[str, Sum] = {}
        self.owners: dict[str, str] = {}
        self._modules, self._new_sum, self._backwards = modules, new_sum, gradients
        self._seen: dict[int, tuple[str, Any]] = {}
        self._mask: torch.Tensor | None = None
        self._places: torch.Tensor | None = None

    def begin(self, mask: torch.Tensor | None) -> None:
        """Expect a batch with this mask: 1 for a token, 0 for padding, None where all are tokens.

        A layer that sees only the tokens, or a choice of them, has another number of rows than the
        mask, and all its rows count.
        """
        self._seen.clear()
        self._mask = mask
        self._places = None if mask is None or mask.all() else mask.reshape(-1).nonzero()[:, 0]

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Watch the layers while the block runs."""
        handles = []
        for name, module in self._modules.items():
            handles.append(module.register_forward_pre_hook(self._before(name), with_kwargs=True))
            if self._backwards:
                handles.append(module.register_forward_hook(self._after(name)))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _before(self, name: str) -> Callable[..., None]:
        def before(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            inputs = arguments[0] if arguments else next(iter(named.values()))
            first, owner = self._seen.get(id(inputs)), self.owners.get(name)
            if first is not None and owner in (None, first[0]) and first[1]() is inputs:
                self.owners[name] = first[0]
                return
            self._seen[id(inputs)] = name, ref(inputs)
            self.owners.setdefault(name, name)
            self._add("inputs", name, inputs)

        return before

    def _after(self, name: str) -> Callable[..., torch.Tensor]:
        def after(module: nn.Module, _: Any, outputs: torch.Tensor) -> torch.Tensor:
            # The first layers' outputs depend on nothing that has a gradient. What is returned
            # instead is no leaf: a model may write into it.
            leaf = outputs if outputs.requires_grad else outputs.requires_grad_()
            leaf.register_hook(lambda gradient: self._add("gradients", name, gradient))
            return leaf.clone() if leaf.is_leaf else leaf

        return after

    def _add(self, side: str, name: str, vectors: torch.Tensor) -> None:
        sums: dict[str, Sum] = getattr(self, side)
        if name not in sums:
            sums[name] = self._new_sum(side, name)
        rows = vectors.reshape(-1, vectors.shape[-1])
        fits = self._mask is not None and self._mask.numel() == len(rows)
        sums[name].add(rows, self._places if fits else None)
        if not sums[name].finite:
            what = "inputs" if side == "inputs" else "gradients of the outputs"
            raise InputError(
                f"the {what} of {name} hold NaN or infinite values: run the model in float32, mend "
                "its weights or the batch, or leave the layer out",
                argument="batches",
            )
