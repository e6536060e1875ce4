"""Long work says how far it is: a bar on a terminal, lines elsewhere."""

import io
import re
import subprocess
import sys
import time

import pytest

from cosa_theory.ground.progress import _duration, _State, progress_bar


class Terminal(io.StringIO):
    """What rich takes for a terminal."""

    def isatty(self):
        return True


def shown(monkeypatch, stream, **options):
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress_bar("matrices", **options) as advance:
        advance(2, 3, "layer 7")
    return stream.getvalue()


def test_a_terminal_shows_what_is_counted_how_far_it_is_and_what_is_said_of_it(monkeypatch):
    assert "matrices" in shown(monkeypatch, Terminal())
    noted = shown(monkeypatch, Terminal(), notes=True)
    assert "2/3" in noted
    assert "layer 7" in noted


def test_nothing_is_written_where_it_is_not_wanted_or_the_work_ends_soon(monkeypatch):
    assert shown(monkeypatch, io.StringIO()) == ""
    assert shown(monkeypatch, Terminal(), shown=False) == ""
    monkeypatch.setattr("sys.stderr", None)
    with progress_bar("matrices") as advance:
        advance(1, 2)


def lines(monkeypatch, steps, count, **options):
    """Return the lines about work that has made some steps and then goes on and on."""
    stream = io.StringIO()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setattr("cosa_theory.ground.progress._FIRST", 1e-3)
    with progress_bar("matrices", **options) as advance:
        for step in steps:
            advance(*step)
        before = stream.getvalue().count("\n")
        while stream.getvalue().count("\n") < before + count:
            time.sleep(1e-3)
    ended = stream.getvalue()
    time.sleep(5e-3)
    assert stream.getvalue() == ended
    return ended.splitlines()


def test_elsewhere_lines_say_how_far_it_is_even_while_one_step_lasts(monkeypatch):
    said = lines(monkeypatch, [(1, 4000), (1200, 4000)], 3)
    for line in said[-2:]:
        assert re.fullmatch(r"matrices 1,200 of 4,000, \d+ s left", line)
    assert re.fullmatch(r"matrices, \d+ s so far", lines(monkeypatch, [], 1)[-1])
    assert re.fullmatch(r"matrices 3, \d+ s so far", lines(monkeypatch, [(3, None)], 2)[-1])
    noted = lines(monkeypatch, [(3, 9, "layer\x1b\n7")], 2, notes=True)[-1]
    assert re.fullmatch(r"matrices 3 of 9, \d+ s so far, layer\\x1b\\n7", noted)


def test_what_an_earlier_run_finished_does_not_shorten_the_time_left(monkeypatch):
    clock = iter([0.0, 10.0, 20.0])
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    state = _State("cells", False)
    state.advance(100, 120)
    state.advance(101, 120)
    assert state.line() == "cells 101 of 120, 3 min left"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (41.7, "42 s"), (99.6, "2 min"), (3590, "1 h 0 min"), (7500, "2 h 5 min")],
)
def test_times_are_in_the_unit_that_a_reader_needs(seconds, text):
    assert _duration(seconds) == text


def test_what_draws_is_not_loaded_where_nothing_is_shown():
    code = (
        "import sys\nfrom cosa_theory.ground.progress import progress_bar\n"
        "with progress_bar('cells') as advance: advance(1, 2)\nassert 'rich' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
