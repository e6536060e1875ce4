"""Text from outside is printed with every character seen, in every encoding."""

import itertools
import json
import os
import shlex
import subprocess
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cosa_theory.ground.printable import (
    READABLE,
    command_line,
    json_text,
    printable,
    readable,
    shortened,
    width_of,
)

ANYTHING = st.text(st.characters(exclude_categories=()))
UNSEEN = (
    *(range(0x20), range(0x7F, 0xA0), range(0x200B, 0x2010), range(0x2028, 0x202F)),
    *(range(0x2060, 0x2070), range(0xD800, 0xE000), range(0xE0001, 0xE0080)),
    (0xAD, 0x61C, 0x180E, 0x2800, 0x3164, 0xFE0F, 0xFEFF, 0xE0100),
)


def test_what_is_not_seen_is_escaped_as_python_does():
    for code in itertools.chain(*UNSEEN):
        shown = printable(f"a{chr(code)}b")
        assert shown.isascii()
        assert shown.isprintable()
        assert shown.encode().decode("unicode_escape") == f"a{chr(code)}b"


@given(ANYTHING)
def test_printed_text_is_one_line_of_seen_characters(text):
    shown = printable(text)
    assert not {unicodedata.category(one) for one in shown} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
    assert printable(shown) == shown


def test_ordinary_text_stays_as_it_is():
    for text in ("model.layers.0.weight", "ΔW = L·Y·R ‖x‖₁ ½ × é ł 中文", "C:\\new\\table", ""):
        assert printable(text) == text


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp437", "utf-8"])
@given(text=ANYTHING)
def test_any_text_is_encoded(encoding, text):
    assert text.encode(encoding, READABLE).decode(encoding)[:0] == ""


@pytest.mark.parametrize(
    ("text", "spelt"),
    [
        ("24 × 16", "24 x 16"),
        ("‖ΔW‖/‖W‖", "||DW||/||W||"),
        ("σ² ≤ 1.2 ± 0.1 %", "sigma^2 <= 1.2 +/- 0.1 %"),
        ("λ‖x‖₁", "lambda||x||_1"),
        ("10⁻⁵ … – − ─", "10^-5 ... - - -"),
        ("Lᵀ, L⁺, x̂, ½", "L^T, L^+, x, 1/2"),
        ("naïve 层", r"naive \u5c42"),
    ],
)
def test_signs_that_an_encoding_lacks_are_spelt_so_that_they_are_read(text, spelt):
    assert readable(text, "ascii") == spelt


def test_a_sign_that_the_encoding_has_stays():
    assert readable("24 × 16 ≤", "cp1252") == "24 × 16 <="


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "ascii", None])
@given(name=ANYTHING)
def test_json_keeps_every_name_and_shows_every_character(encoding, name):
    text = json_text({name: [name, 1.5, None]}, encoding)
    assert json.loads(text) == {name: [name, 1.5, None]}
    assert all(printable(line) == line for line in text.split("\n"))
    text.encode(encoding or "ascii")


@given(ANYTHING, st.integers(3, 30))
def test_a_shortened_text_fits_and_keeps_both_ends(text, length):
    whole = printable(text).replace("…", "")
    short = shortened(whole, length)
    assert width_of(short) <= length
    head, _, tail = short.partition("…") if short != whole else (whole, "", "")
    assert whole.startswith(head)
    assert whole.endswith(tail)


def test_a_command_line_is_read_back_as_the_same_words():
    words = ["cosa-theory", "a b", "it's", "$HOME", "*", "ΔW", "", "--include", r"layers\.[01]"]
    assert shlex.split(command_line(words)) == words


def test_a_command_line_with_unseen_characters_is_read_back_by_the_shell():
    words = ["a\nb\x1b[0m", "it's\\n\t", os.fsdecode(b"\xff\xfe"), "x\u202ey"]
    line = command_line(words)
    assert printable(line) == line
    run = subprocess.run(["bash", "-c", f"printf '%s\\0' {line}"], capture_output=True)
    assert run.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]
