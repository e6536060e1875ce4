"""Documents of commands: stored and read back, as text, as JSON, as a page."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from markupsafe import Markup
from matplotlib.figure import Figure
from pandas.testing import assert_frame_equal

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.manifest import MANIFEST
from cosa_theory.page.document import Document, read_document, write_document
from cosa_theory.page.html import Summary, render_page, split_verdict, write_page
from cosa_theory.page.presentation import Drawing, Part, Presentation
from cosa_theory.page.text import render_text
from cosa_theory.page.views import Column, View

VERDICT = "One assumption of <two> fails: 3 & more."


def figure(tables):
    drawn = Figure(figsize=(2, 1))
    drawn.subplots().plot(tables["numbers"]["value"])
    return drawn


COLUMNS = (
    Column("name", "name", text=True),
    Column("word", "outcome", "by interval", text=True, outcome=True),
)


def view(document, title):
    return View.of(title, COLUMNS, document.tables["numbers"])


SHOWN = Presentation(
    title="Toy <page>",
    views=lambda document: [view(document, "First")],
    detail_views=lambda document: [view(document, "Second")],
    figures=lambda: {
        "curve": Drawing(figure, "A curve", "Of values.", lambda tables: True),
        "never": Drawing(figure, "Nothing", "None.", lambda tables: False),
    },
    terms=(("Value", Markup("A <b>number</b>.")), ("x<y", "x & y")),
)


@pytest.fixture
def document():
    numbers = pd.DataFrame(
        {
            "name": ["holds", "<b>"],  # a name is not an outcome
            "word": ["holds", "fails"],
            "value": [1.5, np.nan],
            "count": pd.array([1, None], dtype="Int64"),
        }
    )
    return Document("rip", VERDICT, ("A <notice>.",), {"numbers": numbers}, {"seed": 3})


def test_a_stored_document_comes_back_equal(document, tmp_path):
    stored = read_document(write_document(document, tmp_path / "out"), "rip")
    assert (stored.verdict, stored.notices) == (document.verdict, document.notices)
    assert stored.provenance == document.provenance
    assert_frame_equal(
        stored.tables["numbers"].convert_dtypes(), document.tables["numbers"].convert_dtypes()
    )


def test_the_json_is_strict_with_null_for_what_does_not_exist(document, tmp_path):
    text = (write_document(document, tmp_path) / "rip.json").read_text()

    def refuse(constant):
        raise AssertionError(constant)

    content = json.loads(text, parse_constant=refuse)
    assert content["numbers"][1] == {"name": "<b>", "word": "fails", "value": None, "count": None}
    assert (content["verdict"], content["tables"]) == (VERDICT, ["numbers"])


def test_a_long_table_is_stored_but_not_listed(document, tmp_path):
    long = replace(document, tables=document.tables | {"long": document.tables["numbers"]})
    long = replace(long, unlisted=("long",))
    assert "long" not in long.as_json()
    stored = read_document(write_document(long, tmp_path), "rip")
    assert stored.unlisted == ("long",)
    assert len(stored.tables["long"]) == 2


def test_a_run_of_any_command_replaces_the_results_of_any_other_and_nothing_else(
    document, tmp_path
):
    other = Document("jl", "Old.", (), {"curves": document.tables["numbers"]}, {})
    write_document(other, tmp_path)
    write_page(other, Presentation(title="", views=lambda _: []), tmp_path)
    mine = ["mine.txt", "mine.json", "list.json", "inner/mine.txt", "figures/photo.png"]
    for name in mine:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text('{"command": "other"}')
    (tmp_path / "list.json").write_text("[1]")
    write_document(document, tmp_path)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {*mine, "rip.json", "numbers.parquet", MANIFEST}


def test_a_file_in_the_way_of_a_table_or_a_figure_is_kept_and_named(document, tmp_path):
    write_document(document, tmp_path)
    (tmp_path / "figures").mkdir()
    for name in ("figures/curve.png", "report.html"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(InputError, match=name):
            write_page(document, SHOWN, tmp_path)
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    (tmp_path / "numbers.parquet").write_text("mine")
    with pytest.raises(InputError, match=r"numbers\.parquet"):
        write_document(document, tmp_path)


def test_the_text_starts_with_the_verdict_and_has_every_view(document):
    lines = render_text(document, SHOWN).splitlines()
    assert lines[0] == VERDICT
    assert {"First", "Second"} <= set(lines)


def test_the_page_is_escaped_and_needs_no_other_file(document, tmp_path):
    page = write_page(document, SHOWN, tmp_path).read_text()
    assert page == render_page(document, SHOWN)
    assert "One assumption of &lt;two&gt; fails" in page
    assert "<title>Toy &lt;page&gt;</title>" in page
    assert "<li>A &lt;notice&gt;.</li>" in page
    assert '<tr><td class="text">holds</td><td class="text holds">holds</td></tr>' in page
    assert '<td class="text fails">fails</td>' in page
    assert "&lt;b&gt;</td>" in page
    assert "<dd>A <b>number</b>.</dd>" in page
    assert "<dt>x&lt;y</dt><dd>x &amp; y</dd>" in page
    assert "http" not in page.replace("http://www.w3.org", "").replace("http-equiv", "")
    assert page.count("<figure") == 1
    assert sorted(path.name for path in (tmp_path / "figures").iterdir()) == [
        "curve.pdf",
        "curve.png",
    ]


@pytest.mark.parametrize("name", ["rip.json", "numbers.parquet"])
@pytest.mark.parametrize("missing", [True, False], ids=["missing", "damaged"])
def test_a_missing_or_damaged_file_is_named_with_the_remedy(document, tmp_path, name, missing):
    write_document(document, tmp_path)
    path = tmp_path / name
    content = path.read_bytes()
    path.unlink()
    if not missing:
        path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=name) as raised:
        read_document(tmp_path, "rip")
    assert len(str(raised.value).splitlines()) == 1
    assert "run the command again" in str(raised.value) or "cosa-theory rip" in str(raised.value)


def test_a_part_is_summed_up_with_the_way_to_its_page(document):
    part = Part("inner", "jl", "An inner <part>", "All of it")
    page = render_page(document, SHOWN, (Summary(part, "Inside.", view(document, "Third")),))
    assert "<h2>An inner &lt;part&gt;</h2>" in page
    assert "<p>Inside.</p>" in page
    assert "<caption>Third</caption>" in page
    assert 'All of it: <a href="inner/report.html">inner/report.html</a>' in page


@pytest.mark.parametrize(
    ("verdict", "large"),
    [
        ("Low rank wins: by a factor of 3. Twice.", "Low rank wins: "),
        ("Points need 9 dimensions. The cheapest is one: 4 rows.", "Points need 9 dimensions. "),
        ("No matrix was audited.", "No matrix was audited."),
    ],
)
def test_the_first_clause_or_sentence_is_large(verdict, large):
    assert split_verdict(verdict) == (large, verdict.removeprefix(large))


def test_a_notebook_shows_verdict_notices_and_the_head_of_every_table():
    table = pd.DataFrame({"layer": [f"<b>\x1b{row}" for row in range(12)], "rank": range(12)})
    shown = Document("wall", "5 < 6.", ("a & b",), {"layers": table}, {})._repr_html_()
    assert shown.startswith("<p><b>5 &lt; 6.</b></p>")
    assert "a &amp; b" in shown
    assert "10 of 12 rows" in shown
    assert "\x1b" not in shown
    assert "<b>\\x1b" not in shown
    assert shown.count("<tr") == 11
