"""The one exception for input that a user can mend."""

__all__ = ["InputError"]


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
