"""Results of one command side by side: the same tables, their rows joined by what they are of."""

from collections import Counter
from collections.abc import Mapping, Sequence

from cosa_theory.ground.errors import InputError
from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Presentation
from cosa_theory.page.views import MISSING, Column, View
from cosa_theory.studies import presentation

__all__ = ["beside", "compared"]

Key = tuple[str, ...]


def compared(documents: Mapping[str, Document]) -> tuple[Document, Presentation]:
    """Return several results as one document, and how it is shown.

    Parameters
    ----------
    documents : mapping of str to Document
        By the names under which they stand beside each other.

    Returns
    -------
    (Document, Presentation)
        A table of the verdicts, then each table of the command with a group of columns for every
        result; nothing is computed again.

    Raises
    ------
    InputError
        If they are of different commands.
    """
    found = {one.command: name for name, one in documents.items()}
    if len(found) > 1:
        kinds = " and ".join(f"cosa-theory {command} ({name})" for command, name in found.items())
        raise InputError(f"results of {kinds} have no tables in common: compare those of one")
    (command,) = found
    shown = presentation(command)
    columns = (
        Column("name", "result", text=True),
        Column("verdict", "verdict", text=True),
        Column("command", "made by", text=True),
    )
    verdicts = View.of("The results", columns, [
        {"name": name, "verdict": one.verdict, "command": one.provenance.get("command", MISSING)}
        for name, one in documents.items()
    ])  # fmt: skip
    tables = beside({name: list(shown.views(one)) for name, one in documents.items()})
    details = beside({name: list(shown.detail_views(one)) for name, one in documents.items()})
    said = f"{len(documents)} results of cosa-theory {command}, side by side: "
    said += ", ".join(documents)
    notices = tuple(
        f"{name}: {notice}" for name, one in documents.items() for notice in one.notices
    )
    return Document(command, f"{said}.", notices, {}, {"results": list(documents)}), Presentation(
        title=f"{shown.title}, side by side",
        views=lambda document: [verdicts, *tables],
        detail_views=lambda document: details,
        terms=shown.terms,
        headings=shown.headings,
    )


def beside(views: Mapping[str, Sequence[View]]) -> list[View]:
    """Return the views of several results joined, one for each that all of them have.

    Results whose views are of the same tables are joined in their order, others by the titles of
    views: a title may name what was asked for, but tables of other columns are others.
    """
    if len({len(one) for one in views.values()}) == 1:
        groups = zip(*views.values(), strict=True)
        ordered = [dict(zip(views, group, strict=True)) for group in groups]
        if all(map(_alike, ordered)):
            return [_joined(group) for group in ordered]
    titled = {name: {one.title: one for one in listed} for name, listed in views.items()}
    shared = set.intersection(*map(set, titled.values()))
    return [
        _joined({name: one[title] for name, one in titled.items()})
        for title in next(iter(titled.values()))
        if title in shared
    ]


def _alike(views: Mapping[str, View]) -> bool:
    """Tell whether views of several results are of one table: by their titles, or their columns."""
    titles = {view.title for view in views.values()}
    columns = {tuple(column.header for column in view.columns) for view in views.values()}
    return len(titles) == 1 or len(columns) == 1


def _joined(views: Mapping[str, View]) -> View:
    """Return one view with the rows of all, and a group of columns for each."""
    first = next(iter(views.values()))
    titles = {name: view.title for name, view in views.items() if view.title}
    several = "; ".join(f"{name}: {title}" for name, title in titles.items())
    title = several if len(set(titles.values())) > 1 else next(iter(titles.values()), "")
    names = min(map(_names, views.values()))
    rows = {name: _by_key(view, names) for name, view in views.items()}
    keys = list(dict.fromkeys(key for found in rows.values() for key in found))
    blank = {name: len(view.columns) - names for name, view in views.items()}
    cells, values = [], []
    for key in keys:
        line: list[str] = list(key[:-1])
        numbers: list[float | None] = [None] * names
        for name, width in blank.items():
            text, full = rows[name].get(key, ((MISSING,) * width, (None,) * width))
            line += text
            numbers += full
        cells.append(tuple(line))
        values.append(tuple(numbers))
    columns = [
        *first.columns[:names],
        *(c for view in views.values() for c in view.columns[names:]),
    ]
    return View(
        title,
        tuple(columns),
        tuple(cells),
        tuple(values),
        (("", names), *blank.items()),
    )


def _names(view: View) -> int:
    """Return how many columns name a row: the texts at the left, or the first one."""
    texts = [column.text for column in view.columns]
    return max(1, texts.index(False) if False in texts else len(texts) - 1)


def _by_key(view: View, names: int) -> dict[Key, tuple[tuple[str, ...], tuple[float | None, ...]]]:
    """Return the cells and numbers of each row by its names; equal names are counted."""
    seen: Counter[Key] = Counter()
    found = {}
    for place, cells in enumerate(view.rows):
        key = cells[:names]
        seen[key] += 1
        found[(*key, str(seen[key]))] = (cells[names:], view.values[place][names:])
    return found
