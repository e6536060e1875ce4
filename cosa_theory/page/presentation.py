"""How the documents of one command are shown: its tables, figures and words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cosa_theory.page.document import Document, Tables
from cosa_theory.page.views import View

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from cosa_theory.page.explorer import Explorer

__all__ = ["Bar", "Drawing", "Opening", "Part", "Presentation"]

Views = Callable[[Document], Sequence[View]]


@dataclass(frozen=True)
class Drawing:
    """One figure: how it is drawn, and what its reader is told.

    Parameters
    ----------
    draw : callable
        Takes the tables of a document by name, returns the figure.
    title, caption : str
        In plain words.
    drawable : callable
        Takes the tables; whether they hold anything to draw.
    says : callable, optional
        Takes the tables; what the figure shows, from the numbers, for who cannot see it. The page
        says the title where it is missing.
    """

    draw: "Callable[[Tables], Figure]"
    title: str
    caption: str
    drawable: Callable[[Tables], bool]
    says: Callable[[Tables], str] | None = None

    def alternative(self, tables: Tables) -> str:
        """Return the figure in words."""
        return self.title if self.says is None else self.says(tables)


@dataclass(frozen=True)
class Bar:
    """A share between 0 and 1 as a bar: its label, the cell beside it, a colour of page.css."""

    label: str
    share: float
    text: str
    colour: str


@dataclass(frozen=True)
class Opening:
    """The comparison in one glance, between the verdict and the tables of a page.

    Parameters
    ----------
    base, tuned : str
        What was compared.
    bars : tuple of Bar
        To one common scale.
    about_bars : str
        What they show.
    facts : tuple of (str, str)
        A number and what it is.
    """

    base: str
    tuned: str
    bars: tuple[Bar, ...]
    about_bars: str
    facts: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Part:
    """Results of another command in a folder under a document's, which its page sums up.

    Parameters
    ----------
    folder, command : str
        Where they are, and whose.
    title : str
        Of the section.
    link : str
        What their own page has besides.
    first : bool
        Whether the page begins with it, before its own verdict; true of one part at most.
    """

    folder: str
    command: str
    title: str
    link: str
    first: bool = False


@dataclass(frozen=True)
class Presentation:
    """How the documents of one command are shown.

    Parameters
    ----------
    title : str
        Of the page, in a browser's tab.
    views : callable
        Maps a document to the tables a person reads first, in the terminal and on the page.
    tables : tuple of str
        The names that tables of the documents have: what a folder must have room for.
    terms : sequence of (str, str)
        What the words mean: a term and its explanation, plain text or `markupsafe.Markup`.
    detail_views : callable
        Maps a document to further tables, such as one row per layer, shown after the figures.
    figures : callable
        Returns the drawings by file name; called by `drawings` alone.
    headings : (str, str)
        Over the tables and over the further ones.
    opening : callable, optional
        Maps a document to what stands before its tables.
    parts : tuple of Part
        Results of other commands that the page sums up.
    beside : tuple of str
        Files that the command stores beside the tables.
    explorer : callable, optional
        Maps the tables to the interactive part of the page, or to None where they hold nothing for
        it.
    """

    title: str
    views: Views
    tables: tuple[str, ...] = ()
    terms: Sequence[tuple[str, str]] = ()
    detail_views: Views = lambda document: ()
    figures: Callable[[], Mapping[str, Drawing]] = dict
    headings: tuple[str, str] = ("Summary", "Details")
    opening: Callable[[Document], Opening] | None = None
    parts: tuple[Part, ...] = ()
    beside: tuple[str, ...] = ()
    explorer: "Callable[[Tables], Explorer | None]" = lambda tables: None

    def drawings(self) -> Mapping[str, Drawing]:
        """Return the drawings by file name, with matplotlib loaded whatever the user's settings."""
        from cosa_theory.page.style import load_matplotlib

        if self.figures is not dict:
            load_matplotlib()
        return self.figures()
