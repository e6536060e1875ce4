"""`cosa-theory spectrum`: two checkpoints side by side, low rank against CoSA."""

from typing import Annotated, Literal

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
    provenance_of,
    resumable,
    whole_numbers,
)
from cosa_theory.ground.program import note

__all__ = ["spectrum"]


def _families(text: str | None) -> list[str] | None:
    """Read "truncated_svd,cosa_haar", "all" or "none"; None stands for those of a survey."""
    if text is None:
        return None
    if text == "all":
        from cosa_theory.spectrum import FAMILIES

        return list(FAMILIES)
    return [] if text == "none" else [part.strip() for part in text.split(",")]


@app.command(
    short_help="Compare two checkpoints: spectra of the update, low rank against CoSA.",
    epilog="Example: cosa-theory spectrum base.safetensors tuned.safetensors --out pair",
)
def spectrum(
    base: BaseArgument,
    tuned: TunedArgument,
    out: ResumingOut = None,
    as_json: Json = False,
    include: Include = None,
    exclude: Exclude = None,
    ranks: Annotated[
        str | None,
        typer.Option(
            metavar="R,R,...",
            help="Budgets, as ranks of a LoRA with as many parameters. [default: 4,8,16, or less "
            "for small matrices]",
        ),
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Update families to measure, or none for spectra and crossover only. "
            "[default: low rank, LoRA-XS and all cores; all: every family there is]",
        ),
    ] = None,
    draws: FamilyDraws = 20,
    seed: Seed = 0,
    matrices: Annotated[
        Literal["all", "delta"],
        typer.Option(help="Whose singular values to list: base, tuned and update, or the update."),
    ] = "all",
    moments: KnownMoments = None,
    on_shape: OnShape = "error",
    on_nonfinite: OnNonfinite = "error",
    flatten: Flatten = False,
    allow_pickle: AllowPickle = False,
    partial: Partial = False,
    threads: Threads = None,
    dask: Dask = None,
    device: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Torch device for the singular values, such as cuda. [default: numpy]",
        ),
    ] = None,
) -> None:
    """Compare two checkpoints: the spectrum of every update, and what low rank and CoSA can hold.

    The first line printed is the verdict. The singular values are in spectra.parquet of --out.
    """
    settings = dict(locals())
    from cosa_theory.ground.checks import torch_device
    from cosa_theory.studies.spectrum.pair import MATRICES, survey_pair

    budgets = None if ranks is None else whole_numbers("--ranks", ranks, "4,8,16")
    chosen = _families(families)
    torch_device("device", device)
    check_out(out, "spectrum", base, tuned, moments)
    pair = open_checked_pair(base, tuned, settings)
    for notice in pair.report.notices:
        note(f"note: {notice}")
    survey = resumable(
        survey_pair,
        pair,
        given=settings,
        ranks=budgets,
        families=chosen,
        draws=draws,
        seed=seed,
        matrices=MATRICES if matrices == "all" else ("delta",),
        moments=moments,
        device=device,
    )
    found = survey.document(provenance_of(settings, seed))
    deliver(found, out, as_json, noted=pair.report.notices)
