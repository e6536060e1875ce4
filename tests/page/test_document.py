"""Documents of commands: stored and read back, as text, as JSON, as a page."""

import json

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from pandas.testing import assert_frame_equal

from cosa_theory.ground.errors import InputError
from cosa_theory.page.document import Document, Presentation, read_document, write_document
from cosa_theory.page.figures import FigureSpec
from cosa_theory.page.presentations import (
    PRESENTATIONS,
    document_page,
    document_text,
    write_document_page,
)
from cosa_theory.page.results import COMMANDS, TABLES
from cosa_theory.page.views import Column, View

VERDICT = "One assumption of <two> fails: 3 & more."


def figure(tables):
    drawn = Figure(figsize=(2, 1))
    drawn.subplots().plot(tables["numbers"]["value"])
    return drawn


def view(document, title):
    rows = tuple(
        (str(name), word) for name, word in document.tables["numbers"][["name", "word"]].values
    )
    columns = (Column("name", text=True), Column("outcome", "by interval", text=True, outcome=True))
    return View(title, columns, rows)


@pytest.fixture
def document(monkeypatch):
    shown = Presentation(
        title="Toy <page>",
        views=lambda document: [view(document, "First")],
        detail_views=lambda document: [view(document, "Second")],
        figures={
            "curve": FigureSpec(figure, "A curve", "Of values.", lambda tables: True),
            "never": FigureSpec(figure, "Nothing", "None.", lambda tables: False),
        },
        terms=(("Value", "A <b>number</b>."),),
    )
    monkeypatch.setitem(PRESENTATIONS, "rip", shown)
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


def test_a_run_of_any_command_replaces_the_results_of_any_other_and_nothing_else(
    document, tmp_path
):
    other = Document("jl", "Old.", (), {"curves": document.tables["numbers"]}, {})
    write_document(other, tmp_path)
    for name in ("report.html", "mine.txt", *(f"{table}.parquet" for table in TABLES)):
        (tmp_path / name).write_text("old")
    write_document(document, tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mine.txt", "rip.json", "numbers.parquet"}


def test_a_damaged_summary_cannot_make_clearing_delete_files_elsewhere(document, tmp_path):
    (tmp_path / "kept.parquet").write_text("mine")
    out = tmp_path / "out"
    write_document(document, out)
    content = json.loads((out / "rip.json").read_text())
    content["tables"] = ["../kept", "numbers"]
    (out / "rip.json").write_text(json.dumps(content))
    write_document(document, out)
    assert (tmp_path / "kept.parquet").read_text() == "mine"


def test_the_text_starts_with_the_verdict_and_has_every_view(document):
    lines = document_text(document).splitlines()
    assert lines[0] == VERDICT
    assert {"First", "Second"} <= set(lines)


def test_the_page_is_escaped_and_needs_no_other_file(document, tmp_path):
    page = write_document_page(document, tmp_path).read_text()
    assert page == document_page(document)
    assert "One assumption of &lt;two&gt; fails" in page
    assert "<title>Toy &lt;page&gt;</title>" in page
    assert "<li>A &lt;notice&gt;.</li>" in page
    assert '<tr><td class="text">holds</td><td class="text holds">holds</td></tr>' in page
    assert '<td class="text fails">fails</td>' in page
    assert "&lt;b&gt;</td>" in page
    assert "<dd>A <b>number</b>.</dd>" in page
    assert "http" not in page.replace("http://www.w3.org", "")
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


def test_every_presented_command_is_one_whose_results_can_be_cleared():
    assert set(PRESENTATIONS) <= set(COMMANDS)
