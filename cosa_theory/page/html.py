"""The one page: figures, tables and scripts inside, no request to anywhere.

Without scripts it is complete: they add charts to choose from, and what tables can do besides. Its
policy lets a browser run them and nothing else, load nothing and connect to nowhere.
"""

import base64
import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, Template
from markupsafe import Markup

from cosa_theory.ground.manifest import own_files
from cosa_theory.ground.printable import printable, shortened
from cosa_theory.page.document import FIGURES, PAGE, RESULTS, Document, records
from cosa_theory.page.explorer import script_json
from cosa_theory.page.presentation import Part, Presentation
from cosa_theory.page.style import as_data_uri, save_figure
from cosa_theory.page.vega import vega_script
from cosa_theory.page.views import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "CLAIMS",
    "Summary",
    "is_of_page",
    "render_page",
    "split_verdict",
    "write_page",
    "write_page_files",
]

CLAIMS = "claims"
"""The folder under a document with a table "checks" where each of them has its figure."""

_REM_PER_INCH = 8  # a figure of page width is 56 rem wide, one of column width half of it


@dataclass(frozen=True)
class Summary:
    """A part of a page: the verdict and the first table of another document."""

    part: Part
    verdict: str
    view: View


def render_page(
    document: Document, shown: Presentation, summaries: tuple[Summary, ...] = ()
) -> str:
    """Return one HTML document that needs no other file.

    Parameters
    ----------
    document : Document
        What to show.
    shown : Presentation
        How.
    summaries : tuple of Summary
        Of its parts, where there are any.

    Returns
    -------
    str
        The verdict first, then what can be explored, tables, figures, details, parts, notices, the
        meaning of the words, the provenance and, in a table "checks" of the document, the checks of
        the paper's claims.
    """
    return _render(document, shown, summaries, _draw(document, shown))


def write_page(
    document: Document,
    shown: Presentation,
    folder: str | os.PathLike[str],
    summaries: tuple[Summary, ...] = (),
) -> Path:
    """Write report.html, and every figure as PDF and PNG in the folder figures.

    Parameters
    ----------
    document, shown, summaries
        As for `render_page`.
    folder : path
        Created if it is not there. An earlier page and its figures are replaced, tables stay.

    Returns
    -------
    pathlib.Path
        The page.

    Raises
    ------
    InputError
        As for `cosa_theory.ground.manifest.own_files`.
    """
    with own_files(folder, RESULTS, stays=lambda name: not is_of_page(name)) as new:
        write_page_files(document, shown, new, summaries)
    return Path(folder) / PAGE


def is_of_page(name: str) -> bool:
    """Return whether a file of results is the page or a figure."""
    return name == PAGE or name.startswith(f"{FIGURES}/")


def write_page_files(
    document: Document, shown: Presentation, new: Path, summaries: tuple[Summary, ...] = ()
) -> None:
    """Write what `write_page` does into a new folder."""
    figures = _draw(document, shown)
    for name, figure in figures.items():
        save_figure(figure, new / FIGURES, name)
    page = _render(document, shown, summaries, figures)
    (new / PAGE).write_text(page, encoding="utf-8")


def _draw(document: Document, shown: Presentation) -> "dict[str, Figure]":
    """Return every figure that the tables hold something for."""
    tables = document.tables
    return {
        name: one.draw(tables) for name, one in shown.drawings().items() if one.drawable(tables)
    }


def _render(
    document: Document,
    shown: Presentation,
    summaries: tuple[Summary, ...],
    figures: "Mapping[str, Figure]",
) -> str:
    drawings = shown.drawings() if figures else {}
    explorer = shown.explorer(document.tables)
    scripts = _scripts(explorer is not None)
    first, rest = split_verdict(document.verdict)
    tables, details = (
        [view for view in found(document) if view.rows]
        for found in (shown.views, shown.detail_views)
    )
    checks = records(document.tables["checks"]) if "checks" in document.tables else []
    return _template().render(
        anchors=[
            *((one.part.folder, one.part.title) for one in summaries if one.part.first),
            ("verdict", "Verdict"),
            *([("explore", "Explore")] if explorer else []),
            *([("tables", shown.headings[0])] if tables else []),
            *([("figures", "Figures")] if figures else []),
            *([("details", shown.headings[1])] if details else []),
            *((one.part.folder, one.part.title) for one in summaries if not one.part.first),
            *([("input", "About the input")] if document.notices else []),
            ("words", "How to read this"),
            ("origin", "Where these numbers come from"),
            *([("claims", "The paper's claims")] if checks else []),
        ],
        scripts=[Markup(script) for script in scripts],
        hashes=[_hash(script) for script in scripts],
        explorer=explorer,
        explored=None if explorer is None else Markup(script_json(explorer.as_json())),
        title=shown.title,
        first=first,
        rest=rest,
        opening=None if shown.opening is None else shown.opening(document),
        sections=[(shown.headings[0], tables), (shown.headings[1], details)],
        figures=[
            {
                "name": name,
                "drawing": drawings[name],
                "folder": FIGURES,
                "alternative": drawings[name].alternative(document.tables),
                "source": Markup(as_data_uri(figure)),
                "width": round(_REM_PER_INCH * figure.get_figwidth()),
            }
            for name, figure in figures.items()
        ],
        summaries=summaries,
        page=PAGE,
        notices=document.notices,
        terms=shown.terms,
        record={
            name: _in_words(value)
            for name, value in document.provenance.items()
            if name != "command"
        },
        command=document.provenance.get("command"),
        checks=checks,
        claims=f"{CLAIMS}/{PAGE}",
    )


@cache
def _template() -> Template:
    loader = PackageLoader("cosa_theory.page", "")
    # Autoescape: text from outside, such as the name of a layer, cannot become markup.
    environment = Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=_seen
    )
    environment.filters["shortened"] = shortened
    return environment.get_template("page.html.jinja")


def _scripts(explored: bool) -> list[str]:
    """Return what stands in the page's script elements, to the letter: its policy names hashes."""
    own = files("cosa_theory.page")
    names = ["page.js", *(["explorer.js"] if explored else [])]
    scripts = [(own / name).read_text(encoding="utf-8") for name in names]
    return [scripts[0], vega_script(), *scripts[1:]] if explored else scripts


def _hash(script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")
    return f"'sha256-{digest}'"


def _seen(value: Any) -> Any:
    """Return text with every character seen; what is markup already is the house's own."""
    return printable(value) if type(value) is str else value


def split_verdict(verdict: str) -> tuple[str, str]:
    """Return the first clause, to be set large, and the numbers behind it."""
    ends = [verdict.find(mark) for mark in (": ", ". ") if mark in verdict]
    end = min(ends, default=len(verdict)) + 2
    return verdict[:end], verdict[end:]


def _in_words(value: Any) -> str:
    """Return a value of the provenance on one line."""
    if isinstance(value, Mapping):
        value = ", ".join(f"{name} {item}" for name, item in value.items() if item is not None)
    elif isinstance(value, (list, tuple)):
        value = ", ".join(map(str, value))
    return "–" if value is None or value == "" else str(value)
