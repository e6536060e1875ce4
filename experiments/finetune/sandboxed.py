"""The inner side of `experiments.finetune.sandbox`: gives up all rights, then runs a program.

It is run by its path, alone, and imports nothing but the standard library. From standard input it
reads JSON: program, word, seconds, megabytes; to standard output it writes the word if the program
came to its end, else what went wrong.
"""

import contextlib
import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
from typing import Any

# The system calls that CPython needs to read its modules and to compute: their numbers on x86_64
# and aarch64, None where there is no such call. Writing is to descriptors that it was given, since
# no file can be opened for it.
_ALLOWED: dict[str, tuple[int | None, int | None]] = {
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "lseek": (8, 62),
    "mmap": (9, 222),
    "mprotect": (10, 226),
    "munmap": (11, 215),
    "brk": (12, 214),
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "pread64": (17, 67),
    "access": (21, None),
    "sched_yield": (24, 124),
    "mremap": (25, 216),
    "madvise": (28, 233),
    "getpid": (39, 172),
    "exit": (60, 93),
    "uname": (63, 160),
    "getcwd": (79, 17),
    "readlink": (89, None),
    "gettimeofday": (96, 169),
    "getuid": (102, 174),
    "getgid": (104, 176),
    "geteuid": (107, 175),
    "getegid": (108, 177),
    "sigaltstack": (131, 132),
    "futex": (202, 98),
    "getdents64": (217, 61),
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "exit_group": (231, 94),
    "newfstatat": (262, 79),
    "readlinkat": (267, 78),
    "faccessat": (269, 48),
    "getrandom": (318, 278),
    "statx": (332, 291),
}
# Of these an argument decides: the flags of opening, and what is asked of a descriptor.
_OPEN = {"open": ((2, None), 1), "openat": ((257, 56), 2)}
_FCNTL = (72, 25)
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | 0o20000000
_ASKED = (1, 2, 3, 1030)  # F_GETFD, F_SETFD, F_GETFL, F_DUPFD_CLOEXEC

_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06
_ALLOW, _KILL, _DENY = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EACCES
_NO_NEW_PRIVILEGES, _SET_SECCOMP, _FILTER = 38, 22, 2


def _filter() -> bytes:
    """Return the kernel's program that decides on every system call."""
    column, machine = _MACHINES[platform.machine()]
    code = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, machine), (_RETURN, 0, 0, _KILL), (_LOAD, 0, 0, 0)]
    for numbers in _ALLOWED.values():
        if (number := numbers[column]) is not None:
            code += [(_EQUAL, 0, 1, number), (_RETURN, 0, 0, _ALLOW)]
    for numbers, argument in _OPEN.values():
        if (number := numbers[column]) is not None:
            code += [(_EQUAL, 0, 4, number), (_LOAD, 0, 0, 16 + 8 * argument)]
            code += [(_ANY_BIT, 1, 0, _WRITING), (_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _DENY)]
    code += [(_EQUAL, 0, 2 + 2 * len(_ASKED), _FCNTL[column]), (_LOAD, 0, 0, 24)]
    for value in _ASKED:
        code += [(_EQUAL, 0, 1, value), (_RETURN, 0, 0, _ALLOW)]
    code += [(_RETURN, 0, 0, _DENY), (_RETURN, 0, 0, _DENY)]
    return b"".join(struct.pack("=HBBI", *one) for one in code)


def _confine(seconds: int, megabytes: int) -> None:
    limits = {
        resource.RLIMIT_CPU: seconds,
        resource.RLIMIT_AS: megabytes << 20,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NOFILE: 64,
    }
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    code = _filter()
    held = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("@HP", len(code) // 8, ctypes.addressof(held))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) or libc.prctl(
        _SET_SECCOMP, _FILTER, ctypes.create_string_buffer(program, len(program)), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel takes no filter of system calls")


def main() -> None:
    """Run the program that standard input holds."""
    asked: dict[str, Any] = json.load(sys.stdin)
    told = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    try:
        _confine(asked["seconds"], asked["megabytes"])
    except OSError as error:
        os.write(told, f"confinement: {error}".encode())
        return
    try:
        exec(compile(asked["program"], "program", "exec"), {"__name__": "__main__"})
        said = asked["word"]
    except BaseException as error:  # an early exit is no pass
        said = type(error).__name__
        with contextlib.suppress(BaseException):
            said = f"{said}: {error}"[:200]
    os.write(told, said.encode(errors="replace"))
    os._exit(0)


if __name__ == "__main__":
    main()
