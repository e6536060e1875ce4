"""What the settings and the tensors of a CoSA adapter say of its layers, checked together."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cosa_theory.deltas.cosa_released import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TENSOR, WRAPPER
from cosa_theory.deltas.layers import FLOAT_DTYPES
from cosa_theory.deltas.matching import by_pattern, first_few
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo
from cosa_theory.projections import KINDS

__all__ = ["CosaRecord", "cosa_records"]


@dataclass(frozen=True)
class CosaRecord:
    """One adapted layer, as its folder describes it.

    Attributes
    ----------
    name : str
        The module's name in the base model.
    m, n : int
        Output and input size of the layer.
    a, b : int
        Shape of the core.
    alpha : float
        ΔW = alpha · L Y R.
    key : str
        The key of the draw.
    core : str
        Name of the core's tensor in the file.
    left, right : str or None
        Names of the tensors that hold L and R; None where they are drawn.
    fingerprints : tuple of (str or None, str or None)
        Of the float32 draws of Lᵀ (a × m) and R (b × n), where they are known.
    transposed : bool
        Whether Lᵀ (a × m) and Rᵀ (n × b) are stored, as the released code does, and not L and R.
    """

    name: str
    m: int
    n: int
    a: int
    b: int
    alpha: float
    key: str
    core: str
    left: str | None = None
    right: str | None = None
    fingerprints: tuple[str | None, str | None] = (None, None)
    transposed: bool = False


def cosa_records(
    settings: Mapping[str, Any], infos: Mapping[str, TensorInfo], label: str
) -> tuple[dict[str, CosaRecord], dict[str, str]]:
    """Bring the settings and the tensors of an adapter together, and check them.

    Parameters
    ----------
    settings : mapping
        As `translated_settings` returns them.
    infos : mapping of str to TensorInfo
        The tensors, by their names in the file (`cosa_Y`, `cosa_L`, `cosa_R`, or those of the
        released code).
    label : str
        What messages call the adapter.

    Returns
    -------
    layers : dict of str to CosaRecord
        In the order of the tensors.
    whole : dict of str to str
        Other tensors: name in the base model to name in the file.

    Raises
    ------
    InputError
        Naming every setting or tensor that is missing, unexpected or of the wrong shape.
    """
    found: dict[str, dict[str, str]] = {}
    whole: dict[str, str] = {}
    problems = _setting_problems(settings, label)
    if not _is_patterns(settings.get("alpha_pattern")):
        problems.append(
            f"{label}: alpha_pattern is {settings['alpha_pattern']!r} in {ADAPTER_CONFIG}; it must "
            "be an object of regular expressions and numbers."
        )
        settings = {**settings, "alpha_pattern": None}
    for tensor in infos:
        name = tensor.removeprefix(WRAPPER)
        match = TENSOR.fullmatch(name)
        if match:
            found.setdefault(match["module"] or "", {})[match["role"]] = tensor
        elif re.search(r"(^|\.)(cosa|lora)_", name):
            problems.append(f"{label}: the tensor {tensor} is not understood.")
        else:
            whole[name.replace(".modules_to_save.", ".")] = tensor
    layers = settings.get("layers")
    described = layers if isinstance(layers, Mapping) else {}
    problems += [
        f"{label}: {name} is in {ADAPTER_CONFIG}, but {ADAPTER_WEIGHTS} has no core for it."
        for name in described
        if "Y" not in found.get(name, {})
    ]
    if not found and not problems:
        problems.append(f"{label}: {ADAPTER_WEIGHTS} holds no core (a tensor that ends in cosa_Y).")
    incomplete = _released_without(found, label)
    problems += incomplete
    records = {}
    for name, tensors in found.items() if not incomplete else ():
        read = _record(name, tensors, described.get(name), settings, infos, f"{label}: {name}")
        if isinstance(read, CosaRecord):
            records[name] = read
        else:
            problems += read
    records = _with_shared(records)
    if problems:
        raise InputError(*problems)
    return records, whole


def _record(
    name: str,
    tensors: Mapping[str, str],
    described: Any,
    settings: Mapping[str, Any],
    infos: Mapping[str, TensorInfo],
    where: str,
) -> CosaRecord | list[str]:
    """Return one layer, or what is wrong with it."""
    if "Y" not in tensors:
        return [f"{where} has no core; it has only {', '.join(tensors.values())}."]
    strange = [
        f"{where}: {tensor} has shape {infos[tensor].shape} and type {infos[tensor].dtype}; it "
        "must be a matrix of floating-point numbers."
        for tensor in tensors.values()
        if len(infos[tensor].shape) != 2 or infos[tensor].dtype not in FLOAT_DTYPES
    ]
    if strange:
        return strange
    core = infos[tensors["Y"]].shape
    left, right = (infos[tensors[role]].shape if role in tensors else None for role in "LR")
    released = tensors["Y"].endswith(("lora_Y", "lora_Y.weight"))
    if released:
        left, right = left and left[::-1], right and right[::-1]
    if described is None:
        if left is None or right is None:
            return [
                f"{where} is not described in {ADAPTER_CONFIG} (layers), and L and R are not "
                "stored: save the adapter again with this library."
            ]
        described = {"size": [left[0], right[1]], "core": list(core), "key": name}
    problem = _description_problem(described)
    if problem:
        return [f"{where}: its description in {ADAPTER_CONFIG} (layers) {problem}."]
    (m, n), (a, b) = described["size"], described["core"]
    expected = {"Y": (core, (a, b)), "L": (left, (m, a)), "R": (right, (b, n))}
    wrong = [
        f"{where}: {tensors[role]} is {shape[0]} × {shape[1]}, but {wanted[0]} × {wanted[1]} is "
        f"expected of {role} in a layer of {m} × {n} with a core of {a} × {b}."
        for role, (shape, wanted) in expected.items()
        if shape is not None and shape != wanted
    ]
    if wrong:
        return wrong
    alpha = by_pattern(settings.get("alpha_pattern"), name, settings.get("alpha"))
    if not _is_number(alpha):
        if alpha is settings.get("alpha"):
            return []  # said once, of the settings
        return [f"{where}: alpha_pattern gives {alpha!r}; it must be a finite number."]
    prints = described.get("L"), described.get("R")
    stored = tensors.get("L"), tensors.get("R")
    return CosaRecord(
        name, m, n, a, b, float(alpha), described["key"], tensors["Y"], *stored, prints, released
    )


def _released_without(found: Mapping[str, Mapping[str, str]], label: str) -> list[str]:
    """Say that layers of the released code lack L or R, and why that cannot be mended here."""
    lacking = [
        name
        for name, tensors in found.items()
        if tensors.get("Y", "").endswith(("lora_Y", "lora_Y.weight")) and len(tensors) < 3
    ]
    if not lacking:
        return []
    return [
        f"{label}: L and R are not in the file for {len(lacking)} of {len(found)} layers "
        f"({first_few(lacking, 3)}), and the released code draws them from a hash that Python "
        "salts anew in every process, so no seed brings them back: save the adapter there "
        "together with lora_L and lora_R."
    ]


def _description_problem(described: Any) -> str | None:
    """Say what is wrong with the description of a layer."""
    if not isinstance(described, Mapping):
        return f"is {described!r}; it must be an object with key, size, core, L and R"
    for name in ("size", "core"):
        pair = described.get(name)
        if (
            not isinstance(pair, (list, tuple))
            or len(pair) != 2
            or not all(type(size) is int and size > 0 for size in pair)
        ):
            return f"has {pair!r} as {name}; it must be two positive integers"
    if not isinstance(described.get("key"), str):
        return f"has {described.get('key')!r} as key; it must be the name the draw belongs to"
    for role in "LR":
        if not isinstance(described.get(role), (str, type(None))):
            return f"has {described[role]!r} as {role}; it must be a fingerprint"
    return None


def _with_shared(records: Mapping[str, CosaRecord]) -> dict[str, CosaRecord]:
    """Give layers that share a stored projection its tensor: it is stored with the first only."""
    lefts: dict[tuple[str, int, int], str] = {}
    rights: dict[tuple[str, int, int], str] = {}
    for one in records.values():
        if one.left is not None:
            lefts.setdefault((one.key, one.a, one.m), one.left)
        if one.right is not None:
            rights.setdefault((one.key, one.b, one.n), one.right)
    return {
        name: replace(
            one,
            left=one.left or lefts.get((one.key, one.a, one.m)),
            right=one.right or rights.get((one.key, one.b, one.n)),
        )
        for name, one in records.items()
    }


def _setting_problems(settings: Mapping[str, Any], label: str) -> list[str]:
    """Say which settings of the adapter cannot be used."""

    def whole(value: Any) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and value >= 0

    checks: tuple[tuple[str, Callable[[Any], bool], str], ...] = (
        ("seed", whole, "a non-negative integer"),
        ("scale", lambda value: value in ("synthesis", "analysis"), "synthesis or analysis"),
        ("options", lambda value: value is None or isinstance(value, dict), "an object"),
        ("layers", lambda value: value is None or isinstance(value, dict), "an object"),
        ("alpha", _is_number, "a finite number"),
    )
    problems = [
        f"{label}: {name} is {settings.get(name)!r} in {ADAPTER_CONFIG}; it must be {wanted}."
        for name, accepts, wanted in checks
        if not accepts(settings.get(name))
    ]
    if settings.get("kind") not in KINDS:
        problems.append(
            f"{label}: kind is {settings.get('kind')!r} in {ADAPTER_CONFIG}, an ensemble that this "
            f"version of cosa-theory lacks; it knows {', '.join(KINDS)}."
        )
    return problems


def _is_patterns(value: Any) -> bool:
    """Return whether a value is absent or an object whose names are regular expressions."""
    try:
        return value is None or (
            isinstance(value, Mapping) and all(re.compile(pattern) for pattern in value)
        )
    except re.error:
        return False


def _is_number(value: Any) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and math.isfinite(value)
