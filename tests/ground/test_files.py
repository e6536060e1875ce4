"""Files appear whole or not at all, and what a killed process left is removed."""

import os
import subprocess
import sys

import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.files import atomic_path, check_file, remove_leftovers, temporary_name


def test_a_file_appears_only_when_the_block_succeeds(tmp_path):
    target = tmp_path / "deep" / "table.txt"
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert not target.exists()
        assert temporary.suffix == target.suffix
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "table.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError, match="midway"), atomic_path(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError("midway")
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_every_name_that_fits_into_a_folder_can_be_written(tmp_path):
    for name in ("n" * 250 + ".json", "n." + "x" * 250, "n." + "\N{GRINNING FACE}" * 60):
        with atomic_path(tmp_path / name) as temporary:
            temporary.write_text("new")
        assert (tmp_path / name).read_text() == "new"


@pytest.mark.parametrize(
    ("target", "says"),
    [
        (".", "is a folder: name a file in it"),
        ("taken/table.txt", "needs a folder where a file is: name another file"),
        ("n" * 300, "cannot be written"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_beforehand(tmp_path, target, says):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(InputError, match=r"^out is .*, which ") as caught:
        check_file("out", tmp_path / target)
    assert says in str(caught.value)
    assert list(tmp_path.iterdir()) == [tmp_path / "taken"]


def test_checking_a_file_leaves_nothing_and_keeps_the_old_one(tmp_path):
    (tmp_path / "table.txt").write_text("old")
    for name in ("table.txt", "deep/deeper/table.txt"):
        check_file("out", tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["table.txt"]
    assert (tmp_path / "table.txt").read_text() == "old"


@pytest.mark.parametrize("name", ["table.v2 final", "table.tar-gz", "table", ".hidden"])
def test_leftovers_go_whatever_the_name_of_the_file_was(tmp_path, name):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    left = temporary_name(name).replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    (tmp_path / left).write_text("")
    remove_leftovers(tmp_path)
    assert not list(tmp_path.iterdir())


def test_leftovers_of_ended_processes_go_and_all_else_stays(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    mine = temporary_name("table.txt")
    gone = mine.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
    elsewhere = gone.replace(gone.split(".")[2].split("-")[0], "0" * 8)
    kept = [mine, elsewhere, ".table.part.txt", "table.txt", f".table.{ended.pid}.part.txt"]
    for name in (gone, *kept):
        (tmp_path / name).write_text("")
    folder = tmp_path / gone.removesuffix(".txt")
    folder.mkdir()
    (folder / "inside.txt").write_text("")
    remove_leftovers(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    remove_leftovers(tmp_path / "missing")
