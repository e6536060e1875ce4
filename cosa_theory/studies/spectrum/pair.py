"""Every update of a model: spectra, families at equal parameters, and the verdict.

A survey walks through a stream of updates one matrix at a time, so that its memory is set by the
largest matrix, and can store each finished matrix as a small file to resume from.
"""

import dataclasses
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import cached_property, partial
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd

from cosa_theory.deltas.layers import module_and_block
from cosa_theory.ground.checks import choice, torch_device
from cosa_theory.page.document import Document
from cosa_theory.projections import INFORMED, KINDS
from cosa_theory.spectrum import SpectrumSummary
from cosa_theory.spectrum.budget import check_ranks, default_ranks
from cosa_theory.spectrum.families.base import Draws
from cosa_theory.spectrum.families.compare import (
    CROSSOVER_COLUMNS,
    FAMILY_COLUMNS,
    select_families,
    typed_frame,
)
from cosa_theory.studies.known_layers import KnownLayers
from cosa_theory.studies.layers import (
    NAME_COLUMNS,
    Pair,
    coverage_of,
    low_rank_notices,
    named_tables,
    names_of,
    notices_of,
    on_layers,
)
from cosa_theory.studies.spectrum.beside_base import base_notices
from cosa_theory.studies.spectrum.layer import Surveyed, SurveySettings, identity, survey_layer
from cosa_theory.studies.spectrum.verdict import verdict

if TYPE_CHECKING:
    from cosa_theory.nn.moments import Moments

__all__ = ["MATRICES", "Survey", "survey_pair"]

MATRICES = ("base", "tuned", "delta")
"""The matrices of a layer whose spectra a survey can list."""

SURVEYED = ("truncated_svd", "lora_xs", *(f"cosa_{kind}" for kind in (*KINDS, *INFORMED)))
"""The families of a survey; the other ones of `FAMILIES` are compared where they are named."""


def _summary_columns() -> dict[str, str]:
    """Return the pandas type of every field of a summary, from its annotation."""
    named = {int: "Int64", bool: "bool", float: "float64"}
    columns = {}
    for field in dataclasses.fields(SpectrumSummary):
        kinds = [kind for kind in get_args(field.type) or (field.type,) if kind is not NoneType]
        columns[field.name] = named[kinds[0]]
    return columns


_SIZED = {**NAME_COLUMNS, "m": "int64", "n": "int64"}
LAYER_COLUMNS = {
    **_SIZED,
    "base_dtype": "object",
    "tuned_dtype": "object",
    "delta_norm": "float64",
    "relative_norm": "float64",
    **_summary_columns(),
    "rounding_rms": "float64",
    "rounding_edge": "float64",
}
SPECTRUM_COLUMNS = {
    **NAME_COLUMNS,
    "matrix": "object",
    "index": "int64",
    "sigma": "float64",
    "resolved": "bool",
}
TABLES = {
    "layers": LAYER_COLUMNS,
    "families": {**_SIZED, **FAMILY_COLUMNS},
    "crossover": {**_SIZED, **CROSSOVER_COLUMNS},
}
"""Columns and types of the tables that are built from rows."""


@dataclass(frozen=True)
class Survey:
    """The tables of a survey, which share the columns `layer`, `module` and `block`.

    Parameters
    ----------
    layers : pandas.DataFrame
        One row per matrix: `m`, `n`; the stored types; `delta_norm` ‖ΔW‖_F; `relative_norm`
        ‖ΔW‖_F/‖W‖_F (null for W = 0); every field of `SpectrumSummary` of ΔW, with W as its base
        (intruders and overlaps up to a short side of 1,024); `rounding_rms`, the
        root-mean-square error per entry from storing the weights; and `rounding_edge`
        = rounding_rms·(√m + √n), the largest singular value that independent errors of that
        size would have (Marchenko and Pastur 1967).
    spectra : pandas.DataFrame
        One row per singular value: `matrix` ("base", "tuned" or "delta"), `index` from 1, `sigma`
        in the units of the weights, `resolved` (whether it is above the method's resolution).
    families : pandas.DataFrame
        `m`, `n` and the columns of `compare_families`.
    crossover : pandas.DataFrame
        `m`, `n` and the columns of `crossover`.
    notices : tuple of str
        Plain sentences a reader of the tables should know.
    coverage : str
        How the verdict begins where the tables are of a part of the layers.
    """

    layers: pd.DataFrame
    spectra: pd.DataFrame
    families: pd.DataFrame
    crossover: pd.DataFrame
    notices: tuple[str, ...] = ()
    coverage: str = ""

    @cached_property
    def verdict(self) -> str:
        """One plain sentence, computed from the tables."""
        return self.coverage + verdict(self.crossover, self.families)

    def document(self, provenance: Mapping[str, Any]) -> Document:
        """Return the tables with their verdict; singular values are too many to be listed."""
        names = ("layers", "spectra", "families", "crossover")
        return Document(
            "spectrum",
            self.verdict,
            self.notices,
            {name: getattr(self, name) for name in names},
            provenance,
            unlisted=("spectra",),
        )


