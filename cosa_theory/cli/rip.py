"""`cosa-theory rip`: proven brackets of restricted isometry constants."""

from typing import Annotated, Literal

import typer

from cosa_theory.cli.app import (
    Json,
    Out,
    Seed,
    app,
    check_out,
    deliver,
    interruptible,
    provenance_of,
    whole_numbers,
)
from cosa_theory.ground.array_files import read_array
from cosa_theory.ground.errors import InputError

__all__ = ["rip"]


@app.command(
    short_help="Restricted isometry: proven brackets for a CoSA layer or for one matrix.",
    epilog="Examples: cosa-theory rip --shape 4096 4096 --core 1024 256 --sparsity 2,4,8,16; "
    "cosa-theory rip matrix.npy --sparsity 2,3 --out rip",
)
def rip(
    matrix: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE[:TENSOR]",
            help="A matrix in a .npy or .safetensors file, in place of a layer.",
        ),
    ] = None,
    shape: Annotated[
        tuple[int, int] | None, typer.Option(metavar="M N", help="Sizes of the layer's update ΔW.")
    ] = None,
    core: Annotated[
        tuple[int, int] | None, typer.Option(metavar="A B", help="Sizes of the core Y.")
    ] = None,
    sparsity: Annotated[
        str | None,
        typer.Option(
            metavar="S,S,...",
            help="Orders s: numbers of nonzero entries. [default: 2,4,8,16, as far as there are "
            "columns]",
        ),
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="Ensembles of L and R, or all (some minutes). [default: gaussian]",
        ),
    ] = None,
    scale: Annotated[
        Literal["synthesis", "analysis"] | None,
        typer.Option(
            help="Scale of L and R. [default: what keeps norms on average, synthesis for the "
            "dictionary and analysis for the sensing operator]"
        ),
    ] = None,
    about: Annotated[
        Literal["dictionary", "sensing", "both"] | None,
        typer.Option(
            help="The tall dictionary of updates, the wide sensing operator, or both. "
            "[default: both]"
        ),
    ] = None,
    seed: Seed = 0,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Bracket restricted isometry constants: what is proven from below and from above.

    For a layer everything follows from its two factors; for a matrix of at most 150 columns the
    semidefinite bound is solved too. The first line printed is the verdict.
    """
    settings = dict(locals())
    of_layers = [name for name in ("kind", "scale", "about") if settings[name] is not None]
    _check(matrix, shape, core, of_layers)
    orders = None if sparsity is None else whole_numbers("--sparsity", sparsity, "2,4,8,16")
    check_out(out, "rip", matrix)
    from cosa_theory.ground.progress import progress_bar
    from cosa_theory.linear.gram import DenseGram
    from cosa_theory.projections import KINDS
    from cosa_theory.studies.rip import compute

    listed = "gaussian" if kind is None else kind
    kinds = KINDS if listed == "all" else [one.strip() for one in listed.split(",")]
    operators = ("dictionary", "sensing") if about in (None, "both") else (str(about),)
    with interruptible(), progress_bar("steps" if matrix is None else "orders") as advance:
        if shape is not None and core is not None:
            tables = compute.layer_isometry(
                shape,
                core,
                orders,
                kinds=kinds,
                about=operators,
                scale=scale,
                seed=seed,
                progress=advance,
            )
        else:
            gram = DenseGram(read_array(str(matrix), "FILE"), str(matrix))
            tables = compute.matrix_isometry(gram, orders, seed=seed, progress=advance)
    deliver(compute.isometry_document(tables, provenance_of(settings, seed)), out, as_json)


def _check(
    matrix: str | None,
    shape: tuple[int, int] | None,
    core: tuple[int, int] | None,
    of_layers: list[str],
) -> None:
    """Refuse a file beside a layer, and what would have no effect on a file."""
    if matrix is None and (shape is None or core is None):
        raise InputError("nothing to do: give --shape M N with --core A B, or the file of a matrix")
    if matrix is not None and (shape is not None or core is not None):
        raise InputError(f"{matrix} and --shape or --core exclude each other: give a file or sizes")
    if matrix is not None and of_layers:
        raise InputError(
            f"{' and '.join(f'--{name}' for name in of_layers)} and {matrix} exclude each other: "
            "a file is taken as it is, without factors to draw"
        )
