"""A pair of models as a stream of weight updates, one matrix at a time."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from cosa_theory.deltas.checkpoint import Checkpoint, open_checkpoint
from cosa_theory.deltas.matching import NameFilter, NameMatch, first_few, match_names
from cosa_theory.deltas.selection import PlannedLayer, plan_layers, quantised_problems
from cosa_theory.errors import InputError

__all__ = ["DeltaPair", "LayerDelta", "PairReport", "open_pair", "rounding_rms"]

Matrix = NDArray[np.floating[Any]]

# Largest relative rounding error of each stored type: 2^-p for p significant bits.
_UNIT_ROUNDOFF = {
    "bfloat16": 2.0**-8,
    "float16": 2.0**-11,
    "float32": 2.0**-24,
    "float64": 2.0**-53,
}


@dataclass(frozen=True)
class LayerDelta:
    """The update of one weight matrix.

    Parameters
    ----------
    name : str
        The base's name of the tensor.
    delta : ndarray, shape (m, n)
        ΔW = W_tuned − W_base, or scaling · B A for a low-rank adapter; float32, or float64 if
        either side is stored so. Both sides are converted before they are subtracted.
    base : ndarray, shape (m, n)
        W_base in the same type.
    factors : tuple of ndarray, optional
        (scaling · B, A) of shapes (m, r) and (r, n) with delta = B A, for a LoRA layer.
    base_dtype, tuned_dtype : str
        The stored types.
    rounding_rms : float
        Root mean square, per entry, of the error that storing the weights has put into ΔW; see
        `rounding_rms`. Zero for an adapter, whose ΔW is not a difference of stored weights.
    """

    name: str
    delta: Matrix
    base: Matrix
    factors: tuple[Matrix, Matrix] | None = None
    base_dtype: str = "float32"
    tuned_dtype: str = "float32"
    rounding_rms: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Rows m (out features) and columns n (in features)."""
        return self.delta.shape[0], self.delta.shape[1]

    @property
    def tuned(self) -> Matrix:
        """The tuned weight W_base + ΔW, computed anew at each access."""
        return self.base + self.delta


@dataclass(frozen=True)
class PairReport:
    """What was found when two models were put side by side.

    Parameters
    ----------
    matched : tuple of str
        Base names of all tensors that both sides have, whether compared or skipped.
    only_in_base, only_in_tuned : tuple of str
        Tensors without a partner.
    prefix : tuple of (str, str), optional
        A renamed prefix, as (in base, in tuned).
    tied : tuple of (str, str)
        (dropped, kept): tensors that are one matrix under two names on both sides.
    skipped : tuple of (str, str)
        (name, reason) of matched tensors that are not compared.
    notices : tuple of str
        The same, and anything else worth saying, as plain sentences.
    """

    matched: tuple[str, ...] = ()
    only_in_base: tuple[str, ...] = ()
    only_in_tuned: tuple[str, ...] = ()
    prefix: tuple[str, str] | None = None
    tied: tuple[tuple[str, str], ...] = ()
    skipped: tuple[tuple[str, str], ...] = ()
    notices: tuple[str, ...] = ()


def rounding_rms(weight: Matrix, dtype: str) -> float:
    """Return the root mean square error per entry of storing a matrix in a floating-point type.

    √(1 / (8 ln 2)) · u · rms(W) ≈ 0.42 · u · rms(W), u the unit roundoff 2⁻ᵖ (bfloat16 2⁻⁸,
    float16 2⁻¹¹, float32 2⁻²⁴, float64 2⁻⁵³).

    Parameters
    ----------
    weight : ndarray
        The matrix.
    dtype : str
        The stored type.

    Returns
    -------
    float
        In the units of `weight`.

    Notes
    -----
    An entry ± x · 2ᵉ with 1 ≤ x < 2 is stored with an error uniform in ± u · 2ᵉ, so of relative
    mean square u² / (3 x²). The leading digits of numbers spread over several octaves follow the
    density 1 / (x ln 2) (Hamming, "On the distribution of numbers", 1970), under which the mean of
    x⁻² is 3 / (8 ln 2): relative mean square u² / (8 ln 2). Entries below the type's normal range
    (6e-5 in float16) have a larger relative error.
    """
    rms = math.sqrt(np.vdot(weight, weight) / weight.size)
    return math.sqrt(1 / (8 * math.log(2))) * _UNIT_ROUNDOFF[dtype] * rms


