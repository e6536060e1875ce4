"""Programs that nobody has read, run apart: no files to write, network, children, or much time.

Such a program runs in a process of its own. Before its first line is compiled the process has given
up all rights but three: to read files, to take memory up to a limit, and to compute for some
seconds; the kernel (seccomp) answers everything else with "permission denied", whatever of Python
the program finds its way to. That it came to its end is told by a word that only this call knows,
so an early exit is no pass. A program that looks for the word in its own memory can lie about
itself; it cannot do more.
"""

import json
import platform
import secrets
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from cosa_theory.ground.checks import whole
from cosa_theory.ground.errors import InputError

__all__ = ["Outcome", "run_program"]

_INNER = Path(__file__).with_name("sandboxed.py")
_MOST_SAID = 1000
_WAIT = 5  # times its seconds a program may wait for what never comes, or for a busy machine


@dataclass(frozen=True)
class Outcome:
    """What came of a program.

    Attributes
    ----------
    passed : bool
        Whether it came to its end.
    said : str
        Else the exception; "" where it was ended for its time or memory.
    """

    passed: bool
    said: str


def run_program(program: str, *, seconds: int = 5, megabytes: int = 512) -> Outcome:
    """Run a Python program, which passes if it comes to its end.

    Parameters
    ----------
    program : str
        Its source, with what checks its results at the end. It has the standard library.
    seconds : int
        Processor time, at least 1.
    megabytes : int
        Address space, the interpreter in it.

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        Where there is no such confinement: it takes Linux on x86_64 or aarch64.
    """
    whole("seconds", seconds)
    whole("megabytes", megabytes)
    if sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"):
        raise InputError(
            f"programs of a model are run on Linux alone, on x86_64 or aarch64, and this is "
            f"{platform.system()} on {platform.machine()}: leave their grades out"
        )
    word = secrets.token_hex(16)
    asked = {"program": program, "word": word, "seconds": seconds, "megabytes": megabytes}
    # Isolated: neither the folder nor the environment says what is imported, or holds a secret.
    command = [sys.executable, "-I", "-S", "-B", str(_INNER)]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},
        cwd="/",
        start_new_session=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        end = threading.Timer(_WAIT * seconds, process.kill)
        end.start()
        try:
            process.stdin.write(json.dumps(asked).encode())
            process.stdin.close()
            said = process.stdout.read(_MOST_SAID).decode(errors="replace")
        except BrokenPipeError:
            said = ""
        finally:
            process.kill()
            end.cancel()
    if said.startswith("confinement: "):
        raise InputError(f"programs of a model cannot be run safely here ({said}): leave them out")
    return Outcome(said == word, "" if said == word else said)
