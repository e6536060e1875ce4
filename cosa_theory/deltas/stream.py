"""A pair of models as a stream of weight updates, one matrix at a time."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from cosa_theory.deltas.adapters import open_adapter
from cosa_theory.deltas.checkpoint import Checkpoint
from cosa_theory.deltas.layers import LayerDelta, Matrix, PairReport, coarser_dtype, storage_noise
from cosa_theory.deltas.matching import NameFilter
from cosa_theory.deltas.opening import locate, open_checkpoint
from cosa_theory.deltas.preflight import preflight
from cosa_theory.deltas.products import AdapterCheckpoint
from cosa_theory.deltas.selection import SelectedLayer
from cosa_theory.ground.checks import choice
from cosa_theory.ground.errors import InputError, Problems

__all__ = ["DeltaPair", "open_pair"]


@dataclass
class DeltaPair:
    """Two models as a stream of `LayerDelta`; made by `open_pair`, iterable any number of times.

    Parameters
    ----------
    base, tuned : Checkpoint
        The open sources.
    layers : list of SelectedLayer
        What will be streamed.
    found : PairReport
        What the headers told.
    on_nonfinite : {"error", "skip"}
        What to do with a matrix that holds NaN or Inf.
    nonfinite : dict of str to str
        The matrices skipped for that so far, with the reason.
    """

    base: Checkpoint
    tuned: Checkpoint
    layers: list[SelectedLayer]
    found: PairReport
    on_nonfinite: str = "error"
    nonfinite: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of matrices; some may turn out to hold NaN or Inf."""
        return len(self.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the matrices, in the order of the stream."""
        return tuple(layer.name for layer in self.layers)

    def only(self, names: Collection[str]) -> "DeltaPair":
        """Return the stream of the matrices with these names alone, in the same order."""
        return replace(
            self,
            layers=[layer for layer in self.layers if layer.name in names],
            nonfinite={name: why for name, why in self.nonfinite.items() if name in names},
        )

    @property
    def coverage(self) -> tuple[int, int]:
        """How many weight matrices are compared, and of how many; equal where nothing is left out.

        Those skipped for NaN or Inf count as left out once they were read.
        """
        compared = len(self.layers) - len(self.nonfinite)
        return compared, compared + self.report.left_out

    @property
    def report(self) -> PairReport:
        """What was found so far; matrices skipped for NaN or Inf appear once they were read."""
        sentences = tuple(f"{name}: skipped, {why}." for name, why in self.nonfinite.items())
        return replace(
            self.found,
            skipped=self.found.skipped + tuple(self.nonfinite.items()),
            left_out=self.found.left_out + len(self.nonfinite),
            notices=self.found.notices + sentences,
        )

    def __iter__(self) -> Iterator[LayerDelta]:
        """Yield one matrix after another; only one is held at a time.

        Raises
        ------
        InputError
            At a matrix with NaN or Inf, unless `on_nonfinite` is "skip".
        """
        for layer in self.layers:
            result = self._read(layer)
            if result is not None:
                yield result
            del result  # before the next is read, so that a caller can let go of it

    def _read(self, layer: SelectedLayer) -> LayerDelta | None:
        """Read one matrix of both sides; None if it was skipped for NaN or Inf."""
        base = _matrix(self.base, layer.base_name, layer)
        factors: tuple[Matrix, Matrix] | None = None
        delta: Matrix
        with np.errstate(invalid="ignore", over="ignore"):
            adapter = self.tuned if isinstance(self.tuned, AdapterCheckpoint) else None
            if adapter is not None and layer.tuned_name in adapter.products:
                left, right = adapter.factors(layer.tuned_name)
                factors = left[: layer.shape[0]], right
                delta = factors[0] @ right
                base, delta = _same_dtype(base, delta)
            else:
                base, delta = _same_dtype(base, _matrix(self.tuned, layer.tuned_name, layer))
                delta -= base
        # A NaN or Inf of either side is one of their difference, but not of a product of factors.
        if not np.isfinite(delta).all() or (factors and not np.isfinite(base).all()):
            self._refuse(layer, base, delta if factors else None)
            return None
        types = self.base.infos[layer.base_name].dtype, self.tuned.infos[layer.tuned_name].dtype
        noise = 0.0 if factors else storage_noise(base, coarser_dtype(*types))
        return LayerDelta(layer.name, delta, base, factors, *types, noise)

    def _refuse(self, layer: SelectedLayer, base: Matrix, update: Matrix | None) -> None:
        """Note or raise that a matrix holds NaN or Inf, and on which side."""
        if update is None:
            update = _matrix(self.tuned, layer.tuned_name, layer)
        found = (("base", _nonfinite(base)), ("tuned", _nonfinite(update)))
        sides = [f"{what} in {side}" for side, what in found if what]
        reason = " and ".join(sides) or f"the difference overflows {base.dtype}"
        if self.on_nonfinite == "error":
            raise InputError(
                f'{layer.name}: {reason}; repair it, or pass on_nonfinite="skip".',
                remedies=[("on_nonfinite", "skip")],
            )
        self.nonfinite[layer.name] = reason


def _matrix(source: Checkpoint, name: str, layer: SelectedLayer) -> Matrix:
    """Read one side as the matrix that was selected; a longer vocabulary loses its last rows."""
    tensor = source.load(name, layer.part)
    return tensor.reshape(tensor.shape[0], -1)[: layer.shape[0]]


def _same_dtype(first: Matrix, second: Matrix) -> tuple[Matrix, Matrix]:
    """Convert both to the wider of their types; the arrays themselves where they agree."""
    dtype = np.promote_types(first.dtype, second.dtype)
    return first.astype(dtype, copy=False), second.astype(dtype, copy=False)


def _nonfinite(matrix: Matrix) -> str | None:
    """Say how many entries are NaN or Inf and where the first is, or return None."""
    bad = ~np.isfinite(matrix)
    count = int(bad.sum())
    if not count:
        return None
    nans = int(np.isnan(matrix).sum())
    kinds = [f"{n} {kind}" for n, kind in ((nans, "NaN"), (count - nans, "Inf")) if n]
    row, column = np.unravel_index(int(np.argmax(bad)), matrix.shape)
    return f"{' and '.join(kinds)}, first at [{row}, {column}],"


def open_pair(
    base: Any,
    tuned: Any,
    *,
    include: str | Sequence[str] | None = None,
    exclude: str | Sequence[str] | None = None,
    on_shape: Literal["error", "skip", "truncate"] = "error",
    on_nonfinite: Literal["error", "skip"] = "error",
    on_other: Literal["skip", "flatten"] = "skip",
    allow_pickle: bool = False,
    partial: bool = False,
) -> DeltaPair:
    """Put two models side by side, and check everything that headers can tell.

    Names are compared as they are, then without wrappers (`module.`, `_orig_mod.`, FSDP's and
    PEFT's), by renamed prefixes, as the tables of transformers have them for the model that
    config.json names, and by tied embeddings; each only where there is one way to do it, and told
    in a notice.

    Parameters
    ----------
    base, tuned : path, str, torch.nn.Module or mapping of str to array
        A safetensors file, a folder (one file, or an index and its shards), a hub id, a module, or
        a state dict of numpy arrays or torch tensors. `tuned` may be the folder of a LoRA or CoSA
        adapter in PEFT's format; then the stream holds the matrices the adapter changes.
    include, exclude : str or sequence of str, optional
        Regular expressions, searched for in the base's names. `exclude` also hides tuned tensors
        by their own names.
    on_shape : {"error", "skip", "truncate"}
        What to do where shapes differ; "truncate" keeps the common first rows of an embedding or
        output head. No stored weight is ever transposed.
    on_nonfinite : {"error", "skip"}
        What to do with a matrix that holds NaN or Inf.
    on_other : {"skip", "flatten"}
        What to do with tensors of three or more dimensions: "flatten" takes each expert of a stack
        (a three-dimensional tensor with "expert" in its name) as a matrix of its own, any other
        tensor as first axis × all others, so a convolution as out × (in · kernel). Vectors and
        integers are always skipped.
    allow_pickle : bool
        Read pickled checkpoints with torch's weights-only loader.
    partial : bool
        Go on where layers of one side have no partner on the other. Without it that is an error,
        but for a new head of the tuned model, or one that it lacks: they have no update. What is
        left out is in `coverage` and in the notices, and verdicts begin with it.

    Returns
    -------
    DeltaPair
        Iterable of `LayerDelta`, with `names`, `report` and a length.

    Raises
    ------
    InputError
        For an option that has no such value; else with every problem of the two models at once.
    """
    choice("on_shape", on_shape, ("error", "skip", "truncate"))
    choice("on_nonfinite", on_nonfinite, ("error", "skip"))
    choice("on_other", on_other, ("skip", "flatten"))
    names = NameFilter(include, exclude)
    sources = _open_both(base, tuned, allow_pickle)
    layers, report = preflight(*sources, names, on_shape, on_other, partial)
    return DeltaPair(*sources, layers, report, on_nonfinite)


def _open_both(base: Any, tuned: Any, allow_pickle: bool) -> tuple[Checkpoint, Checkpoint]:
    """Open both sides, and report the problems of both at once."""
    opened: list[Checkpoint] = []
    problems = Problems()
    for source, role in ((base, "base"), (tuned, "tuned")):
        with problems:
            if isinstance(source, str | os.PathLike):
                source = locate(source, role, allow_pickle)
            adapter = open_adapter(source, role, allow_pickle)
            opened.append(adapter or open_checkpoint(source, role, allow_pickle))
    problems.report()
    return opened[0], opened[1]
