"""Calls with a time limit that really ends them, in compiled code too.

The call runs in a process of its own, kept for the next call. The limit is an alarm of the
operating system, whose default is to end the process: no Python code has to run for it, and it
rings even if the process that waits is gone. The process is started with `subprocess`, because the
workers of a cluster may not start processes of the `multiprocessing` kind.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeVar

from joblib import wrap_non_picklable_objects

__all__ = ["call_within", "stop_idle"]

Result = TypeVar("Result")

_LOCAL = threading.local()  # one process for each thread that calls
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def call_within(seconds: float, function: Callable[..., Result], *arguments: Any) -> Result:
    """Return ``function(*arguments)``, computed elsewhere within a limit of so many seconds.

    The limit runs from the moment the function and its modules are loaded. The function is sent by
    reference if it can be imported, and by value if it belongs to the main module; the arguments
    are sent along and the result is sent back.

    Raises TimeoutError if the call takes longer; its process has then been killed. Raises
    RuntimeError if it raises (with its traceback as the message), or its process ends by itself.
    """
    child = getattr(_LOCAL, "child", None) or _Child()
    _LOCAL.child = child
    try:
        loaded, result = child.call(seconds, partial(function, *arguments))
    except BaseException:
        stop_idle()
        raise
    if not loaded:
        raise RuntimeError(result)
    return result


def stop_idle() -> None:
    """End the process that this thread keeps for its next call, if there is one."""
    child, _LOCAL.child = getattr(_LOCAL, "child", None), None
    if child is not None:
        child.stop()


class _Child:
    def __init__(self) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        descriptor = theirs.fileno()
        paths = [str(Path(__file__).resolve().parents[2]), *sys.path]
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from {__name__} import _serve; _serve({descriptor})"],
            stdin=subprocess.PIPE,  # never written to: its end tells the child that we ended
            pass_fds=(descriptor,),
            env={
                **os.environ,
                **dict.fromkeys(_THREADS, "1"),
                "PYTHONPATH": os.pathsep.join(path for path in paths if path),
            },
        )
        theirs.close()

    def call(self, seconds: float, task: Callable[[], Any]) -> tuple[bool, Any]:
        """Return (True, result) or (False, traceback)."""
        try:
            self._pipe.send((seconds, wrap_non_picklable_objects(task)))
            outcome: tuple[bool, Any] = self._pipe.recv()
        except (EOFError, ConnectionError) as error:
            code = self._process.wait()
            if code == -signal.SIGALRM:
                raise TimeoutError(f"stopped after {seconds:g} s") from error
            ending = f"signal {-code}" if code < 0 else f"exit code {code}"
            raise RuntimeError(f"its process ended by itself, with {ending}") from error
        return outcome

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()
        self._pipe.close()
        if self._process.stdin is not None:
            self._process.stdin.close()


def _serve(descriptor: int) -> None:
    """Answer calls from the other end of a pipe, until that is closed."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    pipe = Connection(descriptor)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    while True:
        try:
            seconds, task = pipe.recv()
        except EOFError:
            return
        except Exception:  # what was sent cannot be loaded here
            pipe.send((False, traceback.format_exc()))
            continue
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            outcome = True, task()
        except Exception:
            outcome = False, traceback.format_exc()
        signal.setitimer(signal.ITIMER_REAL, 0)
        pipe.send(outcome)


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # blocks until the other end is closed; not buffered, no lock
    os._exit(1)
