"""Which of the matched tensors are matrices to compare, and why the others are not.

Everything here is decided from types, shapes and names, before an entry is read.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cosa_theory.deltas.layers import FLOAT_DTYPES, shape_text
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["SelectedLayer", "layers_in", "quantised_problems", "select_layers"]

_VOCABULARY = re.compile(
    r"emb|wte|vocab|lm_head|shared|token|predictions|decoder\.weight$|output\.weight$"
)
_EXPERTS = re.compile(r"expert", re.IGNORECASE)


@dataclass(frozen=True)
class SelectedLayer:
    """One matrix to compare: slice `part` of a stack of experts, or a whole tensor.

    `name` is its name in the stream: the base's, or the tuned model's for a head that the base
    stores as its embedding, with "[e]" behind it for expert e.
    """

    name: str
    base_name: str
    tuned_name: str
    shape: tuple[int, int]
    part: int | None = None


@dataclass
class Selection:
    """What a header-only look at matched tensors decides; filled tensor by tensor."""

    layers: list[SelectedLayer]
    skipped: list[tuple[str, str]]
    notices: list[str]
    problems: list[str]


def select_layers(
    pairs: Mapping[str, tuple[str, str]],
    base: Mapping[str, TensorInfo],
    tuned: Mapping[str, TensorInfo],
    on_shape: str,
    on_other: str,
) -> Selection:
    """Decide tensor by tensor what is compared, skipped or refused, as `open_pair` documents it.

    `pairs` maps the name in the stream to those in base and in tuned.
    """
    found = Selection([], [], [], [])
    for name, (one, other) in pairs.items():
        first, second = base[one], tuned[other]
        reason = _reason_to_skip(first, second)
        if reason:
            found.skipped.append((name, reason))
            continue
        shape: tuple[int, ...] | None = first.shape
        if first.shape != second.shape:
            shape = _resolve_shapes(found, name, first.shape, second.shape, on_shape)
        if shape is not None:
            _add(found, (name, one, other), shape, on_other)
    return found


def layers_in(name: str, info: TensorInfo) -> int:
    """Count the weight matrices that a tensor is, whether or not they are compared.

    A stack of experts is as many as there are experts, a convolution one; vectors, also with axes
    of size 1 around them, and masks (1 × 1 × n × n) are none.
    """
    shape = info.shape
    if info.dtype not in FLOAT_DTYPES or 0 in shape or sum(size > 1 for size in shape) < 2:
        return int(len(shape) == 2 and info.dtype in FLOAT_DTYPES and 0 not in shape)
    if len(shape) > 3 and shape[:2] == (1, 1):
        return 0
    return shape[0] if _is_stack(name, shape) else 1


def _is_stack(name: str, shape: tuple[int, ...]) -> bool:
    return len(shape) == 3 and _EXPERTS.search(name) is not None


def _reason_to_skip(first: TensorInfo, second: TensorInfo) -> str | None:
    for info in (first, second):
        if info.dtype.startswith("Python "):
            return f"not a tensor ({info.dtype})"
        if info.dtype not in FLOAT_DTYPES:
            return f"{info.dtype} entries, not floating point"
    if len(first.shape) < 2:
        return "one-dimensional" if first.shape else "a single number"
    if 0 in first.shape:
        return f"empty (shape {first.shape})"
    return None


def _resolve_shapes(
    found: Selection, name: str, first: tuple[int, ...], second: tuple[int, ...], on_shape: str
) -> tuple[int, ...] | None:
    """Return the common shape, or None after noting why there is none."""
    shapes = f"{shape_text(first)} in base, {shape_text(second)} in tuned"
    rows_only = len(first) == len(second) == 2 and first[1] == second[1]
    if on_shape == "skip":
        found.skipped.append((name, f"shapes differ: {shapes}"))
        return None
    if on_shape == "truncate" and rows_only and _VOCABULARY.search(name):
        rows = min(first[0], second[0])
        found.notices.append(f"{name}: cut to the first {rows} rows ({shapes}).")
        return rows, first[1]
    found.problems.append(f"{name}: shapes differ: {shapes}; {_remedy(first, second, on_shape)}.")
    return None


def _remedy(first: tuple[int, ...], second: tuple[int, ...], on_shape: str) -> str:
    if first == second[::-1]:
        return (
            "one is the transpose of the other (a Conv1D layer stores in × out), and nothing is "
            'transposed silently: convert one side, or pass on_shape="skip"'
        )
    if on_shape == "truncate":
        return 'only the rows of a vocabulary are cut: exclude it, or pass on_shape="skip"'
    return 'pass on_shape="truncate" for an enlarged vocabulary, or on_shape="skip"'


def _add(
    found: Selection, names: tuple[str, str, str], shape: tuple[int, ...], on_other: str
) -> None:
    """Take a tensor whose two sides agree, as one matrix, several, or none."""
    name, one, other = names
    if len(shape) == 2:
        found.layers.append(SelectedLayer(name, one, other, (shape[0], shape[1])))
        return
    experts = _is_stack(name, shape)
    kind = "stack of experts" if experts else f"{len(shape)}-dimensional tensor"
    if on_other == "skip":
        found.skipped.append((name, f"{kind} ({shape_text(shape)}), not a matrix"))
    elif experts:
        for part in range(shape[0]):
            found.layers.append(
                SelectedLayer(f"{name}[{part}]", one, other, (shape[1], shape[2]), part)
            )
        found.notices.append(f"{name}: {shape[0]} experts, each a {shape_text(shape[1:])} matrix.")
    else:
        matrix = (shape[0], math.prod(shape[1:]))
        found.layers.append(SelectedLayer(name, one, other, matrix))
        found.notices.append(f"{name}: {shape_text(shape)} flattened to {shape_text(matrix)}.")


def quantised_problems(
    role: str, names: Iterable[str], infos: Mapping[str, TensorInfo], config: Mapping[str, Any]
) -> list[str]:
    """Say which tensors of a model are quantised, one sentence for each kind.

    `infos` holds all tensors of the model, because companions such as scales give a method away;
    the configuration may name it too.
    """
    settings = config.get("quantization_config")
    method = settings.get("quant_method") if isinstance(settings, dict) else None
    kinds: dict[str, list[str]] = {}
    for name in names:
        kind = _quantised(name, infos[name], infos)
        if kind:
            kinds.setdefault(kind, []).append(name)
    return [
        f"{role}: {len(names)} quantised tensor{'s' * (len(names) > 1)} ({kind}"
        f"{f', method {method}' if method else ''}), first {names[0]}: dequantise first."
        for kind, names in kinds.items()
    ]


def _quantised(name: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> str | None:
    """Return the kind of quantised storage a tensor has, or None."""
    dtype = info.dtype
    stem = name.removesuffix("weight")
    if dtype.startswith(("float8_", "float6_", "float4_", "qint", "quint")):
        return ("fp8 " if dtype.startswith("float8") else "") + dtype
    if name.endswith(".qweight"):
        return f"GPTQ or AWQ, {dtype}"
    if f"{name}.absmax" in infos:
        return f"bitsandbytes 4-bit, {dtype}"
    if f"{stem}SCB" in infos or f"{stem}weight_format" in infos:
        return f"bitsandbytes 8-bit, {dtype}"
    if name.endswith((".weight_packed", "_blocks")) and not dtype.startswith(("float", "bfloat")):
        return f"packed, {dtype}"
    if name.endswith("weight") and dtype in ("int8", "uint8", "int4", "uint4"):
        return dtype
    return None
