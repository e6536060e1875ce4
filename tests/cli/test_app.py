"""How results leave the commands."""

import io
import json

import pytest

from cosa_theory.cli.app import provenance_of, store_and_print


def test_a_result_is_stored_before_it_is_printed(tmp_path, monkeypatch):
    class Closed(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    stored = []
    monkeypatch.setattr("sys.stdout", Closed())
    with pytest.raises(BrokenPipeError):
        store_and_print(lambda folder: stored.append(folder) or folder, lambda: "text", tmp_path)
    assert stored == [tmp_path]


@pytest.mark.parametrize(
    "content", ["the verdict", {"verdict": "the verdict"}], ids=["text", "json"]
)
def test_a_result_that_cannot_be_stored_is_printed_all_the_same(content, tmp_path, capsys):
    def full_disk(folder):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        store_and_print(full_disk, lambda: content, tmp_path)
    printed = capsys.readouterr().out
    assert (json.loads(printed) if isinstance(content, dict) else printed.strip()) == content


def test_the_path_of_the_page_stays_out_of_the_json(tmp_path, capsys):
    store_and_print(lambda folder: folder / "report.html", lambda: {"a": 1}, tmp_path)
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"a": 1}
    assert printed.err.strip() == f"Report: {tmp_path / 'report.html'}"


def test_arguments_are_recorded_as_json_gives_them_back(tmp_path):
    made = provenance_of({"shape": (3, 4), "out": tmp_path, "names": [tmp_path]}, seed=1)
    arguments = made["arguments"]
    assert json.loads(json.dumps(arguments)) == arguments
    assert arguments["shape"] == [3, 4]
    assert arguments["names"] == [str(tmp_path)]
