"""The texts that a model is measured on: a file of one's own, and general ones."""

import os
from collections.abc import Sequence
from pathlib import Path

from cosa_theory.assets import read_reuters
from cosa_theory.ground.errors import InputError

__all__ = ["FEWEST", "general_texts", "read_texts"]

FEWEST = 8
"""Texts that an interval needs at least."""


def read_texts(path: str | os.PathLike[str], most: int) -> list[str]:
    """Return the first texts of a UTF-8 file with one on each line.

    Raises
    ------
    InputError
        If it cannot be read, is not UTF-8, or holds fewer than eight different texts.
    """
    source = Path(path)
    if not source.is_file():
        raise InputError(f"texts is {path}: there is no such file", argument="texts")
    texts: list[str] = []
    try:
        with source.open(encoding="utf-8-sig") as file:
            for line in file:
                if line.strip() and len(texts) < most:
                    texts.append(line.strip())
    except (OSError, UnicodeDecodeError) as error:
        reason = "not UTF-8" if isinstance(error, UnicodeDecodeError) else str(error.strerror)
        raise InputError(
            f"texts is {path}, which cannot be read ({reason}): save it as plain UTF-8, one text "
            "on each line",
            argument="texts",
        ) from error
    check_texts(f"texts is {path}, which", texts)
    return texts


def check_texts(what: str, texts: Sequence[str]) -> None:
    """Refuse texts too few for an interval."""
    distinct = len(set(texts))
    if distinct < FEWEST:
        raise InputError(
            f"{what} holds {distinct} different texts: give at least {FEWEST}, one on each line",
            argument="texts",
        )


def general_texts(count: int) -> list[str]:
    """Return texts of no model's domain: news wires of Reuters-21578, evenly spaced."""
    wires = [wire.text for wire in read_reuters("test")]
    step = max(1, len(wires) // count)
    return wires[::step][:count]
