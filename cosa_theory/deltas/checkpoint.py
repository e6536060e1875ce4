"""Where weights come from: safetensors files, tensors in memory, pickles when allowed.

Every source offers the same few things: what it holds (names, types, shapes; no entry is read for
that), one tensor at a time as a numpy array, and whether two of its tensors are the same bytes.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.tensor_files import TensorInfo, read_tensor

__all__ = ["Checkpoint", "FileCheckpoint", "MemoryCheckpoint", "as_numpy"]

_COMPARE_BYTES = 1 << 24
_SAMPLE_BYTES = 128


class Checkpoint(ABC):
    """A set of named tensors that are read one at a time."""

    label: str  # what messages call it: a path, or "the base model in memory"
    infos: dict[str, TensorInfo]
    config: dict[str, Any]  # the model's config.json, empty where there is none
    partial: bool = False  # whether it holds changes to a model (an adapter), not a whole model
    products: Mapping[str, bool] = {}  # the weights that an adapter gives by factors

    def align(self, pairs: Iterable[tuple[str, str]], base: Mapping[str, TensorInfo]) -> list[str]:
        """Settle what only the base can tell (an adapter's orientation); return problems."""
        return []

    @abstractmethod
    def load(self, name: str, part: int | None = None) -> NDArray[np.floating[Any]]:
        """Return a tensor, or its part-th slice, as a new float32 array (float64 if stored so)."""

    @abstractmethod
    def sample(self, name: str) -> bytes:
        """Return a few entries of a matrix as bytes: different bytes, different matrices."""

    @abstractmethod
    def identical(self, first: str, second: str) -> bool:
        """Tell whether two tensors of one type and shape are the same, bit for bit."""


class FileCheckpoint(Checkpoint):
    """Safetensors files: one, or the shards an index names, by their checked and merged headers."""

    def __init__(self, label: Path, infos: dict[str, TensorInfo], config: dict[str, Any]) -> None:
        self.label, self.config = str(label), config
        # Files list tensors by type and alphabet; layer 10 belongs after layer 9.
        self.infos = {name: infos[name] for name in sorted(infos, key=_natural)}

    def load(self, name: str, part: int | None = None) -> NDArray[np.floating[Any]]:
        """Return a tensor, or its part-th slice, as a new float32 array (float64 if stored so)."""
        # Read, not mapped: the pages of finished tensors do not stay in memory.
        tensor = read_tensor(self.infos[name], part)
        return tensor if tensor.dtype == np.float64 else tensor.astype(np.float32, copy=False)

    def sample(self, name: str) -> bytes:
        """Return bytes from the beginning, the middle and the end of a tensor."""
        info = self.infos[name]
        assert info.file is not None
        last = max(info.start, info.stop - _SAMPLE_BYTES)
        pieces = []
        with info.file.open("rb") as file:
            for offset in (info.start, (info.start + last) // 2, last):
                file.seek(offset)
                pieces.append(file.read(min(_SAMPLE_BYTES, info.stop - offset)))
        return b"".join(pieces)

    def identical(self, first: str, second: str) -> bool:
        """Tell whether two tensors of one type and shape are the same, bit for bit."""
        a, b = self.infos[first], self.infos[second]
        assert a.file is not None
        assert b.file is not None
        with a.file.open("rb") as left, b.file.open("rb") as right:
            left.seek(a.start)
            right.seek(b.start)
            remaining = a.stop - a.start
            while remaining > 0:
                step = min(remaining, _COMPARE_BYTES)
                if left.read(step) != right.read(step):
                    return False
                remaining -= step
        return True


class MemoryCheckpoint(Checkpoint):
    """Tensors in memory: numpy arrays or torch tensors by name, such as a state dict.

    A value that is neither is described by its Python type and never read.
    """

    def __init__(
        self, label: str, tensors: Mapping[str, Any], config: dict[str, Any] | None = None
    ) -> None:
        self.label, self.config = label, config or {}
        self._tensors = {str(name): value for name, value in tensors.items()}
        self.infos = {name: _describe(value) for name, value in self._tensors.items()}

    def load(self, name: str, part: int | None = None) -> NDArray[np.floating[Any]]:
        """Return a tensor, or its part-th slice, as a new float32 array (float64 if stored so)."""
        tensor = self._tensors[name]
        return as_numpy(tensor if part is None else tensor[part])

    def sample(self, name: str) -> bytes:
        """Return the beginnings of the first, the middle and the last row, as bytes."""
        tensor = self._tensors[name]
        last = tensor.shape[0] - 1
        if isinstance(tensor, np.ndarray):
            return b"".join(tensor[i, :32].tobytes() for i in (0, last // 2, last))
        rows = (tensor[i, :32] for i in (0, last // 2, last))
        return b"".join(as_numpy(row).tobytes() for row in rows)

    def identical(self, first: str, second: str) -> bool:
        """Tell whether two tensors share their memory or hold the same entries."""
        a, b = self._tensors[first], self._tensors[second]
        if isinstance(a, np.ndarray) or isinstance(b, np.ndarray):
            return type(a) is type(b) and np.array_equal(a, b)
        if a.device != b.device:
            return False
        if a.data_ptr() == b.data_ptr() and a.stride() == b.stride():
            return True
        import torch

        return torch.equal(a, b)


def as_numpy(tensor: Any) -> NDArray[np.floating[Any]]:
    """Return a copy of a numpy array or torch tensor in float32, or float64 if it is stored so."""
    if isinstance(tensor, np.ndarray):
        wide = tensor.dtype.kind == "f" and tensor.dtype.itemsize >= 8
        return tensor.astype(np.float64 if wide else np.float32, order="C", copy=True)
    import torch

    dtype = torch.float64 if tensor.dtype == torch.float64 else torch.float32
    # `copy=True`, because a float32 tensor read from a file may be a view of the mapped file.
    copy = tensor.detach().to(device="cpu", dtype=dtype, copy=True)
    return np.ascontiguousarray(copy.numpy())


def _natural(name: str) -> list[tuple[int, int, str]]:
    """Return a sorting key in which numbers count as numbers: layer.9 before layer.10."""
    parts = filter(None, re.split(r"(\d+)", name))
    return [
        (0, len(part.lstrip("0")), part) if part.isdecimal() else (1, 0, part) for part in parts
    ]


def _describe(value: Any) -> TensorInfo:
    if isinstance(value, np.ndarray):
        return TensorInfo(value.dtype.name, value.shape)
    if hasattr(value, "detach") and hasattr(value, "dtype"):
        device = " on the meta device" if value.device.type == "meta" else ""
        return TensorInfo(str(value.dtype).removeprefix("torch.") + device, tuple(value.shape))
    return TensorInfo(f"Python {type(value).__name__}", ())
