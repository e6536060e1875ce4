"""Files and folders appear whole or not at all."""

import pytest

from cosa_theory.ground.files import atomic_folder, atomic_path


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


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "stale.txt").write_text("of an older run")
    with atomic_folder(target) as temporary:
        (temporary / "fresh.txt").write_text("new")
    assert [path.name for path in target.iterdir()] == ["fresh.txt"]
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_folder_keeps_the_old_one(tmp_path):
    target = tmp_path / "run"
    target.mkdir()
    (target / "kept.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), atomic_folder(target) as temporary:
        (temporary / "half.txt").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in target.iterdir()] == ["kept.txt"]
    assert list(tmp_path.iterdir()) == [target]
