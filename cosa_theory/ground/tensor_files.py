"""Reading tensors from files: safetensors, whose header is checked first, and one array of .npy.

A safetensors file is an unsigned 64-bit little-endian length, a JSON object of that length that
gives every tensor's type, shape and place, and the bytes themselves. The checks here need only the
header and the size of the file, so a damaged download is found in milliseconds. What is read needs
no torch, which has the types that numpy lacks but takes seconds to import.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.errors import InputError

__all__ = [
    "DTYPE_CODES",
    "TensorInfo",
    "is_pickle",
    "read_array",
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
    with path.open("rb") as file:
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
    size = path.stat().st_size
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
    with path.open("rb") as file:
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
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except (UnicodeDecodeError, json.JSONDecodeError, _DuplicateError) as error:
        raise InputError(f"{path}: the safetensors header is not valid JSON ({error}).") from error
    if not isinstance(header, dict):
        raise InputError(f"{path}: the safetensors header is not a JSON object.")
    return header, _LENGTH_BYTES + length


class _DuplicateError(ValueError):
    """A name that occurs twice in one JSON object."""


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _DuplicateError(f"the name {twice!r} occurs twice")
    return result


def _tensor(path: Path, name: str, entry: Any, start: int) -> TensorInfo | str:
    """Return the description of one tensor, or the sentence that says what is wrong with it."""
    where = f"{path}: tensor {name!r}"
    if not isinstance(entry, dict):
        return f"{where} has no description in the header."
    code, shape, offsets = (entry.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(code, str) or code not in _DTYPES:
        return f"{where} has the unknown type {code!r}; known are {', '.join(_DTYPES)}."
    if not _are_sizes(shape):
        return f"{where} has the invalid shape {shape!r}."
    if not _are_sizes(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        return f"{where} has the invalid byte range {offsets!r}."
    dtype, bits = _DTYPES[code]
    expected = (math.prod(shape) * bits + 7) // 8
    if offsets[1] - offsets[0] != expected:
        return (
            f"{where} ({code}, shape {tuple(shape)}) needs {expected} bytes, but the header gives "
            f"it {offsets[1] - offsets[0]}."
        )
    return TensorInfo(dtype, tuple(shape), path, start + offsets[0], start + offsets[1])


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    """Tell whether a value is a list of non-negative integers (JSON's true is not one)."""
    return isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)


def _layout_problems(
    path: Path, infos: Mapping[str, TensorInfo], start: int, size: int
) -> list[str]:
    """Say where the byte ranges overlap, leave holes, or disagree with the size of the file."""
    problems = []
    end, previous = start, ""
    for name, info in sorted(infos.items(), key=lambda item: (item[1].start, item[1].stop)):
        if info.start < end:
            problems.append(f"{path}: tensors {previous!r} and {name!r} overlap in the file.")
        elif info.start > end:
            problems.append(f"{path}: {info.start - end} unused bytes before tensor {name!r}.")
        end, previous = max(end, info.stop), name
    if size < end:
        problems.append(
            f"{path}: truncated: its header announces {end} bytes, the file has {size}: "
            "download it again."
        )
    elif size > end:
        problems.append(f"{path}: longer than its header says: expected {end} bytes, found {size}.")
    return problems


def read_metadata(spec: str) -> dict[str, str]:
    """Return what the safetensors file in FILE[:TENSOR] says of itself; of other files, nothing."""
    path = Path(spec if os.path.exists(spec) else spec.rpartition(":")[0])
    if path.suffix != ".safetensors":
        return {}
    header, _ = _read_json(path, path.stat().st_size)
    return dict(header.get("__metadata__") or {})


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


def read_array(spec: str, option: str) -> NDArray[Any]:
    """Read an array from a .npy file, or a tensor from a .safetensors file.

    `spec` is FILE, or FILE:TENSOR where the file holds several, and `option` what errors call it.
    As stored, half precision in float32. Raises `InputError` if there is no such file or tensor, or
    the file is neither or damaged; pickled objects are refused.
    """
    path, tensor = spec, ""
    if not os.path.exists(path) and ":" in spec:
        path, _, tensor = spec.rpartition(":")
    if os.path.isdir(path):
        raise InputError(f"{option} is {spec}: that is a folder, name a file in it")
    if not os.path.isfile(path):
        raise InputError(f"{option} is {spec}: there is no such file")
    if path.endswith(".npy"):
        if tensor:
            raise InputError(f"{path} holds one array without a name: leave out :{tensor}")
        return _read_npy(path)
    if path.endswith(".safetensors"):
        return _read_named(path, tensor)
    raise InputError(f"{path} is neither .npy nor .safetensors: convert it to one of them")


def _read_npy(path: str) -> NDArray[Any]:
    # Not np.load: for anything without the magic string it supposes a pickle and advises to load
    # it unsafely.
    try:
        with open(path, "rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)
    except (ValueError, EOFError) as error:
        reason = str(error)
        if "magic string" in reason:
            reason = "it does not begin as a .npy file does"
        elif "Object arrays" in reason:
            reason = "it holds pickled objects, which are never loaded"
        raise InputError(
            f"{path} cannot be read as an array of numbers ({reason}): save one with numpy.save"
        ) from error


def _read_named(path: str, tensor: str) -> NDArray[Any]:
    infos = read_header(path)
    if not tensor and len(infos) == 1:
        tensor = next(iter(infos))
    if tensor not in infos:
        asked = f"no tensor {tensor!r}" if tensor else f"{len(infos)} tensors"
        known = ", ".join(list(infos)[:5]) + (", …" if len(infos) > 5 else "")
        raise InputError(f"{path} has {asked}: name one as {path}:NAME (it has {known})")
    dtype = infos[tensor].dtype
    if dtype.startswith("float") and DTYPE_CODES[dtype][1] < 16:
        raise InputError(f"{path}: tensor {tensor!r} is stored as {dtype}: convert it to float32")
    array = read_tensor(infos[tensor])
    return array.astype(np.float32) if dtype == "float16" else array
