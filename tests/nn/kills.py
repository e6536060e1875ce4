"""Processes that are killed between two changes of files."""

import functools
import os
import signal


def killed(at, work):
    """Run `work` in a process that is killed at its change number `at` of files; whether it was."""
    child = os.fork()
    if child == 0:
        left = [at]

        def instead(change, *args, **kwargs):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return change(*args, **kwargs)

        for name in ("replace", "rename", "unlink"):
            setattr(os, name, functools.partial(instead, getattr(os, name)))
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1] != 0
