"""The result of one command as a document: verdict, notices, tables; stored and read back."""

import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import InputError, reason
from cosa_theory.ground.fields import Field, items, read_fields, table_of, text
from cosa_theory.ground.manifest import own_files
from cosa_theory.ground.printable import json_text, printable
from cosa_theory.ground.reading import open_file, read_json
from cosa_theory.ground.swap import is_inside, reading

__all__ = [
    "FIGURES",
    "PAGE",
    "RESULTS",
    "Document",
    "Tables",
    "plain",
    "read_document",
    "read_table",
    "records",
    "showing",
    "write_document",
    "write_table",
    "write_tables",
]

Tables: TypeAlias = Mapping[str, pd.DataFrame]
"""The tables of a document by name."""

_SHOWN = 10  # rows of a table in a notebook

PAGE = "report.html"
FIGURES = "figures"
RESULTS = "results"
"""The part of a folder that a document and its page are."""


@dataclass(frozen=True)
class Document:
    """What a command found out.

    Parameters
    ----------
    command : str
        Its name, such as "audit".
    verdict : str
        One plain sentence, the first line of every output.
    notices : tuple of str
        What the reader should know about the input.
    tables : mapping of str to pandas.DataFrame
        By name; the names of the other fields are taken.
    provenance : mapping
        As `cosa_theory.ground.provenance.provenance` makes it.
    unlisted : tuple of str
        Tables that are too long for JSON: they are stored as parquet alone.
    """

    command: str
    verdict: str
    notices: tuple[str, ...]
    tables: Tables
    provenance: Mapping[str, Any]
    unlisted: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values, null where a number does not exist.

        Returns
        -------
        dict
            `command`, `verdict`, `notices`, each listed table under its name as a list of records,
            and `provenance`.
        """
        listed = {name: table for name, table in self.tables.items() if name not in self.unlisted}
        return {
            "command": self.command,
            "verdict": self.verdict,
            "notices": list(self.notices),
            **{name: records(table) for name, table in listed.items()},
            "provenance": plain(self.provenance),
        }

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the verdict, the notices, the head of every table."""
        verdict, *notices = (escape(printable(text)) for text in (self.verdict, *self.notices))
        parts = [f"<p><b>{verdict}</b></p>", *(f"<p>{text}</p>" for text in notices)]
        for name, table in self.tables.items():
            shown = table.head(_SHOWN).map(
                lambda one: printable(one) if isinstance(one, str) else one
            )
            left = f", {_SHOWN} of {len(table):,} rows" if len(table) > _SHOWN else ""
            parts.append(f"<p>{escape(printable(name))}{left}</p>{shown.to_html(index=False)}")
        return "\n".join(parts)


def plain(value: Any) -> Any:
    """Return `value` with numpy and pandas scalars made plain, and every missing number None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):  # a list, as parquet gives it back
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is pd.NA or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as plain JSON values, null where a number does not exist."""
    return [plain(row) for row in table.to_dict(orient="records")]


def write_document(document: Document, folder: str | os.PathLike[str]) -> Path:
    """Write the tables as parquet and the rest as JSON, over the results of an earlier run.

    Parameters
    ----------
    document : Document
        What to store.
    folder : path
        Created if it is not there. Results of an earlier run in it, of whichever command, are
        deleted as the new ones take their places; other files stay.

    Returns
    -------
    pathlib.Path
        The folder.

    Raises
    ------
    InputError
        As for `cosa_theory.ground.manifest.own_files`.
    """
    with own_files(folder, RESULTS, last=f"{document.command}.json") as new:
        write_tables(document, new)
    return Path(folder)


def write_tables(document: Document, new: Path) -> None:
    """Write the tables as parquet and the rest as JSON into a new folder."""
    new.mkdir(exist_ok=True)
    for name, table in document.tables.items():
        write_table(table, new / f"{name}.parquet")
    content = document.as_json() | {"tables": list(document.tables)}
    path = new / f"{document.command}.json"
    path.write_text(json_text(content) + "\n", encoding="utf-8")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Write a table as parquet, also where the path is no UTF-8, which pyarrow alone refuses."""
    with path.open("wb") as file:
        table.to_parquet(file, index=False)


def read_table(path: Path) -> pd.DataFrame:
    """Read a stored table; `InputError` where it is missing or damaged."""
    try:
        with open_file(path) as file:
            return pd.read_parquet(file)
    except InputError as error:
        raise InputError(f"{str(error).rstrip('.')}: run the command again") from error
    except Exception as error:  # pandas reads metadata of its own, which may say anything
        raise InputError(
            f"{path} cannot be read as parquet ({reason(error)}): run the command again"
        ) from error


def read_document(folder: str | os.PathLike[str], command: str) -> Document:
    """Read a folder that `write_document` made.

    Parameters
    ----------
    folder : path
        The folder.
    command : str
        Whose results they are.

    Returns
    -------
    Document
        The stored values; nothing is computed again.

    Raises
    ------
    InputError
        If the folder, its JSON or a table is missing or damaged.
    """
    with reading(folder):
        return _read(Path(folder), command)


def _read(folder: Path, command: str) -> Document:
    summary = folder / f"{command}.json"
    if not summary.is_file():
        raise InputError(
            f"{folder} holds no complete results of `cosa-theory {command}` ({summary.name} is "
            f"missing): make them with its option --out {folder}"
        )
    try:
        content = read_json(summary, own=True)
        found = read_fields(content, _FIELDS, os.fspath(summary))
    except InputError as error:
        again = f"run `cosa-theory {command}` again"
        problems = (f"{one.rstrip('.')}: {again}" for one in error.problems)
        raise InputError(*problems) from error
    return Document(
        command,
        found["verdict"],
        tuple(found["notices"]),
        {name: read_table(folder / f"{name}.parquet") for name in found["tables"]},
        found["provenance"],
        unlisted=tuple(name for name in found["tables"] if name not in content),
    )


@contextmanager
def showing(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Refuse stored results that the block reads but cannot show: an `InputError` names them."""
    try:
        yield
    except InputError:
        raise
    except _UNUSABLE as error:
        raise InputError(
            f"the results in {os.fspath(folder)} are damaged or of another version "
            f"({type(error).__name__}: {reason(error)}): run the command again"
        ) from error


def _table_name(argument: str, value: Any) -> str:
    name = text(argument, value)
    if "/" in name or not is_inside(name):
        raise refuse(argument, value, "the name of a table")
    return name


# What drawing tables with other columns or values than expected can raise.
_UNUSABLE = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    NotImplementedError,
    RuntimeError,
    TypeError,
    ValueError,
)
_FIELDS = {
    "verdict": Field(text),
    "notices": Field(items(text)),
    "tables": Field(items(_table_name)),
    "provenance": Field(table_of(lambda argument, value: value)),
}
