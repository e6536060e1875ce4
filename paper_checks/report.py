"""The main job: function against energy; tune a model, study its update, check the paper.

Example: `python -m paper_checks.report --out results/report`
"""

import argparse
import dataclasses
import os
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from cosa_theory.assets import asset_folder
from cosa_theory.deltas import open_pair
from cosa_theory.ground.checks import whole
from cosa_theory.ground.manifest import check_folder
from cosa_theory.ground.printable import command_line, printable
from cosa_theory.ground.program import note, program
from cosa_theory.ground.progress import progress_bar
from cosa_theory.ground.provenance import provenance
from cosa_theory.page.document import RESULTS, Document
from cosa_theory.page.html import CLAIMS, write_page_files
from cosa_theory.studies.audit.pair import audit_pair
from cosa_theory.studies.shown import result_files, write_results
from cosa_theory.studies.spectrum.pair import survey_pair
from experiments import finetune_check, finetune_delta, first_gradient, phase_transition, recovery
from experiments.finetune_check_results import summarise
from experiments.finetune_check_results import verdict as finetune_verdict
from experiments.phase_lines import crossings
from paper_checks.base import Verdict
from paper_checks.quick_function import PAIR, quick_function
from paper_checks.run import (
    CHECKS,
    FILES,
    claims,
    document,
    headline,
    run_checks,
    to_frame,
    write_files,
)
from paper_checks.shown import page_files, shown

__all__ = ["Config", "run"]


@dataclass(frozen=True)
class Config:
    """Settings of the report.

    Attributes
    ----------
    steps : int
        Optimiser steps of the fine-tuning; its other settings are those of
        `experiments.finetune_delta`.
    draws : int
        The most draws of a random family per matrix and budget.
    seed : int
        Of the fine-tuning, of the projections and of the paper checks.
    """

    steps: int = 100
    draws: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        for name, least in (("steps", 1), ("draws", 2), ("seed", 0)):
            whole(name, getattr(self, name), least)


def run(config: Config, out: Path, pair: Path = finetune_delta.DEFAULT_OUT) -> pd.DataFrame:
    """Make the report; what is there already, from equal settings and inputs, is not made again.

    Parameters
    ----------
    config : Config
        The settings.
    out : path
        Folder of the report: report.html, tables, figures and the paper checks.
    pair : path
        Folder of the two checkpoints.

    Returns
    -------
    pandas.DataFrame
        Where the time went: stage, seconds. The headlines of the study of function, the survey,
        the audit, the recovery experiments, the comparison of trainings and the paper checks are in
        its `attrs`, as "function", "verdict", "audit", "recovery", "finetune" and "checks".
    """
    _check(out, pair)
    times: dict[str, float] = {}
    with _timed("fetch the model and the texts", times):
        for asset in ("encoder", "texts", "sre_encoder", "chgnet"):
            asset_folder(asset)
    with _timed("measure function, not only energy", times):
        studied = _of_function(config.seed)
    with _timed("fine-tune the model", times):
        settings = finetune_delta.Config(steps=config.steps, seed=config.seed)
        finetune_delta.run(settings, pair)
    checkpoints = (pair / "base.safetensors", pair / "tuned.safetensors")
    effort: dict[str, Any] = {
        "draws": config.draws,
        "seed": config.seed,
        "workers": os.cpu_count() or 1,
    }
    with _timed("survey every matrix", times), progress_bar("matrices") as advance:
        pairs = open_pair(*checkpoints)
        survey = survey_pair(pairs, cells=out / ".cells", progress=advance, **effort)
    with _timed("audit the theory's assumptions", times), progress_bar("matrices") as advance:
        gradient = pair / "gradient.safetensors"
        first_gradient.run(settings, gradient)
        audit = audit_pair(
            open_pair(*checkpoints),
            gradients=gradient,
            cells=out / "audit" / ".cells",
            progress=advance,
            **effort,
        )
    with _timed("compare trainings at equal size", times):
        trainings = finetune_check.stored_or_short(seed=config.seed)
    with _timed("check the paper's claims", times):
        verdicts = run_checks((), checkpoints, config.seed, lambda name: note(f"  {name}"))
    base, tuned = map(str, checkpoints)
    with _timed("recover updates from their cores", times):
        recovered = recover_updates(base, tuned, config.seed, out / "recovery")
    documents = {
        "": _with_checks(survey.document({}), verdicts),
        "function": studied,
        "audit": audit.document({}),
        "recovery": recovered,
        "finetune": _of_trainings(trainings),
    }
    arguments = {"base": base, "tuned": tuned, "function": PAIR.name, **dataclasses.asdict(config)}
    with _timed("write tables, figures and the page", times):
        made = provenance(arguments, seed=config.seed)
        made["command"] = _command(config, out, pair)
        made["seconds"] = {stage: round(seconds, 1) for stage, seconds in times.items()}
        documents = {
            folder: dataclasses.replace(found, provenance=made)
            for folder, found in documents.items()
        }
        checks = document(verdicts, made)
        write_results(documents, out, partial(_write_checks, verdicts, checks, made))
    table = pd.DataFrame({"stage": list(times), "seconds": list(times.values())})
    table.attrs = {
        "verdict": survey.verdict,
        **{folder: found.verdict for folder, found in documents.items() if folder},
        "checks": headline(verdicts),
    }
    return table


