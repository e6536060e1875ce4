"""Where weights come from: safetensors files, tensors in memory, pickles when allowed.

Every source offers the same few things: what it holds (names, types, shapes; no entry is read for
that), one tensor at a time as a numpy array, and whether two of its tensors are the same bytes.
"""

import json
import os
import re
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo, is_pickle, read_header

__all__ = ["Checkpoint", "FileCheckpoint", "MemoryCheckpoint", "open_checkpoint"]

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
_HUB_PICKLES = ("*.bin", "*.bin.index.json")
_COMPARE_BYTES = 1 << 24
_SAMPLE_BYTES = 128


class Checkpoint(ABC):
    """A set of named tensors that are read one at a time.

    Attributes
    ----------
    label : str
        What messages call it: a path, or "the base model in memory".
    infos : dict of str to TensorInfo
        What it holds.
    config : dict
        The model's config.json, empty where there is none.
    partial : bool
        Whether it holds changes to a model (an adapter) and not a whole model.
    """

    label: str
    infos: dict[str, TensorInfo]
    config: dict[str, Any]
    partial: bool = False

    def align(self, pairs: Mapping[str, str], base: Mapping[str, TensorInfo]) -> list[str]:
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
    """Safetensors files: one, or the shards an index names.

    Parameters
    ----------
    label : path
        The file, or the folder that holds the shards.
    infos : dict of str to TensorInfo
        The checked headers, merged.
    config : dict
        The model's config.json.
    """

    def __init__(self, label: Path, infos: dict[str, TensorInfo], config: dict[str, Any]) -> None:
        self.label, self.config = str(label), config
        # Files list tensors by type and alphabet; layer 10 belongs after layer 9.
        self.infos = {name: infos[name] for name in sorted(infos, key=_natural)}

    def load(self, name: str, part: int | None = None) -> NDArray[np.floating[Any]]:
        """Return a tensor, or its part-th slice, as a new float32 array (float64 if stored so)."""
        from safetensors import safe_open

        info = self.infos[name]
        # numpy has no bfloat16; torch reads it. The file is opened anew each time so that the
        # pages of finished tensors do not stay mapped.
        framework = "pt" if info.dtype == "bfloat16" else "numpy"
        with safe_open(str(info.file), framework=framework) as file:
            tensor = file.get_tensor(name) if part is None else file.get_slice(name)[part]
            if framework == "pt":
                return as_numpy(tensor)
        # Already a private copy of the file's bytes: convert it only where the type demands it.
        dtype = np.float64 if tensor.dtype == np.float64 else np.float32
        return np.require(tensor, dtype, ["C", "W"])

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
    """Tensors in memory: a state dict, a module's, or any mapping of names to arrays.

    Parameters
    ----------
    label : str
        What messages call it.
    tensors : mapping
        Name to numpy array or torch tensor; a value that is neither is described by its Python
        type and never read.
    config : dict, optional
        The model's configuration.
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
        rows = (tensor[i, :32] for i in (0, tensor.shape[0] // 2, tensor.shape[0] - 1))
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


def _natural(name: str) -> list[tuple[int, int | str]]:
    """Return a sorting key in which numbers count as numbers: layer.9 before layer.10."""
    parts = re.split(r"(\d+)", name)
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts if part]


def _describe(value: Any) -> TensorInfo:
    if isinstance(value, np.ndarray):
        return TensorInfo(value.dtype.name, value.shape)
    if hasattr(value, "detach") and hasattr(value, "dtype"):
        device = " on the meta device" if value.device.type == "meta" else ""
        return TensorInfo(str(value.dtype).removeprefix("torch.") + device, tuple(value.shape))
    return TensorInfo(f"Python {type(value).__name__}", ())


def open_checkpoint(source: Any, role: str, allow_pickle: bool = False) -> Checkpoint:
    """Open a file, a folder, a hub id, a module or a mapping of tensors.

    Parameters
    ----------
    source : path, torch.nn.Module or mapping
        A `.safetensors` file; a folder with `model.safetensors`, with an index and its shards, or
        with a single file of another name; tensors in memory. For a hub id see `locate`.
    role : {"base", "tuned"}
        What messages call a source that has no path.
    allow_pickle : bool
        Whether pickles may be read, by torch's weights-only loader.

    Returns
    -------
    Checkpoint
        The open source; nothing but headers has been read.

    Raises
    ------
    InputError
        Naming every problem of the source's files.
    """
    if isinstance(source, Mapping):
        return MemoryCheckpoint(f"the {role} model in memory", source)
    if hasattr(source, "state_dict"):
        config = getattr(source, "config", None)
        settings = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
        return MemoryCheckpoint(f"the {role} model in memory", source.state_dict(), settings)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"{role}: expected a path, a hub id, a module or a mapping of tensors, got "
            f"{type(source).__name__}."
        )
    return _open_path(Path(source), allow_pickle)


def locate(source: str | os.PathLike[str], role: str, allow_pickle: bool = False) -> Path:
    """Return the path a source names, downloading it first if it is a hub id."""
    path = Path(source).expanduser()
    if path.exists():
        return path
    text = os.fspath(source)
    if not _HUB_ID.fullmatch(text) or text.endswith((".safetensors", ".json", *PICKLE_SUFFIXES)):
        raise InputError(f"{role}: no such file or folder: {text}.")
    return _download(text, role, allow_pickle)


def _download(identifier: str, role: str, allow_pickle: bool) -> Path:
    """Fetch a model from the hub (or its local cache) and return its folder."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f"{role}: no such file or folder: {identifier}; to read it from the hub install "
            "cosa-theory[llm]."
        ) from error
    try:
        files = [*_HUB_FILES, *(_HUB_PICKLES if allow_pickle else ())]
        folder = snapshot_download(identifier, allow_patterns=files, ignore_patterns=["*/*"])
        return Path(folder)
    except (OSError, ValueError) as error:  # the hub's errors derive from these two
        raise InputError(
            f"{role}: {identifier} is no file or folder here, and the hub did not give it "
            f"({type(error).__name__}): check the name and the network, or pass a local path."
        ) from error


