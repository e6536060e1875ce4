"""`cosa-theory jl`: how many dimensions points need, and what each ensemble does to vectors."""

import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cosa_theory.cli.app import (
    AllowPickle,
    Exclude,
    Flatten,
    Include,
    Json,
    OnNonfinite,
    OnShape,
    Out,
    Seed,
    app,
    check_out,
    deliver,
    open_checked_pair,
    provenance_of,
)
from cosa_theory.cli.interruption import interruptible
from cosa_theory.ground.errors import InputError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from cosa_theory.deltas import DeltaPair

__all__ = ["jl"]

VARIANCE_DRAWS = 200
"""The fewest draws from which a variance is estimated: its standard error is then about 10 %."""


@app.command(
    short_help="Johnson-Lindenstrauss: dimensions that points need, distortion by ensemble.",
    epilog="Examples: cosa-theory jl --points 10000 --eps 0.1; cosa-theory jl --dim 4096 --eps "
    "0.2; cosa-theory jl --pair base.safetensors tuned.safetensors --core 96 48 --out jl",
)
def jl(
    points: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=2**63 - 1,
            metavar="N",
            help="Number of points: print the dimension they need.",
        ),
    ] = None,
    eps: Annotated[
        float, typer.Option(metavar="E", help="Distortion of squared norms, between 0 and 1.")
    ] = 0.1,
    dim: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="D", help="Compare ensembles on Gaussian vectors and spikes this long."
        ),
    ] = None,
    vectors: Annotated[
        str | None,
        typer.Option(
            metavar="FILE[:TENSOR]",
            help="Compare ensembles on the rows of an array in a .npy or .safetensors file.",
        ),
    ] = None,
    pair: Annotated[
        tuple[str, str] | None,
        typer.Option(
            metavar="BASE TUNED", help="Compare ensembles on rows of the updates of two models."
        ),
    ] = None,
    k: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="K",
            help="Rows of the projections compared. [default: what a Gaussian one needs to keep a "
            "vector within E with probability 95 %]",
        ),
    ] = None,
    core: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="A B", help="With --pair: test the Kronecker variance law for this core."
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="With --core: ensemble of the Kronecker factors. [default: gaussian]",
        ),
    ] = None,
    include: Include = None,
    exclude: Exclude = None,
    on_shape: OnShape = "error",
    on_nonfinite: OnNonfinite = "error",
    flatten: Flatten = False,
    allow_pickle: AllowPickle = False,
    count: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most vectors used, drawn at random.")
    ] = 256,
    draws: Annotated[
        int, typer.Option(min=2, metavar="N", help="Independent draws of every projection.")
    ] = 20,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Say how many dimensions points need, and which ensemble is the cheapest for a distortion.

    The first line printed is the verdict.
    """
    settings = dict(locals())
    _check(points, eps, dim, vectors, pair, core, kind)
    if pair is None and (include or exclude):
        raise InputError("--include and --exclude need --pair BASE TUNED: they choose its matrices")
    from cosa_theory.ground.progress import progress_bar
    from cosa_theory.page.document import Document
    from cosa_theory.studies.jl.views import jl_verdict

    check_out(out)
    opened = None
    if pair is not None:
        opened = open_checked_pair(
            *pair,
            include=include,
            exclude=exclude,
            on_shape=on_shape,
            on_nonfinite=on_nonfinite,
            flatten=flatten,
            allow_pickle=allow_pickle,
        )
    sets = _vectors(dim, vectors, opened, count, seed)
    tables: dict[str, pd.DataFrame] = {}
    if points is not None:
        tables["dimension"] = _dimension(points, eps)
    notices: tuple[str, ...] = ()
    if opened is not None:
        notices = tuple(opened.report.notices)
    with interruptible():
        if sets:
            with progress_bar("ensembles") as advance:
                tables |= _compare(sets, k, eps, draws, seed, advance)
            notices += _left_out(tables["ensembles"])
        if opened is not None and core is not None:
            with progress_bar("matrices") as advance:
                factors = kind or "gaussian"
                tables["kronecker"] = _kronecker(opened, core, factors, draws, seed, advance)
    made = provenance_of(settings, seed)
    deliver(Document("jl", jl_verdict(tables), notices, tables, made), out, as_json)


def _check(
    points: int | None,
    eps: float,
    dim: int | None,
    vectors: str | None,
    pair: tuple[str, str] | None,
    core: tuple[int, int] | None,
    kind: str | None,
) -> None:
    from cosa_theory.projections import KINDS

    problems = []
    sources = {"--dim": dim, "--vectors": vectors, "--pair": pair}
    given = [name for name, value in sources.items() if value is not None]
    if not 0 < eps < 1:
        problems.append(f"--eps is {eps:g}: it must lie strictly between 0 and 1, as in --eps 0.1")
    if points is None and not given:
        problems.append("nothing to do: give --points N, --dim D, --vectors FILE or --pair")
    if len(given) > 1:
        problems.append(f"{' and '.join(given)} exclude each other: choose where vectors come from")
    if core is not None and pair is None:
        problems.append("--core needs --pair BASE TUNED: the law is tested on their updates")
    if core is not None and min(core) < 1:
        problems.append(f"--core is {core[0]} {core[1]}: give two positive integers")
    if kind is not None and kind not in KINDS:
        problems.append(f"--kind is {kind!r}: choose one of {', '.join(KINDS)}")
    elif kind is not None and core is None:
        problems.append("--kind needs --core A B: without it all ensembles are compared")
    if problems:
        raise InputError(*problems)


def _vectors(
    dim: int | None,
    vectors: str | None,
    pair: "DeltaPair | None",
    count: int,
    seed: int,
) -> dict[str, "NDArray[Any]"]:
    """Return the sets of vectors by name."""
    from cosa_theory.isometry.vectors import sample_rows, synthetic_vectors

    if dim is not None:
        names = {"gaussian": "Gaussian vectors", "spike": "spikes"}
        return {
            label: synthetic_vectors(name, count, dim, seed=seed) for name, label in names.items()
        }
    if vectors is not None:
        rows = _read_rows(vectors)
        try:
            return {f"rows of {Path(vectors).name}": sample_rows([rows], count, seed=seed)}
        except ValueError as error:
            raise InputError(
                f"{vectors}: every row is zero, there is nothing to project"
            ) from error
    if pair is None:
        return {}
    try:
        rows = sample_rows((layer.delta for layer in pair), count, seed=seed)
    except InputError as error:
        if error.argument != "matrices":  # such as NaN in one of them
            raise
        raise InputError(
            "--pair: the matrices that were read do not differ: there is no update"
        ) from error
    return {"rows of ΔW": rows}


def _read_rows(spec: str) -> "NDArray[Any]":
    from cosa_theory.ground.tensor_files import read_array
    from cosa_theory.isometry.jl import as_vectors

    array = read_array(spec, "--vectors")
    try:
        return as_vectors(array)
    except ValueError as error:
        raise InputError(f"{spec}: {error}") from error


def _dimension(points: int, eps: float) -> "pd.DataFrame":
    import pandas as pd

    from cosa_theory.isometry.jl import jl_min_dim

    k = jl_min_dim(points, eps)
    if k >= 2**63:
        raise InputError(f"--eps is {eps:g}: {points} points need over 2⁶³ dimensions, raise it")
    return pd.DataFrame([{"points": points, "eps": eps, "k": k}])


def _compare(
    sets: dict[str, "NDArray[Any]"],
    k: int | None,
    eps: float,
    draws: int,
    seed: int,
    advance: Callable[[int, int, str], None],
) -> dict[str, "pd.DataFrame"]:
    """Compare all ensembles on every set of vectors: at one k, and at the k each needs."""
    import numpy as np
    import pandas as pd

    from cosa_theory.isometry.jl_costs import chi_square_dimension, jl_ensembles, needed_dimensions
    from cosa_theory.projections import KINDS

    parts: dict[str, list[pd.DataFrame]] = {"ensembles": [], "curves": []}
    done, total = 0, 2 * len(sets) * len(KINDS)

    def finished(steps: int, name: str) -> None:
        nonlocal done
        done += steps
        advance(done, total, name)

    for name, vectors in sets.items():
        d = vectors.shape[1]
        rows = k or min(chi_square_dimension(eps), d)
        compared = jl_ensembles(rows, vectors, eps=eps, draws=draws, seed=seed)
        finished(len(KINDS), name)
        levels = np.linspace(0, 4 * math.sqrt(2 / rows), 41)[1:]
        parts["ensembles"].append(compared.table.assign(vectors_of=name))
        parts["curves"].append(compared.failure_curves(levels).assign(k=rows, d=d, vectors_of=name))
    needed = needed_dimensions(sets, eps, draws=draws, seed=seed, progress=partial(finished, 1))
    joined = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    return {"needed": needed, **joined}


def _left_out(ensembles: "pd.DataFrame") -> tuple[str, ...]:
    """Say which ensembles cannot have so many rows."""
    from cosa_theory.projections import KINDS

    missing = [kind for kind in KINDS if kind not in set(ensembles["kind"])]
    k, d = ensembles["k"].iloc[0], ensembles["d"].iloc[0]
    why = f"cannot have {k} rows where d = {d}: left out of the comparison at that k."
    return (f"{', '.join(missing)} {why}",) if missing else ()


def _kronecker(
    pair: "DeltaPair",
    core: tuple[int, int],
    kind: str,
    draws: int,
    seed: int,
    advance: Callable[[int, int, str], None],
) -> "pd.DataFrame":
    """Measure the variance of ‖A ΔW Bᵀ‖² for every matrix that is not zero."""
    import pandas as pd

    from cosa_theory.isometry.jl_curves import kronecker_variance

    rows: list[dict[str, Any]] = []
    for done, layer in enumerate(pair, 1):
        m, n = layer.shape
        # The core of a smaller matrix is cut to it, as everywhere in this package.
        a, b = min(core[0], m), min(core[1], n)
        if layer.delta.any():
            found = kronecker_variance(
                kind,
                a,
                b,
                layer.delta,
                draws=max(draws, VARIANCE_DRAWS),
                seed=seed,
                key=(layer.name,),
            )
            moments, measured = found.moments, found.measured
            rows.append(
                {
                    "layer": layer.name,
                    "m": m,
                    "n": n,
                    "kind": kind,
                    "a": a,
                    "b": b,
                    "participation_ratio": moments.participation_ratio,
                    "variance": measured.value,
                    "ci_low": measured.low,
                    "ci_high": measured.high,
                    "law": found.law,
                    "unstructured": found.unstructured,
                    "draws": found.ratios.size,
                }
            )
        advance(done, len(pair), layer.name)
    return pd.DataFrame(rows)
