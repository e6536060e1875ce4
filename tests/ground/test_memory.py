"""Memory that is left, as the system tells it."""

import pytest

from cosa_theory.ground import memory
from cosa_theory.ground.errors import InputError


@pytest.fixture
def system(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_GROUP", tmp_path)
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    7000000 kB\n")
    return tmp_path


def test_what_is_free_is_the_machines_or_what_a_container_leaves(system):
    assert memory.available_memory() == 7_168_000_000
    (system / "memory.max").write_text("max\n")
    (system / "memory.current").write_text("5\n")
    assert memory.available_memory() == 7_168_000_000
    (system / "memory.max").write_text("1005\n")
    assert memory.available_memory() == 1000


def test_what_does_not_fit_is_refused_with_both_numbers_and_the_remedy(system):
    memory.check_memory("the work", {"this": 4 * 10**9, "that": 3 * 10**9}, "take less")
    with pytest.raises(
        InputError, match=r"8.0 GB \(most for that\) and 7.2 GB are free: take less"
    ):
        memory.check_memory("the work", {"this": 3 * 10**9, "that": 5 * 10**9}, "take less")


def test_a_system_that_says_nothing_refuses_nothing(system):
    (system / "meminfo").unlink()
    assert memory.available_memory() is None
    memory.check_memory("the work", {"this": 10**18}, "take less")
