"""A cell that is damaged, cut short, forged or another's is computed again, without an error."""

import json
import os

import numpy as np
import pytest

from cosa_theory.ground.cells import from_cell, read_array_cell, write_cell

RECORD, ARRAY = {"value": 1.5}, np.arange(6.0).reshape(2, 3)


def _stored(folder):
    calls = []
    result = from_cell(folder, {"seed": 1}, [], lambda: calls.append(1) or RECORD)
    assert result == RECORD
    return len(calls)


def test_a_finished_result_is_read_and_not_computed_again(tmp_path):
    assert [_stored(tmp_path), _stored(tmp_path)] == [1, 0]


def test_a_cell_cut_short_or_changed_anywhere_is_computed_again(tmp_path):
    _stored(tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(0, len(whole), 7)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(len(whole))]
    for content in damaged:
        path.write_bytes(content)
        assert _stored(tmp_path) == 1
        assert path.read_bytes() == whole


def test_a_forged_cell_and_one_of_another_name_are_computed_again(tmp_path):
    _stored(tmp_path)
    (path,) = tmp_path.iterdir()
    other = tmp_path / "other.json"
    write_cell(other, {"result": {"value": 2.5}})
    for content in (other.read_bytes(), b'{"result": {"value": 2.5}}', b"null\n"):
        path.write_bytes(content)
        assert _stored(tmp_path) == 1
    for record in ({}, {"result": 1}, {"value": 2.5}):
        write_cell(path, record)
        assert _stored(tmp_path) == 1


@pytest.mark.parametrize("text", ["[1]", "[" * 100_000, "{", "null"])
def test_what_is_no_record_reads_as_nothing(tmp_path, text, monkeypatch):
    path = tmp_path / "cell.json"
    monkeypatch.setattr(json, "dumps", lambda _: text)
    write_cell(path, {})
    assert read_array_cell(path) == (None, None)


def test_an_array_comes_back_and_no_file_is_no_cell(tmp_path):
    write_cell(tmp_path / "cell.json", RECORD, ARRAY)
    record, array = read_array_cell(tmp_path / "cell.json")
    assert record == RECORD
    np.testing.assert_array_equal(array, ARRAY)
    assert read_array_cell(tmp_path) == (None, None)
    assert read_array_cell(tmp_path / "none.json") == (None, None)


def test_a_cell_is_on_the_disk_before_its_name_and_the_name_when_it_is_done(tmp_path, monkeypatch):
    done = []
    for name in ("fsync", "replace"):
        change = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *a, name=name, change=change: done.append(name) or change(*a)
        )
    write_cell(tmp_path / "cell.json", RECORD)
    assert done == ["fsync", "replace", "fsync"]
