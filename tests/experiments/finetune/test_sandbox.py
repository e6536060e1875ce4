"""Programs of others: what they may do, and that nothing else happens whatever they try."""

import os
import socket
import time

import pytest

from experiments.finetune.sandbox import run_program


def test_a_program_that_comes_to_its_end_passes_and_has_the_standard_library():
    program = (
        "import math, re, hashlib, collections, random\nassert math.sqrt(random.choice([4])) == 2"
    )
    assert run_program(program).passed


@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("assert 1 == 2, 'no'", "AssertionError: no"),
        ("def f(:", "SyntaxError"),
        ("import sys; sys.exit(0)", "SystemExit: 0"),
        ("import os; os._exit(0)", ""),
        ("def f(n): return f(n + 1)\nf(0)", "RecursionError"),
        ("import os; os.write(3, b'0' * 32)", "0000"),
        ("class E(Exception):\n  def __str__(self): raise self\nraise E", "E"),
    ],
)
def test_one_that_fails_or_ends_early_does_not(program, said):
    outcome = run_program(program)
    assert not outcome.passed
    assert outcome.said.startswith(said)


def test_time_and_memory_end():
    begun = time.process_time()
    assert not run_program("while True: pass", seconds=1).passed
    assert not run_program(
        "import threading; l = threading.Lock(); l.acquire(); l.acquire()", seconds=1
    ).passed
    assert time.process_time() - begun < 1, "of this process"
    assert run_program("x = bytearray(10 ** 9)").said.startswith("MemoryError")
    assert run_program("x = [0]\nwhile True: x += x").said.startswith("MemoryError")


def test_neither_files_nor_processes_nor_the_network_are_reached(tmp_path):
    kept = tmp_path / "kept.txt"
    kept.write_text("kept")
    server = socket.create_server(("127.0.0.1", 0))
    port = server.getsockname()[1]
    tries = [
        f"open({str(kept)!r}, 'w')",
        f"open({str(kept)!r}, 'r+')",
        f"open({str(tmp_path / 'new')!r}, 'x')",
        f"os.open({str(tmp_path)!r}, os.O_TMPFILE | os.O_RDWR)",
        f"os.remove({str(kept)!r})",
        f"os.rename({str(kept)!r}, {str(tmp_path / 'moved')!r})",
        f"os.truncate({str(kept)!r}, 0)",
        f"os.chmod({str(kept)!r}, 0)",
        f"os.utime({str(kept)!r})",
        f"os.mkdir({str(tmp_path / 'folder')!r})",
        f"os.symlink('/', {str(tmp_path / 'link')!r})",
        f"socket.create_connection(('127.0.0.1', {port}))",
        "socket.socket(socket.AF_UNIX)",
        "os.fork()",
        "subprocess.run(['true'])",
        "os.execv('/bin/true', ['true'])",
        f"os.kill({os.getpid()}, 9)",
        "os.memfd_create('x')",
        "os.setuid(0)",
        "resource.setrlimit(resource.RLIMIT_CPU, (99, 99))",
        "libc.ptrace(16, 1, 0, 0) and denied()",
        "libc.prctl(22, 0, 0, 0, 0) and denied()",
        "libc.mount(b'x', b'/', b'tmpfs', 0, 0) and denied()",
        "libc.syscall(425, 8, 0) and denied()",  # io_uring, which would read and write around it
    ]
    head = (
        "import os, socket, subprocess, ctypes, resource\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def denied(): raise OSError(ctypes.get_errno(), 'denied')\nopen_ones = []\n"
    )
    body = "".join(
        f"try:\n  {one}\n  open_ones.append({one!r})\nexcept PermissionError: pass\n"
        "except BaseException as e: open_ones.append(repr(e))\n"
        for one in tries
    )
    outcome = run_program(head + body + "assert not open_ones, open_ones")
    assert outcome.passed, outcome.said
    assert kept.read_text() == "kept"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]
    server.close()


def test_what_the_parent_holds_is_not_seen(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_PARENT", "1")
    program = (
        "import os\nassert 'SECRET_OF_THE_PARENT' not in os.environ\nassert not os.path.exists('x')"
    )
    assert run_program(program).passed
