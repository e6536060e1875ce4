"""A safetensors file written one tensor after another, so that memory is that of the largest."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from cosa_theory.ground.tensor_files import DTYPE_CODES

__all__ = ["file_header", "file_order", "write_arrays", "write_tensors"]


def file_order(layout: Mapping[str, tuple[str, tuple[int, ...]]]) -> list[str]:
    """Return the names in the order of the file: wider types first, else as they come."""
    return sorted(layout, key=lambda name: -DTYPE_CODES[layout[name][0]][1])


def file_header(
    layout: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> tuple[bytes, dict[str, int]]:
    """Return all that precedes the tensors, and their bytes in the order of the file.

    `layout` and `metadata` are as for `write_tensors`.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata or {"format": "pt"})}
    sizes, end = {}, 0
    for name in file_order(layout):
        dtype, shape = layout[name]
        code, bits = DTYPE_CODES[dtype]
        start, end = end, end + (bits * math.prod(shape) + 7) // 8
        sizes[name] = end - start
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [start, end]}
    raw = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    raw += b" " * (-len(raw) % 8)
    return len(raw).to_bytes(8, "little") + raw, sizes


def write_tensors(
    path: Path,
    layout: Mapping[str, tuple[str, tuple[int, ...]]],
    contents: Iterable[tuple[str, bytes]],
    metadata: Mapping[str, str] | None = None,
) -> None:
    """Write tensors as they come, under a header that is known before.

    Parameters
    ----------
    path : Path
        The file to create.
    layout : mapping of str to (dtype, shape)
        Name to type (as "float32") and shape. In the file wider types come first, because readers
        expect a tensor to start at a multiple of its entry's size; else the order is kept.
    contents : iterable of (str, bytes)
        Name and little-endian bytes, in the order of the file.
    metadata : mapping of str to str, optional
        What the file says of itself; by default that PyTorch wrote it, which some readers ask for.

    Raises
    ------
    ValueError
        If the contents do not follow the layout.
    OSError
        If the disk is full or the folder cannot be written to.
    """
    header, sizes = file_header(layout, metadata)
    with path.open("wb") as file:
        file.write(header)
        expected = iter(sizes.items())
        for name, data in contents:
            if (name, len(data)) != next(expected, None):
                raise ValueError(f"{name} of {len(data)} bytes is not what the layout has next")
            file.write(data)
        if next(expected, None) is not None:
            raise ValueError("the layout has more tensors than were given")


def write_arrays(
    path: Path, arrays: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays in memory, by name, as `write_tensors` does."""
    layout = {name: (array.dtype.name, array.shape) for name, array in arrays.items()}
    contents = (
        (name, arrays[name].astype(arrays[name].dtype.newbyteorder("<"), copy=False).tobytes())
        for name in file_order(layout)
    )
    write_tensors(path, layout, contents, metadata)
