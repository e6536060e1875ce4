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

    Attributes
    ----------
    problems : tuple of str
        The sentences, in the order they were found.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))
