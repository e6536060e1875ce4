"""`cosa-theory rip`: proven brackets of restricted isometry constants."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cosa_theory.cli.app import (
    Json,
    Out,
    Seed,
    app,
    check_out,
    deliver,
    provenance_of,
    whole_numbers,
)
from cosa_theory.cli.interruption import interruptible
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import read_array

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["rip"]


_ORDERS = (2, 4, 8, 16)


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
        tuple[int, int] | None,
        typer.Option(metavar="M N", help="Sizes of the layer's update ΔW."),
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
    kinds = _kinds("gaussian" if kind is None else kind)
    _check(matrix, shape, core)
    _of_layers(matrix, {"--kind": kind, "--scale": scale, "--about": about})
    from cosa_theory.page.document import Document
    from cosa_theory.studies.rip.views import rip_verdict

    check_out(out)
    with interruptible():
        if shape is not None and core is not None:
            sizes = (*shape, *core)
            columns = sizes[0] * sizes[1] if about == "sensing" else sizes[2] * sizes[3]
            orders = _orders(sparsity, columns)
            tables = _layer_tables(sizes, orders, kinds, about or "both", scale, seed)
        else:
            tables = _matrix_tables(str(matrix), sparsity, seed)
    made = provenance_of(settings, seed)
    deliver(Document("rip", rip_verdict(tables), _notices(tables), tables, made), out, as_json)


def _orders(text: str | None, columns: int) -> list[int]:
    """Read "2,4,8,16", which is the default too, as far as there are so many columns."""
    if text is None:
        return [s for s in _ORDERS if s <= columns] or [columns]
    orders = sorted(set(whole_numbers("--sparsity", text, "2,4,8,16")))
    if orders[-1] > columns:
        raise InputError(
            f"--sparsity names the order {orders[-1]}: the matrix has {columns:,} columns, give "
            "orders up to that"
        )
    return orders


def _kinds(text: str) -> list[str]:
    """Read "gaussian,haar", or "all"."""
    from cosa_theory.projections import KINDS

    kinds = list(KINDS) if text == "all" else [part.strip() for part in text.split(",")]
    unknown = [kind for kind in kinds if kind not in KINDS]
    if unknown:
        raise InputError(f"--kind is {unknown[0]!r}: choose among {', '.join(KINDS)}, or all")
    return list(dict.fromkeys(kinds))


def _check(
    matrix: str | None,
    shape: tuple[int, int] | None,
    core: tuple[int, int] | None,
) -> None:
    if matrix is not None and (shape is not None or core is not None):
        raise InputError(f"{matrix} and --shape or --core exclude each other: give a file or sizes")
    if matrix is None and (shape is None or core is None):
        raise InputError("nothing to do: give --shape M N with --core A B, or the file of a matrix")
    for name, sizes in (("--shape", shape), ("--core", core)):
        if sizes is not None and min(sizes) < 1:
            raise InputError(f"{name} is {sizes[0]} {sizes[1]}: give two positive integers")


def _of_layers(matrix: str | None, given: dict[str, str | None]) -> None:
    """Refuse what would have no effect on a matrix from a file."""
    idle = [name for name, value in given.items() if value is not None]
    if matrix is not None and idle:
        raise InputError(
            f"{' and '.join(idle)} and {matrix} exclude each other: a file is taken as it is, "
            "without factors to draw"
        )


def _layer_tables(
    sizes: tuple[int, int, int, int],
    orders: list[int],
    kinds: list[str],
    about: str,
    scale: str | None,
    seed: int,
) -> "dict[str, pd.DataFrame]":
    from cosa_theory.ground.progress import progress_bar
    from cosa_theory.studies.rip.tables import layer_isometry

    wanted = ("dictionary", "sensing") if about == "both" else (about,)
    with progress_bar("steps") as advance:
        try:
            return layer_isometry(
                *sizes,
                orders=orders,
                kinds=kinds,
                about=wanted,
                scale=scale,
                seed=seed,
                progress=advance,
            )
        except ValueError as error:
            raise InputError(str(error)) from error


def _matrix_tables(spec: str, sparsity: str | None, seed: int) -> "dict[str, pd.DataFrame]":
    from cosa_theory.ground.progress import progress_bar
    from cosa_theory.isometry import DenseGram
    from cosa_theory.studies.rip.tables import matrix_isometry

    array = read_array(spec, "FILE")
    with progress_bar("orders") as advance:
        try:
            gram = DenseGram(array, spec)
            orders = _orders(sparsity, gram.columns)
            return matrix_isometry(gram, orders, seed=seed, progress=advance)
        except InputError:
            raise
        except ValueError as error:
            raise InputError(f"{spec}: {error}") from error


def _notices(tables: "dict[str, pd.DataFrame]") -> tuple[str, ...]:
    """Return what the bounds noted, and columns that are zero."""
    from cosa_theory.studies.rip.views import operator_name

    notices = []
    for row in tables["columns"].to_dict("records"):
        if row["least_norm"] == 0:
            why = ": a sparse projection with so few rows misses some coordinates"
            notices.append(
                f"{operator_name(row)} has zero columns, so δ_s ≥ 1 and no coherence"
                + (why if "kind" in row else ": vectors there are lost, leave such columns out")
            )
    for row in tables["brackets"].to_dict("records"):
        if row["note"]:
            notices.append(f"{operator_name(row)}, s = {row['s']}: {row['note']}")
    return tuple(notices)
