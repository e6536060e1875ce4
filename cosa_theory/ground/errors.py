"""The one exception for input that a user can mend, and several of them raised as one."""

import re
import reprlib
from collections.abc import Mapping, Sequence
from typing import Any, Self

from cosa_theory.ground.printable import printable

__all__ = ["MOST_CHARACTERS", "MOST_PROBLEMS", "InputError", "Problems", "quoted", "reason"]

MOST_CHARACTERS = 300
"""Of one sentence: what comes from a file may be long, what is said of it is not."""

MOST_PROBLEMS = 20
"""Sentences of one error; the last one counts those that are left out."""

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxlist, _SHORT.maxtuple, _SHORT.maxdict, _SHORT.maxset = 3, 8, 8, 8, 8
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80


def quoted(value: Any) -> str:
    """Return a value as Python writes it, with the middle left out of what is long or deep."""
    try:
        return _SHORT.repr(value)
    except Exception:  # a number of thousands of digits, an object that cannot describe itself
        return f"a {type(value).__name__} too large to show"


def reason(error: BaseException) -> str:
    """Return what another library's exception says, on one line, or its name if it says nothing."""
    return " ".join(str(error)[:2000].split()).rstrip(".") or type(error).__name__


def _sentence(text: str) -> str:
    """Return a text without characters that are not seen, and no longer than a sentence may be.

    Long words, such as paths and names of tensors, lose their middle first; then the sentence does.
    """
    if len(text) > 20 * MOST_CHARACTERS:
        text = f"{text[: 10 * MOST_CHARACTERS]}…{text[-9 * MOST_CHARACTERS :]}"
    text = printable(text)
    for longest in (200, 120, 100):
        if len(text) <= MOST_CHARACTERS:
            return text
        half = longest // 2
        text = re.sub(
            rf"(\S{{{half}}})\S{{{longest - 2 * half + 2},}}(\S{{{half}}})", r"\1…\2", text
        )
    head, tail = MOST_CHARACTERS * 3 // 5, MOST_CHARACTERS * 2 // 5 - 3
    return text if len(text) <= MOST_CHARACTERS else f"{text[:head]} … {text[-tail:]}"


class InputError(ValueError):
    """Input that the user can mend: a file, a tensor, a name or a setting.

    The message is one plain sentence that names the thing, its value and the remedy; several
    independent problems found at once are kept apart in `problems`, so that a command can print
    one line for each. Whatever the text quotes, a sentence has at most `MOST_CHARACTERS`, all of
    them visible, and an error at most `MOST_PROBLEMS` sentences.

    Parameters
    ----------
    *problems : str
        One sentence per problem, at least one.
    argument : str, optional
        The argument at fault, where there is one; the sentence then begins with it, and a command
        that has an option for it puts the option's name in that place.
    remedies : sequence of (str, str or True)
        Arguments with the values that help, where the sentences offer ``on_shape="skip"`` or
        ``allow_pickle=True``.
    causes : sequence of InputError
        Errors of several checks that this one stands for, in place of `problems`.

    Attributes
    ----------
    problems : tuple of str
        The sentences, in the order they were found.
    argument : str or None
        As given.
    """

    def __init__(
        self,
        *problems: str,
        argument: str | None = None,
        remedies: Sequence[tuple[str, str | bool]] = (),
        causes: "Sequence[InputError]" = (),
    ) -> None:
        found = (*problems, *(text for one in causes for text in one.problems))
        if len(found) > MOST_PROBLEMS:
            left = len(found) - MOST_PROBLEMS + 1
            found = (*found[: MOST_PROBLEMS - 1], f"{left:,} more problems like these")
        self.problems: tuple[str, ...] = tuple(map(_sentence, found))
        self.argument = argument
        self._remedies = remedies
        self._causes = causes
        super().__init__(*self.problems)

    def __str__(self) -> str:
        return "\n".join(self.problems)

    def spelt(self, options: Mapping[str, str]) -> tuple[str, ...]:
        """Return the sentences in the words of a command.

        Parameters
        ----------
        options : mapping of str to str
            What the command calls the arguments of the library: "--noise-level" for "noise_level".
        """
        if self._causes:
            return tuple(text for one in self._causes for text in one.spelt(options))
        texts = self.problems
        if self.argument in options:
            name, option = str(self.argument), options[str(self.argument)]
            texts = tuple(
                option + text.removeprefix(name) if text.startswith(name) else text
                for text in texts
            )
        for name, value in self._remedies:
            if name in options:
                passed = f"{name}=True" if value is True else f'{name}="{value}"'
                offered = options[name] if value is True else f"{options[name]} {value}"
                texts = tuple(text.replace(passed, offered) for text in texts)
        return texts


class Problems(list[InputError]):
    """Errors of independent checks, collected and raised as one.

    Each ``with`` block is one check: an `InputError` in it is noted and the next check runs.

    Examples
    --------
    >>> found = Problems()
    >>> with found:
    ...     raise InputError("a is 0: it must be positive", argument="a")
    >>> found.add("b is 0: it must be positive")
    >>> found.report()
    Traceback (most recent call last):
    cosa_theory.ground.errors.InputError: a is 0: it must be positive
    b is 0: it must be positive
    """

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: Any, error: BaseException | None, _trace: Any) -> bool:
        if isinstance(error, InputError):
            self.append(error)
        return isinstance(error, InputError)

    def add(self, *sentences: str) -> None:
        """Note problems that were found without an exception."""
        self.extend(InputError(text) for text in sentences)

    def report(self) -> None:
        """Raise what was found, if anything was, as one error.

        Raises
        ------
        InputError
            With every sentence; with `argument` if there is one error only.
        """
        if len(self) == 1:
            raise self[0]
        if self:
            raise InputError(causes=tuple(self))
