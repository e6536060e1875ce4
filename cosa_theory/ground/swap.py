"""Several files of a folder replaced as one: at any moment it holds the earlier or the new ones.

The protocol. New files are written, whole and onto the disk, into a hidden folder inside the
folder. Renaming that to `.cosa-theory.new` is the one step that decides: before it the earlier
files stand, all of them; after it the new ones count, wherever they lie. They are then moved to
their places, and the hidden folder is removed. Whoever opens the folder next, to read (`reading`)
or to write, first finishes such a move, and files that are being moved are not read, for both
hold a lock on the folder that ends with the process. So a full disk, a kill or a loss of power
leaves the earlier or the new files. From what reads the folder without this module a kill during
the move hides the file called `last`, one without which the rest means nothing, such as a
configuration: it goes first and comes last, and so is never read beside files of the other kind.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import remove_leftovers, sync_folder, temporary_name
from cosa_theory.ground.reading import read_json

try:
    import fcntl
except ImportError:  # Windows, where two runs into one folder at once are not kept apart
    fcntl = None  # type: ignore[assignment]

__all__ = ["PENDING", "check_way", "is_inside", "new_names", "reading", "swapped"]

PENDING = ".cosa-theory.new"
_PLAN = ".plan.json"
_MOST_NAME, _MOST_PART = 1000, 255
"""Characters of a name, and of each of its parts, that file systems take."""


@contextmanager
def swapped(
    folder: str | os.PathLike[str],
    *,
    last: str = "",
    prepare: Callable[[Path], Iterable[str]] = lambda new: (),
) -> Iterator[Path]:
    """Yield an empty folder whose files take their places in `folder` when the block succeeds.

    Parameters
    ----------
    folder : path
        Created if it is not there. Its other files stay; on an error all do, and a folder that was
        made is removed.
    last : str
        The file of which readers that do not know this module never see a version beside files of
        another, such as "adapter_config.json".
    prepare : callable, optional
        Called with the new folder after the block, while nobody else writes: may add files to it,
        returns the names of old files to delete, may refuse all by an error.

    Raises
    ------
    InputError
        If `folder` is a file, or a folder or a link is where a file or a folder is to be.
    OSError
        If the folder cannot be written.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.absolute().parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise InputError(f"{folder}: a file is in the way: name a folder") from error
    remove_leftovers(folder)
    new = folder / temporary_name("cosa-theory")
    try:
        new.mkdir()
        yield new
        with _locked(folder, alone=True):
            _finish(folder)
            removed = [name for name in prepare(new) if is_inside(name)]
            made_inside = _make_room(folder, new_names(new), removed)
            try:
                (new / _PLAN).write_text(json.dumps({"last": last, "removed": removed}))
                _sync(new)
                os.rename(new, folder / PENDING)
            except BaseException:
                _remove_empty(made_inside)
                raise
            _finish(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)
        _remove_empty(made)


@contextmanager
def reading(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Keep the files of a folder as they are while the block reads them.

    What an interrupted run left half moved, there or in the folder around it, is finished first.

    Raises
    ------
    InputError
        If that cannot be done.
    """
    around = (Path(folder).absolute().parent, Path(folder))
    for path in filter(_pending, around):
        try:
            with _locked(path, alone=True):
                _finish(path)
        except OSError as error:
            raise InputError(
                f"{path}: an interrupted run left new files in {PENDING} that cannot be moved to "
                f"their places ({error.strerror or error}): make the folder writable"
            ) from error
    with _locked(around[0], alone=False), _locked(around[1], alone=False):
        yield


def is_inside(name: str) -> bool:
    """Return whether a relative name, with slashes, can be one of a file in the folder."""
    path = PurePosixPath(name)
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    plain = path.as_posix() == name and "\0" not in name and not Path(name).drive
    short = len(name) <= _MOST_NAME and all(len(part) <= _MOST_PART for part in path.parts)
    inner = bool(path.parts) and not path.is_absolute() and ".." not in path.parts
    return plain and short and inner


def _pending(folder: Path) -> bool:
    with suppress(OSError):
        return (folder / PENDING).is_dir()
    return False


@contextmanager
def _locked(folder: Path, *, alone: bool) -> Iterator[None]:
    """Hold the folder's lock, where the file system has locks; it ends with the process."""
    descriptor = None
    if fcntl is not None:
        with suppress(OSError):
            descriptor = os.open(folder, os.O_RDONLY)
            fcntl.flock(descriptor, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def new_names(new: Path) -> list[str]:
    """Return the files of a new folder by their names in it, sorted, without the plan."""
    found = [path.relative_to(new).as_posix() for path in new.rglob("*") if not _is_folder(path)]
    return sorted(name for name in found if name != _PLAN)


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _make_room(folder: Path, names: Iterable[str], removed: Iterable[str]) -> list[Path]:
    """Make the folders of the new files before anything is decided; return those that were made."""
    made: list[Path] = []
    for name in removed:
        check_way(folder, name)
    for name in names:
        check_way(folder, name)
        if _is_folder(folder / name):
            raise InputError(f"{folder / name}: a folder is where a file is to be: move it")
        for parent in _parents(folder, name):
            if not parent.is_dir():
                parent.mkdir()
                made.insert(0, parent)
    return made


def check_way(folder: Path, name: str) -> None:
    """Refuse a file or a link where a folder inside `folder` is to be."""
    for parent in _parents(folder, name):
        if parent.is_symlink() or (parent.exists() and not parent.is_dir()):
            what = "a link" if parent.is_symlink() else "a file"
            raise InputError(f"{parent}: {what} is where a folder is to be: move it")


def _parents(folder: Path, name: str) -> list[Path]:
    """Return the folders from `folder`, without it, down to a file."""
    return [folder / parent for parent in reversed(PurePosixPath(name).parents[:-1])]


def _sync(new: Path) -> None:
    """Wait until a new folder is on the disk, content and names."""
    for path in [new, *new.rglob("*")]:
        if _is_folder(path):
            sync_folder(path)
        else:
            with path.open("rb+") as file:
                os.fsync(file.fileno())


def _finish(folder: Path) -> None:
    """Move what is decided to its place; a move that a kill ended is taken up where it ended."""
    pending = folder / PENDING
    if not _pending(folder):
        return
    names = new_names(pending)
    try:
        plan = read_json(pending / _PLAN, own=True)
        last, removed = str(plan["last"]), [name for name in plan["removed"] if is_inside(name)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if names:
            raise InputError(f"{pending} is damaged: delete it, and run again") from error
        last, removed = "", []
    for name in (*names, *removed):  # a downloaded plan may not reach out through a link
        check_way(folder, name)
    if last in names:
        (folder / last).unlink(missing_ok=True)
    for name in filter(lambda name: os.path.lexists(folder / name), removed):
        (folder / name).unlink()
    for name in sorted(names, key=lambda name: name == last):
        os.replace(pending / name, folder / name)
    for name in removed:
        _remove_empty(reversed(_parents(folder, name)))
    for parent in {folder, *(parent for name in names for parent in _parents(folder, name))}:
        sync_folder(parent)
    done = folder / temporary_name("cosa-theory")
    os.rename(pending, done)  # one step: a plan is carried out once
    shutil.rmtree(done, ignore_errors=True)


def _remove_empty(folders: Iterable[Path]) -> None:
    """Delete those of the folders that hold nothing, innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
