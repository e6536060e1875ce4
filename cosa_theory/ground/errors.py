"""The one exception for input that a user can mend, and several of them raised as one."""

from typing import Any, Self

__all__ = ["InputError", "Problems"]


class InputError(ValueError):
    """Input that the user can mend: a file, a tensor, a name or a setting.

    The message is one plain sentence that names the thing, its value and the remedy; several
    independent problems found at once are kept apart in `problems`, so that a command can print
    one line for each.

    Parameters
    ----------
    *problems : str
        One sentence per problem, at least one.
    argument : str, optional
        The argument at fault, where there is one; the sentence then begins with it, and a command
        that has an option for it puts the option's name in that place.

    Attributes
    ----------
    problems : tuple of str
        The sentences, in the order they were found.
    argument : str or None
        As given.
    """

    def __init__(self, *problems: str, argument: str | None = None) -> None:
        self.problems = problems
        self.argument = argument
        super().__init__("\n".join(problems))

    def spelt(self, argument: str, option: str) -> "InputError":
        """Return the same error in the words of a command, if it is about `argument`.

        Parameters
        ----------
        argument : str
            A name that the library uses.
        option : str
            What the command calls it, as in "--noise-level".
        """
        if argument != self.argument:
            return self
        return InputError(*(option + text.removeprefix(argument) for text in self.problems))


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
            raise InputError(*(text for error in self for text in error.problems))
