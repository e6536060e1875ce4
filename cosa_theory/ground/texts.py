"""Texts from a file: one on each line, or JSON lines where texts have line breaks of their own."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.reading import open_file, parse_json

__all__ = ["check_texts", "read_texts"]

_MOST_CHARACTERS = 1_000_000
"""Of one line."""


def read_texts(
    path: str | os.PathLike[str], most: int, *, least: int = 1, argument: str = "texts"
) -> list[str]:
    """Return the first texts of a UTF-8 file, empty ones left out.

    Each line is a text; in a file whose name ends in ``.jsonl`` it is a JSON string, or a JSON
    object with a string under "text".

    Parameters
    ----------
    path : path
        The file.
    most : int
        Where reading ends.
    least : int
        How many different texts there must be.
    argument : str
        What the file is called in messages.

    Raises
    ------
    InputError
        If it cannot be read, is not what its name says, or holds too few texts.
    """
    texts: list[str] = []
    try:
        with open_file(path) as file, io.TextIOWrapper(file, encoding="utf-8-sig") as lines:
            number = 0
            while len(texts) < most and (line := lines.readline(_MOST_CHARACTERS + 1)):
                number += 1
                where = f"{os.fspath(path)}, line {number}:"
                if len(line) > _MOST_CHARACTERS:
                    raise InputError(f"{where} over {_MOST_CHARACTERS:,} characters, break it up")
                if line.strip():
                    coded = Path(path).suffix == ".jsonl"
                    text = _text(parse_json(line.encode(), where), where) if coded else line.strip()
                    texts += [text] if text.strip() else []
        check_texts(os.fspath(path), texts, least)
    except InputError as error:
        raise InputError(f"{argument} is {error}", argument=argument) from error
    except UnicodeDecodeError as error:
        raise InputError(
            f"{argument} is {os.fspath(path)}, which is not UTF-8: save it as plain UTF-8, one "
            "text on each line",
            argument=argument,
        ) from error
    return texts


def _text(value: Any, where: str) -> str:
    text = value.get("text") if isinstance(value, dict) else value
    if not isinstance(text, str):
        raise InputError(f'{where} neither a JSON string nor an object with a string under "text"')
    return text


def check_texts(what: str, texts: Sequence[str], least: int) -> None:
    """Refuse fewer different texts than that."""
    distinct = len(set(texts))
    if distinct < least:
        raise InputError(
            f"{what}: holds {distinct} different texts, give at least {least}, one on each line"
        )
