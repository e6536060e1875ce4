"""`cosa-theory recover`: an update from its core, with the certificate of the solver."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from cosa_theory.cli.app import Json, Seed, app, provenance_of
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import read_metadata
from cosa_theory.studies.recovery.tensors import (
    Projections,
    check_fingerprints,
    drawn_projections,
    read_matrix,
    stored_projections,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosa_theory.recovery import RecoveryProblem

__all__ = ["recover"]

_OPTIONS = (
    "sparsity",
    "lam",
    "lam_ratio",
    "objective",
    "omega",
    "tolerance",
    "max_iterations",
    "start",
)
"""Options of the methods that the command passes on; each method takes some of them."""


@app.command(
    short_help="Recover an update from its core, by any of the solvers.",
    epilog="Examples: cosa-theory recover core.safetensors:core --shape 4096 4096 --seed 0 --out "
    "recovered; cosa-theory recover core.npy --projections projections.safetensors --method omp "
    "--truth delta.npy",
)
def recover(
    core: Annotated[
        str,
        typer.Argument(
            metavar="FILE[:TENSOR]",
            help="The core (a × b) in a .npy or .safetensors file. Metadata fingerprint_L and "
            "fingerprint_R of the file, if there, must be those of the projections.",
        ),
    ],
    core_is: Annotated[
        Literal["measurements", "best"],
        typer.Option(
            help="What the core holds: the measurements Lᵀ ΔW Rᵀ, or the best core L⁺ ΔW R⁺."
        ),
    ] = "measurements",
    shape: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="M N", help="Sizes of ΔW; needed unless --projections has them."),
    ] = None,
    kind: Annotated[
        str | None, typer.Option(metavar="NAME", help="Ensemble of L and R. [default: gaussian]")
    ] = None,
    scale: Annotated[
        Literal["synthesis", "analysis"] | None,
        typer.Option(help="Scale of L and R. [default: synthesis, as CosaBasis.sample]"),
    ] = None,
    key: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="The layer's name, with which L and R were drawn."),
    ] = None,
    seed: Seed = 0,
    projections: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A .safetensors file with the tensors L (m × a) and R (b × n), in place of a "
            "draw; with metadata fingerprint_L and fingerprint_R it is checked.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The solver: fista, basis_pursuit, bpdn, omp, cosamp, iht, htp, amp, analysis, "
            "nuclear, reference, least_norm or best_core.",
        ),
    ] = "fista",
    basis: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Where ΔW is sparse: coordinate, dct, wavelet or singular."
        ),
    ] = "coordinate",
    weight: Annotated[
        str | None,
        typer.Option(metavar="FILE[:TENSOR]", help="W (m × n), for the basis singular."),
    ] = None,
    noise_level: Annotated[
        float, typer.Option(metavar="σ", help="Bound on the norm of the measurements' noise.")
    ] = 0.0,
    sparsity: Annotated[
        int | None, typer.Option(metavar="S", help="Nonzero coefficients sought.")
    ] = None,
    lam: Annotated[
        float | None, typer.Option(metavar="λ", help="Weight of ‖x‖₁ in ½‖Φx − y‖² + λ‖x‖₁.")
    ] = None,
    lam_ratio: Annotated[
        float | None, typer.Option(metavar="T", help="The same, as a share of ‖Φᵀy‖_∞.")
    ] = None,
    omega: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Ω of analysis: differences or dct+identity."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What reference minimises: bpdn, basis_pursuit, lasso, analysis or nuclear.",
        ),
    ] = None,
    tolerance: Annotated[
        float | None, typer.Option(metavar="T", help="Where the relative certificate holds.")
    ] = None,
    max_iterations: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Most iterations.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(metavar="FILE[:TENSOR]", help="An update (m × n) to start from."),
    ] = None,
    truth: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:TENSOR]",
            help="ΔW itself (m × n): only compared with the estimate, when that is there.",
        ),
    ] = None,
    dtype: Annotated[
        Literal["float32", "float64"], typer.Option(help="Type computed in.")
    ] = "float64",
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="A torch device such as cuda; numpy without it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for estimate.safetensors (tensors delta, core and, for sparse answers, "
            "debiased), tables, JSON, figures and report.html. Earlier results in it are "
            "replaced; an interrupted run resumes.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Recover an update ΔW from its core and the projections that measured it.

    The first line printed is the verdict: what was found, to which certificate, and whether theory
    lets it be the update that was measured.
    """
    settings = dict(locals())
    given = {name: settings[name] for name in _OPTIONS if settings[name] is not None}
    _check_method(method, basis, weight, device, given)
    _check_source(shape, projections, kind, scale, key, seed)
    from cosa_theory.cli.recovering import Run

    measured = read_matrix(core, "CORE")
    if not measured.any():
        raise InputError(
            f"{core} holds only zeros, which a zero update explains: there is nothing to recover"
        )
    factors = _factors(measured.shape, projections, shape, kind, seed, scale, key)
    notices = _check_core(core, factors)
    problem = _problem(settings, measured, factors)
    if start is not None:
        given["start"] = read_matrix(start, "--start", problem.update_shape)
    run = Run(problem, method, given, factors, settings, measured)
    made = provenance_of(settings, seed) | ({} if projections is None else {"seed": None})
    run.deliver(out, as_json, notices, made)


