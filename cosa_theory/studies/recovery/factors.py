"""The projections of a core, in safetensors files: how they are read and checked.

A core's file, or the file of its projections, may say in its metadata which projections measured
it, under ``fingerprint_L`` and ``fingerprint_R``. Each is either
`cosa_theory.projections.draw_fingerprint` of the a × m projection whose transpose is L (of the
b × n projection R), or `cosa_theory.projections.fingerprint` of the factor itself. What does not
match is refused, because a core decoded with other projections gives some update, and a wrong one.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cosa_theory.ground.array_files import split_spec
from cosa_theory.ground.checks import matrix
from cosa_theory.ground.errors import InputError, Problems

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosa_theory.linear.basis import CosaBasis
    from cosa_theory.projections import SecondMoments

__all__ = [
    "FINGERPRINTS",
    "Factors",
    "check_fingerprints",
    "drawn_factors",
    "read_layer_moments",
    "read_matrix",
    "stored_factors",
]

FINGERPRINTS = ("fingerprint_L", "fingerprint_R")
"""The names in a file's metadata."""


@dataclass(frozen=True)
class Factors:
    """The factors that measured a core, with what identifies them.

    The `fingerprints` of L and R are those that an estimate's metadata will name; `accepted` are,
    for each, the two of the draw and of the content that may stand in a file's metadata.
    """

    basis: "CosaBasis"  # L (m × a) and R (b × n)
    fingerprints: tuple[str, str]
    accepted: tuple[tuple[str, str], tuple[str, str]]
    source: str  # for messages: a file, or the settings of a draw
    draw: Mapping[str, Any] = field(default_factory=dict)  # its settings; none for a file


def drawn_factors(
    shape: tuple[int, int],
    core: tuple[int, int],
    *,
    kind: str,
    seed: int,
    scale: str,
    key: str | None,
) -> Factors:
    """Draw L and R for an update and a core of given sizes, as `CosaBasis.sample` does.

    `key` is the layer's name; None for the empty key. Refuses sizes of which the ensemble has no
    projection.
    """
    from cosa_theory.linear.basis import CosaBasis
    from cosa_theory.projections import draw_fingerprint, fingerprint

    (m, n), (a, b) = shape, core
    parts: tuple[str, ...] = () if key is None else (key,)
    settings: dict[str, Any] = {"seed": seed, "scale": scale}
    try:
        basis = CosaBasis.sample(m, n, a, b, kind=kind, key=parts, **settings)
        draws = (
            draw_fingerprint(kind, a, m, key=(*parts, "L"), **settings),
            draw_fingerprint(kind, b, n, key=(*parts, "R"), **settings),
        )
    except ValueError as error:
        raise InputError(
            f"{kind} projections of a {m} × {n} update to a {a} × {b} core cannot be drawn: {error}"
        ) from error
    named = "" if key is None else f" --key {key}"
    return Factors(
        basis,
        draws,
        ((draws[0], fingerprint(basis.L)), (draws[1], fingerprint(basis.R))),
        f"--kind {kind} --scale {scale} --seed {seed}{named}",
        {"kind": kind, "scale": scale, "seed": seed, "key": key or ""},
    )


def stored_factors(path: str, core: tuple[int, int], shape: tuple[int, int] | None) -> Factors:
    """Read the tensors L (m × a) and R (b × n) of a safetensors file, for a core (a, b).

    Refuses a file or a tensor that is missing, is no matrix of finite numbers, is not for the core
    or the update of the `shape` given, or does not match the fingerprint in the file's metadata.
    """
    from cosa_theory.ground.tensor_files import read_metadata
    from cosa_theory.linear.basis import CosaBasis
    from cosa_theory.projections import fingerprint

    if not path.endswith(".safetensors"):
        raise InputError(
            f"--projections is {path}: give a .safetensors file with the tensors L and R"
        )
    L, R = (read_matrix(_named(path, name), "--projections") for name in ("L", "R"))
    (m, a), (b, n) = L.shape, R.shape
    problems = Problems()
    for name, found, side, wanted in (("L", a, "columns", core[0]), ("R", b, "rows", core[1])):
        if found != wanted:
            problems.add(
                f"{path}: tensor {name!r} has {found} {side}, the core of {core[0]} × {core[1]} "
                f"needs {wanted}: L is m × a and R is b × n"
            )
    if shape is not None and (m, n) != shape:
        problems.add(
            f"{path}: L ({m} × {a}) and R ({b} × {n}) are for updates of {m} × {n}, --shape is "
            f"{shape[0]} {shape[1]}: leave it out or correct it"
        )
    problems.report()
    of_L, of_R = (fingerprint(L), fingerprint(L.T)), (fingerprint(R), fingerprint(R.T))
    read = Factors(CosaBasis(L, R), (of_L[0], of_R[0]), (of_L, of_R), path)
    check_fingerprints(read, read_metadata(path), path)
    return read


def _named(path: str, tensor: str) -> str:
    """Return FILE:TENSOR; for a file that is not there the file alone, so that it is missed."""
    return f"{path}:{tensor}" if os.path.isfile(path) else path


def read_matrix(spec: str, option: str, shape: tuple[int, int] | None = None) -> "NDArray[Any]":
    """Read a matrix of finite real numbers, in the type in which it is stored.

    Refuses a FILE or FILE:TENSOR, which `option` asks for, that is none or has another `shape`.
    """
    from cosa_theory.ground.array_files import read_array

    array = read_array(spec, option)
    matrix(spec, array, shape)
    return array


def read_layer_moments(spec: str, key: str | None) -> "SecondMoments":
    """Read the moments of one layer's inputs from FILE:LAYER, or from FILE for the layer `key`.

    The layer is named as the module or as its weight, and need not be where the file holds one.
    """
    from cosa_theory.deltas.matching import first_few
    from cosa_theory.nn.moments import read_moments

    path, layer = split_spec(spec)
    held = read_moments(path).inputs
    layer = key if layer is None else layer
    if layer is None and len(held) == 1:
        return next(iter(held.values()))
    for name in (f"{layer}", f"{layer}.weight"):
        if name in held:
            return held[name]
    asked = "names no layer" if layer is None else f"names {layer}, of which {path} holds none"
    raise InputError(
        f"moments is {spec}, which {asked}: give FILE:LAYER, of {first_few(list(held), 3)}",
        argument="moments",
    )


def check_fingerprints(factors: Factors, metadata: Mapping[str, str], path: str) -> bool:
    """Refuse factors that are not those whose fingerprints a file's metadata name.

    Returns whether the file names both projections; what it does not name cannot be checked. The
    `InputError` has one sentence for each factor that does not match.
    """
    problems = Problems()
    for name, accepted in zip(FINGERPRINTS, factors.accepted, strict=True):
        stored = metadata.get(name)
        if stored is not None and stored not in accepted:
            factor = name[-1]
            problems.add(
                f"{path} says it belongs to a projection {factor} with fingerprint {stored}, but "
                f"{factor} of {factors.source} has {accepted[0]}: give the projections that "
                f"measured the core{_recorded(metadata)}"
            )
    problems.report()
    return all(name in metadata for name in FINGERPRINTS)


def _recorded(metadata: Mapping[str, str]) -> str:
    """Return the settings of a draw that a file's metadata name, as options."""
    known = [f"--{name} {metadata[name]}" for name in ("kind", "scale", "seed", "key")
             if metadata.get(name)]  # fmt: skip
    return f" (its metadata name {' '.join(known)})" if known else ""