def _write_checks(
    verdicts: Sequence[Verdict], checks: dict[str, Any], made: dict[str, Any], new: Path
) -> None:
    """Write the checks into a new folder of results, with their page in a folder of its own."""
    write_files(verdicts, checks, new)
    found = claims(verdicts, made)
    (new / CLAIMS).mkdir()
    write_page_files(found, shown(found), new / CLAIMS)


def _command(config: Config, out: Path, pair: Path) -> str:
    """Return the line that makes this report again."""
    chosen = {"out": out, "pair": pair, **dataclasses.asdict(config)}
    options = [word for name, value in chosen.items() for word in (f"--{name}", str(value))]
    return command_line(["python", "-m", "paper_checks.report", *options])


def _check(out: Path, pair: Path) -> None:
    """Find out before anything is computed whether the report can be stored."""
    commands = {
        "": "spectrum",
        "function": "function",
        "audit": "audit",
        "recovery": "experiments",
        "finetune": "finetune",
    }
    files = {
        (Path(folder) / name).as_posix()
        for folder, command in commands.items()
        for name in result_files(command)
    }
    files |= {f"{CLAIMS}/{name}" for name in page_files(list(CHECKS))}
    cells = (".cells", "audit/.cells", "recovery/.cells")
    check_folder(out, RESULTS, {*files, *FILES}, folders=cells, inputs=(pair,))
    first_gradient.check(pair / "gradient.safetensors")


def recover_updates(base: str, tuned: str, seed: int, folder: Path) -> Document:
    """Run the quick recovery experiments; finished cells under `folder` are not computed again.

    Returns
    -------
    Document
        Of "experiments", without a provenance.
    """
    phases = dataclasses.replace(phase_transition.PRESETS["quick"], seed=seed)
    errors = dataclasses.replace(recovery.PRESETS["quick"], seed=seed, base=base, tuned=tuned)
    transition = phase_transition.run(phases, folder=folder / ".cells")
    table = recovery.run(errors, folder=folder / ".cells")
    verdict = f"{recovery.verdict(table, errors)} {phase_transition.verdict(transition, phases)}"
    lines = crossings(transition)
    tables = {"phase_transition": transition, "phase_lines": lines, "recovery": table}
    return Document("experiments", verdict, (), tables, {})


def _of_function(seed: int) -> Document:
    """Return the quick study, which C4 judges too, with the pair that it is of in its verdict."""
    study = quick_function(seed).document({})
    return dataclasses.replace(study, verdict=f"On a {PAIR.about}: {study.verdict}")


def _of_trainings(trainings: pd.DataFrame) -> Document:
    listed = trainings.drop(columns=["item_sums", "item_weights"])
    tables = {"summary": summarise(trainings), "trainings": listed}
    return Document("finetune", finetune_verdict(trainings), (), tables, {})


def _with_checks(survey: Document, verdicts: Sequence[Verdict]) -> Document:
    """Return the survey's document with the table of the paper checks, which its page shows."""
    return dataclasses.replace(
        survey,
        tables={**survey.tables, "checks": to_frame(verdicts)},
        unlisted=(*survey.unlisted, "checks"),
    )


@contextmanager
def _timed(stage: str, times: dict[str, float]) -> Iterator[None]:
    """Announce a stage on standard error and note how long it took."""
    note(f"{len(times) + 1}/9 {stage}")
    started = time.perf_counter()
    yield
    times[stage] = time.perf_counter() - started


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Make the report from the command line; the result is the exit code."""
    defaults = Config()
    parser = argparse.ArgumentParser(
        prog="python -m paper_checks.report",
        description="Fine-tune a real model, survey and audit its update, check the paper.",
        epilog="example: python -m paper_checks.report --out results/report",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("results/report"), help="default: %(default)s"
    )
    parser.add_argument(
        "--pair",
        type=Path,
        default=finetune_delta.DEFAULT_OUT,
        help="where the two checkpoints are, or will be put (default: %(default)s)",
    )
    for field in dataclasses.fields(Config):
        default = getattr(defaults, field.name)
        help_text = f"default: {default}"
        parser.add_argument(f"--{field.name}", type=int, default=default, help=help_text)
    chosen = parser.parse_args(arguments)
    table = run(Config(chosen.steps, chosen.draws, chosen.seed), chosen.out, chosen.pair)
    for name in ("function", "verdict", "audit", "recovery", "finetune", "checks"):
        print(printable(table.attrs[name]))
    print("\nWhere the time went:")
    for stage, seconds in zip(table["stage"], table["seconds"], strict=True):
        print(f"  {stage:<36}{seconds:>7.1f} s")
    print(f"  {'in all':<36}{table['seconds'].sum():>7.1f} s")
    print(f"\n{printable(str(chosen.out / 'report.html'))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
