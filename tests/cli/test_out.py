"""--out touches only what it wrote, and holds the earlier or the new results at any moment."""

import os
import signal
import subprocess
import sys
from functools import partial

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from cosa_theory.cli import main
from cosa_theory.page import html
from cosa_theory.page.document import Document, read_document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.studies import shown

_CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync")
_SHAPE = ["--shape", "12", "10", "--core", "4", "3"]


def _figure(tables):
    figure = Figure(figsize=(1, 1))
    figure.subplots()
    return figure


_SHOWN = Presentation(
    title="Numbers",
    views=lambda document: [],
    tables=("columns", "gone", "come"),
    figures=lambda: {
        name: Drawing(_figure, "", "", lambda tables, name=name: name in tables)
        for name in ("gone", "come")
    },
)


def _document(version):
    table = pd.DataFrame({"version": [version] * 3})
    named = {"columns": table, "gone" if version == 1 else "come": table}
    return Document("rip", f"Version {version}.", (), named, {})


def _save_figure(figure, folder, name):
    folder.mkdir(exist_ok=True)
    for ending in ("pdf", "png"):
        (folder / f"{name}.{ending}").write_text("drawn")  # drawing itself would take its time


def _version(folder):
    """Return the version of the results, which must be whole, and of one run."""
    found = read_document(folder, "rip")
    (version,) = {int(number) for table in found.tables.values() for number in table["version"]}
    other = "gone" if version == 1 else "come"
    assert set(found.tables) == {"columns", other}
    assert found.verdict == f"Version {version}."
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    own = {"rip.json", "columns.parquet", f"{other}.parquet", "report.html"}
    own |= {f"figures/{other}.{ending}" for ending in ("pdf", "png")}
    assert {name for name in files if not name.startswith(".cosa-theory")} == own | {"mine.txt"}
    assert f"Version {version}." in (folder / "report.html").read_text()
    return version


def _killed(work, at):
    """Run `work` in a process that is killed at its change number `at` of the file system."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    left = [at]

    def change(original, *args, **kwargs):
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return original(*args, **kwargs)

    for name in _CHANGES:
        setattr(os, name, partial(change, getattr(os, name)))
    try:
        work()
    finally:
        os._exit(0)


def test_a_kill_at_any_moment_leaves_the_earlier_or_the_new_results(tmp_path, monkeypatch):
    monkeypatch.setattr(shown, "presentation", lambda _: _SHOWN)
    monkeypatch.setattr(html, "save_figure", _save_figure)
    monkeypatch.setattr(html, "as_data_uri", lambda _: "")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "mine.txt").write_text("mine")
    versions, killed, at = [], True, 0
    while killed:
        at += 3  # a third of the moments; those of a swap are all tried in tests/ground
        shown.write_results({"": _document(1)}, folder)
        killed = _killed(lambda: shown.write_results({"": _document(2)}, folder), at)
        versions.append(_version(folder))
    assert versions == sorted(versions)
    assert (versions[0], versions[-1]) == (1, 2)
    assert len(versions) >= 10


@pytest.fixture
def made(tmp_path, monkeypatch):
    monkeypatch.setattr("cosa_theory.page.html.write_page_files", lambda *_: None)
    out = tmp_path / "out"
    assert main(["rip", *_SHAPE, "--out", str(out)]) == 0
    return out


def test_a_table_that_was_edited_is_named_before_anything_is_computed(made, capsys, monkeypatch):
    (made / "columns.parquet").write_text("edited")
    monkeypatch.setattr("cosa_theory.studies.rip.compute.layer_isometry", None)
    capsys.readouterr()
    assert main(["rip", *_SHAPE, "--out", str(made)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "columns.parquet" in line
    assert "--out" in line
    assert (made / "columns.parquet").read_text() == "edited"


@pytest.mark.parametrize(
    "command",
    [
        ["spectrum", "base", "tuned"],
        ["atlas", "base", "tuned"],
        ["audit", "base", "tuned"],
        ["function", "base", "tuned", "--texts", "none.txt"],
        ["recover", "core.npy", "--shape", "4", "3"],
    ],
    ids=lambda command: command[0],
)
def test_a_file_where_the_folder_is_to_be_is_told_before_anything_is_read(
    tmp_path, capsys, command
):
    (tmp_path / "out").write_text("mine")
    assert main([*command, "--out", str(tmp_path / "out")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"error: {tmp_path / 'out'}: a file is in the way: name a folder (--out)"


def test_an_input_inside_the_folder_is_refused(made, capsys):
    np.save(made / "A.npy", np.eye(3))
    assert main(["rip", str(made / "A.npy"), "--out", str(made)]) == 2
    assert "A.npy is inside" in capsys.readouterr().err


def test_what_a_killed_run_left_is_removed_by_the_next(made):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    from cosa_theory.ground.files import temporary_name

    name = temporary_name("cosa-theory").replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    (made / name).mkdir()
    assert main(["rip", *_SHAPE, "--out", str(made)]) == 0
    assert not (made / name).exists()
