"""A command ends well on any standard stream."""

import io
import os
import subprocess
import sys
import warnings

import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.program import note, program, terminal_width

FIELD = "ΔW = 24 × 16, σ ≤ ½ \ud800"
SHOWN = r"DW = 24 x 16, sigma <= 1/2 \ud800"


class Stream(io.TextIOWrapper):
    """A stream of some encoding."""

    def __init__(self, encoding):
        self.taken = io.BytesIO()
        super().__init__(self.taken, encoding=encoding, write_through=True)

    def text(self):
        return self.taken.getvalue().decode(self.encoding)


class Failing(io.StringIO):
    """A stream that cannot be written."""

    def __init__(self, error):
        super().__init__()
        self.error = error

    def write(self, text):
        raise self.error


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "utf-8"])
def test_a_result_in_any_signs_is_printed_whole_in_any_encoding(encoding, monkeypatch):
    out, err = Stream(encoding), Stream(encoding)
    monkeypatch.setattr("sys.stdout", out)
    monkeypatch.setattr("sys.stderr", err)

    @program
    def body():
        print(FIELD)
        note(FIELD)

    assert body() == 0
    assert len(out.text().splitlines()) == 1
    assert out.text() == err.text()
    assert encoding != "ascii" or out.text() == SHOWN + "\n"
    assert out.errors == "strict"


def test_problems_are_one_line_each_with_every_character_seen(capsys):
    @program
    def body():
        raise InputError("tensor a\x1b[31m\nerror: forged\u202e: name another", "b is 0", "b is 0")

    assert body() == 2
    expected = r"error: tensor a\x1b[31m\nerror: forged\u202e: name another"
    assert capsys.readouterr() == ("", f"{expected}\nerror: b is 0\n")


def test_a_warning_is_one_line_with_every_character_seen(capsys):
    @program
    def body():
        warnings.warn("layer a\x1b\nb has no bias", stacklevel=1)

    shown = warnings.showwarning
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert body() == 0
    assert capsys.readouterr().err == "warning: layer a\\x1b\\nb has no bias\n"
    assert warnings.showwarning is shown


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 1),
        (MemoryError("3 GB"), 2),
        (OSError(28, "No space left on device", "/out/table"), 2),
    ],
)
def test_each_end_has_its_exit_code(error, code, capsys):
    @program
    def body():
        raise error

    assert body() == code
    err = capsys.readouterr().err
    assert err.count("\n") == (code == 2)
    assert all(str(part) in err for part in error.args[1:])


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "full"), ValueError("closed")])
def test_a_note_that_nobody_can_read_does_not_end_the_work(error, monkeypatch):
    monkeypatch.setattr("sys.stderr", Failing(error))

    @program
    def body():
        note("on the way")
        return 5

    assert body() == 5


def test_without_standard_error_nothing_of_it_reaches_standard_output(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr", None)

    @program
    def body():
        note("on the way")
        print("to nobody", file=sys.stderr)
        print("result")

    assert body() == 0
    assert capsys.readouterr().out == "result\n"
    assert sys.stderr is None


def test_the_width_is_that_of_a_terminal_alone(monkeypatch):
    monkeypatch.setenv("COLUMNS", "61")
    assert terminal_width() is None
    terminal = Stream("utf-8")
    terminal.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", terminal)
    assert terminal_width() == 61
    monkeypatch.setattr("sys.stdout", None)
    assert terminal_width() is None


BODY = """
import sys
from cosa_theory.ground.program import note, program
@program
def main():
    note("on the way")
    kept = open(sys.argv[1], "w")
    import os; os.write(1, b"from a library in C") if len(sys.argv) > 2 else None
    print("result" * 100_000)
    kept.write("kept")
sys.exit(main())
"""


@pytest.mark.parametrize(
    ("redirection", "code", "said"),
    [
        (">&-", 0, "on the way"),
        ("2>&- >&- <&-", 0, ""),
        (">/dev/full", 2, "standard output: No space left on device"),
        (">/dev/full 2>/dev/full", 2, ""),
        ("2>/dev/full >/dev/null", 0, ""),
        ("| head -c 1 >/dev/null; exit ${PIPESTATUS[0]}", 1, "on the way"),
    ],
)
def test_closed_and_full_streams_are_quiet_and_end_with_a_code(redirection, code, said, tmp_path):
    if redirection != ">&-" and not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    kept = tmp_path / "kept"
    more = "C" if ">&-" in redirection else ""
    shell = f'"$0" -c "$1" "$2" {more} {redirection}'
    run = subprocess.run(
        ["bash", "-c", shell, sys.executable, BODY, kept], capture_output=True, text=True
    )
    assert run.returncode == code
    lines = run.stderr.splitlines()
    assert len(lines) <= 2
    assert said in run.stderr
    assert not any(word in run.stderr for word in ("Traceback", "Exception", "BrokenPipe"))
    assert code or kept.read_text() == "kept"


def test_a_note_leaves_out_the_middle_of_a_name_without_end(capsys):
    note("note: " + "a" * 5000 + " and path/to/b")
    printed = capsys.readouterr().err
    assert len(printed) < 400
    assert printed.startswith("note: aaa")
    assert printed.endswith("a and path/to/b\n")
