"""The result of one command as a document: verdict, notices, tables, and how they are shown."""

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.page.figures import Drawing
from cosa_theory.page.results import clear_results, plain, read_table, records
from cosa_theory.page.views import View

__all__ = ["Document", "Presentation", "read_document", "write_document"]


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
        By name; "verdict", "notices", "command" and "provenance" are taken.
    provenance : mapping
        As `cosa_theory.ground.provenance.provenance` makes it.
    """

    command: str
    verdict: str
    notices: tuple[str, ...]
    tables: Mapping[str, pd.DataFrame]
    provenance: Mapping[str, Any]

    def as_json(self) -> dict[str, Any]:
        """Return everything as plain JSON values, null where a number does not exist.

        Returns
        -------
        dict
            `command`, `verdict`, `notices`, each table under its name as a list of records, and
            `provenance`.
        """
        return {
            "command": self.command,
            "verdict": self.verdict,
            "notices": list(self.notices),
            **{name: records(table) for name, table in self.tables.items()},
            "provenance": plain(self.provenance),
        }


@dataclass(frozen=True)
class Presentation:
    """How the documents of one command are shown.

    Parameters
    ----------
    title : str
        Of the page, in a browser's tab.
    views : callable
        Maps a document to the tables a person reads first, in the terminal and on the page.
    detail_views : callable
        Maps a document to further tables, such as one row per layer, shown after the figures.
    figures : mapping of str to Drawing
        By file name.
    terms : tuple of (str, str)
        What the words mean: a term, and its explanation in HTML.
    """

    title: str
    views: Callable[[Document], list[View]]
    figures: Mapping[str, Drawing]
    terms: tuple[tuple[str, str], ...]
    detail_views: Callable[[Document], list[View]] = lambda document: []


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
    content = document.as_json() | {"tables": list(document.tables)}
    with atomic_path(folder / f"{document.command}.json") as path:
        text = json.dumps(content, ensure_ascii=False, indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    return folder


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
    summary = Path(folder) / f"{command}.json"
    if not summary.is_file():
        raise InputError(
            f"{folder} holds no complete results of `cosa-theory {command}` ({summary.name} is "
            f"missing): make them with its option --out {folder}"
        )
    try:
        content = json.loads(summary.read_text(encoding="utf-8"))
        fields = content["verdict"], tuple(content["notices"]), content["provenance"]
        names = [str(name) for name in content["tables"]]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{summary} is damaged ({error}): run `cosa-theory {command}` again"
        raise InputError(problem) from error
    verdict, notices, provenance = fields
    tables = {name: read_table(Path(folder) / f"{name}.parquet") for name in names}
    return Document(command, verdict, notices, tables, provenance)
