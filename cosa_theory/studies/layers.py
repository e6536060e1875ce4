"""What the studies of a pair share: its layers worked on one by one, and tables of their rows."""

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory.deltas import LayerDelta
from cosa_theory.deltas.layers import module_and_block
from cosa_theory.ground.workers import map_cells
from cosa_theory.spectrum import (
    SpectrumSummary,
    singular_values,
    singular_values_of_product,
    summarize,
)
from cosa_theory.spectrum.families.compare import typed_frame
from cosa_theory.spectrum.noise import relative_rounding

__all__ = [
    "NAME_COLUMNS",
    "Pair",
    "coverage_of",
    "cut_core_notices",
    "delta_spectrum",
    "low_rank_notices",
    "named_tables",
    "names_of",
    "notices_of",
    "on_layers",
    "spectrum_of",
]

Item = TypeVar("Item")

NAME_COLUMNS = {"layer": "object", "module": "object", "block": "Int64"}
"""The columns that every table of `named_tables` begins with, and their pandas types."""


class Pair(Protocol):
    """What a study needs of `cosa_theory.deltas.DeltaPair`; any sized iterable of layers will do.

    If it has a `report` with `notices`, they are passed on.
    """

    def __len__(self) -> int:
        """Return the number of layers."""

    def __iter__(self) -> Iterator[LayerDelta]:
        """Yield one layer after another."""


def notices_of(pair: Pair) -> tuple[str, ...]:
    """Return what a pair's report tells its reader."""
    report = getattr(pair, "report", None)
    return tuple(report.notices) if report else ()


def names_of(pair: Pair) -> list[str]:
    """Return the names of the matrices; from the plan of a pair where it has one."""
    return [layer.name for layer in getattr(pair, "layers", pair)]


def coverage_of(pair: Pair) -> str:
    """Return how a verdict on a part of the pair's layers begins; nothing where it is on all."""
    compared, total = getattr(pair, "coverage", (0, 0))
    return f"{compared} of {total} layers compared: " if compared < total else ""


def on_layers(
    compute: Callable[[Item], dict[str, Any]],
    items: Iterable[Item],
    total: int,
    *,
    identity: Callable[[Item], tuple[Mapping[str, Any], Sequence[NDArray[Any]]]],
    cells: str | os.PathLike[str] | None,
    workers: int,
    dask: str | None,
    progress: Callable[[int, int, str], None] | None,
) -> list[dict[str, Any]]:
    """Return the results of all layers, as `cosa_theory.ground.workers.map_cells` does.

    `compute` maps a layer to plain JSON values, with its name as "name"; `progress` is called as
    ``progress(done, total, name)`` after each.
    """

    def advance(done: int, result: dict[str, Any]) -> None:
        if progress is not None:
            progress(done, total, result["name"])

    return map_cells(
        compute,
        items,
        identity=identity,
        folder=None if cells is None else Path(cells),
        workers=workers,
        dask=dask,
        advance=advance,
    )


def named_tables(
    results: Iterable[Mapping[str, Any]], tables: Mapping[str, Mapping[str, str]]
) -> dict[str, pd.DataFrame]:
    """Build tables from the layers' results, which are the same fresh or from a cell.

    Each result has, under the name of every table, a list of rows; `tables` maps that name to its
    columns and their pandas types, `NAME_COLUMNS` among them.
    """
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in tables}
    for result in results:
        module, block = module_and_block(result["name"])
        named = {"layer": result["name"], "module": module, "block": block}
        for name, listed in rows.items():
            listed += [{**named, **row} for row in result[name]]
    return {name: typed_frame(rows[name], dict(columns)) for name, columns in tables.items()}


def low_rank_notices(layers: pd.DataFrame, noun: str) -> Iterator[str]:
    """Say which matrices have no flatness, from their `rank`, `m`, `n` and `layer`."""
    rank = layers["rank"].astype(int)
    low = (rank > 0) & (rank < layers[["m", "n"]].min(axis=1))
    if low.any():
        ranks, names = rank[low], list(layers.loc[low, "layer"])
        span = f"{ranks.min()}" if ranks.nunique() == 1 else f"{ranks.min()} to {ranks.max()}"
        many = "1 is" if len(names) == 1 else f"{len(names)} are"
        yield (
            f"Of {len(layers)} {noun}{'' if len(layers) == 1 else 's'} {many} of rank {span}, "
            "flatness not defined: the other singular values are zero or rounding "
            f"({', '.join(names[:3])}{', …' if len(names) > 3 else ''})."
        )


def cut_core_notices(layers: pd.DataFrame) -> Iterator[str]:
    """Say to which matrices a core was cut: from layer, m, n, asked_a, asked_b, a and b."""
    cut = layers[(layers["asked_a"] > layers["m"]) | (layers["asked_b"] > layers["n"])]
    if len(cut):
        one = cut.iloc[0]
        yield (
            f"A core of {one.asked_a} × {one.asked_b} does not fit {len(cut)} of {len(layers)} "
            f"matri{'x' if len(layers) == 1 else 'ces'}: what is measured there is the core cut "
            f"to the matrix, {one.a} × {one.b} for {one.layer}."
        )


def spectrum_of(matrix: NDArray[Any], device: str | None = None) -> NDArray[np.float64]:
    """Return the singular values of a matrix, computed by numpy or on a torch device."""
    if device is None:
        values: NDArray[np.float64] = singular_values(matrix)
        return values
    import torch

    on_device: torch.Tensor = singular_values(torch.as_tensor(matrix, device=device))
    return on_device.cpu().numpy()


def delta_spectrum(
    layer: LayerDelta, device: str | None = None
) -> tuple[NDArray[np.float64], SpectrumSummary]:
    """Return all min(m, n) singular values of ΔW, descending, and their measures.

    The factors of an adapter are used where it has them. A torch device computes the values, or
    numpy. What the stored types of the weights, or that of ΔW itself, may have rounded is no part
    of the rank.
    """
    if layer.factors is None:
        sigma, method = spectrum_of(layer.delta, device), "gram"
        own = relative_rounding(layer.delta.dtype) * float(np.linalg.norm(sigma / (sigma[0] or 1)))
        rounding = max(layer.rounding_rms, own * sigma[0] / math.sqrt(math.prod(layer.shape)))
    else:
        sigma, method, rounding = np.zeros(min(layer.shape)), "product", 0.0
        thin = singular_values_of_product(*layer.factors)
        sigma[: len(thin)] = thin
    return sigma, summarize(sigma, layer.shape, method, rounding)
