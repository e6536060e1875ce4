"""How many dimensions points need, and what every ensemble does to vectors, as a document."""

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.array_files import read_array
from cosa_theory.ground.checks import matrix, real, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.progress import Advance
from cosa_theory.isometry.jl import jl_min_dim
from cosa_theory.isometry.jl_curves import KroneckerVariance, kronecker_variance
from cosa_theory.isometry.vectors import sample_rows, synthetic_vectors
from cosa_theory.page.document import Document
from cosa_theory.projections import KINDS
from cosa_theory.studies.jl.comparison import (
    chi_square_dimension,
    failure_curves,
    jl_ensembles,
    needed_dimensions,
)
from cosa_theory.studies.jl.verdict import verdict

if TYPE_CHECKING:
    from cosa_theory.deltas import DeltaPair

__all__ = [
    "compared",
    "dimension_table",
    "file_rows",
    "jl_document",
    "kronecker_table",
    "synthetic_sets",
    "update_rows",
    "variance_row",
]

_VARIANCE_DRAWS = 200  # the fewest for a variance: its standard error is then about 10 %

Sets = dict[str, NDArray[Any]]
Tables = Mapping[str, pd.DataFrame]


def dimension_table(points: int, eps: float) -> pd.DataFrame:
    """Return the one row of n points: points, eps and the k of `cosa_theory.isometry.jl_min_dim`.

    Raises
    ------
    InputError
        For an argument outside its range, or one that asks for 2⁶³ dimensions and more.
    """
    k = jl_min_dim(points, eps)
    if k >= 2**63:
        raise InputError(
            f"eps is {eps:g}: {points} points need over 2⁶³ dimensions, raise it", argument="eps"
        )
    return pd.DataFrame([{"points": points, "eps": eps, "k": k}])


def synthetic_sets(dim: int, count: int, seed: int) -> Sets:
    """Return vectors of that length whose entries are as even, and as uneven, as they can be."""
    names = {"gaussian": "Gaussian vectors", "spike": "spikes"}
    return {label: synthetic_vectors(name, count, dim, seed=seed) for name, label in names.items()}


def file_rows(spec: str, count: int, seed: int) -> Sets:
    """Return nonzero rows of an array in a file, named as `read_array` takes it.

    Raises
    ------
    InputError
        If the file has no finite rows, or they are all zero.
    """
    array = read_array(spec, "--vectors")
    rows = matrix(spec, array[None] if array.ndim == 1 else array)
    nothing = InputError(f"{spec}: every row is zero, there is nothing to project")
    return {f"rows of {Path(spec).name}": _sample([rows], count, seed, nothing)}


def update_rows(pair: "DeltaPair", count: int, seed: int) -> tuple[Sets, tuple[str, ...]]:
    """Return nonzero rows of the updates of two models, all of the length that most of them have.

    Beside them are notices of the updates that are left out: zero ones, and those of other rows.

    Raises
    ------
    InputError
        If a matrix cannot be read, or there is no update.
    """
    text = "pair: the matrices that were read do not differ: there is no update"
    nothing = InputError(text, argument="pair")
    zero: list[str] = []
    widths: dict[str, int] = {}

    def updates() -> Iterator[NDArray[Any]]:
        for layer in pair:
            delta = layer.delta
            if delta.any():
                widths[layer.name] = delta.shape[1]
            else:
                zero.append(layer.name)
            yield delta

    rows = _sample(updates(), count, seed, nothing)
    d = rows.shape[1]
    others = [name for name, width in widths.items() if width != d]
    why = {"zero": zero, f"of rows that are not {d} long": others}
    notices = tuple(
        f"{'1 update is' if len(names) == 1 else f'{len(names)} updates are'} {what} and left "
        f"out: {first_few(names, 3)}."
        for what, names in why.items()
        if names
    )
    return {"rows of ΔW": rows}, notices


def _sample(matrices: Iterable[Any], count: int, seed: int, nothing: InputError) -> NDArray[Any]:
    """Draw rows; raise `nothing` where they are all zero."""
    try:
        return sample_rows(matrices, count, seed=seed)
    except InputError as error:
        if error.argument == "matrices":
            raise nothing from error
        raise


