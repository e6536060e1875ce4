"""`cosa-theory moments`: the directions of what a model's layers are fed, for informed cores."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cosa_theory.cli.app import Json, app, interruptible, provenance_of, store_and_print
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import note, terminal_width

__all__ = ["moments"]


@app.command(
    short_help="Gather the directions of what a model's layers are fed, for informed cores.",
    epilog="Examples: cosa-theory moments base --out moments.safetensors; cosa-theory moments base "
    "--texts domain.txt --gradients samples --out moments.safetensors",
)
def moments(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A folder of transformers, or a hub id.")
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Where to store them, as safetensors. An interrupted run resumes from FILE.sums.",
        ),
    ],
    texts: Annotated[
        str,
        typer.Option(
            metavar="FILE",
            help="Texts, one on each line; in a file named *.jsonl a JSON string or an object with "
            'a "text" on each. Or random: seeded random tokens.',
        ),
    ] = "random",
    gradients: Annotated[
        Literal["samples"] | None,
        typer.Option(
            help="Gather those of the outputs' gradients too, of samples of the model's own."
        ),
    ] = None,
    most_texts: Annotated[
        int, typer.Option(min=1, metavar="N", help="Most texts: time grows with them.")
    ] = 64,
    max_tokens: Annotated[
        int, typer.Option(min=1, metavar="N", help="Longer texts are cut; random ones are as long.")
    ] = 128,
    seed: Annotated[
        int, typer.Option(min=0, metavar="N", help="Seed of random tokens and samples.")
    ] = 0,
    as_json: Json = False,
) -> None:
    """Gather second moments of the inputs of every linear layer, in one pass of the model.

    Informed cores (kinds activation and gradient) are made from them. The first line printed is the
    verdict.
    """
    settings = dict(locals())
    import warnings

    from cosa_theory.ground.texts import read_texts
    from cosa_theory.nn.moments import layer_moments, random_batches, write_moments
    from cosa_theory.nn.moments.random_tokens import most_tokens
    from cosa_theory.nn.moments.stored import check_target
    from cosa_theory.nn.readout import load_text_model
    from cosa_theory.page.document import Document
    from cosa_theory.page.text import render_view
    from cosa_theory.studies.moments.views import moments_table, moments_verdict, moments_view

    check_target(out, "out")
    read = None if texts == "random" else read_texts(texts, most_texts)
    loaded = load_text_model(model)
    max_tokens = min(max_tokens, most_tokens(loaded.network) or max_tokens)
    if read is None:
        batches = random_batches(loaded.network, most_texts, max_tokens, seed)
        told, of_what = most_texts, " of random tokens"
    else:
        batches = [batch for _, batch in loaded.batches(read, max_tokens)]
        told, of_what = len(read), ""
    sums = out.with_name(f"{out.name}.sums")
    kept = f"sums are kept in {sums} now and then, the same command resumes"
    with interruptible(kept), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        found = layer_moments(
            loaded.network, batches, gradients=gradients, seed=seed, progress=True, resume=sums
        )
    write_moments(found, out)
    notices = tuple(str(one.message) for one in caught)
    for notice in notices:
        note(f"note: {notice}")
    table = moments_table(found)
    verdict = moments_verdict(table, f"{told} text{'' if told == 1 else 's'}{of_what}")
    document = Document(
        "moments", verdict, notices, {"layers": table}, provenance_of(settings, seed)
    )

    def show() -> str:
        layers = render_view(moments_view(table), terminal_width(), sys.stdout.encoding)
        return f"{printable(verdict)}\n\n{layers}\n\nMoments: {printable(str(out))}"

    # The moments are stored already; there is no page of results.
    store_and_print(Path, document.as_json if as_json else show, None)
