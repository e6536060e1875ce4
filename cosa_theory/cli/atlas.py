"""`cosa-theory atlas`: what every family of updates can express of a real one."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial as with_arguments
from pathlib import Path
from typing import Annotated, Any

import typer

from cosa_theory.cli.app import (
    AllowPickle,
    BaseArgument,
    Dask,
    Exclude,
    FamilyDraws,
    Flatten,
    Include,
    Json,
    KnownMoments,
    OnNonfinite,
    OnShape,
    Partial,
    ResumingOut,
    Seed,
    Threads,
    TunedArgument,
    app,
    check_out,
    deliver,
    open_checked_pair,
    opening_of,
    provenance_of,
    resumable,
)
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.program import note

__all__ = ["atlas"]


def _budgets(text: str) -> list[int]:
    """Read "1e4,1e5" as whole numbers."""
    try:
        values = [float(part) for part in text.split(",")]
        found = [int(value) for value in values]
    except (ValueError, OverflowError):
        found, values = [], []
    if not found or found != values or min(found) < 1:
        raise InputError(
            f"--budgets is {text!r}: give whole numbers of parameters, as in --budgets 1e4,1e5,1e6"
        )
    return found


def _function(texts: Path, given: Mapping[str, Any]) -> Callable[..., Any]:
    """Return what measures the function of approximations on texts of a file."""
    from cosa_theory.ground.texts import read_texts
    from cosa_theory.studies.function.pair import function_pair
    from cosa_theory.studies.function.texts import FEWEST

    read = with_arguments(read_texts, most=given["most_texts"], least=FEWEST)(texts)

    def measure(approximations: Sequence[Any]) -> Any:
        return resumable(
            function_pair,
            given["base"],
            given["tuned"],
            given={"out": given["out"], "threads": given["threads"]},
            parts="families in the model",
            general=read,  # one set of texts, of whatever kind
            approximations=approximations,
            seed=given["seed"],
            max_tokens=given["max_tokens"],
            **opening_of(given),
        ).function

    return measure


@app.command(
    short_help="What each family of updates can express, per parameter and per bit.",
    epilog="Example: cosa-theory atlas base.safetensors tuned.safetensors --budgets 1e4,1e5,1e6 "
    "--out atlas",
)
def atlas(
    base: BaseArgument,
    tuned: TunedArgument,
    out: ResumingOut = None,
    as_json: Json = False,
    include: Include = None,
    exclude: Exclude = None,
    budgets: Annotated[
        str,
        typer.Option(metavar="P,P,...", help="Trainable parameters of the whole model."),
    ] = "1e4,1e5,1e6",
    families: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Families to measure. [default: every one]"),
    ] = None,
    draws: FamilyDraws = 4,
    seed: Seed = 0,
    moments: KnownMoments = None,
    gradients: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Gradient of the first training step (safetensors, under the names of the "
            "weights): adds the mask of its largest entries.",
        ),
    ] = None,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Texts of the fine-tuning's domain, one on a line: what each family returns of "
            "the model's function is measured too, which takes a model of transformers.",
        ),
    ] = None,
    most_texts: Annotated[
        int, typer.Option(min=8, metavar="N", help="Most texts: time grows with them.")
    ] = 32,
    max_tokens: Annotated[
        int, typer.Option(min=4, metavar="N", help="Longer texts are cut.")
    ] = 128,
    on_shape: OnShape = "error",
    on_nonfinite: OnNonfinite = "error",
    flatten: Flatten = False,
    allow_pickle: AllowPickle = False,
    partial: Partial = False,
    threads: Threads = None,
    dask: Dask = None,
) -> None:
    """Compare every family of updates on a real one: the share of its energy each can express.

    The first line printed says which to choose and by how much. Budgets are of the whole model.
    """
    settings = dict(locals())
    from cosa_theory.studies.atlas.pair import atlas_pair

    totals = _budgets(budgets)
    chosen = None if families is None else [part.strip() for part in families.split(",")]
    check_out(out, "atlas", base, tuned, moments, gradients, texts)
    pair = open_checked_pair(base, tuned, settings)
    function = None if texts is None else _function(texts, settings)
    for notice in pair.report.notices:
        note(f"note: {notice}")
    found = resumable(
        atlas_pair,
        pair,
        given=settings,
        budgets=totals,
        families=chosen,
        draws=draws,
        seed=seed,
        moments=moments,
        gradients=gradients,
        function=function,
    )
    document = found.document(provenance_of(settings, seed))
    deliver(document, out, as_json, noted=pair.report.notices)
