"""One matrix from a file, for the commands that take one."""

import os
from typing import TYPE_CHECKING, Any

from cosa_theory.ground.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["read_array"]


def read_array(spec: str, option: str) -> "NDArray[Any]":
    """Read an array from a .npy file, or a tensor from a .safetensors file.

    Parameters
    ----------
    spec : str
        FILE, or FILE:TENSOR where the file holds several.
    option : str
        What the argument is called, for error messages.

    Returns
    -------
    ndarray
        As stored; half precision in float32. Pickled objects are refused.

    Raises
    ------
    InputError
        If there is no such file or tensor, or the file is neither or damaged.
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
        return _read_safetensors(path, tensor)
    raise InputError(f"{path} is neither .npy nor .safetensors: convert it to one of them")


def _read_npy(path: str) -> "NDArray[Any]":
    import numpy as np

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


def _read_safetensors(path: str, tensor: str) -> "NDArray[Any]":
    from safetensors import SafetensorError, safe_open

    from cosa_theory.linear.operators import to_host

    try:
        with safe_open(path, framework="pt") as file:
            names = list(file.keys())
            if not tensor and len(names) == 1:
                tensor = names[0]
            if tensor not in names:
                asked = f"no tensor {tensor!r}" if tensor else f"{len(names)} tensors"
                known = ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
                raise InputError(f"{path} has {asked}: name one as {path}:NAME (it has {known})")
            array: NDArray[Any] = to_host(file.get_tensor(tensor))
            return array
    except SafetensorError as error:
        raise InputError(f"{path} cannot be read as safetensors ({error})") from error
