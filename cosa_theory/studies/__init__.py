"""One folder per question a user asks: what is computed, judged, shown and drawn.

A study registers itself: its `__init__.py` maps each command whose documents it shows to the
module whose `PRESENTATION` says how. Adding a study is adding a folder.
"""

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cosa_theory.page.presentation import Presentation

__all__ = ["commands", "presentation"]


@cache
def _registered() -> dict[str, str]:
    """Return the module of every presentation by its command, from the folders beside this."""
    found: dict[str, str] = {}
    for folder in iter_modules(__path__, f"{__name__}."):
        if folder.ispkg:
            shown = getattr(import_module(folder.name), "PRESENTATIONS", {})
            found |= {command: f"{folder.name}.{module}" for command, module in shown.items()}
    return found


def commands() -> tuple[str, ...]:
    """Return the commands and experiments whose documents can be shown."""
    return tuple(_registered())


def presentation(command: str) -> "Presentation":
    """Return how the documents of a command are shown; imports the views of its study alone."""
    shown: Presentation = import_module(_registered()[command]).PRESENTATION
    return shown
