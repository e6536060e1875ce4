"""The files that this library wrote into a folder, so that it touches no others.

A folder of results holds a list, `.cosa-theory.json`, of the files that were written into it, each
with its SHA-256 and the part of the folder it belongs to, such as "results". Only a file that is
listed and unchanged is replaced or deleted; any other is somebody else's. The list is inert, and a
damaged one lists nothing, so that everything there is somebody else's.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from cosa_theory.ground.array_files import split_spec
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import remove_leftovers, temporary_name
from cosa_theory.ground.reading import read_json
from cosa_theory.ground.swap import check_way, is_inside, new_names, reading, swapped

__all__ = ["MANIFEST", "check_folder", "is_damaged", "own_files"]

MANIFEST = ".cosa-theory.json"
_FORMAT = 1


@dataclass(frozen=True)
class _Entry:
    part: str
    sha256: str


@contextmanager
def own_files(
    folder: str | os.PathLike[str],
    part: str,
    *,
    last: str = "",
    stays: Callable[[str], bool] = lambda name: False,
) -> Iterator[Path]:
    """Yield an empty folder; its files replace a part of `folder`, all at once.

    Parameters
    ----------
    folder : path
        Created if it is not there.
    part : str
        What is written. Its earlier files are deleted where they are not written again; those of
        other parts, and what is not listed, stay.
    last : str
        As for `cosa_theory.ground.swap.swapped`.
    stays : callable, optional
        Whether an earlier file of the part stays, by its name in `folder`.

    Raises
    ------
    InputError
        If a file that is not listed, or was changed, stands in the way; nothing was changed then.
    OSError
        If the folder cannot be written.
    """
    home, inner = _home(Path(folder))
    prefix = f"{inner}/" if inner else ""

    def prepare(new: Path) -> list[str]:
        listed, names = _read(home), new_names(new)
        gone = _gone(listed, part, prefix, stays)
        _refuse_foreign(home, listed, {*names, *gone})
        written = {name: _Entry(part, _digest(new / name)) for name in names}
        kept = {name: entry for name, entry in listed.items() if name not in gone}
        files = {name: asdict(entry) for name, entry in sorted({**kept, **written}.items())}
        text = json.dumps({"format": _FORMAT, "files": files}, indent=1)
        (new / MANIFEST).write_text(text + "\n", encoding="utf-8")
        return sorted(gone.difference(names))

    with swapped(home, last=f"{prefix}{last}" if last else "", prepare=prepare) as new:
        target = new / inner
        target.mkdir(exist_ok=True)
        yield target


def is_damaged(folder: str | os.PathLike[str], names: Iterable[str]) -> bool:
    """Return whether one of the files is gone, or is listed and not as it was written."""
    listed = _read(Path(folder))
    return not all(
        (Path(folder) / name).is_file()
        and (name not in listed or _digest(Path(folder) / name) == listed[name].sha256)
        for name in names
    )


def check_folder(
    folder: str | os.PathLike[str],
    part: str,
    names: Iterable[str],
    *,
    folders: Iterable[str] = (),
    inputs: Iterable[str | os.PathLike[str] | None] = (),
    stays: Callable[[str], bool] = lambda name: False,
) -> None:
    """Find out before a computation whether its results can be stored in a folder.

    What ended processes left there is deleted; else the folder is as it was, and is not made.

    Parameters
    ----------
    folder, part, stays
        As for `own_files`.
    names : iterable of str
        All files that may be written, with slashes.
    folders : iterable of str
        Folders inside it for intermediate results.
    inputs : iterable of path
        What the computation reads: none of it may be in the folder. None, and what is no path that
        exists, are passed over; FILE:TENSOR is a path too.

    Raises
    ------
    InputError
        One sentence that names what is in the way.
    """
    folder, names, folders = Path(folder), sorted(names), sorted(folders)
    _check_writable(folder, names)
    _refuse_inputs(folder, inputs)
    for place in (folder, *(folder / name for name in folders)):
        remove_leftovers(place)
    for name in folders:
        check_way(folder, f"{name}/file")
    home, inner = _home(folder)
    prefix = f"{inner}/" if inner else ""
    with reading(home):
        listed = _read(home)
        gone = _gone(listed, part, prefix, stays)
        _refuse_foreign(home, listed, {*gone, *(prefix + name for name in names)})


def _home(folder: Path) -> tuple[Path, str]:
    """Return the folder whose list counts, and where `folder` is in it: "", or its name.

    A folder inside one of results, made with it, is listed there.
    """
    around, name = os.path.split(os.path.abspath(folder))
    own = os.path.lexists(folder / MANIFEST) or folder.is_symlink()
    if not own and any(listed.startswith(f"{name}/") for listed in _read(Path(around))):
        return Path(around), name
    return folder, ""


def _gone(
    listed: dict[str, _Entry], part: str, prefix: str, stays: Callable[[str], bool]
) -> set[str]:
    """Return the earlier files of a part, in the folder of this prefix, that do not stay."""
    return {
        name
        for name, entry in listed.items()
        if entry.part == part and name.startswith(prefix) and not stays(name[len(prefix) :])
    }


def _read(folder: Path) -> dict[str, _Entry]:
    """Return the listed files by name, none of a damaged list."""
    path = folder / MANIFEST
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        if not path.is_symlink():
            content = read_json(path, own=True)
            if content["format"] == _FORMAT:
                return {
                    name: _Entry(str(entry["part"]), str(entry["sha256"]))
                    for name, entry in content["files"].items()
                    if is_inside(name) and not name.startswith(".cosa-theory")
                }
    return {}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_foreign(home: Path, listed: dict[str, _Entry], names: Iterable[str]) -> None:
    """Refuse if one of the files is there without being listed, or was changed."""
    foreign, changed = [], []
    for name in sorted(names):
        check_way(home, name)
        path = home / name
        if not os.path.lexists(path):
            continue
        if name not in listed:
            foreign.append(name)
        elif path.is_symlink() or not path.is_file() or _digest(path) != listed[name].sha256:
            changed.append(name)
    if foreign and _is_older(home):
        raise InputError(
            f"{home} holds results of an older version of cosa-theory, which listed no files "
            "(or the list is gone): move or delete them, or name another folder (--out)"
        )
    for found, what in ((foreign, "was not written by cosa-theory"), (changed, "was changed")):
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise InputError(
                f"{home / found[0]}{more} is in the way and {what}: move it, or name another "
                "folder (--out)"
            )


def _is_older(home: Path) -> bool:
    """Return whether there is a JSON of results in a folder without a list."""
    if _read(home):
        return False
    for path in home.glob("*.json"):
        with suppress(InputError):
            if (
                path.name != MANIFEST
                and {"verdict", "provenance"} <= read_json(path, own=True).keys()
            ):
                return True
    return False


def _check_writable(folder: Path, names: Iterable[str]) -> None:
    """Write and remove an empty folder with the longest names, and see whether that works."""
    made = [path for path in (folder, *folder.absolute().parents) if not os.path.lexists(path)]
    probe = folder / temporary_name("cosa-theory")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.mkdir()
        for name in names:
            with suppress(FileNotFoundError):
                (probe / name).lstat()
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder}: a file is in the way: name a folder (--out)") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"{str(folder)[:120]} cannot be written ({reason}): name another folder (--out)"
        ) from error
    finally:
        for path in (probe, *made):
            with suppress(OSError, ValueError):
                path.rmdir()


def _refuse_inputs(folder: Path, inputs: Iterable[str | os.PathLike[str] | None]) -> None:
    """Refuse an input that is the folder itself or lies in it, also by way of links."""
    for given in inputs:
        for path in _paths(given):
            if any(_same(parent, folder) for parent in (path, *path.parents)):
                raise InputError(
                    f"{given} is inside {folder}, where the results are to be written: name "
                    "another folder (--out)"
                )


def _paths(given: str | os.PathLike[str] | None) -> Iterator[Path]:
    """Yield where an input may lie: as named, where its links lead, and where those in it do."""
    if given is None:
        return
    path = Path(given)
    with suppress(OSError, ValueError):
        if not os.path.lexists(path):
            path = Path(split_spec(os.fspath(given))[0])
        if os.path.lexists(path):
            yield Path(os.path.abspath(path))
            yield path.resolve()
            if path.is_dir():
                yield from (inner.resolve() for inner in path.iterdir() if inner.is_symlink())


def _same(one: Path, other: Path) -> bool:
    with suppress(OSError):
        return one.samefile(other)
    return False
