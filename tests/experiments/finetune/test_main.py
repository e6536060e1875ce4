"""The command: what it says of a training that was done, of its data, and of one that diverged."""

import json
import math
import shutil

import pytest
from safetensors.torch import load_file, save_file

from experiments.finetune.__main__ import main
from tests.experiments.finetune.shrunk import copy_of, model_folder, words

ROWS = [{"text": words(n, 8), "label": "ab"[n % 2]} for n in range(20)]


@pytest.fixture
def command(tmp_path):
    """Return a function that trains on files, with some settings, to a folder."""
    for name in ("train", "test"):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    settings = {
        "model": model_folder(tmp_path / "model", "roberta"),
        "data": "files",
        "train": tmp_path / "train.jsonl",
        "test": tmp_path / "test.jsonl",
        "inputs": ["text"],
        "output": "label",
        "rank": 2,
        "steps": 3,
        "batch": 4,
        "tokens": 20,
        "threads": 1,
    }

    def run(out, **more):
        given = {**settings, **more}.items()
        sets = [text for name, value in given for text in ("--set", f"{name}={value}")]
        return main([*sets, "--out", str(tmp_path / "runs" / out)])

    return run


def test_a_training_on_files_that_were_edited_since_is_refused(command, tmp_path, capsys):
    assert command("one") == 0
    before = capsys.readouterr().out
    assert command("one") == 0
    assert capsys.readouterr().out.splitlines()[0] in before, "the same result"
    with (tmp_path / "train.jsonl").open("a") as file:
        file.write(json.dumps(ROWS[0]) + "\n")
    assert command("one") == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "train.jsonl, which was edited since: " in captured.err
    assert "--out" in captured.err


def test_a_training_on_a_copy_that_was_edited_since_is_refused(command, tmp_path, capsys):
    rows = [{"sentence": words(n), "label": n % 2} for n in range(20)]
    copies = tmp_path / "copies"
    given = {"data": "sst2", "copies": copies, "inputs": [], "output": ""}
    copy_of(copies, "nyu-mll/glue", {"train": rows, "validation": rows}, "sst2")
    assert command("one", **given) == command("one", **given) == 0
    shutil.rmtree(copies)
    copy_of(copies, "nyu-mll/glue", {"train": rows[1:], "validation": rows}, "sst2")
    capsys.readouterr()
    assert command("one", **given) == 2
    assert "train.jsonl, which was edited since: " in capsys.readouterr().err


def test_a_training_from_a_model_that_was_written_anew_is_refused(command, tmp_path, capsys):
    assert command("one") == 0
    file = tmp_path / "model" / "model.safetensors"
    weights = load_file(file)
    save_file({name: -one for name, one in weights.items()}, file, {"format": "pt"})
    capsys.readouterr()
    assert command("one") == 2
    assert "model.safetensors, which was edited since: " in capsys.readouterr().err


def test_a_training_that_diverged_is_told_and_kept_and_the_table_goes_on(command, tmp_path, capsys):
    assert command("good") == 0
    bad = {"learning_rate": 1e30, "warm_up": 0, "clip": 0, "evaluate": 1, "watch": 1}
    for _ in range(2):  # and again where it is done
        assert command("bad", merge="true", **bad) == 1
        (said,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
        assert "the training diverged, the loss is nan at step 2: lower learning_rate" in said
    folder = tmp_path / "runs" / "bad"
    record = json.loads((folder / "run.json").read_text())
    assert record["train_info"]["status"] == "failed"
    assert "the loss is nan at step 2" in record["run_info"]["error_msg"]
    assert len([row for row in record["history"] if "loss" in row]) == 3
    last = [row for row in record["history"] if any(name.startswith("update_") for name in row)][-1]
    assert all(math.isnan(one) for name, one in last.items() if name.startswith("update_"))
    assert not (folder / "merged").exists()
    assert main(["--runs", str(tmp_path / "runs")]) == 0
    lines = capsys.readouterr().out.splitlines()
    ended = [line.split()[2] for line in lines if line.startswith(("good", "bad"))]
    assert ended == ["diverged", "done"]
