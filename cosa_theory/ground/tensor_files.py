"""Reading tensors from safetensors files, whose header is checked first.

A safetensors file is an unsigned 64-bit little-endian length, a JSON object of that length that
gives every tensor's type, shape and place, and the bytes themselves. The checks here need only the
header and the size of the file, so a damaged download is found in milliseconds. What is read needs
no torch, which has the types that numpy lacks but takes seconds to import.
"""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.ground.reading import file_size, open_file, parse_json

__all__ = [
    "DTYPE_CODES",
    "TensorInfo",
    "is_pickle",
    "is_shape",
    "read_bytes",
    "read_header",
    "read_metadata",
    "read_tensor",
]

# Code in the file -> (name used everywhere here, bits per entry).
_DTYPES = {
    "F64": ("float64", 64),
    "F32": ("float32", 32),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F4": ("float4_e2m1", 4),
    "C64": ("complex64", 64),
    "I64": ("int64", 64),
    "I32": ("int32", 32),
    "I16": ("int16", 16),
    "I8": ("int8", 8),
    "U64": ("uint64", 64),
    "U32": ("uint32", 32),
    "U16": ("uint16", 16),
    "U8": ("uint8", 8),
    "BOOL": ("bool", 8),
}
DTYPE_CODES = {name: (code, bits) for code, (name, bits) in _DTYPES.items()}
"""A type's name to its code in the file and the bits of an entry."""

_LENGTH_BYTES = 8
# The safetensors library refuses longer headers; so a larger number means "not safetensors".
_MAX_HEADER = 100_000_000
_MOST_AXES, _MOST_ENTRIES = 64, 2**59  # of a numpy array, whose bytes are numbered by an int64


@dataclass(frozen=True)
class TensorInfo:
    """What is known of a tensor before its entries are read.

    `dtype` is the stored type, such as "bfloat16"; `file`, None for tensors in memory, holds it
    from byte `start` to `stop`.
    """

    dtype: str
    shape: tuple[int, ...]
    file: Path | None = None
    start: int = 0
    stop: int = 0


def is_pickle(path: Path) -> bool:
    """Tell whether a file starts like a pickle or like the zip archive torch wraps one in."""
    with open_file(path) as file:
        start = file.read(_LENGTH_BYTES + 1)
    if (
        start[_LENGTH_BYTES:] == b"{"
        and int.from_bytes(start[:_LENGTH_BYTES], "little") < _MAX_HEADER
    ):
        return False  # safetensors; a header of 640 bytes has a pickle's first two bytes
    return start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"))


def read_header(path: str | os.PathLike[str]) -> dict[str, TensorInfo]:
    """Read and check the header of one safetensors file: its tensors by name, in that order.

    Raises
    ------
    InputError
        If the file is truncated, longer than its header says, not safetensors at all, or if the
        header's types, shapes and byte ranges contradict each other. All problems of the file are
        in one error.
    """
    path = Path(path)
    size = file_size(path)
    header, start = _read_json(path, size)
    problems: list[str] = []
    infos: dict[str, TensorInfo] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        info = _tensor(path, name, entry, start)
        if isinstance(info, str):
            problems.append(info)
        else:
            infos[name] = info
    if not problems:
        problems = _layout_problems(path, infos, start, size)
    if problems:
        raise InputError(*problems)
    return infos


