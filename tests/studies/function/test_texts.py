"""Texts that a model is measured on: read from a file, or refused in one sentence."""

import pytest

from cosa_theory.ground.errors import InputError
from cosa_theory.studies.function.texts import read_texts


def written(tmp_path, content):
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    return path


def test_texts_are_the_lines_that_are_not_empty(tmp_path):
    lines = [f"text {number}" for number in range(12)]
    path = written(tmp_path, "\ufeff\n".encode() + "\r\n\n".join(lines).encode())
    assert read_texts(path, 10) == lines[:10]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"", "0 different texts"),
        (b"one\ntwo\n", "2 different texts"),
        (b"same\n" * 20, "1 different texts"),
        ("grüße\n".encode("latin-1") * 9, "UTF-8"),
    ],
)
def test_texts_that_do_not_do_are_refused_with_the_reason(tmp_path, content, named):
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=named) as caught:
        read_texts(path, 64)
    assert caught.value.argument == "texts"
    assert str(path) in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.txt: there is no such file"):
        read_texts(tmp_path / "nowhere.txt", 64)