def compared(
    sets: Sets, eps: float, *, k: int | None, draws: int, seed: int, progress: Advance
) -> dict[str, pd.DataFrame]:
    """Compare all ensembles on every set of vectors: at one k, and at the k each needs.

    Parameters
    ----------
    sets : mapping of str to array
        Vectors as rows, of one length.
    eps : float
        The distortion that 95 % of the vectors of a set must keep.
    k : int or None
        Rows for the comparison at one k; by default what a Gaussian projection needs.
    draws, seed : int
        Independent draws of every projection.
    progress : callable
        Called with the ensembles done.

    Returns
    -------
    dict of str to pandas.DataFrame
        "needed", as `needed_dimensions` returns it; "ensembles", the table of `jl_ensembles`, and
        "curves", as `failure_curves` with k and d, both with vectors_of, the name of the set.

    Raises
    ------
    InputError
        For fewer than two draws, a distortion outside (0, 1), or a vector that is zero.
    """
    draws = whole("draws", draws, 2)  # intervals over draws need two
    eps = real("eps", eps, above=0.0, below=1.0)
    parts: dict[str, list[pd.DataFrame]] = {"ensembles": [], "curves": []}
    done, total = 0, 2 * len(sets) * len(KINDS)

    def finished(steps: int, name: str) -> None:
        nonlocal done
        done += steps
        progress(done, total, name)

    for name, vectors in sets.items():
        d = vectors.shape[1]
        rows = k or min(chi_square_dimension(eps), d)
        table, ratios = jl_ensembles(rows, vectors, eps=eps, draws=draws, seed=seed)
        finished(len(KINDS), name)
        levels = np.linspace(0, 4 * math.sqrt(2 / rows), 41)[1:]
        curves = failure_curves(ratios, rows, levels)
        parts["ensembles"].append(table.assign(vectors_of=name))
        parts["curves"].append(curves.assign(k=rows, d=d, vectors_of=name))
    needed = needed_dimensions(sets, eps, draws=draws, seed=seed, progress=partial(finished, 1))
    joined = {name: pd.concat(tables, ignore_index=True) for name, tables in parts.items()}
    return {"needed": needed, **joined}


def kronecker_table(
    pair: "DeltaPair", core: tuple[int, int], *, kind: str, draws: int, seed: int, progress: Advance
) -> pd.DataFrame:
    """Measure the variance of ‖A ΔW Bᵀ‖² for every matrix of two models that moved.

    The core of a smaller matrix is cut to it, as everywhere in this package. There are at least
    200 draws, which a variance needs.

    Returns
    -------
    pandas.DataFrame
        Columns layer, m, n, kind, a, b, those of `variance_row`, draws.
    """
    rows = []
    for done, layer in enumerate(pair, 1):
        m, n = layer.shape
        a, b = min(core[0], m), min(core[1], n)
        if layer.delta.any():
            found = kronecker_variance(
                *(kind, a, b, layer.delta),
                draws=max(draws, _VARIANCE_DRAWS),
                seed=seed,
                key=(layer.name,),
            )
            about = {"layer": layer.name, "m": m, "n": n, "kind": kind, "a": a, "b": b}
            rows.append({**about, **variance_row(found), "draws": found.ratios.size})
        progress(done, len(pair), layer.name)
    return pd.DataFrame(rows)


def variance_row(found: KroneckerVariance) -> dict[str, float]:
    """Return a measured variance with its interval, beside its law and the unstructured one."""
    return {
        "participation_ratio": found.moments.participation_ratio,
        "variance": found.measured.value,
        "ci_low": found.measured.low,
        "ci_high": found.measured.high,
        "law": found.law,
        "unstructured": found.unstructured,
    }


def jl_document(
    tables: Tables, notices: tuple[str, ...], provenance: Mapping[str, Any]
) -> Document:
    """Return the tables with their verdict; ensembles without so many rows are noticed too."""
    if "ensembles" in tables:
        table = tables["ensembles"]
        missing = [kind for kind in KINDS if kind not in set(table["kind"])]
        if missing:
            k, d = table["k"].iloc[0], table["d"].iloc[0]
            why = f"cannot have {k} rows where d = {d}: left out of the comparison at that k."
            notices = (*notices, f"{', '.join(missing)} {why}")
    return Document("jl", verdict(tables), notices, tables, provenance)
