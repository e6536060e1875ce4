"""What the commands of all experiments share: options, settings, errors, the stored table.

A sweep is `sweep_command`, at the end of its module:

    def main(arguments=None):
        return sweep_command("rip_brackets", "Brackets of ...", PRESETS, run, verdict, arguments)

Others state their options with `command_parser`, read their settings with `chosen_config` or
`read_config`, and run within `run_command`.
"""

import argparse
import dataclasses
import json
import os
import sys
import tomllib
from collections.abc import Callable, Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import pandas as pd

from cosa_theory.ground.checks import real, whole
from cosa_theory.ground.errors import InputError, quoted, reason
from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.manifest import check_folder, own_files
from cosa_theory.ground.printable import printable
from cosa_theory.ground.program import note, program
from cosa_theory.ground.provenance import provenance
from cosa_theory.ground.reading import file_bytes

__all__ = [
    "REFERENCE",
    "check_table",
    "chosen_config",
    "command_parser",
    "read_config",
    "read_toml",
    "run_command",
    "sweep_command",
    "sweep_parser",
    "sweep_settings",
    "with_fields",
    "write_reference",
    "write_table",
]

REFERENCE = Path(__file__).parent / "reference"
"""Where tables are committed, as CSV."""

Config = TypeVar("Config")


def command_parser(
    module: str,
    description: str,
    *,
    out: Path | None = None,
    config: Any = None,
    fields: Iterable[str] | None = None,
    example: str = "",
    reference: bool = False,
) -> argparse.ArgumentParser:
    """Return the parser of a command.

    Parameters
    ----------
    module : str
        What is run, such as "experiments.real_vectors".
    description : str
        What it does; lines stay as they are.
    out : path, optional
        The default of an option --out.
    config : dataclass, optional
        Settings whose fields become options, with its values as defaults; a name of several words
        may be spelt with hyphens or underscores.
    fields : iterable of str, optional
        Only these.
    example : str
        Arguments, shown at the end of the help.
    reference : bool
        Whether it has an option --reference.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        epilog=f"example: python -m {module} {example}" if example else None,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if out is not None:
        parser.add_argument("--out", type=Path, default=out, help="default: %(default)s")
    for name, value in () if config is None else vars(config).items():
        if fields is None or name in fields:
            several = isinstance(value, tuple)
            parser.add_argument(
                *dict.fromkeys((f"--{name.replace('_', '-')}", f"--{name}")),
                type=type(value[0] if several else value),
                nargs="*" if several else None,
                default=value,
                help="default: %(default)s",
            )
    if reference:
        told = "also write what experiments/reference holds of it"
        parser.add_argument("--reference", action="store_true", help=told)
    return parser


def chosen_config(config: Config, chosen: argparse.Namespace) -> Config:
    """Return settings with those in place that were chosen by options.

    Parameters
    ----------
    config : dataclass
        The settings that `command_parser` made options of.
    chosen : argparse.Namespace
        What was parsed; None stands for not given.

    Raises
    ------
    InputError
        As for `read_config`.
    """
    names = [field.name for field in dataclasses.fields(config)]  # type: ignore[arg-type]
    return read_config(config, None, **{name: getattr(chosen, name, None) for name in names})


def sweep_parser(
    name: str, description: str, presets: Mapping[str, Any], *, preset: str = "quick"
) -> argparse.ArgumentParser:
    """Return a parser with the options of every sweep.

    Parameters
    ----------
    name : str
        The module within `experiments`, and the folder within results.
    description : str
        What it measures.
    presets : mapping of str to dataclass
        The named settings.
    preset : str
        The one that is used unless another is asked for.

    Returns
    -------
    argparse.ArgumentParser
        Options --preset, --config, --seed, --out, --jobs, --dask and --timeout.
    """
    example = f"--preset {preset} --out results/{name}"
    parser = command_parser(f"experiments.{name}", description, example=example)
    add = parser.add_argument
    add("--preset", choices=list(presets), default=preset, help="settings (default: %(default)s)")
    add("--config", type=Path, metavar="TOML", help="file of settings that replace the preset's")
    add("--seed", type=int, help="of all draws (default: the preset's)")
    add("--out", type=Path, default=Path("results") / name, help="default: %(default)s")
    add("--jobs", type=int, help="cells at once (default: one for each core)")
    add("--dask", metavar="ADDRESS", help="scheduler of a running Dask cluster to compute on")
    add("--timeout", type=float, metavar="SECONDS", help="give a cell up after this time")
    return parser


def sweep_settings(chosen: argparse.Namespace) -> dict[str, Any]:
    """Return what `cosa_theory.ground.sweep.run_cells` takes: jobs, dask, timeout, folder.

    Raises
    ------
    InputError
        A number of jobs below 1, or a time limit that is not positive.
    """
    if chosen.jobs is not None:
        whole("--jobs", chosen.jobs)
    if chosen.timeout is not None:
        real("--timeout", chosen.timeout, above=0)
    return {
        "jobs": chosen.jobs,
        "dask": chosen.dask,
        "timeout": chosen.timeout,
        "folder": chosen.out / "cells",
    }


def read_config(start: Config, path: Path | None, **overrides: Any) -> Config:
    """Return settings: those of a preset, over them a file's, over those the command line's.

    Parameters
    ----------
    start : dataclass
        The preset.
    path : path, optional
        A TOML file with some of its fields; arrays become tuples.
    **overrides
        Fields from the command line; None stands for not given.

    Raises
    ------
    InputError
        No such file, not TOML, a field that the settings do not have, or a value that they
        refuse with a ValueError.
    """
    where = "" if path is None else f"configuration {path}: "
    given = {} if path is None else read_toml(path)
    chosen = {name: value for name, value in overrides.items() if value is not None}
    return with_fields(start, given, where, **chosen)


def with_fields(
    start: Config, given: Mapping[str, Any], where: str = "", **overrides: Any
) -> Config:
    """Return settings with some fields replaced, each checked against its type.

    Parameters
    ----------
    start : dataclass
        The settings.
    given : mapping
        Fields to check, arrays as tuples.
    where : str
        Begins every error.
    **overrides
        Fields over these, as they are.

    Raises
    ------
    InputError
        A field that the settings do not have, of another type, or a value that they refuse with a
        ValueError.
    """
    kinds = get_type_hints(type(start))
    known = [field.name for field in dataclasses.fields(start)]  # type: ignore[arg-type]
    unknown = [name for name in given if name not in known]
    if unknown:
        near = get_close_matches(unknown[0], known) if len(known) > 20 else []
        raise InputError(f"{where}no field {quoted(unknown[0])}, only {', '.join(near or known)}")
    for name, value in given.items():
        if must := _must(kinds[name], value):
            raise InputError(f"{where}{name} is {quoted(value)}: it must be {must}", argument=name)
    try:
        return dataclasses.replace(start, **{**given, **overrides})  # type: ignore[type-var]
    except (TypeError, ValueError, ArithmeticError, LookupError) as error:
        argument = getattr(error, "argument", None)
        raise InputError(f"{where}{reason(error)}", argument=argument) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, its arrays as tuples; `InputError` if there is none, or it is none."""
    raw = file_bytes(path)
    try:
        frozen: dict[str, Any] = _frozen(tomllib.loads(raw.decode("utf-8")))
        return frozen
    except RecursionError as error:
        raise InputError(f"configuration {path}: nested too deep") from error
    except ValueError as error:
        raise InputError(f"configuration {path}: {reason(error)}") from error


