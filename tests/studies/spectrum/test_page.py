"""The document of a survey as stored, as text and as a page."""

import base64
import dataclasses
import hashlib
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from cosa_theory.ground.manifest import own_files
from cosa_theory.page.document import (
    RESULTS,
    Document,
    read_document,
    write_document,
    write_tables,
)
from cosa_theory.page.text import render_view
from cosa_theory.page.views import MISSING, number
from cosa_theory.studies.shown import document_page, document_text
from cosa_theory.studies.spectrum.in_words import (
    captured_in_words,
    cumulative_in_words,
    heatmap_in_words,
)
from cosa_theory.studies.spectrum.pair import Survey
from cosa_theory.studies.spectrum.views import family_view, layer_view, module_view
from tests.studies.spectrum.survey_page import (
    CHECKS,
    HOSTILE,
    VERDICT,
    ZERO,
    drawn_page,
    toy_document,
)
from tests.studies.spectrum.survey_tables import toy_tables


def changed(document, **tables):
    return dataclasses.replace(document, tables={**document.tables, **tables})


@pytest.fixture(scope="module")
def page():
    return drawn_page()


@pytest.fixture
def without_figures(monkeypatch):
    """Leave out the figures, which take most of the time of a page."""
    monkeypatch.setattr("cosa_theory.page.html._draw", lambda *_: {})


