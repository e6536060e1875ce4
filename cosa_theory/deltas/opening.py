"""Opening what a user names: a file, a folder with an index, a hub id, a module, tensors."""

import os
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from cosa_theory.deltas.checkpoint import Checkpoint, FileCheckpoint, MemoryCheckpoint
from cosa_theory.ground.errors import InputError, Problems, quoted, reason
from cosa_theory.ground.fields import Field, read_fields, table_of, text
from cosa_theory.ground.reading import decoded_floats, file_size, read_json
from cosa_theory.ground.tensor_files import TensorInfo, is_pickle, read_header

__all__ = ["from_hub", "locate", "open_checkpoint"]

_PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_HUB_FILES = ("*.safetensors", "*.safetensors.index.json", "config.json", "adapter_config.json")
_INDEX = {"weight_map": Field(table_of(text))}
_HUB_PICKLES = ("*.bin", "*.bin.index.json")


def open_checkpoint(source: Any, role: str, allow_pickle: bool | None = False) -> Checkpoint:
    """Open a path (see `locate` for hub ids), a module or a mapping of tensors by its headers.

    A folder has `model.safetensors`, an index and its shards, or a single file of another name.
    `role` is what messages call a source without a path; pickles, if allowed, are read by torch's
    weights-only loader, and None says that none can be. An InputError names every problem of the
    source's files.
    """
    if isinstance(source, Mapping):
        return MemoryCheckpoint(f"the {role} model in memory", source)
    if hasattr(source, "state_dict"):
        config = getattr(source, "config", None)
        settings = config.to_dict() if config is not None and hasattr(config, "to_dict") else {}
        settings["architectures"] = settings.get("architectures") or [type(source).__name__]
        return MemoryCheckpoint(f"the {role} model in memory", source.state_dict(), settings)
    if not isinstance(source, str | os.PathLike):
        raise InputError(
            f"{role}: expected a path, a hub id, a module or a mapping of tensors, got "
            f"{type(source).__name__}."
        )
    return _open_path(Path(source), allow_pickle)


def locate(source: str | os.PathLike[str], role: str, allow_pickle: bool = False) -> Path:
    """Return the path a source names, downloading it first if it is a hub id."""
    text = os.fspath(source)
    try:
        path = Path(source).expanduser()
        if path.exists():
            return path
    except (OSError, RuntimeError, ValueError) as error:  # too long, not allowed, no such user
        raise InputError(f"{role}: {text} cannot be read ({reason(error)}).") from error
    if not _HUB_ID.fullmatch(text) or text.endswith((".safetensors", ".json", *_PICKLE_SUFFIXES)):
        raise InputError(f"{role}: no such file or folder: {text}.")
    files = [*_HUB_FILES, *(_HUB_PICKLES if allow_pickle else ())]
    return from_hub(text, f"{role}: ", files)


def from_hub(identifier: str, where: str, files: Sequence[str]) -> Path:
    """Return the folder of the local cache with these files of a model on the hub.

    Raises InputError if the hub does not give them; `where` is how the message begins.
    """
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise InputError(
            f"{where}no such file or folder: {identifier}; to read it from the hub install "
            "cosa-theory[llm]."
        ) from error
    try:
        found = snapshot_download(identifier, allow_patterns=[*files], ignore_patterns=["*/*"])
    except (OSError, ValueError) as error:  # the hub's errors derive from these two
        raise InputError(
            f"{where}{identifier} is no file or folder here, and the hub did not give it "
            f"({type(error).__name__}): check the name and the network, or pass a local path."
        ) from error
    return Path(found)


