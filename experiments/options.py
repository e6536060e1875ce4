"""What the commands of all sweeps share: options, settings from a preset or a file, errors."""

import argparse
import dataclasses
import sys
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from cosa_theory.ground.errors import InputError

__all__ = ["read_config", "run_command", "sweep_parser", "sweep_settings"]

Config = TypeVar("Config")


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
    parser = argparse.ArgumentParser(
        prog=f"python -m experiments.{name}",
        description=description,
        epilog=f"example: python -m experiments.{name} --preset {preset} --out results/{name}",
    )
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
    """Return the options that `experiments.sweep.run_cells` takes: jobs, dask, timeout, folder.

    Raises
    ------
    InputError
        A number of jobs below 1, a time limit that is not positive, or a file where a folder is
        to be.
    """
    there = next(path for path in (chosen.out, *chosen.out.absolute().parents) if path.exists())
    if not there.is_dir():
        raise InputError(f"--out is {chosen.out}: {there} is a file, name a folder")
    if chosen.jobs is not None and chosen.jobs < 1:
        raise InputError(f"--jobs is {chosen.jobs}: it must be at least 1")
    if chosen.timeout is not None and not chosen.timeout > 0:
        raise InputError(
            f"--timeout is {chosen.timeout:g}: it must be a positive number of seconds"
        )
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
    given: dict[str, Any] = {}
    if path is not None:
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise InputError(f"configuration {path}: {error.strerror}") from error
        except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise InputError(f"configuration {path}: {error}") from error
    known = [field.name for field in dataclasses.fields(start)]  # type: ignore[arg-type]
    unknown = [name for name in given if name not in known]
    if unknown:
        raise InputError(f"configuration {path}: no field {unknown[0]!r}, only {', '.join(known)}")
    for name, value in given.items():
        kind = _kind(getattr(start, name))
        if kind and _kind(value) != kind:
            raise InputError(f"configuration {path}: {name} is {value!r}: it must be {kind}")
    given |= {name: value for name, value in overrides.items() if value is not None}
    try:
        changes = {name: _frozen(value) for name, value in given.items()}
        return dataclasses.replace(start, **changes)  # type: ignore[type-var]
    except InputError:
        raise
    except (TypeError, ValueError) as error:
        raise InputError(f"configuration {path or 'of the command line'}: {error}") from error


def _kind(value: Any) -> str:
    """Name the kind of a setting; nothing for one that may be of several kinds."""
    kinds = {bool: "true or false", int: "a number", float: "a number", str: "text"}
    return "an array" if isinstance(value, (tuple, list)) else kinds.get(type(value), "")


def _frozen(value: Any) -> Any:
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


def run_command(body: Callable[[], None]) -> int:
    """Run a command and return its exit code.

    Returns
    -------
    int
        0; 2 after input that must be mended and 1 after cells that failed, one line for each on
        standard error; 130 after an interruption, of which `run_cells` has told.
    """
    try:
        body()
    except InputError as error:
        return _say(error.problems, 2)
    except KeyboardInterrupt:
        return 130
    except RuntimeError as error:
        return _say((*str(error).splitlines(), *getattr(error, "__notes__", ())), 1)
    return 0


def _say(lines: tuple[str, ...], code: int) -> int:
    for line in lines:
        print(f"error: {line}", file=sys.stderr)
    return code
