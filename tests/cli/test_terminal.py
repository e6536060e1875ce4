"""Commands in the terminals, encodings and shells of other people."""

import io
import json
import os
import re
import shlex
import subprocess
import sys

import numpy as np
import pytest
from safetensors.numpy import save_file

from cosa_theory.cli import app, main
from cosa_theory.ground.printable import printable, width_of

NASTY = "a\x1b[31m\nerror: forged\u202e.$x$.weight"
PLAIN = [f"model.layers.{block}.self_attn.q_proj.weight" for block in range(2)]
COMMANDS = [str(one.name or one.callback.__name__) for one in app.registered_commands]


class Stream(io.TextIOWrapper):
    """Standard output in some encoding, on a terminal or not."""

    def __init__(self, encoding, terminal=False):
        self.taken, self.terminal = io.BytesIO(), terminal
        super().__init__(self.taken, encoding=encoding, write_through=True)

    def isatty(self):
        return self.terminal

    def text(self):
        return self.taken.getvalue().decode(self.encoding)


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Two checkpoints; one tensor has a name that would take over a terminal."""
    folder = tmp_path_factory.mktemp("pair")
    draws = np.random.default_rng(0)
    base = {name: draws.standard_normal((12, 8)).astype("f4") for name in (*PLAIN, NASTY)}
    moved = {name: W + draws.standard_normal(W.shape).astype("f4") for name, W in base.items()}
    save_file(base, folder / "base.safetensors")
    save_file(moved, folder / "tuned.safetensors")
    return [str(folder / "base.safetensors"), str(folder / "tuned.safetensors")]


def printed(monkeypatch, words, encoding="utf-8", terminal=False):
    """Return what a command prints on standard output, which must end well."""
    stream = Stream(encoding, terminal)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        assert main(words) == 0
    return stream.text()


def test_names_reach_the_terminal_with_every_character_seen(pair, capsys):
    words = ["spectrum", *pair, "--families", "none"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert all(line == printable(line) for line in (out + err).split("\n"))
    assert printable(NASTY) in out
    assert not re.search("^error:", out + err, re.MULTILINE)
    assert main([*words, "--json"]) == 0
    text = capsys.readouterr().out
    assert all(line == printable(line) for line in text.split("\n"))
    assert NASTY in {row["layer"] for row in json.loads(text)["layers"]}


def test_errors_name_files_and_options_with_every_character_seen(capsys):
    assert main(["spectrum", NASTY, "x"]) == 2
    assert main(["spectrum", f"--{NASTY}"]) == 2
    assert main([NASTY]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert all(line == printable(line) for line in lines)
    assert all(line.startswith("error: ") for line in lines)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_results_are_whole_in_any_encoding(encoding, pair, monkeypatch):
    words = ["spectrum", *pair, "--families", "truncated_svd"]
    text = printed(monkeypatch, words, encoding)
    assert len(text.splitlines()) == len(printed(monkeypatch, words).splitlines())
    assert "12 x 8" in text or "12 × 8" in text
    whole, shown = (json.loads(printed(monkeypatch, [*words, "--json"], one))
                    for one in ("utf-8", encoding))  # fmt: skip
    for document in (whole, shown):
        document["provenance"].pop("time")
    assert shown == whole


@pytest.mark.parametrize("command", COMMANDS)
def test_help_is_there_under_both_names_in_ascii_too(command, monkeypatch):
    text = printed(monkeypatch, [command, "-h"], "ascii")
    assert text == printed(monkeypatch, [command, "--help"], "ascii")
    assert f"cosa-theory {command}" in text


@pytest.mark.parametrize("columns", [50, 100])
def test_tables_fit_the_terminal_and_are_whole_elsewhere(columns, pair, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(columns))
    words = ["spectrum", *pair, "--families", "none"]
    verdict, *rest = printed(monkeypatch, words, terminal=True).splitlines()
    assert max(map(width_of, rest)) <= columns
    assert not verdict.endswith("…")
    assert PLAIN[0] in printed(monkeypatch, words)


def test_the_command_line_of_a_result_makes_it_again(pair, tmp_path, capsys):
    words = ["jl", "--points", "100", "--eps", "0.2", "--out", str(tmp_path / "it's here")]
    assert main([*words, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    name, *again = shlex.split(document["provenance"]["command"])
    assert name == "cosa-theory"
    assert again == [*words, "--json"]
    assert main(again) == 0
    assert json.loads(capsys.readouterr().out)["verdict"] == document["verdict"]


def test_a_shell_completes_commands_and_options():
    def run(words, **environment):
        return subprocess.run(
            [sys.executable, "-m", "cosa_theory", *words],
            env=os.environ | {"SHELL": "/bin/bash"} | environment,
            capture_output=True,
            text=True,
        )

    shown = run(["--show-completion"])
    assert shown.returncode == 0
    variable = re.search(r"(_\w+_COMPLETE)=complete_bash", shown.stdout)[1]
    typed = {"COMP_WORDS": "cosa-theory spectrum --fam", "COMP_CWORD": "2"}
    assert run([], **typed, **{variable: "complete_bash"}).stdout.split() == ["--families"]
