"""Running checks, and the tables and texts of their verdicts."""

import dataclasses
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import pandas as pd
from threadpoolctl import threadpool_limits

from cosa_theory.deltas import open_pair
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.manifest import own_files
from cosa_theory.ground.program import note
from cosa_theory.page.document import Document, plain, records, write_table
from experiments import finetune_delta
from paper_checks import informed
from paper_checks.base import NO_CLAIM, Check, Verdict, decide, warnings
from paper_checks.stored import describe_stored, stored_cases
from paper_checks.thresholds import THRESHOLDS

__all__ = [
    "CHECKS",
    "FILES",
    "PART",
    "cases_frame",
    "claims",
    "default_pair",
    "document",
    "headline",
    "run_checks",
    "select",
    "to_frame",
    "write",
    "write_files",
]

FILES = ("cases.parquet", "checks.json", "checks.parquet")
PART = "paper checks"


def _found() -> dict[str, Check]:
    """Return the `CHECK` of every module c01, c02, … beside this one, and those of no claim."""
    names = sorted(module.name for module in iter_modules([str(Path(__file__).parent)]))
    checks = [
        import_module(f"paper_checks.{name}").CHECK for name in names if re.fullmatch(r"c\d+", name)
    ]
    return {check.claim.id: check for check in (*checks, *informed.CHECKS)}


CHECKS: dict[str, Check] = _found()
"""Every check by the identifier of its claim. A check is a module here that says `CHECK`; those of
`paper_checks.informed` ask the same of a method that is not the paper's."""

Pair = tuple[Any, Any]


def select(ids: Sequence[str]) -> list[str]:
    """Return the checks that were asked for, in the order of the claims; all when none was.

    Raises
    ------
    InputError
        An identifier that no check has; upper or lower case and a leading zero do not matter.
    """
    chosen = set()
    for given in ids:
        number = re.fullmatch(r"[Cc]0*([0-9]+)(i?)", given)
        name = f"C{number[1]}{number[2]}" if number else given
        if name not in CHECKS:
            raise InputError(f"no check {given!r}: there are {', '.join(CHECKS)}")
        chosen.add(name)
    return [name for name in CHECKS if name in chosen or not ids]


def default_pair() -> Pair:
    """Return the fine-tuned pair in results/finetune_delta, making it by the short run if needed.

    A pair that is already there is used whatever its settings were. Making one takes about a
    minute and is announced on standard error.
    """
    folder = finetune_delta.DEFAULT_OUT
    if not (folder / "summary.json").is_file():
        note(f"no fine-tuned pair in {folder}: making one by a short run")
        finetune_delta.run(finetune_delta.Config(), folder)
    return folder / "base.safetensors", folder / "tuned.safetensors"


def run_checks(
    ids: Sequence[str] = (),
    pair: Pair | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    *,
    full: bool = False,
) -> list[Verdict]:
    """Measure claims of the paper and decide them.

    Parameters
    ----------
    ids : sequence of str
        Such as ("C1", "C5"); empty for all.
    pair : (base, tuned), optional
        Whatever `cosa_theory.deltas.open_pair` takes; by default the fine-tuned encoder, see
        `default_pair`. It is opened only if a chosen check measures real updates.
    seed : int
        Seed of all draws.
    progress : callable, optional
        Called with the identifier of each check before it starts.
    full : bool
        Whether what is committed of all updates decides too, see `paper_checks.stored`.

    Returns
    -------
    list of Verdict
        In the order of the claims.

    Raises
    ------
    InputError
        Unknown identifier, or a pair that cannot be read.
    """
    checks = [CHECKS[name] for name in select(ids)]
    layers: Iterable[Any] = ()
    if any(check.needs_pair for check in checks):
        layers = open_pair(*(pair or default_pair()))
    verdicts = []
    for check in checks:
        if progress is not None:
            progress(check.claim.id)
        started = time.perf_counter()
        # One thread: two on such small matrices are far slower than one on a busy machine.
        with threadpool_limits(1):
            cases = tuple(check.measure(layers if check.needs_pair else (), seed))
        stored = tuple(stored_cases(check.claim.id)) if full else ()
        summary, cases = check.describe(cases) + describe_stored(stored), cases + stored
        summary = warnings(cases) + summary
        seconds = time.perf_counter() - started
        verdicts.append(Verdict(check.claim, decide(cases), summary, cases, seconds))
    return verdicts


