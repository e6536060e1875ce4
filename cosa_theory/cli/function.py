"""`cosa-theory function`: what approximations of an update do to the model."""

from functools import partial as with_arguments
from pathlib import Path
from typing import Annotated, Literal

import typer

from cosa_theory.cli.app import (
    AllowPickle,
    BaseArgument,
    Exclude,
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
    opening_of,
    provenance_of,
    resumable,
    whole_numbers,
)

__all__ = ["function"]


@app.command(
    short_help="Measure what approximations of an update do to the model, not only its energy.",
    epilog="Examples: cosa-theory function base tuned --texts domain.txt --out function; "
    "cosa-theory function base adapter --task causal-lm",
)
def function(
    base: BaseArgument,
    tuned: TunedArgument,
    texts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Texts of the fine-tuning's domain, one on each line, 8 at least; in a file named "
            '*.jsonl a JSON string or an object with a "text" on each.',
        ),
    ] = None,
    general: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Texts of another kind, likewise. [default: news wires of Reuters]"
        ),
    ] = None,
    task: Annotated[
        Literal["embeddings", "causal-lm"] | None,
        typer.Option(help="What is compared. [default: what the architecture is for]"),
    ] = None,
    ranks: Annotated[
        str, typer.Option(metavar="R,R,...", help="Budgets, as ranks of a LoRA of equal size.")
    ] = "2,8,32",
    approximations: Annotated[
        str | None,
        typer.Option(metavar="NAME,...", help="Which to measure. [default: all]"),
    ] = None,
    moments: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Second moments of the layers' inputs, stored by --save-moments. [default: "
            "gathered on the texts]",
        ),
    ] = None,
    save_moments: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Store those moments, as safetensors.")
    ] = None,
    most_texts: Annotated[
        int, typer.Option(min=8, metavar="N", help="Most texts of each kind: time grows with them.")
    ] = 32,
    max_tokens: Annotated[
        int, typer.Option(min=4, metavar="N", help="Longer texts are cut.")
    ] = 128,
    seed: Seed = 0,
    include: Include = None,
    exclude: Exclude = None,
    on_shape: OnShape = "error",
    on_nonfinite: OnNonfinite = "error",
    partial: Partial = False,
    allow_pickle: AllowPickle = False,
    threads: Threads = None,
    out: ResumingOut = None,
    as_json: Json = False,
) -> None:
    """Put approximations of an update into the model, and measure what the model then says.

    Low rank, CoSA's core under two decoders, masks, rounding and controls, at equal numbers and
    equal bits. The first line printed is the verdict.
    """
    settings = dict(locals())
    from cosa_theory.ground.texts import read_texts
    from cosa_theory.studies.function.pair import function_pair
    from cosa_theory.studies.function.texts import FEWEST, general_texts

    budgets = whole_numbers("--ranks", ranks, "2,8,32")
    chosen = None if approximations is None else [one.strip() for one in approximations.split(",")]
    check_out(out, "function", base, tuned, texts, general, moments)
    read = with_arguments(read_texts, most=most_texts, least=FEWEST)
    domain = None if texts is None else read(texts)
    others = general_texts(most_texts) if general is None else read(general, argument="general")
    found = resumable(
        function_pair,
        base,
        tuned,
        given=settings,
        parts="approximations",
        texts=domain,
        general=others,
        task=task,
        ranks=budgets,
        approximations=chosen,
        moments=moments,
        save_moments=save_moments,
        seed=seed,
        max_tokens=max_tokens,
        **opening_of(settings),
    )
    deliver(found.document(provenance_of(settings, seed)), out, as_json)
