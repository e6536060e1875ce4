"""Rows of data sets, from the hub or files, as items: some texts, and what is learnt of them."""

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cosa_theory.ground.checks import real
from cosa_theory.ground.errors import InputError, quoted, reason
from cosa_theory.ground.reading import file_bytes

__all__ = ["HUB", "Item", "Source", "hub_split", "items_of", "read_file", "refuse_lacking"]


@dataclass(frozen=True)
class Item:
    """One item in words.

    Attributes
    ----------
    inputs : tuple of str
        One or two texts; a prompt, where an answer is learnt.
    output : str or float
        A category, a number, or the text that continues the prompt.
    group : str
        Items of one group are not independent.
    history : tuple of (str, str)
        Of a chat, the messages before the prompt, as (role, text).
    """

    inputs: tuple[str, ...]
    output: str | float
    group: str
    history: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Source:
    """Where items come from: a data set of the hub, or files.

    Attributes
    ----------
    path : str
        ORGANISATION/NAME, or "" for files.
    inputs, output : tuple of str, str
        Columns; no output where the only input is a chat.
    learns, template : str
        As in `Parts`.
    subset : str, optional
        Of a collection.
    held_out : str, optional
        The labelled split that is the test part; without one, the training rows after those that
        are learnt.
    keep : (str, tuple of str), optional
        A column, and what its values must begin with.
    group : str
        A column whose equal values make a group: such rows are never in two parts. It may lack.
    """

    path: str
    inputs: tuple[str, ...]
    output: str
    learns: str = "labels"
    subset: str | None = None
    held_out: str | None = None
    keep: tuple[str, tuple[str, ...]] | None = None
    template: str = ""
    group: str = ""

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns that are taken."""
        return (*self.inputs, *([self.output] if self.output else []))


def _glue(
    subset: str, *inputs: str, learns: str = "labels", held_out: str = "validation"
) -> Source:
    """Return a task of GLUE, whose own test split has no labels."""
    return Source("nyu-mll/glue", inputs, "label", learns, subset, held_out)


GSM8K = Source(
    *("openai/gsm8k", ("question",), "answer", "answers", "main", "test"), template="alpaca"
)
MATH = Source(
    *("DigitalLearningGmbH/MATH-lighteval", ("problem",), "solution", "answers"),
    held_out="test",
    template="alpaca",
)

HUB: dict[str, Source] = {
    "cola": _glue("cola", "sentence"),
    "sst2": _glue("sst2", "sentence"),
    "mrpc": _glue("mrpc", "sentence1", "sentence2"),
    "stsb": _glue("stsb", "sentence1", "sentence2", learns="numbers"),
    "qnli": _glue("qnli", "question", "sentence"),
    "rte": _glue("rte", "sentence1", "sentence2"),
    "mnli": _glue("mnli", "premise", "hypothesis", held_out="validation_matched"),
    "qqp": _glue("qqp", "question1", "question2"),
    "wnli": _glue("wnli", "sentence1", "sentence2"),
    "gsm8k": GSM8K,
    "math": MATH,
    "metamath": Source(
        "meta-math/MetaMathQA",
        ("query",),
        "response",
        "answers",
        keep=("type", ("GSM", "MATH")),
        template="alpaca",
        group="original_question",  # each is rephrased some 26 times
    ),
    "python": Source(
        "m-a-p/CodeFeedback-Filtered-Instruction",
        ("query",),
        "answer",
        "answers",
        keep=("lang", ("python",)),
        template="alpaca",
    ),
}
"""GLUE, and those of the paper. Where its 50,000 rows of Python code came from is not known."""


def hub_split(source: Source, split: str, copies: str = "") -> Any:
    """Return the rows of a split, of the hub or of a copy of it, as `datasets` reads them.

    Raises
    ------
    InputError
        If `datasets` is not installed, or finds no such split there; or the column lacks that
        chooses the rows.
    """
    try:
        import datasets
    except ImportError as error:
        raise InputError("data of the hub needs datasets: install cosa-theory[llm]") from error
    where = str(Path(copies) / source.path) if copies else source.path
    shown = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        rows = datasets.load_dataset(where, source.subset, split=split, cache_dir=_cache(where))
        if source.keep is not None:
            column, begins = source.keep
            refuse_lacking(where, rows.column_names, [column])
            rows = rows.filter(lambda value: str(value).startswith(begins), input_columns=column)
        return rows
    except InputError:
        raise
    except Exception as error:  # offline, misspelt, gated, damaged: each library raises its own
        raise InputError(
            f"data {where}: datasets cannot read the split {split!r} ({reason(error)[:100]}): "
            "check the name and the network, or give the folder of a copy as copies",
            argument="copies",
        ) from error
    finally:
        if not shown:
            datasets.enable_progress_bars()


def _cache(where: str) -> str | None:
    """Return where what is read of a folder is kept, by its files; None for a name on the hub.

    By itself, `datasets` finds it again by the folder's name, whatever rows that has by now.
    """
    if not Path(where).is_dir():
        return None
    import datasets

    files = sorted(path for path in Path(where).rglob("*") if path.is_file())
    seen = [(str(one.resolve()), one.stat().st_size, one.stat().st_mtime_ns) for one in files]
    digest = hashlib.sha256(repr(seen).encode()).hexdigest()[:16]
    return str(Path(datasets.config.HF_DATASETS_CACHE) / "folders" / digest)


def read_file(path: Path, source: Source) -> list[Item]:
    """Read JSON Lines, a JSON array or CSV.

    Raises
    ------
    InputError
        If it is none of these, or as `items_of`.
    """
    where = str(path)
    try:
        text = file_bytes(path).decode("utf-8-sig")
        if path.suffix.lower() == ".csv":
            table = csv.DictReader(io.StringIO(text, newline=""), strict=True)
            return items_of(str(path), table.fieldnames or [], table, source)
        objects: list[Any] = []
        if text.lstrip().startswith("["):
            objects = json.loads(text)
        else:
            for line, row in enumerate(text.split("\n"), start=1):
                where = f"{path}, line {line}"
                if row.strip():
                    objects.append(json.loads(row))
    except (ValueError, csv.Error, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{where}: neither JSON Lines nor CSV ({reason(error)[:120]}): mend it, one object a "
            "line, or name a .csv"
        ) from error
    if not all(isinstance(row, dict) for row in objects):
        raise InputError(
            f"{path}: a row is no JSON object: write one with the named columns a line"
        )
    return items_of(str(path), list(objects[0]) if objects else None, objects, source)


def items_of(
    where: str, columns: Iterable[str] | None, rows: Iterable[Mapping[str, Any]], source: Source
) -> list[Item]:
    """Return rows as items.

    Parameters
    ----------
    where : str
        Begins every error.
    columns : iterable of str, optional
        Those there are; None where there is no row.
    rows : iterable of mapping
        By column.
    source : Source
        Which columns are taken, and for what.

    Raises
    ------
    InputError
        For a column that lacks, an empty cell, or a number that is none.
    """
    if columns is not None:
        refuse_lacking(where, list(columns), source.columns)
    found = []
    for number, row in enumerate(rows):
        values = [row.get(name) for name in source.columns]
        for name, value in zip(source.columns, values, strict=True):
            blank = value == "" and name == source.output and source.learns != "answers"
            if value is None or blank:
                raise InputError(
                    f"{where}: row {number + 1} has no {name!r}: fill it, or leave it out"
                )
            if source.output and isinstance(value, (list, dict)):
                raise InputError(
                    f"{where}: row {number + 1} has {quoted(value)} as {name!r}: it must be a text "
                    'or a number; a column of messages is a chat, with template = "chat" and no '
                    "output",
                    argument="inputs",
                )
        if not source.output:
            found.append(_chat(f"{where}: row {number + 1}", source.inputs[0], values[0], number))
            continue
        texts, output = [str(value) for value in values[:-1]], values[-1]
        if source.learns == "numbers":
            try:
                output = real(source.output, output if type(output) is not str else float(output))
            except ValueError:
                raise InputError(
                    f"{where}: row {number + 1} has {quoted(output)} as {source.output!r}: numbers "
                    "are learnt, so it must be one"
                ) from None
        else:
            output = str(output)
        group = row.get(source.group, number) if source.group else number
        found.append(Item(tuple(texts), output, str(group)))
    return found


def _chat(where: str, column: str, messages: Any, number: int) -> Item:
    """Return a chat whose last message is learnt."""
    try:
        said = [(str(one["role"]), one["content"]) for one in messages]
        roles = [role for role, _ in said]
        if roles[-2:] != ["user", "assistant"] or not all(type(text) is str for _, text in said):
            raise ValueError
    except (TypeError, KeyError, ValueError, IndexError):
        raise InputError(
            f"{where} has {quoted(messages)} as {column!r}: it must be a list of objects with a "
            "role and a text as content, a user's and an assistant's at the end",
            argument="inputs",
        ) from None
    *history, (_, prompt), (_, answer) = said
    return Item((prompt,), answer, str(number), tuple(history))


def refuse_lacking(where: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Raise InputError for the first needed column that there is not."""
    for name in needed:
        if name not in columns:
            raise InputError(
                f"{where}: no column {quoted(name)}, only {', '.join(map(str, columns))[:160]}",
                argument="inputs",
            )