def _read_json(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """Return the header's JSON object and the offset at which the tensors' bytes start."""
    if size < _LENGTH_BYTES:
        raise InputError(
            f"{path}: a safetensors file has at least {_LENGTH_BYTES} bytes, this one has {size}: "
            "download it again."
        )
    with open_file(path) as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > _MAX_HEADER:
            raise InputError(
                f"{path}: not a safetensors file (its first 8 bytes announce a header of {length} "
                "bytes)."
            )
        if size < _LENGTH_BYTES + length:
            raise InputError(
                f"{path}: truncated within its header: expected at least {_LENGTH_BYTES + length} "
                f"bytes, found {size}: download it again."
            )
        raw = file.read(length)
    header = parse_json(raw, f"{path}: the safetensors header is")
    if not isinstance(header, dict) or raw[:1] != b"{":  # the library takes no space before it
        raise InputError(f"{path}: the safetensors header is not a JSON object.")
    return header, _LENGTH_BYTES + length


def _tensor(path: Path, name: str, entry: Any, start: int) -> TensorInfo | str:
    """Return the description of one tensor, or the sentence that says what is wrong with it."""
    where = f"{path}: tensor {quoted(name)}"
    if not isinstance(entry, dict):
        return f"{where} has no description in the header."
    code, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(code, str) or code not in _DTYPES:
        return f"{where} has the unknown type {quoted(code)}; known are {', '.join(_DTYPES)}."
    if not isinstance(shape, list) or not is_shape(shape):
        return f"{where} has the invalid shape {quoted(shape)}."
    if not _is_range(offsets):
        return f"{where} has the invalid byte range {quoted(offsets)}."
    dtype, bits = _DTYPES[code]
    expected = (math.prod(shape) * bits + 7) // 8
    if offsets[1] - offsets[0] != expected:
        return (
            f"{where} ({code}, shape {quoted(tuple(shape))}) needs {expected} bytes, but the "
            f"header gives it {offsets[1] - offsets[0]}."
        )
    return TensorInfo(dtype, tuple(shape), path, start + offsets[0], start + offsets[1])


def is_shape(value: Any) -> TypeGuard[Sequence[int]]:
    """Tell whether a value is the shape of an array that can be: its sizes, True being none."""
    return (
        isinstance(value, list | tuple)
        and len(value) <= _MOST_AXES
        and all(type(size) is int and size >= 0 for size in value)
        and math.prod(size or 1 for size in value) < _MOST_ENTRIES
    )


def _is_range(value: Any) -> TypeGuard[list[int]]:
    """Tell whether a value is two places in a file, in their order."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and all(type(place) is int for place in value)
        and 0 <= value[0] <= value[1] < 2**63
    )


def _layout_problems(
    path: Path, infos: Mapping[str, TensorInfo], start: int, size: int
) -> list[str]:
    """Say where the byte ranges overlap, leave holes, or disagree with the size of the file."""
    problems = []
    end, previous = start, ""
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start < end:
            problems.append(
                f"{path}: tensors {quoted(previous)} and {quoted(name)} overlap in the file."
            )
        elif info.start > end:
            problems.append(
                f"{path}: {info.start - end} unused bytes before tensor {quoted(name)}."
            )
        end, previous = max(end, info.stop), name
    if size < end:
        problems.append(
            f"{path}: truncated: its header announces {end} bytes, the file has {size}: "
            "download it again."
        )
    elif size > end:
        problems.append(f"{path}: longer than its header says: expected {end} bytes, found {size}.")
    return problems


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Return what a safetensors file says of itself, text by name.

    Raises
    ------
    InputError
        If the header cannot be read, or it says something else than text.
    """
    path = Path(path)
    header, _ = _read_json(path, file_size(path))
    metadata = header.get("__metadata__")
    if metadata is None:
        return {}
    if not isinstance(metadata, dict) or not all(isinstance(one, str) for one in metadata.values()):
        raise InputError(
            f"{path}: __metadata__ is {quoted(metadata)}: it must be names with texts."
        )
    return metadata


def read_bytes(info: TensorInfo) -> bytes:
    """Return the bytes of a stored tensor."""
    assert info.file is not None
    with info.file.open("rb") as file:
        file.seek(info.start)
        return file.read(info.stop - info.start)


def read_tensor(info: TensorInfo, part: int | None = None) -> NDArray[Any]:
    """Read a tensor of a file, from `read_header`, or its part-th slice along the first axis.

    The type is one that numpy has, or bfloat16. The array is new and in the stored type; bfloat16
    comes in float32, which holds its values exactly.
    """
    assert info.file is not None
    dtype = np.dtype("uint16" if info.dtype == "bfloat16" else info.dtype).newbyteorder("<")
    shape = info.shape if part is None else info.shape[1:]
    count = math.prod(shape)
    start = info.start + (part or 0) * count * dtype.itemsize
    stored = np.fromfile(info.file, dtype, count, offset=start).reshape(shape)
    if info.dtype != "bfloat16":
        return stored
    array = np.empty(shape, np.float32)  # of which bfloat16 is the upper half
    np.left_shift(stored, 16, out=array.view(np.uint32), dtype=np.uint32)
    return array