def survey_pair(
    pair: Pair,
    *,
    ranks: Iterable[int] | None = None,
    families: Iterable[str] | None = None,
    draws: int = 20,
    seed: int = 0,
    matrices: Iterable[str] = MATRICES,
    moments: "Moments | str | os.PathLike[str] | None" = None,
    cells: str | os.PathLike[str] | None = None,
    workers: int = 1,
    dask: str | None = None,
    device: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Survey:
    """Survey every matched matrix of two models.

    Parameters
    ----------
    pair : DeltaPair
        The stream of updates, from `cosa_theory.deltas.open_pair`.
    ranks : iterable of int, optional
        Budgets as ranks of LoRA; by default `default_ranks` of each layer's shape.
    families : iterable of str, optional
        Names from `FAMILIES`; `SURVEYED` by default, none for spectra and crossover alone.
    draws : int
        The most draws of a random family for one layer and budget (see `compare_families`).
    seed : int
        Seed of the projections; layers are told apart by their names.
    matrices : iterable of str
        The matrices whose singular values are listed. The update's are always computed.
    moments : Moments or path, optional
        Second moments of the base model's layers (see `cosa_theory.nn.layer_moments`), by the names
        of their weights: adds the informed families. Matrices without moments have no such rows.
    cells : path, optional
        A folder where each finished layer is stored as one small file, named by a hash of its
        content, its name, the settings and the version of this library. A later survey takes what
        it finds there, so an interrupted one resumes. Cells of other settings are left alone.
    workers : int
        How many matrices to work on at once, each with one thread of linear algebra. The results
        do not depend on it; memory grows with it.
    dask : str, optional
        Address of the scheduler of a running Dask cluster to work on instead, such as
        "tcp://10.0.0.1:8786"; matrices and cells are read and written here alone.
    device : str, optional
        A torch device such as "cuda", on which singular values are computed; by default numpy
        computes them. The random families are always measured on the host.
    progress : callable, optional
        Called as ``progress(done, total, name)`` after each layer, in the order in which they are
        finished.

    Returns
    -------
    Survey

    Raises
    ------
    InputError
        If a rank, family or matrix is not one that exists, or the stream finds a bad tensor.
    ValueError
        If `draws` is below 2, the seed negative or `workers` below 1.
    """
    chosen = {choice("matrices", name, MATRICES) for name in matrices}
    random = Draws(most=draws, seed=seed)
    names = SURVEYED if families is None else tuple(families)
    settings = SurveySettings(
        ranks=None if ranks is None else check_ranks(ranks),
        families=tuple(family.name for family in select_families(names)),
        draws=random.most,
        seed=random.seed,
        matrices=tuple(name for name in MATRICES if name in chosen),
        device=torch_device("device", device),
    )
    known = None if moments is None else KnownLayers(moments, names_of(pair))
    results = on_layers(
        partial(survey_layer, settings=settings),
        _surveyed(pair, known),
        len(pair),
        identity=partial(identity, settings=settings),
        cells=cells,
        workers=workers,
        dask=dask,
        progress=progress,
    )
    tables = named_tables(results, TABLES)
    return Survey(
        spectra=_spectra(results),
        notices=notices_of(pair)
        + tuple(known.notices if known else ())
        + tuple(_own_notices(tables["layers"], settings)),
        coverage=coverage_of(pair),
        **tables,
    )


def _surveyed(pair: Pair, known: KnownLayers | None) -> Iterator[Surveyed]:
    """Yield each layer with what is known of it; nothing is held when the next is read."""
    for layer in pair:
        yield Surveyed(layer, None if known is None else known.of(layer))
        del layer


def _spectra(results: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the table of singular values: built by columns, since a model has many."""
    parts = [typed_frame([], SPECTRUM_COLUMNS)]
    for result in results:
        module, block = module_and_block(result["name"])
        for matrix, listed in result["spectra"].items():
            index = np.arange(1, len(listed["sigma"]) + 1)
            part = pd.DataFrame({"index": index, "sigma": listed["sigma"]})
            part["resolved"] = index <= listed["resolved"]
            named = {"layer": result["name"], "module": module, "block": block, "matrix": matrix}
            parts.append(part.assign(**named).astype(SPECTRUM_COLUMNS)[list(SPECTRUM_COLUMNS)])
    return pd.concat(parts, ignore_index=True)


def _own_notices(layers: pd.DataFrame, settings: SurveySettings) -> Iterable[str]:
    """Yield what the tables alone do not make obvious."""
    zero = layers.loc[layers["sigma_max"] == 0, "layer"]
    if len(zero):
        yield f"{_count(zero, 'update')} zero: their ratios are null ({_first(zero)})."
    floor = layers.loc[
        (layers["sigma_max"] > 0) & (layers["sigma_max"] <= layers["rounding_edge"]), "layer"
    ]
    if len(floor):
        yield (
            f"{_count(floor, 'update')} no larger than the rounding of the stored type: the "
            f"spectrum may be that of rounding errors ({_first(floor)})."
        )
    yield from low_rank_notices(layers, "update")
    yield from base_notices(layers)
    if settings.ranks is None:
        few = layers.loc[
            [len(default_ranks(m, n)) < 3 for m, n in zip(layers["m"], layers["n"], strict=True)],
            "layer",
        ]
        if len(few):
            yield (
                f"{_count(few, 'matrix', 'matrices')} compared at fewer than three budgets: so "
                f"few ranks r train less than the matrix itself, r(m + n) < mn ({_first(few)})."
            )


def _count(names: Sized, one: str, many: str | None = None) -> str:
    return f"1 {one} is" if len(names) == 1 else f"{len(names)} {many or one + 's'} are"


def _first(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", …" if len(listed) > 3 else "")
