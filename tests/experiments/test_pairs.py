"""Pairs of models before and after fine-tuning: listed with their sizes, fetched or made."""

import json
from pathlib import Path

import numpy as np
import pytest

from cosa_theory.deltas import open_pair
from experiments import pairs
from experiments.finetune.function_bodies import FunctionText
from experiments.pairs import PAIRS, main, table


def test_pairs_of_others_are_what_their_origin_says(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # where no pair of ours is
    sizes = table().set_index("pair")
    assert sizes.loc["sre_encoder", "relative_change"] == pytest.approx(0.0102, abs=2e-4)
    assert sizes.loc["chgnet", "relative_change"] == pytest.approx(0.19, abs=0.01)
    assert sizes["licence"].notna().all()
    pair = open_pair(*PAIRS["chgnet"].paths())
    assert pair.report.notices[0].startswith("136 tensors matched")
    assert all(np.isfinite(layer.delta).all() for layer in pair)


def test_a_pair_still_to_be_made_is_listed_without_a_size(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert main([]) == 0
    printed = capsys.readouterr().out
    for name in PAIRS:
        assert name in printed
    line = next(line for line in printed.splitlines() if line.startswith("encoder_r52_5000"))
    assert line.split()[-3:] == ["–", "–", "–"]


def test_a_pair_of_ours_is_trained_on_its_corpus_for_its_steps(capsys, monkeypatch):
    asked = []

    def run(config, out):
        asked.append(config)
        return Path("before"), out / "tuned"

    monkeypatch.setattr(pairs, "run", run)
    for name, corpus, steps in (
        ("encoder_r52_1000", "r52", 1000),
        ("decoder_functions_100", "functions", 100),
    ):
        assert main(["--get", name]) == 0
        assert (asked[-1].corpus, asked[-1].steps) == (corpus, steps)
        printed = capsys.readouterr().out.splitlines()
        assert printed == ["before", str(pairs.RESULTS / name / "tuned")]


def test_the_domain_of_a_pair_is_written_as_texts(tmp_path):
    for name in ("sre_encoder", "encoder_20newsgroups_100"):
        texts = PAIRS[name].domain()
        assert len(set(texts)) >= 20
        assert all(text.strip() for text in texts)
    path = tmp_path / "texts.txt"
    assert main(["--get", "sre_encoder", "--texts", str(path)]) == 0
    assert path.read_text(encoding="utf-8").splitlines() == pairs._sre_texts()


def test_texts_keep_their_line_breaks_in_a_file_of_json_lines(tmp_path, monkeypatch):
    functions = [
        FunctionText(f"module{i}", f"module{i}.py:f", f'def f{i}():\n    "Do."', "\n    pass")
        for i in range(20)
    ]
    monkeypatch.setattr(pairs, "read_functions", lambda: functions)
    monkeypatch.setattr(pairs, "run", lambda config, out: (out, out))
    path = tmp_path / "texts.jsonl"
    assert main(["--get", "decoder_functions_100", "--texts", str(path)]) == 0
    texts = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert 0 < len(texts) < len(functions), "those that were not trained on"
    assert set(texts) <= {one.prompt + one.body for one in functions}


@pytest.mark.parametrize(("pair", "named"), [(["--get", "chgnet"], "chgnet"), ([], "--get")])
def test_texts_that_no_pair_gives_are_refused(pair, named, tmp_path, capsys):
    assert main([*pair, "--texts", str(tmp_path / "texts.txt")]) == 2
    assert named in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_an_unknown_pair_is_named(capsys):
    assert main(["--get", "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err
