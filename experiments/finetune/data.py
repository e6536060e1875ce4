"""Data by name: embedded texts and functions, data sets of the hub, and one's own files.

All become the same: inputs, an output, and three parts. What is held back never depends on a seed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cosa_theory.assets import Text, read_newsgroups, read_reuters
from cosa_theory.ground.checks import choice
from cosa_theory.ground.errors import InputError, quoted
from cosa_theory.projections import stream
from experiments.finetune.config import FILES, Config
from experiments.finetune.function_bodies import FunctionText, read_functions, split_modules
from experiments.finetune.rows import (
    HUB,
    Item,
    Source,
    hub_split,
    items_of,
    read_file,
)

__all__ = ["DATA", "Parts", "data_files", "load_parts", "read_labelled"]

# Shares of the modules, and how many training texts at most, that are kept back.
VALIDATION_SHARE, TEST_SHARE = 0.15, 0.25
VALIDATION_ITEMS = 600
HELD_OUT_GROUPS = 100


@dataclass(frozen=True)
class Parts:
    """A data set.

    Attributes
    ----------
    learns : {"labels", "numbers", "answers"}
        What the outputs are.
    train, validation, test : list of Item
        The parts; of the last two, the first so many are scored.
    template : str
        Of answers, how prompts are put.
    drawn : tuple of str, optional
        Names the draw of those that are scored, where it is made after long items are left out.
    """

    learns: str
    train: list[Item]
    validation: list[Item]
    test: list[Item]
    template: str = ""
    drawn: tuple[str, ...] | None = None


def load_parts(config: Config) -> Parts:
    """Read the data of a training.

    Raises
    ------
    InputError
        If there is no such data set or file, a column or an output lacks, a part is empty, all
        training rows have one label, or a label is held out that is not in the training part.
    """
    if "/" not in config.data:
        choice("data", config.data, DATA)
    parts = DATA.get(config.data, _hub)(config)
    if config.rows:
        parts = replace(parts, train=parts.train[: config.rows])
    for name in ("train", "validation", "test"):
        if not getattr(parts, name):
            raise InputError(
                f"data {config.data}: the {name} part is empty: give it rows", argument=name
            )
    if parts.learns == "labels":
        known = {item.output for item in parts.train}
        if len(known) < 2:
            raise InputError(
                f"data {config.data}: all {len(parts.train):,} training rows have the label "
                f"{quoted(min(known))}: add rows with another",
                argument="train",
            )
        for name in ("validation", "test"):
            unseen = {item.output for item in getattr(parts, name)} - known
            if unseen:
                raise InputError(
                    f"data {config.data}: the {name} part has the label {quoted(min(unseen))}, "
                    "which no training row has: leave it out, or add rows to train"
                )
    return parts


def data_files(config: Config) -> list[str]:
    """Return the files of one's own that are learnt, or those of a copy of the hub's data."""
    if config.data == FILES:
        return [config.train, config.validation, config.test]
    path = HUB[config.data].path if config.data in HUB else config.data.partition(":")[0]
    return [str(file) for file in Path(config.copies, path).rglob("*")] if "/" in path else []


def _functions(config: Config) -> Parts:
    parts = split_modules(read_functions(), (VALIDATION_SHARE, TEST_SHARE))
    train, validation, test = (list(map(_function, part)) for part in parts)
    return Parts("answers", train, validation, test, config.template, drawn=("functions",))


def _function(function: FunctionText) -> Item:
    return Item((function.prompt,), function.body, function.module)


def read_labelled(corpus: str, split: str) -> list[Text]:
    """Return a split of Reuters ("r8", "r52") or of 20 Newsgroups ("20newsgroups")."""
    return read_newsgroups(split) if corpus == "20newsgroups" else read_reuters(split, corpus)


def _labelled(config: Config) -> Parts:
    train, test = (
        [
            Item((text.text,), text.category, str(number))
            for number, text in enumerate(read_labelled(config.data, split))
        ]
        for split in ("train", "test")
    )
    kept, validation = _held_back(train)
    return Parts("labels", kept, validation, _shuffled(test, "test"))


def _held_back(items: Sequence[Item]) -> tuple[list[Item], list[Item]]:
    """Return what stays to be learnt, and what is kept back of it, in the order drawn."""
    count = min(VALIDATION_ITEMS, len(items) // 5)
    order = stream(0, "finetune_check", "validation").permutation(len(items))
    return [items[index] for index in sorted(order[count:])], [items[i] for i in order[:count]]


def _shuffled(items: Sequence[Item], *key: str) -> list[Item]:
    """Return the items in a random order, always the same."""
    order = stream(0, "finetune_check", *key).permutation(len(items))
    return [items[index] for index in order]


def _hub(config: Config) -> Parts:
    source = HUB.get(config.data) or _named(config)
    template = config.template or source.template
    rows = hub_split(source, "train", config.copies)
    if source.held_out is None:
        # No more become items than are needed: these have hundreds of thousands of rows.
        learnt, validation, test = (
            items_of(config.data, rows.column_names, rows.select(places), source)
            for places in _apart(rows, source.group, config.rows)
        )
        return Parts(source.learns, learnt, validation, test, template)
    held_out = hub_split(source, source.held_out, config.copies)
    train, test = (
        items_of(config.data, part.column_names, part, source) for part in (rows, held_out)
    )
    kept, validation = _held_back(train)
    return Parts(source.learns, kept, validation, _shuffled(test, "test"), template)


def _apart(rows: Any, group: str, most: int) -> list[Sequence[int]]:
    """Return which rows are learnt, the first so many, which validate and which test.

    The held-out rows come after the others; or they are some of each of a few groups, of which no
    row is learnt.
    """
    size = min(VALIDATION_ITEMS, len(rows) // 5)
    if group not in rows.column_names:
        count = min(most or len(rows), len(rows) - 2 * size)
        ends = (0, count, count + size, count + 2 * size)
        return [range(*ends[part : part + 2]) for part in range(3)]
    members: dict[Any, list[int]] = {}
    for place, name in enumerate(rows[group]):
        members.setdefault(name, []).append(place)
    groups = list(members.values())
    order = stream(0, "finetune", "groups").permutation(len(groups))
    count = min(HELD_OUT_GROUPS, len(groups) // 5)
    drawn = [[groups[index] for index in order[first : first + count]] for first in (0, count)]
    held_out = {place for part in drawn for places in part for place in places}
    each = max(1, size // max(count, 1))
    return [
        [place for place in range(len(rows)) if place not in held_out][: most or None],
        *([place for places in part for place in places[:each]] for part in drawn),
    ]


def _named(config: Config) -> Source:
    """Return files, or a data set of the hub, as the training's own fields say."""
    chats = config.template == "chat" and config.learns == "answers"
    most = 1 if config.learns == "answers" else 2
    if not 1 <= len(config.inputs) <= most or not (config.output or chats):
        raise InputError(
            f"data is {config.data!r}: inputs must name one column of texts, or two for labels and "
            'numbers, and output what is learnt of them; a chat, with learns = "answers" and '
            'template = "chat", may be one column of messages without output',
            argument="inputs",
        )
    own = (config.inputs, config.output, config.learns)
    if config.data == FILES:
        return Source("", *own)
    path, _, subset = config.data.partition(":")
    return Source(path, *own, subset or None, config.test or None)


def _files(config: Config) -> Parts:
    source = _named(config)
    read = {}
    for name in ("train", "validation", "test"):
        file = getattr(config, name)
        if not file and name != "validation":
            raise InputError(f"data is 'files': {name} must be a JSON Lines or CSV file")
        read[name] = read_file(Path(file), source) if file else []
    train, validation = read["train"], read["validation"]
    if not config.validation:
        train, validation = _held_back(train)
    return Parts(config.learns, train, validation, _shuffled(read["test"], "test"), config.template)


DATA: dict[str, Callable[[Config], Parts]] = {
    **dict.fromkeys(("r8", "r52", "20newsgroups"), _labelled),
    "functions": _functions,
    **dict.fromkeys(HUB, _hub),
    FILES: _files,
}
"""What reads each data set."""