def _must(kind: Any, value: Any) -> str:
    """Say what a value of a file must be to be of the kind of its field, "" if it is."""
    inner = get_args(kind)
    if get_origin(kind) in (Union, UnionType):
        return "" if any(not _must(one, value) for one in inner) else _must(inner[0], value)
    if kind is tuple or get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            return "an array"
        each = inner[:1] * len(value) if inner[1:] == (...,) else inner or (Any,) * len(value)
        if len(each) != len(value):
            return f"an array of {len(each)}"
        musts = (_must(one, item) for one, item in zip(each, value, strict=True))
        return next((f"an array; an item must be {must}" for must in musts if must), "")
    fits = kind not in _WORDS or type(value) is kind or (kind is float and type(value) is int)
    if fits and type(value) in (int, float):
        fits = abs(value) <= (_LARGEST if type(value) is int else sys.float_info.max)
    return "" if fits else _WORDS.get(kind, "a finite number")


_LARGEST = 2**53  # so that it is the same in float64
_WORDS = {
    bool: "true or false",
    int: f"a whole number, at most {_LARGEST:,}",
    float: "a finite number",
    str: "text",
}


def _frozen(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _frozen(one) for name, one in value.items()}
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@program
def sweep_command(
    name: str,
    description: str,
    presets: Mapping[str, Any],
    run: Callable[..., pd.DataFrame],
    verdict: Callable[[pd.DataFrame, Any], str],
    arguments: Sequence[str] | None = None,
) -> int:
    """Run a sweep from the command line.

    Parameters
    ----------
    name : str
        The module within `experiments`, the folder within results and the table in it.
    description : str
        What it measures.
    presets : mapping of str to dataclass
        The named settings, frozen, each with a field `seed`.
    run : callable
        Maps settings, and what `cosa_theory.ground.sweep.run_cells` takes, to the table.
    verdict : callable
        Maps the table and the settings to a sentence or two, which are printed first.
    arguments : sequence of str, optional
        Instead of those of the process.

    Returns
    -------
    int
        The exit code, see `run_command`.
    """
    chosen = sweep_parser(name, description, presets).parse_args(arguments)

    def body() -> None:
        config = read_config(presets[chosen.preset], chosen.config, seed=chosen.seed)
        inputs = [getattr(config, field, None) for field in ("base", "tuned", "file", "pair")]
        check_table(chosen.out, name, inputs=inputs)
        table = run(config, **sweep_settings(chosen))
        if table.empty:
            raise InputError("the settings name nothing to compute: an array among them is empty")
        if (table["status"] == "done").any():
            text = verdict(table, config)
        else:
            text = f"No cell was finished within {chosen.timeout:g} s: raise --timeout."
        settings = dataclasses.asdict(config)
        write_table(table, chosen.out, name, arguments=settings, verdict=text, seed=config.seed)
        print(printable(text))
        print(f"{len(table)} rows are in {printable(str(chosen.out / name))}.parquet")

    return run_command(body)


