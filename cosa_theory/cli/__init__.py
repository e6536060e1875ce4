"""The command `cosa-theory`: reads its arguments, calls the library, prints the result.

Standard output holds the result alone, text or one JSON document; notes, progress and errors go
to standard error, each error as one plain line. Exit codes: 0 done, 2 input to mend, 130
interrupted.
"""

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from pkgutil import iter_modules

import typer

from cosa_theory.cli.app import app, note
from cosa_theory.ground.errors import InputError

__all__ = ["app", "main"]

for _module in iter_modules(__path__, f"{__name__}."):  # each registers its command
    import_module(_module.name)


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
        sys.stdout.flush()
    except (BrokenPipeError, SystemExit):  # the reader has seen enough, as `head` does
        # typer leaves by SystemExit when a write met the closed pipe. What is still buffered goes
        # nowhere, or the interpreter would try to write it once more while it ends, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except InputError as error:
        problems = error.problems
    except typer.TyperException as error:  # a misspelt option, a missing argument
        problems = (error.format_message(),)
    except MemoryError as error:
        problems = (f"not enough memory: {error}; choose smaller sizes",)
    except OSError as error:  # a full disk, a folder without permission
        where = f"{error.filename}: " if error.filename else ""
        problems = (f"{where}{error.strerror or error}",)
    else:
        return code if isinstance(code, int) else 0
    for problem in dict.fromkeys(problems):
        note(f"error: {' '.join(problem.split())}")
    return 2
