r"""Regular expressions of files and users, matched with a limit: none of them takes minutes.

``(a+)+x`` needs 2ⁿ steps to find that it does not match n letters. An adapter's file may hold such
an expression, so what can repeat is matched by the package `regex`, which can be told when to stop;
its expressions mean what those of `re` mean.
"""

import re
import time
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import InputError, reason

__all__ = ["Expression", "by_pattern", "name_end"]

_SECONDS = 1.0
"""Of processor time in all that an expression may take beyond what an ordinary one needs."""

_ORDINARY = 1e-3
_MOST_CHARACTERS = 1_000_000
_SPECIAL = re.compile(r"[\\^$*+?{}\[\]|()\n]")
_BRANCHING = "*+?{|("
"""Without these an expression matches in one way, or in none: nothing is tried twice."""


class Expression:
    """A regular expression that gives up rather than search for minutes.

    Parameters
    ----------
    argument : str
        What errors call it.
    pattern : str
        As `re` takes it.
    ends_name : bool
        Whether it stands for a whole name or for its last parts, after a dot.

    Raises
    ------
    InputError
        If it is no regular expression; from its methods, if matching takes too long.
    """

    def __init__(self, argument: str, pattern: str, ends_name: bool = False) -> None:
        self.pattern, self._argument, self._left = pattern, argument, _SECONDS
        try:
            if len(pattern + "") > _MOST_CHARACTERS:  # compiled ones and bytes are no text
                raise OverflowError(f"over {_MOST_CHARACTERS:,} characters")
            self._simple = not any(sign in pattern for sign in _BRANCHING)
            self._compiled: Any = re.compile(pattern)
            if ends_name:
                self._compiled = re.compile(rf"(.*\.)?({pattern})$")
        except (re.error, OverflowError, RecursionError, TypeError) as error:
            raise self._refused(f"a regular expression ({reason(error)})") from error

    def search(self, text: str) -> Any:
        """Return the first match anywhere in a text, or None."""
        return self._run("search", text)

    def fullmatch(self, text: str) -> Any:
        """Return the match of the whole text, or None."""
        return self._run("fullmatch", text)

    def match(self, text: str) -> Any:
        """Return the match of the beginning of a text, or None."""
        return self._run("match", text)

    def _run(self, how: str, text: str) -> Any:
        if self._simple:
            return getattr(self._compiled, how)(text)
        if isinstance(self._compiled, re.Pattern):
            self._compiled = self._stoppable(self._compiled.pattern)
        started = time.thread_time()
        try:
            found = getattr(self._compiled, how)(text, timeout=max(self._left, _ORDINARY))
        except TimeoutError:
            found, self._left = None, 0.0
        took = time.thread_time() - started
        self._left -= took if took > _ORDINARY else 0.0
        if self._left <= 0:
            raise self._refused(
                f"simpler: matching it takes over {_SECONDS:g} s, as where one repetition is "
                "inside another"
            )
        return found

    def _stoppable(self, pattern: str) -> Any:
        import regex

        # A brace that bounds no repetition is itself to `re`, and a fuzzy match to `regex`.
        plain = re.sub(r"(?<!\\)\{(?!\d*,?\d*\})", r"\{", pattern)
        try:
            return regex.compile(plain, regex.VERSION0)
        except (regex.error, OverflowError, RecursionError, MemoryError) as error:
            raise self._refused(f"a regular expression ({reason(error)})") from error

    def _refused(self, must: str) -> InputError:
        return refuse(self._argument, self.pattern, must)


@lru_cache(maxsize=10_000)
def _end_of_name(argument: str, pattern: str) -> Expression:
    return Expression(argument, pattern, ends_name=True)


def name_end(argument: str, pattern: Any) -> str:
    """Return the pattern of the whole name or the last parts of modules, checked."""
    return Expression(argument, pattern, ends_name=True).pattern


def by_pattern(
    patterns: Mapping[str, Any] | None, module: str, default: Any, where: str = "the patterns"
) -> Any:
    """Return the value of the first pattern that a module's name ends with.

    A pattern is a regular expression for the whole name or for its last parts, after a dot; the
    first that matches counts, in the order of the file (PEFT's `get_pattern_key`). `where` is what
    the error about a pattern that takes too long to match calls them. Names of layers, as most
    patterns are, are looked up; only expressions are tried one after another.
    """
    if not patterns:
        return default
    listed = tuple(patterns)
    names, others = _sorted_out(listed)
    found = len(listed) if "\n" in module else _first_name(names, module, len(listed))
    for place in others if "\n" not in module else range(len(listed)):
        if place > found:
            break
        if _end_of_name(f"a name in {where}", listed[place]).match(module):
            found = place
            break
    return patterns[listed[found]] if found < len(listed) else default


_Names = dict[int, dict[tuple[int, ...], dict[str, int]]]
"""Length of a pattern, then where it has dots, then the pattern: its place in the file."""


@lru_cache(maxsize=100)
def _sorted_out(patterns: tuple[Any, ...]) -> tuple[_Names, tuple[int, ...]]:
    """Return the patterns in which no sign but the dot is special, and the places of the others."""
    names: _Names = {}
    others = []
    for place, pattern in enumerate(patterns):
        if isinstance(pattern, str) and not _SPECIAL.search(pattern):
            dots = tuple(i for i, sign in enumerate(pattern) if sign == ".")
            names.setdefault(len(pattern), {}).setdefault(dots, {}).setdefault(pattern, place)
        else:
            others.append(place)
    return names, tuple(others)


def _first_name(names: _Names, module: str, found: int) -> int:
    """Return the place of the first of the patterns without special signs, or `found`.

    The dot of a pattern stands for any character, so the end of the module's name is looked up
    with dots where the patterns have theirs.
    """
    starts = [0, *(i + 1 for i, sign in enumerate(module) if sign == ".")]
    for start in starts:
        end = module[start:]
        for dots, places in names.get(len(end), {}).items():
            signs = list(end)
            for i in dots:
                signs[i] = "."
            found = min(found, places.get("".join(signs), found))
    return found
