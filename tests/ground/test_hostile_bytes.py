"""What would block a reader, or keep it busy for minutes, is refused at once."""

import json
import os

from cosa_theory.ground.array_files import read_array
from cosa_theory.ground.expressions import by_pattern
from cosa_theory.ground.manifest import MANIFEST, check_folder
from cosa_theory.ground.reading import read_json
from tests.hostile import held


def test_a_pipe_a_folder_and_a_loop_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.npy")
    (tmp_path / "loop.npy").symlink_to(tmp_path / "loop.npy")
    for name in ("pipe.npy", "loop.npy", "", "n" * 5000):
        assert not held(read_array, str(tmp_path / name), "CORE")
        assert not held(read_json, tmp_path / name)


def test_an_expression_that_would_take_minutes_is_given_up(tmp_path):
    hard = {"(" + "a|a)(" * 30 + "b)": 1}
    assert not held(by_pattern, hard, "a" * 31, 0, "file: rank_pattern")
    assert by_pattern({"q": 1, r"layers\.\d+\.(k|v)": 2}, "model.layers.10.v", 0) == 2


def test_a_list_of_files_may_name_what_no_file_system_takes(tmp_path):
    for name in ("n" * 300 + "/a", "a/" * 600 + "a", "\ud800", "a\0", "../a"):
        entry = {"part": "results", "sha256": ""}
        (tmp_path / MANIFEST).write_text(json.dumps({"format": 1, "files": {name: entry}}))
        check_folder(tmp_path, "results", ["a.json"])
