"""`cosa-theory audit`: which assumptions of the theory a real update meets."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from cosa_theory.cli.app import (
    AllowPickle,
    BaseArgument,
    Dask,
    Exclude,
    Flatten,
    Include,
    Json,
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
from cosa_theory.ground.errors import InputError

__all__ = ["audit"]


def _core(text: str | None) -> tuple[int, int] | None:
    """Read "1024,256"; None leaves the core to each layer's shape."""
    if text is None:
        return None
    sizes = whole_numbers("--core", text, "1024,256")
    if len(sizes) != 2:
        raise InputError(f"--core is {text!r}: give two sizes a,b as in --core 1024,256")
    return sizes[0], sizes[1]


def _gradients(
    file: Path | None,
    model: str | None,
    data: Path | None,
    batch: int | None,
    tokens: int | None,
    seed: int,
) -> Any:
    """Return the gradients to audit, from a file or from a model and its first texts."""
    if file is not None and (model is not None or data is not None):
        raise InputError("--gradients and --model with --data are two sources: give one of them")
    if (model is None) != (data is None):
        missing = "--data FILE" if data is None else "--model FOLDER"
        raise InputError(f"--model and --data belong together: add {missing}")
    if model is None or data is None:
        for option, value in (("--batch", batch), ("--max-tokens", tokens)):
            if value is not None:
                raise InputError(f"{option} is about the texts of --model and --data: give both")
        return file
    from cosa_theory.deltas.texts import text_gradients
    from cosa_theory.ground.progress import progress_bar

    given = {"batch": batch, "max_tokens": tokens}
    chosen = {name: value for name, value in given.items() if value is not None}
    with progress_bar("gradients of the model"):
        return text_gradients(model, data, seed=seed, **chosen)


@app.command(
    short_help="Judge the theory's assumptions on a real update, layer by layer.",
    epilog="Example: cosa-theory audit base.safetensors tuned.safetensors --out audit",
)
def audit(
    base: BaseArgument,
    tuned: TunedArgument,
    out: ResumingOut = None,
    as_json: Json = False,
    include: Include = None,
    exclude: Exclude = None,
    core: Annotated[
        str | None,
        typer.Option(
            metavar="A,B",
            help="Rows and columns of the core, for every matrix. [default: per matrix, with the "
            "parameters of a LoRA of --rank]",
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="R", help="Budget of the core, as a rank of LoRA. [default: 8]"
        ),
    ] = None,
    kind: Annotated[
        str, typer.Option(metavar="NAME", help="Ensemble of the projections L and R.")
    ] = "gaussian",
    scale: Annotated[
        Literal["synthesis", "analysis"],
        typer.Option(help="Their normalisation: entries of variance 1/m, 1/n or 1/a, 1/b."),
    ] = "synthesis",
    moments: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Second moments of the base model's layers, for the kinds activation and "
            "gradient.",
        ),
    ] = None,
    gradients: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Gradient of the first training step (safetensors, under the names of the "
            "weights), to be audited too.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            metavar="FOLDER",
            help="Take that gradient here: a causal or masked language model, with --data.",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Texts for --model, one per line.")
    ] = None,
    batch: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Texts of --data, from the first on. [default: 8]"),
    ] = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=2, metavar="N", help="Tokens of a text that are read. [default: 128]"),
    ] = None,
    draws: Annotated[
        int, typer.Option(min=2, metavar="N", help="Most draws of L and R per matrix.")
    ] = 20,
    seed: Seed = 0,
    on_shape: OnShape = "error",
    on_nonfinite: OnNonfinite = "error",
    flatten: Flatten = False,
    allow_pickle: AllowPickle = False,
    partial: Partial = False,
    threads: Threads = None,
    dask: Dask = None,
) -> None:
    """Judge the assumptions of compressed sensing on every update: holds, fails or undecided.

    The first line printed is the verdict.
    """
    settings = dict(locals())
    from cosa_theory.studies.audit.pair import audit_pair

    sizes = _core(core)
    if sizes is not None and rank is not None:
        raise InputError(
            f"--core {core} and --rank {rank} both set the size of the core: give one of them"
        )
    check_out(out, "audit", base, tuned, moments, gradients, model, data)
    pair = open_checked_pair(base, tuned, settings)
    first_step = _gradients(gradients, model, data, batch, max_tokens, seed)
    found = resumable(
        audit_pair,
        pair,
        given=settings,
        core=sizes,
        rank=8 if rank is None else rank,
        gradients=first_step,
        kind=kind,
        scale=scale,
        moments=moments,
        draws=draws,
        seed=seed,
    )
    deliver(found.document(provenance_of(settings, seed)), out, as_json)
