"""The adapter's folder on the torch side: what is written into it, and what is read back.

The format is that of Hugging Face PEFT: `adapter_model.safetensors` with the cores (and L and R if
asked for), `adapter_config.json` with the settings and, for every layer, its sizes, the key of its
draw and the fingerprints of both projections. Headers are read and checked by
`cosa_theory.deltas.cosa_adapters`, which needs no torch.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from cosa_theory.deltas.cosa_adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    WRAPPER,
    CosaFolder,
    core_digest,
)
from cosa_theory.deltas.layers import FLOAT_DTYPES
from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.swap import swapped
from cosa_theory.nn.card import cosa_section, write_card
from cosa_theory.nn.projection import FrozenProjection, IdentityProjection, frozen_projection
from cosa_theory.nn.settings import SHARED_KEY, LayerSpec
from cosa_theory.projections import ENSEMBLES, left_projection

__all__ = [
    "common_settings",
    "layer_entry",
    "layer_specs",
    "projection_tensors",
    "read_cores",
    "stored_sides",
    "whole_problems",
    "write_adapter",
    "write_cosa_card",
]

Value = TypeVar("Value")


def layer_entry(
    key: str,
    size: tuple[int, int],
    left: FrozenProjection,
    right: FrozenProjection,
    core: Tensor | None,
) -> dict[str, Any]:
    """Return what `layers` in adapter_config.json says of one layer.

    The key its projections were drawn for, size [m, n], core [a, b], the fingerprints L and R of
    the float32 draws, and Y of the core as it is stored, by which two files of different savings
    are told apart; none of a core that is not at hand.
    """
    here = core is not None and core.device.type != "meta" and not hasattr(core, "full_tensor")
    return {
        "key": key,
        "size": list(size),
        "core": [left.k, right.k],
        "L": left.fingerprint,
        "R": right.fingerprint,
        "Y": core_digest(_bytes_of(core)) if core is not None and here else None,
    }


def _bytes_of(values: Tensor) -> bytes:
    whole = values.detach().to("cpu").contiguous()
    return whole.flatten().view(torch.uint8).numpy().tobytes()


def projection_tensors(
    layers: Mapping[str, tuple[str, FrozenProjection | None, FrozenProjection | None]],
) -> dict[str, Tensor]:
    """Return the tensors that store L and R, at their true scale.

    From (key, left, right) by the module's name, with None for what is not stored: `NAME.cosa_L`
    (m × a) and `NAME.cosa_R` (b × n), behind PEFT's prefix. What several layers share is stored
    with the first of them, an identity nowhere. The type is float32, or bfloat16 where that holds
    values that no seed brings back.
    """
    tensors: dict[str, Tensor] = {}
    stored: set[tuple[str, str, int, int, str]] = set()
    for name, (key, left, right) in layers.items():
        for role, projection in (("L", left), ("R", right)):
            if projection is None or isinstance(projection, IdentityProjection):
                continue
            same = (key, role, projection.k, projection.d, projection.fingerprint)
            if same in stored:
                continue
            stored.add(same)
            values = _true_values(projection)
            values = values.mT if role == "L" else values
            half = values.to(torch.bfloat16)
            if projection.spec is None and torch.equal(half.float(), values):
                values = half
            tensors[f"{WRAPPER}{name}.cosa_{role}"] = values.contiguous()
    return tensors


def stored_sides(
    kinds: tuple[str, str], pair: tuple[FrozenProjection, FrozenProjection], everything: bool
) -> tuple[FrozenProjection | None, FrozenProjection | None]:
    """Return of a layer's Lᵀ and R, of these ensembles, what is stored: what was made from data.

    Or `everything`, for readers that cannot draw.
    """
    left, right = (
        one if everything or ENSEMBLES[kind].data_dependent else None
        for kind, one in zip(kinds, pair, strict=True)
    )
    return left, right


def _true_values(projection: FrozenProjection) -> Tensor:
    """Return A = factor · S, shape (k, d), in float32 on the CPU, without a dtype's rounding."""
    stored = projection.matrix()
    coarse = stored.dtype != torch.float32 or stored.device.type == "meta"
    if coarse and projection.spec is not None:
        stored = frozen_projection(projection.spec).matrix()
    return stored.to("cpu", torch.float32) * projection.factor


def common_settings(specs: Mapping[str, LayerSpec]) -> dict[str, Any]:
    """Return the settings that lead to these layers again, as adapter_config.json holds them.

    The commonest shape and alpha are the adapter's; other layers are listed as patterns. Raises
    InputError if the projections of the layers differ in seed, ensemble, options or scale: one
    folder has one of each.
    """
    drawn: dict[str, Any] = {}
    first = next(iter(specs))
    for setting in ("seed", "kind", "options", "scale", "left"):
        values = {name: _setting(spec, setting) for name, spec in specs.items()}
        drawn[setting] = values[first]
        others = [name for name, value in values.items() if value != drawn[setting]]
        if others:
            raise InputError(
                f"{setting} is {drawn[setting]!r} in {first} and {values[others[0]]!r} in "
                f"{others[0]}; an adapter's folder has one {setting} for all layers"
            )
    (a, b), shapes = _patterns({name: (spec.a, spec.b) for name, spec in specs.items()})
    alpha, alphas = _patterns({name: spec.alpha for name, spec in specs.items()})
    return {
        "a": a,
        "b": b,
        "alpha": alpha,
        **drawn,
        "options": dict(drawn["options"]),
        "share_projections": all(spec.key == SHARED_KEY for spec in specs.values()),
        "shape_pattern": {pattern: list(shape) for pattern, shape in shapes.items()},
        "alpha_pattern": alphas,
    }


