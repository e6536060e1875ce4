"""Writing files so that nothing is ever half written.

What is being written has a temporary name that tells whose it is: the machine, the process and a
number. The next run into the same folder deletes those of processes that have ended.
"""

import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

from cosa_theory.ground.errors import InputError

__all__ = ["atomic_path", "check_file", "remove_leftovers", "sync_folder", "temporary_name"]

_COUNT = count()
_TEMPORARY = re.compile(r"\..*\.([0-9a-f]{8})-(\d+)-\d+\.part(\..*)?", re.DOTALL)


def _machine() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def temporary_name(name: str) -> str:
    """Return a hidden name for what becomes `name`, with its ending; no two are the same."""
    stem, suffix = os.path.splitext(name)
    # Cut, so that every name that fits into a folder has a temporary one that does; what is so long
    # names no format.
    suffix = suffix if len(suffix) <= 12 else ""
    return f".{stem[:40]}.{_machine()}-{os.getpid()}-{next(_COUNT)}.part{suffix}"


def remove_leftovers(folder: str | os.PathLike[str]) -> None:
    """Delete temporary files and folders in `folder` whose process, on this machine, has ended."""
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            made = _TEMPORARY.fullmatch(entry.name)
            if made is None or made[1] != _machine() or _is_running(int(made[2])):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            else:
                with suppress(OSError):
                    os.unlink(entry.path)


def _is_running(process: int) -> bool:
    if os.name == "nt":  # where the question would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # somebody else's, or no number of a process
        return True
    return True


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def check_file(argument: str, target: str | os.PathLike[str]) -> None:
    """Find out before a computation whether `atomic_path` can write a file; nothing is left there.

    Raises
    ------
    InputError
        If it is a folder, a file stands where its folder is to be, or it cannot be written.
    """
    target, problem = Path(target), "is a folder: name a file in it"
    made = [path for path in target.absolute().parents if not os.path.lexists(path)]
    try:
        if not os.path.isdir(target):
            problem = ""
            target.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):
                target.lstat()  # the name may be too long
            probe = target.with_name(temporary_name(target.name))
            probe.touch()
            probe.unlink()
    except (FileExistsError, NotADirectoryError):
        problem = "needs a folder where a file is: name another file"
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        problem = f"cannot be written ({reason}): name another file"
    finally:
        for path in made:
            with suppress(OSError, ValueError):
                path.rmdir()
    if problem:
        raise InputError(f"{argument} is {target}, which {problem}", argument=argument)


@contextmanager
def atomic_path(target: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `target`, renamed to `target` when the block succeeds.

    The folder of `target` is created; the path is in it (hence on the same file system, where a
    rename is atomic), has the same suffix and does not exist yet. Whatever the block left there is
    deleted on an error. The content is on the disk before the name is, and the name when this
    returns: after a loss of power the file is the old one or the new one. For several files that
    belong together see `cosa_theory.ground.swap.swapped`.
    """
    target = Path(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(temporary_name(target.name))
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_folder(target.parent)
    finally:
        temporary.unlink(missing_ok=True)
