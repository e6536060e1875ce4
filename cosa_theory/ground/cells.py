"""Cells: small files that hold the finished results of single matrices, to resume from."""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.files import atomic_path

__all__ = ["from_cell"]


def from_cell(
    folder: Path | None,
    described: Mapping[str, Any],
    arrays: Iterable[NDArray[Any]],
    compute: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Return a result from its cell, or compute it and store it there.

    Parameters
    ----------
    folder : Path or None
        Where cells are; None to store nothing.
    described : mapping
        What the result depends on besides the arrays, as plain JSON values: settings, names, and
        the version of what computes it.
    arrays : iterable of ndarray
        The arrays it depends on; their types, shapes and entries count, not their layout.
    compute : callable
        Returns the result, as plain JSON values without NaN.

    Returns
    -------
    dict
        The same values whether they were computed or read.
    """
    if folder is None:
        return compute()
    path = folder / f"{_name(described, list(arrays))}.json"
    if path.exists():
        cell: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return cell
    cell = compute()
    with atomic_path(path) as temporary:
        temporary.write_text(json.dumps(cell, allow_nan=False), encoding="utf-8")
    return cell


def _name(described: Mapping[str, Any], arrays: list[NDArray[Any]]) -> str:
    """Hash everything the result depends on."""
    everything = {**described, "arrays": [[a.dtype.str, a.shape] for a in arrays]}
    digest = hashlib.sha256(json.dumps(everything, sort_keys=True).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()[:32]