def _setting(spec: LayerSpec, setting: str) -> Any:
    """Return a setting of the draws of a layer; `left` is the ensemble of L if it is its own."""
    if setting != "left":
        return getattr(spec.right, setting)
    usual, _ = left_projection(spec.right.kind, spec.a, spec.m, dict(spec.right.options))
    return None if spec.left.kind == usual else spec.left.kind


def _patterns(values: Mapping[str, Value]) -> tuple[Value, dict[str, Value]]:
    """Return the commonest value, and patterns for the names that have another one."""
    default = Counter(values.values()).most_common(1)[0][0]
    by_end: dict[str, set[Value]] = {}
    for name, value in values.items():
        by_end.setdefault(name.rpartition(".")[2], set()).add(value)
    patterns = {}
    for name, value in values.items():
        end = name.rpartition(".")[2]
        if value != default:
            uniform = len(by_end[end]) == 1
            patterns[re.escape(end) if uniform else f"^{re.escape(name)}"] = value
    return default, patterns


def write_adapter(
    folder: str | Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> None:
    """Write both files of an adapter's folder, or neither.

    An adapter in the folder is replaced; other files stay. A card is written beside it, or
    completed. An InputError if `folder` is a file.
    """
    folder = Path(folder)
    # Readers finish what a kill interrupts, whichever files are in their places by then.
    with swapped(folder) as new:
        save_file(dict(tensors), new / ADAPTER_WEIGHTS, metadata={"format": "pt"})
        text = json.dumps(settings, indent=2, sort_keys=True) + "\n"
        (new / ADAPTER_CONFIG).write_text(text, encoding="utf-8")
        write_cosa_card(folder, new, settings)


def write_cosa_card(folder: Path, new: Path, settings: Mapping[str, Any]) -> None:
    """Write the card of a CoSA adapter of `folder` into the folder `new`."""
    base = settings.get("base_model_name_or_path")
    write_card(folder, new, ("cosa", "peft"), base, cosa_section(settings))


def layer_specs(adapter: CosaFolder) -> dict[str, LayerSpec]:
    """Return the specification of every layer of an adapter, by its name in the base model."""
    settings = adapter.settings
    law = {name: settings[name] for name in ("kind", "seed", "scale")}
    law["left"] = settings.get("left")
    law["options"] = settings.get("options") or {}
    return {
        name: LayerSpec.of(name, (one.m, one.n), (one.a, one.b), one.alpha, one.key, **law)
        for name, one in adapter.layers.items()
    }


def read_cores(adapter: CosaFolder) -> dict[str, Tensor]:
    """Return the core of every layer, (a, b), by its name in the base model.

    An InputError names the layers whose core holds NaN or infinities.
    """
    cores = {name: adapter.core(name) for name in adapter.layers}
    bad = [name for name, core in cores.items() if not np.isfinite(core).all()]
    if bad:
        raise InputError(
            f"{adapter.label}: the core of {first_few(bad, 3)} holds NaN or infinite entries; the "
            "training diverged or the file is damaged: use an earlier checkpoint"
        )
    return {name: torch.from_numpy(core) for name, core in cores.items()}


def whole_problems(
    adapter: CosaFolder, wanted: Mapping[str, tuple[str | None, Tensor | None]]
) -> list[str]:
    """Say which of the tensors that replace a model's own are missing or no numbers.

    `wanted` gives, by the name in the model, the name in the file, if it is there, and what it
    replaces, if that is known.
    """
    problems = []
    for name, (tensor, own) in wanted.items():
        if tensor is None:
            problems.append(
                f"{adapter.label}: {name} is missing in {ADAPTER_WEIGHTS}, though modules_to_save "
                "names its module; save the adapter again, or take the module from modules_to_save"
            )
            continue
        dtype = adapter.stored.infos[tensor].dtype
        if dtype not in FLOAT_DTYPES:
            if own is not None and own.is_floating_point():
                problems.append(
                    f"{adapter.label}: {tensor} is of type {dtype}; it must be of a floating-point "
                    "type: save the adapter again"
                )
        elif np.isnan(adapter.stored.load(tensor)).any():
            problems.append(
                f"{adapter.label}: {tensor} holds NaN entries; the training diverged or the file "
                "is damaged: use an earlier checkpoint"
            )
    return problems