@dataclass
class DeltaPair:
    """Two models as a stream of `LayerDelta`; made by `open_pair`, iterable any number of times.

    Parameters
    ----------
    base, tuned : Checkpoint
        The open sources.
    layers : list of PlannedLayer
        What will be streamed.
    found : PairReport
        What the headers told.
    on_nonfinite : {"error", "skip"}
        What to do with a matrix that holds NaN or Inf.
    """

    base: Checkpoint
    tuned: Checkpoint
    layers: list[PlannedLayer]
    found: PairReport
    on_nonfinite: str = "error"
    nonfinite: dict[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of matrices, before any is skipped for NaN or Inf."""
        return len(self.layers)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the matrices, in the order of the stream."""
        return tuple(layer.name for layer in self.layers)

    @property
    def report(self) -> PairReport:
        """What was found so far; matrices skipped for NaN or Inf appear once they were read."""
        if not self.nonfinite:
            return self.found
        sentences = tuple(f"{name}: skipped, {why}." for name, why in self.nonfinite.items())
        return PairReport(
            **{
                **self.found.__dict__,
                "skipped": self.found.skipped + tuple(self.nonfinite.items()),
                "notices": self.found.notices + sentences,
            }
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

    def _read(self, layer: PlannedLayer) -> LayerDelta | None:
        base = self._matrix(self.base, layer.base_name, layer)
        delta = self._matrix(self.tuned, layer.tuned_name, layer)
        if base.dtype != delta.dtype:
            base, delta = base.astype(np.float64), delta.astype(np.float64)
        tuned_bad = _nonfinite(delta)
        with np.errstate(invalid="ignore", over="ignore"):
            delta -= base
        if not np.isfinite(delta).all():
            self._refuse(layer.name, _nonfinite(base), tuned_bad)
            return None
        types = (
            self.base.infos[layer.base_name].dtype,
            self.tuned.infos[layer.tuned_name].dtype,
        )
        coarser = max(types, key=_UNIT_ROUNDOFF.__getitem__)
        return LayerDelta(layer.name, delta, base, None, *types, rounding_rms(base, coarser))

    @staticmethod
    def _matrix(source: Checkpoint, name: str, layer: PlannedLayer) -> Matrix:
        """Read one side as the planned matrix; a longer vocabulary loses its last rows."""
        tensor = source.load(name, layer.part)
        matrix = tensor.reshape(tensor.shape[0], -1)
        return matrix[: layer.shape[0]]

    def _refuse(self, name: str, base: str | None, tuned: str | None) -> None:
        """Note or raise that a matrix holds NaN or Inf."""
        sides = [f"{why} in {side}" for side, why in (("base", base), ("tuned", tuned)) if why]
        reason = " and ".join(sides) or "the difference overflows float32"
        if self.on_nonfinite == "error":
            raise InputError(f'{name}: {reason}; repair it, or pass on_nonfinite="skip".')
        self.nonfinite[name] = reason


def _nonfinite(matrix: Matrix) -> str | None:
    """Say how many entries are NaN or Inf and where the first is, or return None."""
    bad = ~np.isfinite(matrix)
    count = int(bad.sum())
    if not count:
        return None
    nans = int(np.isnan(matrix).sum())
    kinds = [f"{n} {kind}" for n, kind in ((nans, "NaN"), (count - nans, "Inf")) if n]
    row, column = np.unravel_index(int(np.argmax(bad)), matrix.shape)
    return f"{' and '.join(kinds)}, first at [{row}, {column}]"


_CHOICES = {
    "on_shape": ("error", "skip", "truncate"),
    "on_nonfinite": ("error", "skip"),
    "on_other": ("skip", "flatten"),
}


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
) -> DeltaPair:
    """Put two models side by side, and check everything that headers can tell.

    Parameters
    ----------
    base, tuned : path, str, torch.nn.Module or mapping of str to array
        A safetensors file, a folder (single file, or index and shards), a hub id, a module, or a
        state dict of numpy arrays or torch tensors.
    include, exclude : str or sequence of str, optional
        Regular expressions, searched for in the base's names. `exclude` also hides tuned tensors
        by their own names.
    on_shape : {"error", "skip", "truncate"}
        What to do where shapes differ; "truncate" keeps the common first rows of an embedding or
        output head. Nothing is ever transposed.
    on_nonfinite : {"error", "skip"}
        What to do with a matrix that holds NaN or Inf.
    on_other : {"skip", "flatten"}
        What to do with tensors of three or more dimensions: "flatten" takes each expert of a stack
        as a matrix, and a convolution as out × (in · kernel).
    allow_pickle : bool
        Read pickled checkpoints with torch's weights-only loader.

    Returns
    -------
    DeltaPair
        Iterable of `LayerDelta`, with `names`, `report` and a length.

    Raises
    ------
    InputError
        With every problem found at once, one sentence each.
    ValueError
        If an option has a value it does not know.
    """
    chosen = {"on_shape": on_shape, "on_nonfinite": on_nonfinite, "on_other": on_other}
    for option, value in chosen.items():
        if value not in _CHOICES[option]:
            raise ValueError(f"{option} is {value!r}, expected one of {_CHOICES[option]}")
    names = NameFilter(include, exclude)
    sources = _open_both(base, tuned, allow_pickle)
    layers, report = _preflight(*sources, names, on_shape, on_other)
    return DeltaPair(*sources, layers, report, on_nonfinite)


def _open_both(base: Any, tuned: Any, allow_pickle: bool) -> tuple[Checkpoint, Checkpoint]:
    """Open both sides, and report the problems of both."""
    opened: list[Checkpoint] = []
    problems: list[str] = []
    for source, role in ((base, "base"), (tuned, "tuned")):
        try:
            opened.append(open_checkpoint(source, role, allow_pickle))
        except InputError as error:
            problems.extend(error.problems)
    if problems:
        raise InputError(*problems)
    return opened[0], opened[1]


def _preflight(
    base: Checkpoint, tuned: Checkpoint, names: NameFilter, on_shape: str, on_other: str
) -> tuple[list[PlannedLayer], PairReport]:
    """Match, filter and check both sides from their headers alone."""
    problems = names.problems(list(base.infos))
    left = {name: info for name, info in base.infos.items() if not names.drops(name)}
    right = {name: info for name, info in tuned.infos.items() if not names.drops(name)}
    problems += quantised_problems(f"base ({base.label})", left, base.config)
    problems += quantised_problems(f"tuned ({tuned.label})", right, tuned.config)
    try:
        match = match_names(left, right)
    except InputError as error:
        raise InputError(*problems, *error.problems) from error
    wanted = {name: partner for name, partner in match.pairs.items() if names.keeps(name)}
    plan = plan_layers(wanted, left, right, on_shape, on_other)
    problems += plan.problems
    if not problems and not plan.layers:
        problems.append(f"no matrix to compare: {_count_reasons(plan.skipped)}.")
    if problems:
        raise InputError(*problems)
    report = PairReport(
        matched=tuple(wanted),
        only_in_base=match.only_in_base,
        only_in_tuned=match.only_in_tuned,
        prefix=match.prefix,
        skipped=tuple(plan.skipped),
        notices=tuple(_match_notices(match, len(wanted), plan.skipped) + plan.notices),
    )
    return plan.layers, report


def _match_notices(match: NameMatch, matched: int, skipped: Sequence[tuple[str, str]]) -> list[str]:
    sentence = f"{matched} tensors matched"
    for side, only in (("base", match.only_in_base), ("tuned", match.only_in_tuned)):
        if only:
            sentence += f", {len(only)} only in {side} ({first_few(only)})"
    notices = [sentence + "."]
    if match.prefix:
        old, new = (f"{prefix!r}" if prefix else "no prefix" for prefix in match.prefix)
        notices.append(f"prefix renamed: {old} in base is {new} in tuned.")
    if skipped:
        notices.append(f"{len(skipped)} tensors not compared: {_count_reasons(skipped)}.")
    return notices


def _count_reasons(skipped: Sequence[tuple[str, str]]) -> str:
    counts: dict[str, int] = {}
    for _, reason in skipped:
        counts[reason] = counts.get(reason, 0) + 1
    return ", ".join(f"{count} {reason}" for reason, count in counts.items()) or "none is left"
