"""Files that others wrote, opened and parsed: any content gives a value or one sentence.

What is opened is a regular file: a folder, a pipe or a device is refused before it can block. JSON
is what every reader of it agrees on: no name twice in an object, no half of a surrogate pair, no
number or nesting beyond what Python takes.
"""

import json
import math
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from cosa_theory.ground.errors import InputError, quoted, reason

__all__ = ["decoded_floats", "file_bytes", "file_size", "open_file", "parse_json", "read_json"]

_MOST_BYTES = 100_000_000
"""Of a file that is read as a whole: as many as the safetensors library takes in a header."""

_MOST_LEVELS = 100
_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


def file_size(path: str | os.PathLike[str], where: str = "") -> int:
    """Return the size of a regular file.

    Raises
    ------
    InputError
        If there is none of that name; it begins with `where` that is said, else with the path.
    """
    where = where or os.fspath(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # a ValueError is of a zero byte in the name
        raise InputError(f"{where}: {_why(error)}.") from error
    if stat.S_ISDIR(status.st_mode):
        raise InputError(f"{where}: that is a folder, name a file in it.")
    if not stat.S_ISREG(status.st_mode):
        raise InputError(
            f"{where}: neither a file nor a folder, but a pipe or a device: store what it "
            "gives in a file first."
        )
    return status.st_size


@contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a regular file for reading; what the system refuses is an `InputError`."""
    file_size(path)
    try:
        with open(path, "rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: {_why(error)}.") from error


def _why(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    return getattr(error, "strerror", None) or reason(error)


def file_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the content of a regular file that is not too large to be a text."""
    size = file_size(path)
    if size > _MOST_BYTES:
        raise InputError(f"{os.fspath(path)}: {size:,} bytes; at most {_MOST_BYTES:,} are read.")
    with open_file(path) as file:
        return file.read()


def read_json(path: str | os.PathLike[str], *, own: bool = False) -> dict[str, Any]:
    """Read a JSON object from a file; a byte order mark before it is left out.

    A file of our `own` may name files whose names are no text: halves of characters stay.
    """
    raw = file_bytes(path).removeprefix(b"\xef\xbb\xbf")
    value = parse_json(raw, f"{os.fspath(path)}:", halves=own)
    if not isinstance(value, dict):
        raise InputError(f"{Path(path)}: expected a JSON object, found a {type(value).__name__}.")
    return value


def decoded_floats(value: Any) -> Any:
    """Return a value of JSON with numbers in place of what transformers writes for them.

    ``{"__float__": "Infinity"}`` stands for ∞, and so on for −∞ and NaN, at any depth.
    """
    if isinstance(value, dict):
        tag = value.get("__float__")
        if len(value) == 1 and isinstance(tag, str) and tag in _FLOATS:
            return _FLOATS[tag]
        return {name: decoded_floats(one) for name, one in value.items()}
    return [decoded_floats(one) for one in value] if isinstance(value, list) else value


def parse_json(raw: bytes, where: str, *, halves: bool = False) -> Any:
    """Return the value of a JSON text in UTF-8, in whose `InputError` comes first `where` it is.

    NaN and infinities are taken, as Python and transformers write them, and `halves` of surrogate
    pairs where asked for.
    """
    try:
        text = raw.decode("utf-8")
        value = json.loads(text, object_pairs_hook=_without_duplicates)
        if _deeper(value, _MOST_LEVELS):
            raise RecursionError
    except RecursionError as error:
        raise InputError(f"{where} not valid JSON (nested over {_MOST_LEVELS} deep).") from error
    except ValueError as error:  # among others of a number with thousands of digits
        raise InputError(f"{where} not valid JSON ({reason(error)}).") from error
    if not halves and _SURROGATE.search(text):
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            half = quoted(error.object[error.start])
            raise InputError(f"{where} not valid JSON ({half} is half a character).") from error
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise ValueError(f"the name {quoted(twice)} occurs twice")
    return result


def _deeper(value: Any, levels: int) -> bool:
    """Tell whether a value has more levels of lists and objects than that."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            part
            for one in layer
            if isinstance(one, (dict, list))
            for part in (one.values() if isinstance(one, dict) else one)
        ]
    return bool(layer)