def _open_path(path: Path, allow_pickle: bool | None) -> Checkpoint:
    described = (path if path.is_dir() else path.parent) / "config.json"
    config = decoded_floats(read_json(described)) if described.is_file() else {}
    files = _weight_files(path) if path.is_dir() else [path]
    file_size(files[0])
    first = files[0]
    if first.name.endswith(".index.json"):
        folder = first.parent
        shards = _read_index(first)
        if not first.name.endswith(".safetensors.index.json"):
            return _open_pickles(path, [folder / name for name in shards], config, allow_pickle)
        return FileCheckpoint(path, _merge_shards(first, shards), config)
    if first.suffix == ".gguf":
        raise InputError(f"{path}: GGUF files are quantised: dequantise to safetensors first.")
    if first.suffix in (".npy", ".npz"):
        raise InputError(f"{path}: arrays of numpy: store them as safetensors first.")
    if first.suffix in _PICKLE_SUFFIXES or is_pickle(first):
        return _open_pickles(path, files, config, allow_pickle)
    return FileCheckpoint(path, read_header(first), config)


def _weight_files(folder: Path) -> list[Path]:
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
    found = sorted(path for path in folder.iterdir() if path.suffix in _PICKLE_SUFFIXES)
    if len(found) == 1:
        return found
    inside = ", ".join(sorted({path.parent.name for path in folder.glob("*/*.safetensors")})[:5])
    raise InputError(
        f"{folder}: no weights here (expected model.safetensors, or model.safetensors.index.json "
        f"with its shards){inside and f', but in its folders: name one of {inside}'}."
    )


def _read_index(path: Path) -> dict[str, set[str]]:
    """Return shard file name to the set of tensors that the index puts there."""
    weight_map = read_fields(read_json(path), _INDEX, f"{path}")["weight_map"]
    if not weight_map:
        raise InputError(f"{path}: the index has no weight_map.")
    shards: dict[str, set[str]] = {}
    for name, shard in weight_map.items():
        shards.setdefault(shard, set()).add(name)
    problems = [
        f"{path}: the index names {quoted(shard)}, a path outside its folder."
        for shard in shards
        if _leaves_folder(shard)
    ]
    if problems:
        raise InputError(*problems)
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
    problems = Problems()
    for shard, expected in shards.items():
        path = index.parent / shard
        with problems:
            if not os.path.isfile(path):
                raise InputError(
                    f"{path}: missing; {index.name} expects {len(expected)} tensors in this shard."
                )
            found = read_header(path)
            infos.update(found)
            absent, extra = sorted(expected - found.keys()), sorted(found.keys() - expected)
            if absent or extra:
                raise InputError(
                    f"{path}: disagrees with {index.name}: expected {len(expected)} tensors, found "
                    f"{len(found)}{_first(' missing', absent)}{_first(' not in the index', extra)}."
                )
    problems.report()
    return infos


def _first(label: str, names: list[str]) -> str:
    return f";{label}: {', '.join(names[:5])}" if names else ""


def _open_pickles(
    label: Path, files: list[Path], config: dict[str, Any], allow_pickle: bool | None
) -> Checkpoint:
    """Open pickled checkpoints with torch's weights-only loader, if the caller allows it."""
    if not allow_pickle:
        allowing = ", or allow torch's weights-only loader with allow_pickle=True"
        raise InputError(
            f"{files[0]}: a pickle, which can run any code when it is loaded: convert it to "
            f"safetensors{'' if allow_pickle is None else allowing}.",
            remedies=[("allow_pickle", True)],
        )
    import torch

    tensors: dict[str, Any] = {}
    for path in files:
        if not os.path.isfile(path):
            raise InputError(f"{path}: missing; the index expects this shard.")
        if path.suffix == ".safetensors":
            raise InputError(f"{path}: a pickle under the name of a safetensors file: rename it.")
        file_size(path)
        mapped = zipfile.is_zipfile(path)  # only torch's newer format can be mapped
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except Exception as error:  # a pickle's instructions can fail in any way
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(f"{path}: the weights-only loader refused it ({said}).") from error
        if not isinstance(loaded, Mapping):
            raise InputError(f"{path}: holds a {type(loaded).__name__}, not a state dict.")
        nested = loaded.get("state_dict")
        found = nested if isinstance(nested, Mapping) else loaded
        if twice := tensors.keys() & {str(name) for name in found}:
            raise InputError(
                f"{path}: the tensor {min(twice)} is in another file of the model too."
            )
        tensors |= {str(name): value for name, value in found.items()}
    return MemoryCheckpoint(str(label), tensors, config)
