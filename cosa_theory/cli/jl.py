"""`cosa-theory jl`: how many dimensions points need, and what each ensemble does to vectors."""

from dataclasses import replace
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
    Partial,
    Seed,
    app,
    check_out,
    deliver,
    interruptible,
    open_checked_pair,
    provenance_of,
)
from cosa_theory.ground.errors import Problems

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["jl"]

_OF_PAIRS = (
    *("include", "exclude", "on_shape", "on_nonfinite"),
    *("flatten", "allow_pickle", "partial"),
)
_NOTHING: tuple[Any, ...] = (None, [], False, "error")  # the defaults of these options


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
    partial: Partial = False,
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
    _check(settings)
    from cosa_theory.ground.progress import progress_bar
    from cosa_theory.studies.jl import compute
    from cosa_theory.studies.layers import coverage_of, cut_core_notices

    check_out(out, "jl", vectors, *(pair or ()))
    tables: dict[str, pd.DataFrame] = {}
    notices: tuple[str, ...] = ()
    opened, sets = None, {}
    if dim is not None:
        sets = compute.synthetic_sets(dim, count, seed)
    elif vectors is not None:
        sets = compute.file_rows(vectors, count, seed)
    elif pair is not None:
        opened = open_checked_pair(*pair, settings)
        with interruptible(), progress_bar("reading the updates"):
            sets, zero = compute.update_rows(opened, count, seed)
        notices = (*opened.report.notices, *zero)
    if points is not None:
        tables["dimension"] = compute.dimension_table(points, eps)
    shared: dict[str, Any] = {"draws": draws, "seed": seed}
    with interruptible():
        if sets:
            with progress_bar("ensembles") as advance:
                tables |= compute.compared(sets, eps, k=k, **shared, progress=advance)
        if opened is not None and core is not None:
            with progress_bar("matrices") as advance:
                tables["kronecker"] = compute.kronecker_table(
                    opened, core, kind=kind or "gaussian", **shared, progress=advance
                )
            asked = tables["kronecker"].assign(asked_a=core[0], asked_b=core[1])
            notices = (*notices, *cut_core_notices(asked))
    found = compute.jl_document(tables, notices, provenance_of(settings, seed))
    if opened is not None:
        found = replace(found, verdict=coverage_of(opened) + found.verdict)
    deliver(found, out, as_json)


def _check(given: dict[str, Any]) -> None:
    """Raise every problem of the options at once."""
    from cosa_theory.ground.checks import choice, pair, real
    from cosa_theory.projections import KINDS

    found = Problems()
    core, kind = given["core"], given["kind"]
    sources = [f"--{name}" for name in ("dim", "vectors", "pair") if given[name] is not None]
    with found:
        real("eps", given["eps"], above=0.0, below=1.0)
    if given["points"] is None and not sources:
        found.add("nothing to do: give --points N, --dim D, --vectors FILE or --pair")
    if len(sources) > 1:
        found.add(f"{' and '.join(sources)} exclude each other: choose where vectors come from")
    if core is not None and given["pair"] is None:
        found.add("--core needs --pair BASE TUNED: the law is tested on their updates")
    if given["k"] is not None and not sources:
        found.add("--k needs --dim, --vectors or --pair: without vectors nothing is projected")
    named = [f"--{name.replace('_', '-')}" for name in _OF_PAIRS if given[name] not in _NOTHING]
    if given["pair"] is None and named:
        needs = f"{' and '.join(named)} {'needs' if len(named) == 1 else 'need'}"
        found.add(f"{needs} --pair BASE TUNED: only its matrices are chosen and read so")
    with found:
        if core is not None:
            pair("core", core)
    with found:
        if kind is not None and choice("kind", kind, KINDS) and core is None:
            found.add("--kind needs --core A B: without it all ensembles are compared")
    found.report()
