"""Cells: small files that hold finished results, to resume from.

A cell is named by a hash of all that decides its content. The first line of its file is the
SHA-256 of that name and of the rest: a line of JSON and, for some, the bytes of one array. A file
that is damaged, cut short or another cell's is as if it were not there.
"""

import hashlib
import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.reading import open_file, parse_json

__all__ = ["cell_name", "from_cell", "read_array_cell", "read_cell", "write_cell"]


def cell_name(identity: Mapping[str, Any], arrays: Iterable[NDArray[Any]] = ()) -> str:
    """Return the SHA-256 of what decides a result, in hexadecimal digits.

    Parameters
    ----------
    identity : mapping
        Settings, names, and the version of what computes the result, as plain JSON values without
        NaN; the order of its keys does not matter.
    arrays : iterable of ndarray
        Their types, shapes and entries count, not their layout.

    Raises
    ------
    TypeError, ValueError
        If a value is none that JSON has.
    """
    arrays = list(arrays)
    if arrays:
        identity = {**identity, "arrays": [[array.dtype.str, array.shape] for array in arrays]}
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"), allow_nan=False)
    digest = hashlib.sha256(text.encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def write_cell(path: Path, record: Mapping[str, Any], array: NDArray[Any] | None = None) -> None:
    """Write a cell, whole or not at all: plain JSON values, and an array kept with them.

    Its folder is created.
    """
    body = io.BytesIO()
    body.write(json.dumps(record).encode() + b"\n")
    if array is not None:
        np.save(body, array, allow_pickle=False)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(_digest(path, body.getvalue()) + b"\n")
        file.write(body.getbuffer())


def _digest(path: Path, body: bytes) -> bytes:
    digest = hashlib.sha256(path.stem.encode() + b"\n")
    digest.update(body)
    return digest.hexdigest().encode()


def read_cell(path: Path) -> dict[str, Any] | None:
    """Return a cell's record, or None where it must be computed: absent or damaged."""
    return read_array_cell(path)[0]


def read_array_cell(path: Path) -> tuple[dict[str, Any] | None, NDArray[Any] | None]:
    """Return a cell's record and its array, each None where there is none."""
    try:
        with open_file(path) as file:
            digest, _, body = file.read().partition(b"\n")
        if digest != _digest(path, body):
            return None, None
        text, _, rest = body.partition(b"\n")
        array = np.load(io.BytesIO(rest), allow_pickle=False) if rest else None
        record = parse_json(text, "", halves=True)
    except Exception:  # numpy's reader of headers raises whatever Python's parser can
        return None, None
    return (record, array) if isinstance(record, dict) else (None, None)


def from_cell(
    folder: Path | None,
    identity: Mapping[str, Any],
    arrays: Iterable[NDArray[Any]],
    compute: Callable[[], dict[str, Any]],
) -> dict[str, Any]:
    """Return a result, plain JSON values, from its cell in a folder, or compute and store it there.

    The values are the same either way. `identity` and `arrays` are those of `cell_name`; without a
    folder nothing is stored.
    """
    if folder is None:
        return compute()
    path = folder / f"{cell_name(identity, arrays)}.json"
    cell = read_cell(path)
    if cell is None or not isinstance(cell.get("result"), dict):
        cell = {"result": compute()}
        write_cell(path, cell)
    result: dict[str, Any] = cell["result"]
    return result
