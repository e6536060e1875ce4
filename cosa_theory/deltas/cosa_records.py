"""What the settings and the tensors of a CoSA adapter say of its layers, checked together."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from cosa_theory.deltas.cosa_released import ADAPTER_CONFIG, ADAPTER_WEIGHTS, TENSOR, base_name
from cosa_theory.deltas.layers import FLOAT_DTYPES, shape_text
from cosa_theory.deltas.matching import first_few
from cosa_theory.deltas.wrapped_names import known_name, unwrapped_name
from cosa_theory.ground.checks import MOST_SIZE, choice, factor, pair, real, refuse, whole
from cosa_theory.ground.errors import InputError, Problems
from cosa_theory.ground.expressions import by_pattern, name_end
from cosa_theory.ground.fields import (
    Field,
    either,
    flag,
    items,
    optional,
    read_fields,
    table_of,
    text,
)
from cosa_theory.ground.tensor_files import TensorInfo
from cosa_theory.projections import ENSEMBLES, INFORMED, KINDS, left_projection

__all__ = ["CosaRecord", "check_description", "check_recipe", "cosa_records", "ensemble_of"]

_MOST_ENTRIES = 2**32
"""Of a projection: 16 GiB in float32."""

_sizes = partial(pair, most=MOST_SIZE)
_names = either(text, items(text), must="a list of names")
_print = either(text, must="a fingerprint")
_DESCRIPTION = {
    "size": Field(_sizes),
    "core": Field(_sizes),
    "key": Field(text),
    "L": Field(optional(_print)),
    "R": Field(optional(_print)),
    "Y": Field(optional(_print)),
    "sketch": Field(optional(text)),
}
_RECIPE = {name: Field(whole) for name in ("count", "length", "size")} | {
    "seed": Field(partial(whole, least=0))
}
_FIELDS = {
    "seed": Field(partial(whole, least=0)),
    "alpha": Field(factor),
    "scale": Field(partial(choice, allowed=("synthesis", "analysis"))),
    # Another may be one of a later version.
    "kind": Field(partial(choice, allowed=(*KINDS, *INFORMED))),
    "left": Field(optional(partial(choice, allowed=(*KINDS, "identity")))),
    "projection_dtype": Field(optional(partial(choice, allowed=("float32", "bfloat16")))),
    "options": Field(optional(table_of(either(flag, real, must="a number or a flag"), text))),
    "layers": Field(optional(table_of(lambda _, described: described))),  # checked one by one
    "shape_pattern": Field(optional(table_of(_sizes, name_end))),
    "alpha_pattern": Field(optional(table_of(factor, name_end))),
    "dropout": Field(optional(partial(real, least=0, below=1))),
    "bias": Field(optional(partial(choice, allowed=("none", "all", "cosa_only")))),
    "fan_in_fan_out": Field(optional(flag)),
    "modules_to_save": Field(optional(items(text))),
    "target_modules": Field(optional(_names)),
    "recipe": Field(optional(lambda argument, value: check_recipe(argument, value))),
}


@dataclass(frozen=True)
class CosaRecord:
    """One adapted layer of m × n, as its folder describes it: ΔW = alpha · L Y R, Y a × b."""

    name: str  # of the module in the base model
    m: int
    n: int
    a: int
    b: int
    alpha: float
    key: str  # of the draw
    core: str  # name of the core's tensor in the file
    left: str | None = None  # names of the tensors of L and R; None where they are drawn
    right: str | None = None
    fingerprints: tuple[str | None, str | None] = (None, None)  # of the float32 draws of Lᵀ, R
    digest: str | None = None  # of the stored core
    transposed: bool = False  # Lᵀ and Rᵀ (n × b) are stored, as by the released code
    sketch: str | None = None  # of R, where it is made again by running the model


def cosa_records(
    settings: Mapping[str, Any], infos: Mapping[str, TensorInfo], label: str
) -> tuple[dict[str, CosaRecord], dict[str, str]]:
    """Bring the settings and the tensors of an adapter together, and check them.

    `settings` are those of `translated_settings`, `infos` the tensors by their names in the file,
    of this library or of the released code; `label` is what messages call the adapter. Returned are
    the layers, in the order of the tensors, and the other tensors, name in the base model to name
    in the file. An InputError names every setting or tensor that is missing, unexpected or of the
    wrong shape.
    """
    found: dict[str, dict[str, str]] = {}
    others: dict[str, str] = {}
    problems = Problems()
    read: dict[str, Any] = {}
    where = f"{label}/{ADAPTER_CONFIG}"
    with problems:
        read = read_fields(settings, _FIELDS, where)
    layers = settings.get("layers")
    described = layers if isinstance(layers, Mapping) else {}
    described = {unwrapped_name(name): entry for name, entry in described.items()}
    for tensor in infos:
        name, other = base_name(tensor), tensor
        match = TENSOR.fullmatch(name)
        if match:
            module = known_name(match["module"] or "", described)
            other = found.setdefault(module, {}).setdefault(match["role"], tensor)
        elif re.search(r"(^|\.)(cosa|lora)_", name):
            problems.add(f"{label}: the tensor {tensor} is not understood.")
        else:
            # With trained biases PEFT writes a copy's own twice, and reads the plain name.
            copied = name.replace(".modules_to_save.", ".")
            if copied == name or copied not in others:
                others[copied] = tensor
            continue
        if other != tensor:
            problems.add(f"{label}: the tensors {other} and {tensor} are the same one of {name}.")
    problems.add(
        *(
            f"{label}: {name} is in {ADAPTER_CONFIG}, but {ADAPTER_WEIGHTS} has no core for it."
            for name in described
            if "Y" not in found.get(name, {})
        )
    )
    if not found and not problems:
        problems.add(f"{label}: {ADAPTER_WEIGHTS} holds no core (a tensor that ends in cosa_Y).")
    records = {}
    with problems:
        _refuse_released_without(found, label)
        for name, tensors in found.items():
            with problems:
                alpha = by_pattern(
                    read.get("alpha_pattern"), name, read.get("alpha"), f"{where}: alpha_pattern"
                )
                given = (described.get(name), alpha, infos, f"{label}: {name}")
                records[name] = _record(name, tensors, *given)
    problems.report()
    records = _with_shared(records)
    _refuse_unmade(records, read, label)
    return records, others


def ensemble_of(
    settings: Mapping[str, Any], one: CosaRecord, role: str
) -> tuple[str, dict[str, Any]]:
    """Return the ensemble that L or R of a layer is of, and its options."""
    kind, options = settings["kind"], dict(settings.get("options") or {})
    if role == "R":
        return kind, options
    return left_projection(kind, one.a, one.m, options, settings.get("left"))


def _refuse_unmade(
    records: Mapping[str, CosaRecord], settings: Mapping[str, Any], label: str
) -> None:
    """Refuse projections that are neither stored nor can be drawn."""
    problems, unmade = Problems(), []
    for name, one in records.items():
        for role, stored in (("L", one.left), ("R", one.right)):
            if stored is not None:
                continue
            try:
                kind, _ = ensemble_of(settings, one, role)
            except InputError as error:
                problems.add(f"{label}: the core of {name} is {one.a} × {one.b}, but {error}.")
                continue
            again = role == "R" and one.sketch is not None and settings.get("recipe") is not None
            if ENSEMBLES[kind].data_dependent and not again:
                unmade.append(f"{role} of {name}")
    if unmade:
        problems.add(
            f"{label}: projections that were made from data, so that no seed brings them back, are "
            f"not in {ADAPTER_WEIGHTS} ({first_few(unmade, 3)}): save the adapter again."
        )
    problems.report()


def _record(
    name: str,
    tensors: Mapping[str, str],
    described: Any,
    alpha: float,
    infos: Mapping[str, TensorInfo],
    where: str,
) -> CosaRecord:
    """Return one layer, or raise what is wrong with it."""
    if "Y" not in tensors:
        raise InputError(f"{where} has no core; it has only {', '.join(tensors.values())}.")
    problems = Problems()
    problems.add(
        *(
            f"{where}: {tensor} has shape {infos[tensor].shape} and type {infos[tensor].dtype}; it "
            "must be a matrix of floating-point numbers."
            for tensor in tensors.values()
            if len(infos[tensor].shape) != 2 or infos[tensor].dtype not in FLOAT_DTYPES
        )
    )
    problems.report()
    core = infos[tensors["Y"]].shape
    left, right = (infos[tensors[role]].shape if role in tensors else None for role in "LR")
    released = _is_released_core(tensors)
    if released:
        left, right = left and left[::-1], right and right[::-1]
    if described is None:
        if left is None or right is None:
            raise InputError(
                f"{where} is not described in {ADAPTER_CONFIG} (layers), and L and R are not "
                "stored: save the adapter again with this library."
            )
        described = {"size": [left[0], right[1]], "core": list(core), "key": name}
    described = check_description(
        f"{where}: its description in {ADAPTER_CONFIG} (layers)", described
    )
    (m, n), (a, b) = described["size"], described["core"]
    expected = {"Y": (core, (a, b)), "L": (left, (m, a)), "R": (right, (b, n))}
    problems.add(
        *(
            f"{where}: {tensors[role]} is {shape_text(shape)}, but {shape_text(wanted)} is "
            f"expected of {role} in a layer of {m} × {n} with a core of {a} × {b}."
            for role, (shape, wanted) in expected.items()
            if shape is not None and shape != wanted
        )
    )
    problems.report()
    prints = described["L"], described["R"]
    stored = tensors.get("L"), tensors.get("R")
    key, place = described["key"], tensors["Y"]
    return CosaRecord(
        name,
        m,
        n,
        a,
        b,
        alpha,
        key,
        place,
        *stored,
        prints,
        described["Y"],
        released,
        described["sketch"],
    )


def _is_released_core(tensors: Mapping[str, str]) -> bool:
    return tensors.get("Y", "").endswith(("lora_Y", "lora_Y.weight"))


def _refuse_released_without(found: Mapping[str, Mapping[str, str]], label: str) -> None:
    """Refuse layers of the released code without L or R, which cannot be mended here."""
    lacking = [
        name for name, tensors in found.items() if _is_released_core(tensors) and len(tensors) < 3
    ]
    if lacking:
        raise InputError(
            f"{label}: L and R are not in the file for {len(lacking)} of {len(found)} layers "
            f"({first_few(lacking, 3)}), and the released code draws them from a hash that Python "
            "salts anew in every process, so no seed brings them back: save the adapter there "
            "together with lora_L and lora_R."
        )


def check_description(where: str, described: Any) -> dict[str, Any]:
    """Return the description of a layer, as adapter_config.json has it, or refuse it."""
    if not isinstance(described, Mapping):
        raise refuse(where, described, "an object with key, size, core, L and R")
    read = read_fields(described, _DESCRIPTION, where)
    for role, k, d in zip("LR", read["core"], read["size"], strict=True):
        if k * d > _MOST_ENTRIES:
            raise refuse(f"{where}: {role}", f"{k} × {d}", f"at most {_MOST_ENTRIES:,} numbers")
    return read


def check_recipe(argument: str, value: Any) -> dict[str, int]:
    """Return how random tokens are drawn, as adapter_config.json has it, or refuse it."""
    if not isinstance(value, Mapping):
        raise refuse(argument, value, f"an object with {', '.join(_RECIPE)}")
    return read_fields(value, _RECIPE, argument)


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
