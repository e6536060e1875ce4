"""What is asked of a recovery: options checked, files read, the problem put together."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cosa_theory.ground.checks import choice, pair, refuse, torch_device
from cosa_theory.ground.errors import InputError, Problems
from cosa_theory.studies.recovery.compute import Recovery
from cosa_theory.studies.recovery.factors import (
    Factors,
    check_fingerprints,
    drawn_factors,
    read_layer_moments,
    read_matrix,
    stored_factors,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cosa_theory.recovery import RecoveryProblem

__all__ = ["asked"]

_OPTIONS = (
    *("sparsity", "lam", "lam_ratio", "objective", "omega"),
    *("tolerance", "max_iterations", "start", "moments"),
)  # of the methods, that the command passes on; each method takes some of them


def asked(settings: Mapping[str, Any]) -> Recovery:
    """Check what is asked for, read what it needs, and put the problem together.

    The settings are the arguments of the command `cosa-theory recover`, by name. An `InputError`
    refuses names that do not exist, options that the method would not look at, projections that
    are neither named nor drawn or both, and files that are not what they should be.
    """
    from cosa_theory.recovery import default_method

    given = {name: settings[name] for name in _OPTIONS if settings[name] is not None}
    _check_method(settings, given)
    _check_source(settings)
    core = settings["core"]
    measured = read_matrix(core, "CORE")
    if not measured.any():
        raise InputError(
            f"{core} holds only zeros, which a zero update explains: there is nothing to recover"
        )
    factors = _factors(settings, measured.shape)
    notices = _unchecked(core, factors)
    problem = _problem(settings, measured, factors)
    if "start" in given:
        given["start"] = read_matrix(given["start"], "--start", problem.update_shape)
    if "moments" in given:
        given["moments"] = read_layer_moments(given["moments"], settings["key"])
    if settings["method"] is None:
        settings = {**settings, "method": default_method(problem, given)}
    return Recovery(problem, given, factors, settings, measured, notices)


def _check_method(settings: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse names that do not exist, and options that the method would not look at."""
    from cosa_theory.recovery import BASES, METHODS
    from cosa_theory.recovery.analysis_operators import ANALYSES

    name, basis, device = (settings[one] for one in ("method", "basis", "device"))
    name = "fista" if name is None else name  # takes all that either default does
    method = METHODS[choice("method", name, METHODS)]
    problems = Problems()
    with problems:
        choice("basis", basis, BASES)
        if method.on_update and basis != "coordinate":
            must = f"left out, because {name} does not look for sparse coefficients"
            raise refuse("basis", basis, must)
    with problems:
        if (basis == "singular") != (settings["weight"] is not None):
            state = "given" if settings["weight"] else "missing"
            must = "there for --basis singular, and only for that: FILE:TENSOR of the same layer"
            text = f"weight is {state} and the basis is {basis}: it must be {must}"
            raise InputError(text, argument="weight")
    taken = [f"--{one.replace('_', '-')}" for one in _OPTIONS if one in method.options]
    for one in given:
        with problems:
            if one not in method.options:
                must = f"left out, because {name} takes {', '.join(taken) or 'no options'}"
                raise refuse(one, given[one], must)
    with problems:
        if {"lam", "lam_ratio"} <= given.keys():
            raise refuse("lam", given["lam"], "left out with --lam-ratio, which sets λ too")
    with problems:
        choice("omega", given.get("omega", ANALYSES[0]), ANALYSES)
    with problems:
        if device is not None and method.arrays == "numpy":
            able = ", ".join(one for one, entry in METHODS.items() if entry.arrays == "any")
            must = f"left out, because {name} computes with numpy, or the method one of {able}"
            raise refuse("device", device, must)
    problems.report()


def _check_source(settings: Mapping[str, Any]) -> None:
    """Refuse projections that are neither named nor drawn, or both."""
    from cosa_theory.projections import KINDS

    shape, projections, kind = (settings[one] for one in ("shape", "projections", "kind"))
    problems = Problems()
    with problems:
        if shape is not None:
            pair("shape", shape)
        elif projections is None:
            must = "the sizes M N of the update, unless --projections FILE has L and R"
            raise InputError(f"shape is missing: it must be {must}", argument="shape")
    drawn = {one: settings[one] or None for one in ("kind", "scale", "key", "seed")}
    for one, value in drawn.items():
        with problems:
            if projections is not None and value is not None:
                must = "left out with --projections: projections are drawn, or read from a file"
                raise refuse(one, value, must)
    with problems:
        if kind is not None:
            choice("kind", kind, KINDS)
    problems.report()


def _factors(settings: Mapping[str, Any], core: tuple[int, int]) -> Factors:
    shape = settings["shape"]
    if settings["projections"] is not None:
        return stored_factors(settings["projections"], core, shape)
    return drawn_factors(
        shape,
        core,
        kind=settings["kind"] or "gaussian",
        seed=settings["seed"],
        scale=settings["scale"] or "synthesis",
        key=settings["key"],
    )


def _unchecked(core: str, factors: Factors) -> tuple[str, ...]:
    """Compare the projections with what the core's file says of them."""
    from cosa_theory.ground.array_files import read_array_metadata

    if check_fingerprints(factors, read_array_metadata(core), core):
        return ()
    return (
        f"{core} does not name the fingerprints of its projections: whether those of "
        f"{factors.source} measured it cannot be checked",
    )


def _problem(
    settings: Mapping[str, Any], measured: "NDArray[Any]", factors: Factors
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
    if torch_device("device", device, array.dtype.name) is None:
        return array
    import torch

    return torch.as_tensor(array).to(device)
