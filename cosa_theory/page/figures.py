"""A figure with the words that go with it, whatever tables it is drawn from."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

import pandas as pd
from matplotlib.figure import Figure

__all__ = ["Drawing", "FigureSpec"]

Tables = TypeVar("Tables")


@dataclass(frozen=True)
class FigureSpec(Generic[Tables]):
    """One figure: how it is drawn, and what its reader is told.

    Parameters
    ----------
    draw : callable
        Takes the tables of a result, returns the figure.
    title, caption : str
        In plain words.
    drawable : callable
        Takes the tables; whether they hold anything to draw.
    """

    draw: Callable[[Tables], Figure]
    title: str
    caption: str
    drawable: Callable[[Tables], bool]


Drawing: TypeAlias = FigureSpec[Mapping[str, pd.DataFrame]]
"""A figure of a `cosa_theory.page.Document`: it takes the document's tables by name."""
