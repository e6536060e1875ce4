"""The command `cosa-theory`: reads its arguments, calls the library, prints the result.

Standard output holds the result alone, text or one JSON document; notes, progress and errors go
to standard error, each error as one plain line. Exit codes: 0 done, 2 input to mend, 130
interrupted.
"""

from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

import typer

from cosa_theory.cli.app import app
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.program import program

__all__ = ["app", "main"]

for _module in iter_modules(__path__, f"{__name__}."):  # each registers its command
    import_module(_module.name)


@program
def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command.

    Parameters
    ----------
    arguments : sequence of str, optional
        Instead of those of the process.

    Returns
    -------
    int
        The exit code: 0 done, 2 input to mend (one line per problem on standard error), 130
        interrupted.
    """
    try:
        code = app(args=arguments, prog_name="cosa-theory", standalone_mode=False)
    except typer.TyperException as error:  # a misspelt option, a missing argument
        raise InputError(" ".join(error.format_message().split())) from error
    except SystemExit as ended:  # of shell completion, or of a write to a closed pipe
        code = ended.code
    return code if isinstance(code, int) else 0
