"""Text from outside on the page: seen, no markup, and the line that repeats the command."""

import html
import os
import re
import shlex
import subprocess

import pandas as pd

from cosa_theory.ground.printable import command_line, printable
from cosa_theory.page.document import Document
from cosa_theory.page.html import render_page
from cosa_theory.page.presentation import Opening, Presentation
from cosa_theory.page.views import Column, View

NASTY = "a\x1b[31m\n<b>forged\u202e\x85\ud800.weight"
PATH = "/data/" + "a-long-folder/" * 20 + "tuned.safetensors"


def page(command="cosa-theory spectrum a b", path=PATH):
    shown = Presentation(
        title="A page",
        views=lambda document: [View.of(NASTY, (Column("layer", "layer"),), document.tables["t"])],
        opening=lambda document: Opening("base", path, (), "", ((NASTY, NASTY),)),
    )
    made = {"command": command, "arguments": {"base": NASTY}}
    table = pd.DataFrame({"layer": [NASTY]}, dtype=object)
    return render_page(Document("t", f"Verdict on {NASTY}.", (NASTY,), {"t": table}, made), shown)


def test_names_are_seen_and_are_no_markup():
    text = page()
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "<b>forged" not in text
    assert text.count(html.escape(printable(NASTY))) >= 5
    text.encode("utf-8")


def test_the_line_that_repeats_the_command_is_read_back_as_it_was_typed():
    words = ["a b", "it's", "--include", r"layers\.[01]<&>", "ΔW", "x" * 300]
    (line,) = re.findall(r"<pre><code>(.*)</code></pre>", page(command_line(words)))
    assert shlex.split(html.unescape(line)) == words


def test_unseen_characters_of_the_command_are_read_back_by_the_shell():
    words = [NASTY.replace("\ud800", "\udcff"), "'"]
    (line,) = re.findall(r"<pre><code>(.*)</code></pre>", page(command_line(words)))
    back = subprocess.run(
        ["bash", "-c", f"printf '%s\\0' {html.unescape(line)}"], capture_output=True
    )
    assert back.stdout.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_long_paths_are_cut_in_the_title_and_whole_where_one_looks_for_them():
    text = page()
    (title,) = re.findall("<title>(.*)</title>", text)
    assert len(title) < 100
    assert title.endswith("tuned.safetensors")
    assert f'title="{PATH}"' in text


def test_results_of_before_have_a_page_without_a_command():
    assert "<pre>" not in page(None)
