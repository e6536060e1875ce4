"""The command of every sweep: settings from its options, the run, the stored result, one verdict.

Example, at the end of an experiment:

    def main(arguments=None):
        return sweep_command("rip_brackets", "Brackets of ...", PRESETS, run, verdict, arguments)
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pandas as pd

from experiments.options import read_config, run_command, sweep_parser, sweep_settings
from experiments.sweep import write_table

__all__ = ["sweep_command"]


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
        Maps settings, and what `experiments.sweep.run_cells` takes, to the table.
    verdict : callable
        Maps the table and the settings to a sentence or two, which are printed first.
    arguments : sequence of str, optional
        Instead of those of the process.

    Returns
    -------
    int
        The exit code, see `experiments.options.run_command`.
    """
    chosen = sweep_parser(name, description, presets).parse_args(arguments)

    def body() -> None:
        config = read_config(presets[chosen.preset], chosen.config, seed=chosen.seed)
        table = run(config, **sweep_settings(chosen))
        if (table["status"] == "done").any():
            text = verdict(table, config)
        else:
            text = f"No cell was finished within {chosen.timeout:g} s: raise --timeout."
        settings = dataclasses.asdict(config)
        write_table(table, chosen.out, name, arguments=settings, verdict=text, seed=config.seed)
        print(text)
        print(f"{len(table)} rows are in {chosen.out / name}.parquet")

    return run_command(body)
