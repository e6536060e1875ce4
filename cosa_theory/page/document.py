"""The result of one command as a document: verdict, notices, tables; stored and read back."""

import json
import math
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.printable import json_text

__all__ = [
    "FIGURES",
    "PAGE",
    "Document",
    "Tables",
    "clear_results",
    "read_document",
    "read_table",
    "records",
    "write_document",
]

Tables: TypeAlias = Mapping[str, pd.DataFrame]
"""The tables of a document by name."""

PAGE = "report.html"
FIGURES = "figures"


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
    beside : tuple of str
        Names of files, or of folders of results, that may stand beside the tables and belong to
        them: what writes over the document deletes them too.
    """

    command: str
    verdict: str
    notices: tuple[str, ...]
    tables: Tables
    provenance: Mapping[str, Any]
    unlisted: tuple[str, ...] = ()
    beside: tuple[str, ...] = ()

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
            "provenance": _plain(self.provenance),
        }


def _plain(value: Any) -> Any:
    """Return `value` with numpy and pandas scalars made plain, and every missing number None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):  # a list, as parquet gives it back
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if hasattr(value, "item"):
        value = value.item()
    if value is pd.NA or value is pd.NaT or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return value


def records(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows of a table as plain JSON values, null where a number does not exist."""
    return [_plain(row) for row in table.to_dict(orient="records")]


def write_document(document: Document, folder: str | os.PathLike[str]) -> Path:
    """Write the tables as parquet and the rest as JSON, over the results of an earlier run.

    Parameters
    ----------
    document : Document
        What to store.
    folder : path
        Created if it is not there. Results of an earlier run in it, of whichever command, are
        deleted first; other files stay.

    Returns
    -------
    pathlib.Path
        The folder. The JSON, named after the command, is written last: a folder that has it is
        complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clear_results(folder)
    for name, table in document.tables.items():
        with atomic_path(folder / f"{name}.parquet") as path:
            table.to_parquet(path, index=False)
    content = document.as_json() | {
        "tables": list(document.tables),
        "beside": list(document.beside),
    }
    with atomic_path(folder / f"{document.command}.json") as path:
        text = json_text(content)
        path.write_text(text + "\n", encoding="utf-8")
    return folder


def clear_results(folder: Path) -> None:
    """Delete what an earlier run of any command wrote, and nothing else: results are never mixed.

    The summaries go first, so that a folder cleared half-way does not read as results.
    """
    found = False
    for summary in sorted(folder.glob("*.json")):
        try:
            content = json.loads(summary.read_text(encoding="utf-8"))
            if content["command"] != summary.stem:
                continue
            names = [*(f"{name}.parquet" for name in content["tables"]), *content.get("beside", ())]
        except (OSError, ValueError, KeyError, TypeError):  # not one that `write_document` made
            continue
        found = True
        summary.unlink()
        for path in (folder / name for name in names if Path(name).name == name):
            if path.is_dir():
                clear_results(path)
            else:
                path.unlink(missing_ok=True)
    if found:
        (folder / PAGE).unlink(missing_ok=True)
        if (folder / FIGURES).is_dir():
            shutil.rmtree(folder / FIGURES)


def read_table(path: Path) -> pd.DataFrame:
    """Read a stored table; `InputError` where it is missing or damaged."""
    try:
        return pd.read_parquet(path)
    except (ValueError, OSError) as error:  # pyarrow's own are among them
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as parquet ({reason}): run the command again"
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
    folder = Path(folder)
    summary = folder / f"{command}.json"
    if not summary.is_file():
        raise InputError(
            f"{folder} holds no complete results of `cosa-theory {command}` ({summary.name} is "
            f"missing): make them with its option --out {folder}"
        )
    try:
        content = json.loads(summary.read_text(encoding="utf-8"))
        names = [str(name) for name in content["tables"]]
        return Document(
            command,
            content["verdict"],
            tuple(content["notices"]),
            {name: read_table(folder / f"{name}.parquet") for name in names},
            content["provenance"],
            unlisted=tuple(name for name in names if name not in content),
            beside=tuple(content.get("beside", ())),
        )
    except InputError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{summary} is damaged ({error}): run `cosa-theory {command}` again"
        raise InputError(problem) from error
