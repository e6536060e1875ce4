"""What every command does around its work: streams that take any text, errors as lines, codes."""

import errno
import functools
import io
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, ParamSpec

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.printable import READABLE, printable, shortened

__all__ = ["note", "program", "terminal_width"]

Given = ParamSpec("Given")


_LONGEST_WORD = 300


def note(text: str) -> None:
    """Print one line on standard error, where that is open: what is noted never ends the work.

    Of words longer than a path may be, such as a forged tensor's name, the middle is left out.
    """
    if len(text) > _LONGEST_WORD:
        text = " ".join(shortened(word, _LONGEST_WORD) for word in text.split(" "))
    if sys.stderr is not None:  # print would take standard output instead
        try:
            print(printable(text), file=sys.stderr, flush=True)
        except (OSError, ValueError):  # full, closed, or its reader is gone
            _silence(sys.stderr)


def terminal_width() -> int | None:
    """Return the columns of the terminal that standard output is, None where it is none.

    The variable COLUMNS says them if it is set.
    """
    from shutil import get_terminal_size

    try:
        return get_terminal_size().columns if sys.stdout.isatty() else None
    except (AttributeError, ValueError):  # no stream, or a closed one
        return None


def program(body: Callable[Given, int | None]) -> Callable[Given, int]:
    """Return the body of a command with all that a command owes to whoever runs it.

    While it runs, standard output and standard error take any text: signs that their encoding
    lacks are spelt in ASCII, and a stream that is closed takes everything in silence.

    Parameters
    ----------
    body : callable
        Prints its result; what it returns is the exit code, None for 0.

    Returns
    -------
    callable
        The same, which always returns an exit code: 0 done; 2 input to mend, memory or a disk that
        is full, each problem as one line on standard error; 1 where the reader of standard output
        has closed it, as `head` does; 130 interrupted. SystemExit passes.
    """

    @functools.wraps(body)
    def run(*arguments: Given.args, **options: Given.kwargs) -> int:
        with _open_streams():
            try:
                try:
                    code = body(*arguments, **options) or 0
                except SystemExit:
                    sys.stdout.flush()
                    raise
                sys.stdout.flush()
                return code
            except BrokenPipeError:
                return 1
            except KeyboardInterrupt:
                return 130
            except InputError as error:
                problems = error.problems
            except MemoryError as error:
                problems = (f"not enough memory: {error}; choose smaller sizes",)
            except OSError as error:  # a full disk, a folder without permission
                where = error.filename or _full_output(error)
                problems = (f"{where and f'{where}: '}{error.strerror or error}",)
            for problem in dict.fromkeys(problems):
                note(f"error: {problem}")
            return 2

    return run


class _Nowhere(io.RawIOBase):
    """Takes everything."""

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        return len(data)


@contextmanager
def _open_streams() -> Iterator[None]:
    """Make the standard streams take any text inside the block, and leave them as they were.

    Warnings are one line there, without the place in the code.
    """
    _hold_descriptors()
    before = {name: getattr(sys, name) for name in ("stdout", "stderr")}
    handlers, warn = {}, warnings.showwarning
    warnings.showwarning = lambda message, *_where, **_to: note(f"warning: {message}")
    for name, stream in before.items():
        if stream is None:  # closed when the process began
            setattr(sys, name, io.TextIOWrapper(_Nowhere(), encoding="utf-8"))
        elif hasattr(stream, "reconfigure"):
            handlers[name] = stream.errors
            stream.reconfigure(errors=READABLE)
    try:
        yield
    finally:
        warnings.showwarning = warn
        for name, stream in before.items():
            if stream is not None and not _broken(stream) and name in handlers:
                stream.reconfigure(errors=handlers[name])
            setattr(sys, name, stream)


def _hold_descriptors() -> None:
    """Occupy the numbers of closed standard streams, lest a file that is opened gets one of them.

    What a library in C prints would then be written into that file.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the least number that is free


def _full_output(error: OSError) -> str:
    """Return "standard output" if that is what has no room, "" otherwise.

    What was written without a buffer leaves no trace, so one more line, an empty one, has to tell.
    """
    if error.errno == errno.ENOSPC:
        with suppress(ValueError):
            try:
                print(flush=True)
            except OSError:
                return "standard output"
    return ""


def _broken(stream: Any) -> bool:
    """Whether a stream cannot be written; if so, what is left in it goes nowhere from now on."""
    try:
        stream.flush()
    except (OSError, ValueError):
        _silence(stream)
        return True
    return False


def _silence(stream: Any) -> None:
    """Lead a stream nowhere, or the interpreter would write to it once more while it ends."""
    with suppress(OSError, ValueError):  # a stream of a test or a notebook has no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)
