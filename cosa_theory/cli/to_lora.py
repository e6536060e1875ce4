"""`cosa-theory to-lora`: a CoSA adapter as an ordinary LoRA adapter."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cosa_theory.cli.app import Json, app, interruptible, provenance_of, store_and_print
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import note, terminal_width

__all__ = ["to_lora"]


@app.command(
    "to-lora",
    short_help="Write a CoSA adapter as a LoRA adapter, for software that knows only LoRA.",
    epilog="Examples: cosa-theory to-lora adapter --out adapter-lora; cosa-theory to-lora adapter "
    "--out adapter-lora --energy 0.99",
)
def to_lora(
    adapter: Annotated[
        Path, typer.Argument(metavar="ADAPTER", help="The folder of a CoSA adapter.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder for the LoRA adapter. An earlier export in it is replaced, others stay.",
        ),
    ],
    rank: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="R",
            help="The largest rank of a layer: cut the smallest singular values. [default: "
            "min(a, b), which is exact]",
        ),
    ] = None,
    energy: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Share of ‖ΔW‖² to keep in every layer, such as 0.99: the smallest ranks that do.",
        ),
    ] = None,
    keep_ranks: Annotated[
        bool,
        typer.Option(
            "--keep-ranks",
            help="Keep smaller ranks of layers, for PEFT alone: other software needs one rank.",
        ),
    ] = False,
    dtype: Annotated[
        Literal["float32", "float16", "bfloat16"],
        typer.Option(help="Type in which the factors are stored."),
    ] = "float32",
    as_json: Json = False,
) -> None:
    """Write a CoSA adapter as an ordinary LoRA adapter in PEFT's folder format.

    L·Y and R are exact factors of the update, so the export is exact to the rounding of what is
    stored, of rank min(a, b), and much larger than the core: r(m + n) numbers a layer. The first
    line printed is the verdict.
    """
    settings = dict(locals())
    import warnings

    from cosa_theory.ground.progress import progress_bar
    from cosa_theory.nn.lora import to_lora as export_to_lora
    from cosa_theory.page.document import Document
    from cosa_theory.page.text import render_view
    from cosa_theory.studies.lora.views import lora_notices, lora_table, lora_verdict, lora_view

    with interruptible(), progress_bar("layers") as advance, warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the notices say the same
        export = export_to_lora(
            adapter,
            out,
            rank=rank,
            energy=energy,
            keep_ranks=keep_ranks,
            dtype=dtype,
            progress=advance,
        )
    table, notices = lora_table(export), lora_notices(export)
    for notice in notices:
        note(f"note: {notice}")
    verdict = lora_verdict(export)
    document = Document("to-lora", verdict, notices, {"layers": table}, provenance_of(settings))

    def show() -> str:
        layers = render_view(lora_view(table), terminal_width(), sys.stdout.encoding)
        return f"{printable(verdict)}\n\n{layers}\n\nAdapter: {printable(str(export.folder))}"

    # The adapter is stored already; there is no page of results.
    store_and_print(Path, document.as_json if as_json else show, None)
