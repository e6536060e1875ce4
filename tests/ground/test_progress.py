"""The progress bar is seen on a terminal, and costs nothing elsewhere."""

import io
import subprocess
import sys

from cosa_theory.ground.progress import progress_bar


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


def test_nothing_is_written_elsewhere_or_where_it_is_not_wanted(monkeypatch):
    assert shown(monkeypatch, io.StringIO()) == ""
    assert shown(monkeypatch, Terminal(), shown=False) == ""


def test_what_draws_is_not_loaded_where_nothing_is_shown():
    code = (
        "import sys\nfrom cosa_theory.ground.progress import progress_bar\n"
        "with progress_bar('cells') as advance: advance(1, 2)\nassert 'rich' not in sys.modules"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
