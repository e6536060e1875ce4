"""Texts from a file: its lines or its JSON lines, or a refusal in one sentence."""

import json

import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.texts import read_texts

LINES = [f"text {number}" for number in range(12)]


def written(tmp_path, content, name="texts.txt"):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def test_texts_are_the_lines_that_are_not_empty(tmp_path):
    path = written(tmp_path, "\ufeff\n".encode() + "\r\n\n".join(LINES).encode())
    assert read_texts(path, 10) == LINES[:10]


def test_texts_of_json_lines_keep_their_line_breaks_and_margins(tmp_path):
    texts = ["def f():\n    return 'ü'\n", "    indented", "a\u2028b"]
    lines = [json.dumps(texts[0]), "", json.dumps({"text": texts[1], "source": 3}), '""']
    path = written(tmp_path, "\n".join([*lines, json.dumps(texts[2])]).encode(), "code.jsonl")
    assert read_texts(path, 9) == texts


def test_no_more_is_read_than_asked_for(tmp_path):
    path = written(tmp_path, b'"one"\n"two"\nno JSON', "texts.jsonl")
    assert read_texts(path, 2) == ["one", "two"]


@pytest.mark.parametrize(
    ("name", "content", "named"),
    [
        ("texts.txt", b"", "0 different texts"),
        ("texts.txt", b"one\ntwo\n", "2 different texts"),
        ("texts.txt", b"same\n" * 20, "1 different texts"),
        ("texts.txt", "grüße\n".encode("latin-1") * 9, "UTF-8"),
        ("texts.txt", "grüße\n".encode("utf-16") * 9, "UTF-8"),
        ("texts.txt", b"x" * 1_000_001, "line 1: over 1,000,000 characters"),
        ("texts.jsonl", b'"one"\ntwo\n', "line 2: not valid JSON"),
        ("texts.jsonl", b'\n{"prompt": "one"}\n', "line 2: neither a JSON string"),
        ("texts.jsonl", b'{"text": ["one"]}\n', "line 1: neither a JSON string"),
    ],
)
def test_texts_that_do_not_do_are_refused_with_the_reason(tmp_path, name, content, named):
    path = written(tmp_path, content, name)
    with pytest.raises(InputError, match=named) as caught:
        read_texts(path, 64, least=8, argument="general")
    assert caught.value.argument == "general"
    assert str(caught.value).startswith(f"general is {path}")
    assert len(caught.value.problems) == 1


def test_what_is_no_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: there is no such file"):
        read_texts(tmp_path / "nowhere.txt", 64)
    with pytest.raises(InputError, match="that is a folder"):
        read_texts(tmp_path, 64)
