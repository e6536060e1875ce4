"""One array out of the file that a user names: FILE.npy, or FILE.safetensors:TENSOR."""

import math
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.errors import InputError, quoted, reason
from cosa_theory.ground.reading import file_size, open_file
from cosa_theory.ground.tensor_files import (
    DTYPE_CODES,
    is_shape,
    read_header,
    read_metadata,
    read_tensor,
)

__all__ = ["read_array", "read_array_metadata", "split_spec"]


def split_spec(spec: str) -> tuple[str, str | None]:
    """Return file and tensor, the longest file that is there: both names may have colons in them.

    Where there is none, all but the last colon is taken to be the file's.
    """
    if os.path.exists(spec) or ":" not in spec:
        return spec, None
    path = spec
    while ":" in path:
        path = path.rpartition(":")[0]
        if os.path.isfile(path):
            return path, spec[len(path) + 1 :]
    path, _, tensor = spec.rpartition(":")
    return path, tensor


def read_array_metadata(spec: str) -> dict[str, str]:
    """Return what the safetensors file in FILE[:TENSOR] says of itself; of other files, nothing."""
    path, _ = split_spec(spec)
    return read_metadata(path) if path.endswith(".safetensors") else {}


def read_array(spec: str, option: str) -> NDArray[Any]:
    """Read an array of real numbers from a .npy file, or a tensor from a .safetensors file.

    `spec` is FILE, or FILE:TENSOR where the file holds several, and `option` what errors call it.
    As stored, half precision in float32. Raises `InputError` if there is no such file or tensor, or
    the file is neither or damaged; pickled objects are refused.
    """
    path, tensor = split_spec(spec)
    file_size(path, f"{option} is {spec}")
    if path.endswith(".npy"):
        if tensor is not None:
            raise InputError(f"{path} holds one array without a name: leave out :{tensor}")
        array = _read_npy(path)
    elif path.endswith(".safetensors"):
        array = _read_named(path, tensor)
    else:
        raise InputError(f"{path} is neither .npy nor .safetensors: convert it to one of them")
    return array.astype(np.float32) if array.dtype == np.float16 else array


def _read_npy(path: str) -> NDArray[Any]:
    """Read a .npy file whose header is checked first: numpy's own reader trusts its numbers."""
    # Not np.load: for anything without the magic string it supposes a pickle and advises to load
    # it unsafely.
    with open_file(path) as file:
        if file.read(6) != b"\x93NUMPY":
            raise _no_array(path, "it does not begin as a .npy file does")
        file.seek(0)
        try:
            version = np.lib.format.read_magic(file)
            read = getattr(np.lib.format, f"read_array_header_{min(version[0], 2)}_0")
            shape, by_columns, dtype = read(file)
        except Exception as error:  # its parser of Python's syntax raises whatever that can
            raise _no_array(path, f"its header: {reason(error)}") from error
        if dtype.hasobject:
            raise _no_array(path, "it holds pickled objects, which are never loaded")
        if dtype.kind not in "fiub":
            raise _no_array(path, f"its entries are of type {quoted(str(dtype))}")
        if not is_shape(shape):
            raise _no_array(path, f"its header: the shape is {quoted(shape)}")
        count, there = math.prod(shape), file_size(path) - file.tell()
        if count * dtype.itemsize != there:
            says = f"its header tells of {quoted(count * dtype.itemsize)} bytes, and {there} follow"
            raise _no_array(path, says)
        array = np.fromfile(file, dtype, count)
    return array.reshape(shape, order="F" if by_columns else "C")


def _no_array(path: str, why: str) -> InputError:
    return InputError(
        f"{path} cannot be read as an array of numbers ({why}): save one with numpy.save"
    )


def _read_named(path: str, tensor: str | None) -> NDArray[Any]:
    infos = read_header(path)
    if tensor is None and len(infos) == 1:
        tensor = next(iter(infos))
    if tensor is None or tensor not in infos:
        asked = f"{len(infos)} tensors" if tensor is None else f"no tensor {quoted(tensor)}"
        known = ", ".join(map(quoted, list(infos)[:5])) + (", …" if len(infos) > 5 else "")
        raise InputError(f"{path} has {asked}: name one as {path}:NAME (it has {known})")
    dtype = infos[tensor].dtype
    if dtype.startswith("float") and DTYPE_CODES[dtype][1] < 16:
        raise InputError(
            f"{path}: tensor {quoted(tensor)} is stored as {dtype}: convert it to float32"
        )
    if dtype.startswith("complex"):
        raise InputError(f"{path}: tensor {quoted(tensor)} is complex: give real numbers")
    return read_tensor(infos[tensor])