def _open_path(path: Path, allow_pickle: bool) -> Checkpoint:
    config = _read_config(path if path.is_dir() else path.parent)
    files = [path] if path.is_file() else weight_files(path)
    first = files[0]
    if first.name.endswith(".index.json"):
        folder = first.parent
        shards = _read_index(first)
        if not first.name.endswith(".safetensors.index.json"):
            return _open_pickles(path, [folder / name for name in shards], config, allow_pickle)
        return FileCheckpoint(path, _merge_shards(first, shards), config)
    if first.suffix == ".gguf":
        raise InputError(f"{path}: GGUF files are quantised: dequantise to safetensors first.")
    if first.suffix in PICKLE_SUFFIXES or is_pickle(first):
        return _open_pickles(path, files, config, allow_pickle)
    return FileCheckpoint(path, read_header(first), config)


def weight_files(folder: Path) -> list[Path]:
    """Return the file of a folder that holds, or lists, the model's weights.

    `model.safetensors` comes before an index, safetensors before pickles, and a single file of
    any name is accepted.
    """
    for pattern in (
        "model.safetensors",
        "*.safetensors.index.json",
        "*.safetensors",
        "*.bin.index.json",
        "pytorch_model.bin",
        "*.gguf",
    ):
        found = sorted(folder.glob(pattern))
        if len(found) > 1:
            names = ", ".join(path.name for path in found[:5])
            raise InputError(f"{folder}: several files could be the model ({names}): name one.")
        if found:
            return found
    found = sorted(path for path in folder.iterdir() if path.suffix in PICKLE_SUFFIXES)
    if len(found) == 1:
        return found
    raise InputError(
        f"{folder}: no weights here (expected model.safetensors, or model.safetensors.index.json "
        "with its shards)."
    )


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    return read_json(path) if path.is_file() else {}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not valid JSON ({error}).") from error
    if not isinstance(value, dict):
        raise InputError(f"{path}: expected a JSON object, found a {type(value).__name__}.")
    return value


def _read_index(path: Path) -> dict[str, set[str]]:
    """Return shard file name to the set of tensors that the index puts there."""
    weight_map = read_json(path).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{path}: the index has no weight_map.")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        shards.setdefault(str(shard), set()).add(name)
    leaving = [shard for shard in shards if _leaves_folder(shard)]
    if leaving:
        raise InputError(
            *(f"{path}: the index names {shard!r}, a path outside its folder." for shard in leaving)
        )
    return shards


def _leaves_folder(name: str) -> bool:
    """Tell whether a relative file name leads out of its folder, on any system.

    The check is of the name, not of the file it resolves to: the hub's cache consists of links.
    """
    return any(
        bool(kind(name).anchor) or ".." in kind(name).parts
        for kind in (PurePosixPath, PureWindowsPath)
    )


def _merge_shards(index: Path, shards: Mapping[str, set[str]]) -> dict[str, TensorInfo]:
    """Read every shard's header and check it against the index."""
    infos: dict[str, TensorInfo] = {}
    problems: list[str] = []
    for shard, expected in shards.items():
        path = index.parent / shard
        if not path.is_file():
            problems.append(
                f"{path}: missing; {index.name} expects {len(expected)} tensors in this shard."
            )
            continue
        try:
            found = read_header(path)
        except InputError as error:
            problems.extend(error.problems)
            continue
        absent, extra = sorted(expected - found.keys()), sorted(found.keys() - expected)
        if absent or extra:
            problems.append(
                f"{path}: disagrees with {index.name}: expected {len(expected)} tensors, found "
                f"{len(found)}{_first(' missing', absent)}{_first(' not in the index', extra)}."
            )
        infos.update(found)
    if problems:
        raise InputError(*problems)
    return infos


def _first(label: str, names: list[str]) -> str:
    return f";{label}: {', '.join(names[:5])}" if names else ""


def _open_pickles(
    label: Path, files: list[Path], config: dict[str, Any], allow_pickle: bool
) -> Checkpoint:
    """Open pickled checkpoints with torch's weights-only loader, if the caller allows it."""
    if not allow_pickle:
        raise InputError(
            f"{files[0]}: a pickle, which can run any code when it is loaded: convert it to "
            "safetensors, or allow torch's weights-only loader (allow_pickle)."
        )
    import pickle

    import torch

    tensors: dict[str, Any] = {}
    for path in files:
        if not path.is_file():
            raise InputError(f"{path}: missing; the index expects this shard.")
        if path.suffix == ".safetensors":
            raise InputError(f"{path}: a pickle under the name of a safetensors file: rename it.")
        mapped = zipfile.is_zipfile(path)  # only torch's newer format can be mapped
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path}: the weights-only loader refused it ({reason}).") from error
        if not isinstance(loaded, Mapping):
            raise InputError(f"{path}: holds a {type(loaded).__name__}, not a state dict.")
        nested = loaded.get("state_dict")
        tensors.update(nested if isinstance(nested, Mapping) else loaded)
    return MemoryCheckpoint(str(label), tensors, config)
