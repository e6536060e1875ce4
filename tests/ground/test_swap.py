"""Files are replaced together: a kill or a full disk leaves the earlier or the new ones."""

import contextlib
import errno
import functools
import json
import os
import signal
import threading
from pathlib import Path

import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.swap import PENDING, reading, swapped

_CHANGES = ("replace", "rename", "unlink", "rmdir", "mkdir", "fsync")
_OLD = {"config.json": "old", "weights.bin": "old", "figures/gone.png": "old", "notes.txt": "mine"}
_NEW = {"config.json": "new", "weights.bin": "new", "figures/come.png": "new", "notes.txt": "mine"}


def _write(folder, files):
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def _read(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_text()
        for path in folder.rglob("*")
        if path.is_file()
    }


def _replace(folder):
    new = {name: text for name, text in _NEW.items() if text == "new"}
    with swapped(folder, last="config.json", prepare=lambda _: ["figures/gone.png"]) as path:
        _write(path, new)


def _interrupted(monkeypatch, at, how):
    """Let the change of the file system number `at` run `how` instead."""
    left = [at]

    def instead(change, *args, **kwargs):
        left[0] -= 1
        return how() if left[0] == 0 else change(*args, **kwargs)

    for name in _CHANGES:
        monkeypatch.setattr(os, name, functools.partial(instead, getattr(os, name)))
    return left


def _killed(monkeypatch, at, work):
    """Run `work` in a process that is killed at its change number `at`; return whether it was."""
    child = os.fork()
    if child == 0:
        _interrupted(monkeypatch, at, lambda: os.kill(os.getpid(), signal.SIGKILL))
        try:
            work()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_a_kill_at_any_moment_leaves_the_earlier_or_the_new_files(tmp_path, monkeypatch):
    seen = []
    for at in range(1, 200):
        folder = tmp_path / str(at)
        _write(folder, _OLD)
        killed = _killed(monkeypatch, at, lambda folder=folder: _replace(folder))
        raw = {name: folder / name for name in ("config.json", "weights.bin")}
        raw = {name: path.read_text() for name, path in raw.items() if path.exists()}
        assert "config.json" not in raw or raw["config.json"] == raw["weights.bin"]
        with reading(folder):
            found = {name: text for name, text in _read(folder).items() if name[0] != "."}
        assert found in (_OLD, _NEW)
        seen.append(found == _NEW)
        if not killed:
            break
        _replace(folder)
        assert _read(folder) == _NEW  # and nothing is left of the killed run
    assert not killed
    assert len(seen) > 20
    assert seen == sorted(seen)  # from one moment on it is the new ones
    assert {seen[0], seen[-1]} == {False, True}


def test_a_full_disk_at_any_write_leaves_the_earlier_or_the_new_files(tmp_path, monkeypatch):
    def full():
        raise OSError(errno.ENOSPC, "No space left on device")

    for at in range(1, 200):
        folder = tmp_path / str(at)
        _write(folder, _OLD)
        with monkeypatch.context() as patch:
            left = _interrupted(patch, at, full)
            with contextlib.suppress(OSError):
                _replace(folder)
        with reading(folder):
            pass
        found = {name: text for name, text in _read(folder).items() if name[0] != "."}
        assert found in (_OLD, _NEW)
        if left[0] > 0:
            break
    assert left[0] > 0
    assert found == _NEW


def test_an_error_keeps_everything_and_leaves_no_folder(tmp_path):
    with pytest.raises(KeyboardInterrupt), swapped(tmp_path / "deep" / "run") as new:
        (new / "half.txt").write_text("half")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_or_a_link_in_the_way_is_named_and_kept(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    folder = tmp_path / "run"
    (folder / "page.html").mkdir(parents=True)
    (folder / "figures").symlink_to(elsewhere)
    (folder / "tables").write_text("mine")
    for name in ("page.html", "figures/a.png", "tables/a.txt"):
        with (
            pytest.raises(InputError, match=name.partition("/")[0]),
            swapped(folder) as new,
        ):
            _write(new, {"first.txt": "new", name: "new"})
        names = sorted(path.name for path in folder.iterdir())
        assert names == ["figures", "page.html", "tables"]
        assert not any(elsewhere.iterdir())
    with pytest.raises(InputError, match="tables"), swapped(folder / "tables"):
        pass


def test_a_link_is_replaced_and_not_written_through(tmp_path):
    target = tmp_path / "precious.txt"
    target.write_text("mine")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "a.txt").symlink_to(target)
    with swapped(folder) as new:
        (new / "a.txt").write_text("new")
    assert target.read_text() == "mine"
    assert not (folder / "a.txt").is_symlink()
    assert (folder / "a.txt").read_text() == "new"


def test_a_plan_from_elsewhere_leaves_its_folder_alone(tmp_path):
    precious = tmp_path / "precious.txt"
    folder = tmp_path / "run"
    for text in ('{"last": "", "removed": ["../precious.txt", "/etc/x"]}', "[", '{"last": 1}'):
        precious.write_text("mine")
        (folder / PENDING).mkdir(parents=True, exist_ok=True)
        (folder / PENDING / "a.txt").write_text("new")
        (folder / PENDING / ".plan.json").write_text(text)
        with contextlib.suppress(InputError), reading(folder):
            pass
        assert precious.read_text() == "mine"
    with pytest.raises(InputError, match="damaged"), swapped(folder):
        pass
    assert json.loads(text) == {"last": 1}


def test_a_reader_never_sees_files_of_two_writers(tmp_path):
    ends = threading.Event()

    def write(text):
        while not ends.is_set():
            with swapped(tmp_path) as new:
                _write(new, {"a.txt": text, "b.txt": text})

    writers = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    with swapped(tmp_path) as new:
        _write(new, {"a.txt": "one", "b.txt": "one"})
    try:
        for writer in writers:
            writer.start()
        for _ in range(100):
            with reading(tmp_path):
                found = {name: (tmp_path / name).read_text() for name in ("a.txt", "b.txt")}
            assert found["a.txt"] == found["b.txt"]
    finally:
        ends.set()
        for writer in writers:
            writer.join()
    assert sorted(path.name for path in Path(tmp_path).iterdir()) == ["a.txt", "b.txt"]


@pytest.mark.parametrize("what", ["removed", "moved"])
def test_a_plan_that_came_with_a_folder_reaches_nothing_through_a_link(what, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "folder"
    for one in (outside, folder / PENDING):
        one.mkdir(parents=True)
    (outside / "mine.txt").write_text("mine")
    (folder / "linked").symlink_to(outside)
    removed = ["linked/mine.txt"] if what == "removed" else []
    if what == "moved":
        (folder / PENDING / "linked").mkdir()
        (folder / PENDING / "linked" / "mine.txt").write_text("theirs")
    (folder / PENDING / ".plan.json").write_text(json.dumps({"last": "", "removed": removed}))
    with pytest.raises(InputError, match="linked"), reading(folder):
        pass
    assert (outside / "mine.txt").read_text() == "mine"