class Visible(HTMLParser):
    """Collects the text a reader sees, and every tag with its attributes."""

    def __init__(self, page):
        super().__init__()
        self.text, self.tags, self.hidden = [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.hidden += tag in ("style", "script", "title")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("style", "script", "title")

    def handle_data(self, data):
        if data.strip() and not self.hidden:
            self.text.append(data.strip())


def test_the_stored_document_comes_back_equal_and_gives_an_equal_page(tmp_path):
    document = toy_document(CHECKS, zero_layer=ZERO)
    stored = read_document(write_document(document, tmp_path), "spectrum")
    for name, table in document.tables.items():
        # Texts come back in pandas' own type for them.
        assert_frame_equal(stored.tables[name].convert_dtypes(), table.convert_dtypes())
    assert document_text(stored) == document_text(document)


def test_a_later_survey_takes_the_audit_of_an_earlier_one_with_it(tmp_path):
    tables = toy_tables(blocks=1)
    document = Survey(**tables).document({})
    audit = Document("audit", "Old.", (), {"rows": CHECKS}, {})
    with own_files(tmp_path, RESULTS, last="spectrum.json") as new:
        write_tables(document, new)
        write_tables(audit, new / "audit")
    assert (tmp_path / "audit" / "audit.json").is_file()
    (tmp_path / "audit" / "mine.txt").write_text("kept")
    write_document(document, tmp_path)
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["mine.txt"]


def test_the_json_has_nulls_for_what_does_not_exist_and_no_singular_values():
    content = Survey(**toy_tables(zero_layer=ZERO)).document({}).as_json()
    assert {"verdict", "notices", "layers", "families", "crossover", "provenance"} < set(content)
    assert "spectra" not in content
    zero = next(row for row in content["layers"] if row["layer"] == ZERO)
    assert (zero["rank"], zero["stable_rank"], zero["rank_90"]) == (0, None, None)
    assert isinstance(zero["block"], int)
    outside = next(row for row in content["layers"] if row["module"] == "pooler.dense")
    assert outside["block"] is None


def test_the_text_begins_with_the_verdict_and_names_every_layer():
    document = toy_document(zero_layer=ZERO)
    text = document_text(document)
    assert text.splitlines()[0] == VERDICT
    assert all(f"\n{layer} " in text for layer in document.tables["layers"]["layer"])
    assert "nan" not in text.lower()


def test_columns_of_the_text_are_aligned():
    lines = render_view(module_view(toy_tables(blocks=2))).splitlines()
    rule = lines[2]
    ends = [match.end() for match in re.finditer("─+", rule)]
    for line in lines[3:]:
        for end in ends[:-1]:
            assert line[end : end + 2].strip() == "", line


def test_a_zero_update_is_shown_with_dashes():
    tables = toy_tables(zero_layer=ZERO)
    (row,) = (row for row in layer_view(tables).rows if row[0] == ZERO)
    assert row[1:3] == ("24 × 24", "0")
    assert {cell for place, cell in enumerate(row[3:], 3) if place not in (10, 12)} == {"–"}
    # The law and what noise gives are there whatever the update is.
    assert row[10] == "15.6 %"
    stored = tables["crossover"].query("layer == @ZERO and rank_budget == 2")
    assert row[12] == number(stored["noise_ratio"].item())


def test_the_module_view_gives_medians_and_counts_of_its_layers():
    document = toy_document(blocks=3, zero_layer=ZERO)
    (row,) = (row for row in module_view(document.tables).rows if row[0] == "attention.self.query")
    live = document.tables["layers"][document.tables["layers"]["module"] == "attention.self.query"]
    assert row[1] == "3"
    assert row[4] == number(live["stable_rank"].median())
    assert row[-1] == "2 of 2"


def test_a_law_of_all_the_energy_is_shown_without_a_bare_decimal_point():
    tables = toy_tables(blocks=1)
    tables["families"] = tables["families"].assign(law=1.0)
    view = family_view(tables)
    assert view.rows[-1][0] == "law ab/(mn) of a CoSA core"
    assert set(view.rows[-1][1:]) == {"100 %"}


def test_the_family_view_pools_every_family_at_every_common_budget():
    view = family_view(toy_tables(blocks=1))
    assert [column.header for column in view.columns] == ["family", "rank 1", "rank 2", "rank 4"]
    assert len(view.rows) == 9 + 1
    assert "±" in view.rows[2][1]
    assert view.rows[-1][0].startswith("law")


def test_a_share_of_another_rank_does_not_stand_under_the_common_one():
    tables = toy_tables(blocks=1)
    crossover = tables["crossover"]
    of_first = crossover["layer"] == crossover["layer"].iloc[0]
    ranks = crossover["rank_budget"].where(~of_first, crossover["rank_budget"] + 10)
    small = tables | {"crossover": crossover.assign(rank_budget=ranks)}
    for view in (layer_view, module_view):
        assert "top-2 share" in [column.header for column in view(tables).columns]
        assert "top-r share" in [column.header for column in view(small).columns]
        assert view(tables).title.endswith("budget of rank 2")
        assert view(small).title.endswith("rank 2, or the nearest that a small matrix has")
    assert "the r largest singular values" in cumulative_in_words(small)
    for words in (cumulative_in_words, captured_in_words, heatmap_in_words):
        assert "rank 2, or the nearest" in words(small)
        assert "or the nearest" not in words(tables)


def test_the_law_of_a_core_is_not_that_of_another_family():
    tables = toy_tables(blocks=1)
    families = tables["families"]
    other = families[families["family"] == "cosa_haar"].assign(family="lora_fa", law=0.987)
    both = pd.concat([other, families], ignore_index=True)
    law = family_view(tables).rows[-1]
    assert family_view(tables | {"families": both}).rows[-1] == law
    assert family_view(tables | {"families": other}).rows[-1][1:] == (MISSING,) * (len(law) - 1)


def test_without_families_the_rest_is_still_shown():
    document = toy_document()
    document = changed(document, families=document.tables["families"][:0])
    assert family_view(document.tables).rows == ()
    assert "CoSA, measured" not in [column.header for column in layer_view(document.tables).columns]
    assert document_text(document).startswith(VERDICT)


def test_the_page_begins_with_the_verdict(page):
    text = " ".join(Visible(page[page.index("<main>") :]).text)
    assert text.startswith(VERDICT)


def test_the_page_needs_no_other_file(page):
    tags = Visible(page).tags
    assert not {"link", "iframe", "object"} & {tag for tag, _ in tags}
    assert not any("src" in attributes for tag, attributes in tags if tag == "script")
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(sources) == 4
    assert all(source.startswith("data:image/svg+xml,") for source in sources)
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_policy_of_the_page_names_its_scripts_and_nothing_else(page):
    scripts = re.findall('<script type="module">(.*?)</script>', page, re.DOTALL)
    hashes = {
        f"'sha256-{base64.b64encode(hashlib.sha256(one.encode()).digest()).decode()}'"
        for one in scripts
    }
    (policy,) = re.findall('<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert set(rules["script-src"].split()) == hashes
    assert rules["default-src"] == "'none'"
    assert len(scripts) == 3


def test_alternative_texts_say_numbers_of_the_tables(page):
    tags = Visible(page).tags
    said = [attributes["alt"] for tag, attributes in tags if tag == "img"]
    assert all(re.search(r"\d", text) for text in said)


def test_the_page_names_every_layer_notice_and_check(page):
    text = " ".join(Visible(page).text)
    document = toy_document(blocks=2, zero_layer=ZERO)
    names = document.tables["layers"]["layer"].replace(
        "embeddings.position_embeddings.weight", HOSTILE
    )
    assert all(layer in text for layer in names)
    assert "3 only in base <first: a>." in text
    assert "holds under conditions" in text
    assert text.index("How to read this") < text.index("in 3 of 39 <layers>")  # checks come last


def test_text_from_outside_cannot_become_markup(without_figures):
    document = toy_document(CHECKS, blocks=1)
    document.tables["layers"]["layer"] = [
        f"<script>alert({n})</script>" for n in range(len(document.tables["layers"]))
    ]
    page = document_page(changed(document, spectra=document.tables["spectra"][:0]))
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(0)" in page
    assert r"\u003cscript\u003ealert(0)" in page  # where scripts read it
    assert "<tuned>" not in page


def test_all_zero_updates_still_make_a_page():
    tables = toy_tables(blocks=1)
    tables["layers"][["delta_norm", "relative_norm"]] = 0.0
    tables["layers"][["stable_rank", "participation_ratio", "flatness", "mp_edge"]] = None
    tables["spectra"]["sigma"] = 0.0
    tables["spectra"]["resolved"] = False
    tables["families"][["captured", "ci_low", "ci_high"]] = None
    tables["crossover"][["top_share", "crossover_ratio", "winner"]] = None
    zero = changed(toy_document(), **tables)
    assert "nan" not in " ".join(Visible(document_page(zero)).text).lower()


def test_a_page_without_any_matrix_has_no_empty_sections():
    document = toy_document(blocks=1)
    empty = {name: table[:0] for name, table in document.tables.items()}
    text = Visible(document_page(changed(document, **empty))).text
    assert "3 only in base <first: a>." in text
    assert not {"Figures", "Layers", "At equal trainable parameters"} & set(text)


def test_equal_tables_give_an_equal_page(without_figures):
    first, second = (document_page(toy_document(CHECKS, zero_layer=ZERO)) for _ in range(2))
    assert first == second