def write_table(
    table: pd.DataFrame,
    out: str | os.PathLike[str],
    name: str,
    *,
    arguments: Mapping[str, Any],
    verdict: str,
    seed: int | None = None,
    beside: Mapping[str, pd.DataFrame] | None = None,
) -> None:
    """Store a result as `name`.parquet and `name`.json, with verdict and provenance, at once.

    Parameters
    ----------
    table : pandas.DataFrame
        The result.
    out : path
        A folder; the files of an earlier run in it are replaced, other files stay.
    name : str
        Of the experiment.
    arguments, seed
        As for `cosa_theory.ground.provenance.provenance`.
    verdict : str
        The result in a sentence.
    beside : mapping of str to pandas.DataFrame, optional
        Further tables by their names.

    Raises
    ------
    InputError
        As for `cosa_theory.ground.manifest.own_files`.
    """
    with own_files(out, name, last=f"{name}.json") as new:
        for file, stored in {name: table, **(beside or {})}.items():
            stored.to_parquet(new / f"{file}.parquet")
        document = {"verdict": verdict, "provenance": provenance(arguments, seed=seed)}
        (new / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def check_table(
    out: Path, name: str, *, beside: Iterable[str] = (), inputs: Iterable[str | None] = ()
) -> None:
    """Find out before a run whether `write_table` can write: `InputError` says why not.

    `beside` names further tables; none of the `inputs` may be in the folder.
    """
    files = {f"{name}.json", *(f"{file}.parquet" for file in (name, *beside))}
    check_folder(out, name, files, folders=("cells",), inputs=inputs)


def write_reference(tables: Mapping[str, pd.DataFrame], folder: Path = REFERENCE) -> None:
    """Write tables as CSV with six digits, for review."""
    folder.mkdir(exist_ok=True)
    for name, table in tables.items():
        with atomic_path(folder / f"{name}.csv") as temporary:
            table.to_csv(temporary, index=False, float_format="%.6g", lineterminator="\n")


@program
def run_command(body: Callable[[], None]) -> int:
    """Run a command and return its exit code.

    Returns
    -------
    int
        As for `cosa_theory.ground.program.program`, and 1 after cells that failed, one line for
        each on standard error; 130 after an interruption, of which `run_cells` has told.
    """
    try:
        body()
    except RuntimeError as error:
        for text in (str(error), *getattr(error, "__notes__", ())):
            for line in text.splitlines():
                note(f"error: {line}")
        return 1
    return 0