def _check_method(
    method: str, basis: str, weight: str | None, device: str | None, given: dict[str, Any]
) -> None:
    """Refuse names that do not exist, and options that the method would not look at."""
    from cosa_theory.recovery import BASES, METHODS, options_of
    from cosa_theory.recovery.analysis_operators import ANALYSES
    from cosa_theory.recovery.solvers.reference import OBJECTIVES

    if method not in METHODS:
        raise InputError(f"--method is {method!r}: choose one of {', '.join(METHODS)}")
    problems = []
    if basis not in BASES:
        problems.append(f"--basis is {basis!r}: choose one of {', '.join(BASES)}")
    elif basis == "singular" and weight is None:
        problems.append("--basis singular needs the weight of the layer: add --weight FILE:TENSOR")
    elif basis != "singular" and weight is not None:
        problems.append(
            f"--weight is used by --basis singular alone, and the basis is {basis}: leave --weight "
            "out, or name that basis"
        )
    if METHODS[method].on_update and basis in BASES[1:]:
        problems.append(
            f"--basis is {basis}, but {method} does not look for sparse coefficients: leave it out"
        )
    if {"lam", "lam_ratio"} <= set(given):
        problems.append("--lam and --lam-ratio are both given: choose one")
    taken = [_spelt(name) for name in _OPTIONS if name in options_of(method)]
    idle = [_spelt(name) for name in given if _spelt(name) not in taken]
    if idle:
        problems.append(
            f"{method} does not take {' or '.join(idle)}: it takes {', '.join(taken) or 'none'}"
        )
    problems += [
        f"{_spelt(name)} is {given[name]!r}: choose one of {', '.join(names)}"
        for name, names in (("omega", ANALYSES), ("objective", OBJECTIVES))
        if given.get(name, names[0]) not in names
    ]
    if device is not None and METHODS[method].arrays == "numpy":
        able = ", ".join(name for name, entry in METHODS.items() if entry.arrays == "any")
        problems.append(
            f"--device is {device}, but {method} computes with numpy: leave it out, or choose one "
            f"of {able}"
        )
    if problems:
        raise InputError(*problems)


def _spelt(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_source(
    shape: tuple[int, int] | None,
    projections: str | None,
    kind: str | None,
    scale: str | None,
    key: str | None,
    seed: int,
) -> None:
    """Refuse projections that are neither named nor drawn, or both."""
    from cosa_theory.projections import KINDS

    problems = []
    if shape is not None and min(shape) < 1:
        problems.append(f"--shape is {shape[0]} {shape[1]}: give two positive integers")
    if shape is None and projections is None:
        problems.append(
            "--shape is missing: give the sizes M N of the update, or --projections FILE with L "
            "and R"
        )
    drawn = {"--kind": kind, "--scale": scale, "--key": key, "--seed": seed or None}
    idle = [name for name, value in drawn.items() if value is not None]
    if projections is not None and idle:
        problems.append(
            f"{' and '.join(idle)} and --projections exclude each other: projections are drawn, or "
            "read from a file"
        )
    if kind is not None and kind not in KINDS:
        problems.append(f"--kind is {kind!r}: choose one of {', '.join(KINDS)}")
    if problems:
        raise InputError(*problems)


def _factors(
    core: tuple[int, int],
    projections: str | None,
    shape: tuple[int, int] | None,
    kind: str | None,
    seed: int,
    scale: str | None,
    key: str | None,
) -> Projections:
    if projections is not None or shape is None:
        return stored_projections(str(projections), core, shape)
    return drawn_projections(
        shape, core, kind=kind or "gaussian", seed=seed, scale=scale or "synthesis", key=key
    )


def _check_core(core: str, factors: Projections) -> tuple[str, ...]:
    """Compare the projections with what the core's file says of them."""
    if check_fingerprints(factors, read_metadata(core), core):
        return ()
    return (
        f"{core} does not name the fingerprints of its projections: whether those of "
        f"{factors.source} measured it cannot be checked",
    )


def _problem(
    settings: dict[str, Any], measured: "NDArray[Any]", factors: Projections
) -> "RecoveryProblem":
    """Read what else there is, and put it together."""
    from cosa_theory.recovery import RecoveryProblem

    basis, shape = factors.basis, (factors.basis.m, factors.basis.n)
    if settings["core_is"] == "best":  # L⁺ ΔW R⁺ spans the same update as the measurements do
        measured = basis.encode(basis.synthesize(measured))
    others = {}
    for name in ("weight", "truth"):
        spec = settings[name]
        others[name] = None if spec is None else read_matrix(spec, f"--{name}", shape)
    if others["truth"] is not None and not others["truth"].any():
        raise InputError(f"{settings['truth']} holds only zeros: no error is relative to that")
    return RecoveryProblem(
        basis.sensing(),
        _on_device(measured.astype(settings["dtype"]), settings["device"]),
        truth=others["truth"],
        noise_level=settings["noise_level"],
        basis=settings["basis"],
        weight=others["weight"],
    )


def _on_device(array: "NDArray[Any]", device: str | None) -> Any:
    """Return the measurements as a tensor there, if a device is named."""
    if device is None:
        return array
    import torch

    try:
        return torch.as_tensor(array).to(device)
    # What torch raises for a device differs with its build: not compiled in, no driver, no such.
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(
            f"--device is {device!r}, which torch cannot use here ({reason}): name another one, or "
            "leave it out for numpy"
        ) from error
