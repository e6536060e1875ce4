"""Which of the matched tensors are matrices to compare, and why the others are not.

Everything here is decided from types, shapes and names, before an entry is read.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from cosa_theory.deltas.layers import FLOAT_DTYPES
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["PlannedLayer", "plan_layers", "quantised_problems"]

_VOCABULARY = re.compile(
    r"emb|wte|vocab|lm_head|shared|token|predictions|decoder\.weight$|output\.weight$"
)
_EXPERTS = re.compile(r"expert", re.IGNORECASE)


@dataclass(frozen=True)
class PlannedLayer:
    """One matrix to compare.

    Parameters
    ----------
    name : str
        Its name in the stream: the base's, with "[e]" behind it for expert e of a stack.
    base_name, tuned_name : str
        The stored tensors.
    shape : tuple of int
        Rows and columns of the matrix.
    part : int, optional
        The slice of a stack of experts.
    """

    name: str
    base_name: str
    tuned_name: str
    shape: tuple[int, int]
    part: int | None = None


@dataclass
class Plan:
    """What a header-only look at matched tensors decides; filled tensor by tensor."""

    layers: list[PlannedLayer]
    skipped: list[tuple[str, str]]
    notices: list[str]
    problems: list[str]


def plan_layers(
    pairs: Mapping[str, str],
    base: Mapping[str, TensorInfo],
    tuned: Mapping[str, TensorInfo],
    on_shape: str,
    on_other: str,
) -> Plan:
    """Decide tensor by tensor what is compared, skipped or refused.

    Parameters
    ----------
    pairs : mapping of str to str
        Base name to tuned name.
    base, tuned : mapping of str to TensorInfo
        What each side holds.
    on_shape : {"error", "skip", "truncate"}
        What to do with different shapes. "truncate" keeps the rows that both have, for tensors
        named like a vocabulary (embedding, output head) that differ in rows only.
    on_other : {"skip", "flatten"}
        What to do with floating-point tensors of three or more dimensions. "flatten" takes each
        expert of a three-dimensional stack (a name with "expert") as a matrix of its own, and any
        other tensor as first axis × all others, so a convolution is out × (in · kernel).

    Returns
    -------
    Plan
        Layers, skipped tensors with reasons, notices, problems.
    """
    plan = Plan([], [], [], [])
    for name, partner in pairs.items():
        first, second = base[name], tuned[partner]
        reason = _reason_to_skip(first, second)
        if reason:
            plan.skipped.append((name, reason))
            continue
        shape: tuple[int, ...] | None = first.shape
        if first.shape != second.shape:
            shape = _resolve_shapes(plan, name, first.shape, second.shape, on_shape)
        if shape is not None:
            _add(plan, name, partner, shape, on_other)
    return plan


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
    plan: Plan, name: str, first: tuple[int, ...], second: tuple[int, ...], on_shape: str
) -> tuple[int, ...] | None:
    """Return the common shape, or None after noting why there is none."""
    shapes = f"{_size(first)} in base, {_size(second)} in tuned"
    rows_only = len(first) == len(second) == 2 and first[1] == second[1]
    if on_shape == "skip":
        plan.skipped.append((name, f"shapes differ: {shapes}"))
        return None
    if on_shape == "truncate" and rows_only and _VOCABULARY.search(name):
        rows = min(first[0], second[0])
        plan.notices.append(f"{name}: cut to the first {rows} rows ({shapes}).")
        return rows, first[1]
    plan.problems.append(f"{name}: shapes differ: {shapes}; {_remedy(first, second, on_shape)}.")
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


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "a single number"


def _add(plan: Plan, name: str, partner: str, shape: tuple[int, ...], on_other: str) -> None:
    """Plan a tensor whose two sides agree, as one matrix, several, or none."""
    if len(shape) == 2:
        plan.layers.append(PlannedLayer(name, name, partner, (shape[0], shape[1])))
        return
    experts = len(shape) == 3 and _EXPERTS.search(name) is not None
    kind = "stack of experts" if experts else f"{len(shape)}-dimensional tensor"
    if on_other == "skip":
        plan.skipped.append((name, f"{kind} ({_size(shape)}), not a matrix"))
    elif experts:
        for part in range(shape[0]):
            plan.layers.append(
                PlannedLayer(f"{name}[{part}]", name, partner, (shape[1], shape[2]), part)
            )
        plan.notices.append(f"{name}: {shape[0]} experts, each a {_size(shape[1:])} matrix.")
    else:
        matrix = (shape[0], math.prod(shape[1:]))
        plan.layers.append(PlannedLayer(name, name, partner, matrix))
        plan.notices.append(f"{name}: {_size(shape)} flattened to {_size(matrix)}.")


def quantised_problems(
    role: str,
    names: Iterable[str],
    infos: Mapping[str, TensorInfo],
    config: Mapping[str, Any],
) -> list[str]:
    """Say which tensors of a model are quantised, one sentence for each kind.

    Parameters
    ----------
    role : str
        "base" or "tuned", and where it comes from.
    names : iterable of str
        The tensors that are to be compared.
    infos : mapping of str to TensorInfo
        All tensors of the model, because companions such as scales give a method away.
    config : mapping
        The model's config.json, whose `quantization_config` names the method.

    Returns
    -------
    list of str
        Empty for a model in ordinary floating point.
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
