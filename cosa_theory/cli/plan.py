"""`cosa-theory plan`: what an adapter costs on a model, from its config.json alone."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cosa_theory.cli.app import Json, Out, app, check_out, deliver, provenance_of
from cosa_theory.ground.errors import InputError

__all__ = ["plan"]

_UNITS = {"k": 10**3, "M": 10**6, "G": 10**9}


def _parameters(text: str) -> int:
    """Read "10000000", "10M" or "2.5M"."""
    factor = _UNITS.get(text[-1:], 1)
    try:
        value = round(float(text[:-1] if factor > 1 else text) * factor)
    except (ValueError, OverflowError):
        value = 0
    if value < 1:
        raise InputError(
            f"--budget is {text!r}: give a number of trainable parameters for the whole model, as "
            "in --budget 10M"
        )
    return value


@app.command(
    short_help="What CoSA and LoRA cost on a model: memory, operations, captured energy.",
    epilog="Examples: cosa-theory plan config.json; cosa-theory plan config.json --rank 16 "
    "--target-modules q_proj,v_proj; cosa-theory plan config.json --budget 10M --out plan",
)
def plan(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL_CONFIG",
            help="The config.json of a transformers model, a folder that holds it, or a hub id. "
            "No weight is read.",
        ),
    ],
    a: Annotated[
        int | None,
        typer.Option("--a", min=1, metavar="A", help="Rows of the core. [default: 1024]"),
    ] = None,
    b: Annotated[
        int | None,
        typer.Option("--b", min=1, metavar="B", help="Columns of the core. [default: 256]"),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="P",
            help="Trainable parameters of the whole model, such as 10M, instead of --a and --b.",
        ),
    ] = None,
    rank: Annotated[
        int | None,
        typer.Option(
            min=1, metavar="R", help="As many parameters as LoRA of this rank, instead of them."
        ),
    ] = None,
    target_modules: Annotated[
        str,
        typer.Option(
            metavar="NAMES",
            help="Layers: ends of their names, separated by commas; one regular expression for "
            "whole names, if it is not such a list; or all-linear.",
        ),
    ] = "all-linear",
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
            help="Second moments of the model's layers, for the kinds activation and gradient: "
            "shapes that are expected to capture most.",
        ),
    ] = None,
    share_projections: Annotated[
        bool, typer.Option("--share-projections", help="One L and one R per size of layer.")
    ] = False,
    tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Tokens of a training step, batch × length.")
    ] = 4096,
    dtype: Annotated[
        Literal["bfloat16", "float16", "float32"],
        typer.Option(help="Type the model computes in; cores and LoRA's factors are float32."),
    ] = "bfloat16",
    optimizer: Annotated[
        Literal["adamw", "momentum", "sgd"],
        typer.Option(help="Keeps two, one or no number for each trainable one."),
    ] = "adamw",
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Count what CoSA costs on a model and can express, beside LoRA of equal size.

    The first line printed is the verdict.
    """
    settings = dict(locals())
    shape = {name: value for name, value in (("--a", a), ("--b", b)) if value is not None}
    given = [name for name, value in (("--budget", budget), ("--rank", rank)) if value is not None]
    if len(given) + bool(shape) > 1:
        raise InputError(
            f"{', '.join([*shape, *given])} set the size of the core more than once: give --a and "
            "--b, or --budget, or --rank"
        )
    parameters = None if budget is None else _parameters(budget)
    check_out(out, "plan", model, moments)
    from cosa_theory.nn.settings import CosaSettings
    from cosa_theory.page.document import Document
    from cosa_theory.studies.plan.compute import make_plan
    from cosa_theory.studies.plan.costs import TrainingStep
    from cosa_theory.studies.plan.tables import plan_tables
    from cosa_theory.studies.plan.views import plan_verdict

    made = make_plan(
        model,
        CosaSettings(
            a or 1024, b or 256, kind=kind, scale=scale, share_projections=share_projections
        ),
        TrainingStep(tokens, dtype, optimizer),
        target_modules=_targets(target_modules),
        rank=rank,
        parameters=parameters,
        moments=moments,
    )
    tables = plan_tables(made)
    found = Document("plan", plan_verdict(tables), made.notices, tables, provenance_of(settings, 0))
    deliver(found, out, as_json)


def _targets(text: str) -> str | list[str]:
    """Read "q_proj,v_proj"; what has other signs than names and dots is an expression."""
    names = [part.strip() for part in text.split(",")]
    if not all(part.replace(".", "").replace("_", "").isalnum() for part in names if part):
        return text
    if not all(names):
        raise InputError(
            f"--target-modules is {text!r}, which has an empty name: give ends of names separated "
            "by commas, as in q_proj,v_proj"
        )
    return names
