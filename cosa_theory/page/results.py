"""A folder of results: the tables of a survey with their verdict, notices and provenance."""

import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pyarrow.lib import ArrowInvalid

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path
from cosa_theory.studies.spectrum.pair import Survey

__all__ = ["TABLES", "Results", "read_results", "write_results"]

TABLES = ("layers", "spectra", "families", "crossover")
COMMANDS = ("spectrum", "audit", "rip", "jl", "plan", "recover", "experiments", "finetune")
"""The commands and the experiments whose results a folder can hold, one at a time."""
SUMMARY = "spectrum.json"
CHECKS = "checks.parquet"
PAGE = "report.html"
ESTIMATE = "estimate.safetensors"
"""Beside the results of `cosa-theory recover`: the update itself."""
FIGURES = "figures"
AUDIT = "audit"
"""Folder of an audit of the same pair, under the results of its survey."""
RECOVERY = "recovery"
"""Folder of the recovery experiments, likewise."""
FINETUNE = "finetune"
"""Folder of the comparison of trainings, likewise."""


@dataclass(frozen=True)
class Results:
    """Everything the terminal, the figures and the page show.

    Parameters
    ----------
    verdict : str
        One plain sentence.
    notices : tuple of str
        What the reader should know about the input: matched and skipped tensors, rounding.
    provenance : mapping
        As `cosa_theory.ground.provenance.provenance` makes it.
    layers, spectra, families, crossover : pandas.DataFrame
        The tables of a survey; columns as `cosa_theory.survey` documents them.
    checks : pandas.DataFrame, optional
        The verdicts of the paper checks, where they were run.
    """

    verdict: str
    notices: tuple[str, ...]
    provenance: Mapping[str, Any]
    layers: pd.DataFrame
    spectra: pd.DataFrame
    families: pd.DataFrame
    crossover: pd.DataFrame
    checks: pd.DataFrame | None = None

    @classmethod
    def of_survey(cls, survey: Survey, provenance: Mapping[str, Any]) -> "Results":
        """Return the results of a survey, with where they come from."""
        return cls(
            verdict=survey.verdict,
            notices=survey.notices,
            provenance=provenance,
            layers=survey.layers,
            spectra=survey.spectra,
            families=survey.families,
            crossover=survey.crossover,
        )

    def as_json(self) -> dict[str, Any]:
        """Return the results as plain JSON values, null where a number does not exist.

        Returns
        -------
        dict
            `verdict`, `notices`, `provenance`, and `layers`, `families`, `crossover` as lists of
            records. The singular values themselves stay in spectra.parquet.
        """
        return {
            "verdict": self.verdict,
            "notices": list(self.notices),
            "layers": records(self.layers),
            "families": records(self.families),
            "crossover": records(self.crossover),
            "provenance": plain(self.provenance),
        }


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
    """Return the rows of a table as plain dictionaries."""
    return [plain(row) for row in table.to_dict(orient="records")]


def clear_results(folder: Path) -> None:
    """Delete what an earlier run of any command wrote, and nothing else: results are never mixed.

    The summary goes first, so that a folder cleared half-way does not read as results.
    """
    names = [
        PAGE,
        *(f"{table}.parquet" for table in TABLES),
        CHECKS,
        "cases.parquet",
        "checks.json",
    ]
    for command in COMMANDS:
        summary = folder / f"{command}.json"
        names += _tables_of(summary)
        if command == "recover" and summary.is_file():
            names.append(ESTIMATE)
        summary.unlink(missing_ok=True)
    for name in names:
        (folder / name).unlink(missing_ok=True)
    if (folder / FIGURES).is_dir():
        shutil.rmtree(folder / FIGURES)
    for under in (AUDIT, RECOVERY, FINETUNE):
        if (folder / under).is_dir():
            clear_results(folder / under)


def _tables_of(summary: Path) -> list[str]:
    """Return the files of the tables that a document's JSON names; none if it cannot be read."""
    try:
        listed = json.loads(summary.read_text(encoding="utf-8")).get("tables", [])
        return [f"{name}.parquet" for name in listed if Path(str(name)).name == name]
    except (OSError, ValueError, AttributeError, TypeError):
        return []


def write_results(results: Results, folder: str | os.PathLike[str]) -> Path:
    """Write the tables as parquet and the rest as spectrum.json, over an earlier run's.

    Parameters
    ----------
    results : Results
        What to store.
    folder : path
        Created if it is not there. Tables, summary, page, figures and checks of an earlier run in
        it are deleted first; other files stay.

    Returns
    -------
    pathlib.Path
        The folder. spectrum.json is written last: a folder that has it is complete.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    clear_results(folder)
    for name in TABLES:
        with atomic_path(folder / f"{name}.parquet") as path:
            getattr(results, name).to_parquet(path, index=False)
    if results.checks is not None:
        with atomic_path(folder / CHECKS) as path:
            results.checks.to_parquet(path, index=False)
    with atomic_path(folder / SUMMARY) as path:
        text = json.dumps(results.as_json(), ensure_ascii=False, indent=1, allow_nan=False)
        path.write_text(text + "\n", encoding="utf-8")
    return folder


def read_table(path: Path) -> pd.DataFrame:
    """Read a stored table; `InputError` where it is missing or damaged."""
    try:
        return pd.read_parquet(path)
    except (ArrowInvalid, OSError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path} cannot be read as parquet ({reason}): run the command again"
        ) from error


def _missing(folder: Path, names: Sequence[str]) -> InputError:
    return InputError(
        f"{folder} holds no complete results ({', '.join(names)} missing): make them with "
        f"`cosa-theory spectrum BASE TUNED --out {folder}`"
    )


def read_results(folder: str | os.PathLike[str]) -> Results:
    """Read a folder that `write_results` made.

    Parameters
    ----------
    folder : path
        With spectrum.json and the four tables; checks.parquet where paper checks were run.

    Returns
    -------
    Results
        The stored values; nothing is computed again.

    Raises
    ------
    InputError
        If the folder, the summary or a table is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: name the folder given to --out")
    wanted = (SUMMARY, *(f"{table}.parquet" for table in TABLES))
    missing = [name for name in wanted if not (folder / name).is_file()]
    if missing:
        raise _missing(folder, missing)
    try:
        summary = json.loads((folder / SUMMARY).read_text(encoding="utf-8"))
        verdict, notices = summary["verdict"], tuple(summary["notices"])
        provenance = summary["provenance"]
    except (ValueError, KeyError, TypeError) as error:
        problem = f"{folder / SUMMARY} is damaged ({error}): run the survey again"
        raise InputError(problem) from error
    tables = {name: read_table(folder / f"{name}.parquet") for name in TABLES}
    checks = read_table(folder / CHECKS) if (folder / CHECKS).is_file() else None
    return Results(verdict, notices, provenance, checks=checks, **tables)