def headline(verdicts: Sequence[Verdict]) -> str:
    """Return the first line of the result: how many claims got which verdict, and which.

    What is no claim of the paper is left out, unless nothing else was judged.
    """
    verdicts = [one for one in verdicts if one.claim.source != NO_CLAIM] or verdicts
    words = ("holds", "holds under conditions", "fails", "undecided")
    plural = {"holds": "hold", "holds under conditions": "hold under conditions", "fails": "fail"}
    parts = []
    for word in words:
        names = [verdict.claim.id for verdict in verdicts if verdict.verdict == word]
        if names:
            verb = word if len(names) == 1 else plural.get(word, word)
            verb = f"{'is' if len(names) == 1 else 'are'} {word}" if word == "undecided" else verb
            parts.append(f"{len(names)} {verb} ({', '.join(names)})")
    noun = "claim" if len(verdicts) == 1 else "claims"
    whose = "beside those " if verdicts and verdicts[0].claim.source == NO_CLAIM else ""
    return f"Of {len(verdicts)} {noun} {whose}of the paper, {', '.join(parts)}."


def to_frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return one row for each check.

    Columns: id, claim, source, method, quantity, criterion, verdict, summary, seconds, and the
    number of deciding cases with each outcome (holds, fails, undecided).
    """
    rows = []
    for verdict in verdicts:
        outcomes = [case.outcome for case in verdict.cases if not case.control]
        rows.append(
            {
                **dataclasses.asdict(verdict.claim),
                "verdict": verdict.verdict,
                "summary": verdict.summary,
                "seconds": verdict.seconds,
                **{word: outcomes.count(word) for word in ("holds", "fails", "undecided")},
            }
        )
    return pd.DataFrame(rows)


def cases_frame(verdicts: Sequence[Verdict]) -> pd.DataFrame:
    """Return one row for each case.

    Columns: id, name, group, value, low, high, threshold, control, outcome, details (JSON text).
    """
    names, numbers = ("name", "group"), ("value", "low", "high")
    judged = ("threshold", "control", "outcome")
    rows = [
        (
            verdict.claim.id,
            *(getattr(case, field) for field in names),
            *(float(getattr(case, field)) for field in numbers),
            *(getattr(case, field) for field in judged),
            json.dumps(plain(case.details), allow_nan=False),
        )
        for verdict in verdicts
        for case in verdict.cases
    ]
    return pd.DataFrame(rows, columns=["id", *names, *numbers, *judged, "details"])


def document(verdicts: Sequence[Verdict], made: Mapping[str, Any]) -> dict[str, Any]:
    """Return everything as one JSON document: verdict, checks with their cases, thresholds.

    A number that does not exist is null; `made` is the provenance.
    """
    table = cases_frame(verdicts)
    checks = []
    for record in records(to_frame(verdicts)):
        cases = records(table[table["id"] == record["id"]].drop(columns="id"))
        cases = [{**case, "details": json.loads(case["details"])} for case in cases]
        checks.append({**record, "cases": cases})
    return {
        "verdict": headline(verdicts),
        "checks": checks,
        "thresholds": {name: dataclasses.asdict(item) for name, item in THRESHOLDS.items()},
        "provenance": dict(made),
    }


def claims(verdicts: Sequence[Verdict], made: Mapping[str, Any]) -> Document:
    """Return the verdicts as a document for a page: each case beside its threshold."""
    cases = cases_frame(verdicts)
    for name, field in (
        ("quantity", "quantity"),
        ("relation", "relation"),
        ("bound", "value"),
        ("date", "date"),
    ):
        cases[name] = [getattr(THRESHOLDS[key], field) for key in cases["threshold"]]
    tables = {"verdicts": to_frame(verdicts), "cases": cases}
    return Document("claims", headline(verdicts), (), tables, made)


def write(verdicts: Sequence[Verdict], content: dict[str, Any], out: Path) -> None:
    """Write `FILES` into a folder, over those of an earlier run."""
    with own_files(out, PART, last="checks.json") as new:
        write_files(verdicts, content, new)


def write_files(verdicts: Sequence[Verdict], content: dict[str, Any], new: Path) -> None:
    """Write `FILES` into a new folder."""
    write_table(to_frame(verdicts), new / "checks.parquet")
    write_table(cases_frame(verdicts), new / "cases.parquet")
    text = json.dumps(content, indent=1, allow_nan=False)
    (new / "checks.json").write_text(text + "\n", encoding="utf-8")
