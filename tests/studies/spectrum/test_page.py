"""Results as stored, as text and as a page."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from cosa_theory.ground.errors import InputError
from cosa_theory.page.document import Document, write_document
from cosa_theory.page.results import TABLES, Results, read_results, write_results
from cosa_theory.page.text import render_text, render_view
from cosa_theory.page.views import number, percent
from cosa_theory.studies.spectrum.page import render_page
from cosa_theory.studies.spectrum.views import family_view, layer_view, module_view
from tests.studies.spectrum.survey_tables import toy_tables

VERDICT = "Low rank wins in 17 of 17 matrices (rank 2): the truncated SVD holds <most> & more."
ZERO = "encoder.layer.0.attention.self.query.weight"
CHECKS = pd.DataFrame(
    {
        "id": ["C1", "C5"],
        "claim": ["The identity holds", "Low rank is restrictive"],
        "source": ["abstract", "abstract"],
        "method": ["Explicit product.", "Crossover."],
        "quantity": ["error", "ratio"],
        "criterion": ["at most 1e-13", "below 1"],
        "verdict": ["holds", "holds under conditions"],
        "summary": ["2e-16 at most", "in 3 of 39 <layers>"],
        "seconds": [0.1, 2.0],
    }
)


def toy_results(checks=None, **options):
    options = {"blocks": 2} | options
    tables = toy_tables(**options)
    return Results(
        verdict=VERDICT,
        notices=("17 tensors matched.", "3 only in base <first: a>."),
        provenance={"arguments": {"base": "base.safetensors", "tuned": "<tuned>"}, "seed": 0},
        checks=checks,
        **{name: getattr(tables, name) for name in TABLES},
    )


@pytest.fixture(scope="module")
def page():
    """A page drawn once, with a zero update and paper checks."""
    return render_page(toy_results(CHECKS, zero_layer=ZERO))


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


def test_stored_results_come_back_equal(tmp_path):
    results = toy_results(CHECKS, zero_layer=ZERO)
    stored = read_results(write_results(results, tmp_path / "out"))
    for name in (*TABLES, "checks"):
        # Texts come back in pandas' own type for them.
        assert_frame_equal(
            getattr(stored, name).convert_dtypes(), getattr(results, name).convert_dtypes()
        )
    assert (stored.verdict, stored.notices) == (results.verdict, results.notices)
    assert stored.provenance == results.provenance


def test_a_later_run_leaves_nothing_of_an_earlier_one_but_no_other_file_is_touched(tmp_path):
    write_results(toy_results(CHECKS), tmp_path)
    (tmp_path / "figures").mkdir()
    for name in ("figures/old.png", "report.html", "checks.json", "cases.parquet", "mine.txt"):
        (tmp_path / name).write_text("old")
    write_results(toy_results(), tmp_path)
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"mine.txt", "spectrum.json", *(f"{name}.parquet" for name in TABLES)}
    assert read_results(tmp_path).checks is None


def test_a_later_survey_takes_the_audit_of_an_earlier_one_with_it(tmp_path):
    write_results(toy_results(), tmp_path)
    write_document(Document("audit", "Old.", (), {"rows": CHECKS}, {}), tmp_path / "audit")
    (tmp_path / "audit" / "mine.txt").write_text("kept")
    write_results(toy_results(), tmp_path)
    assert [path.name for path in (tmp_path / "audit").iterdir()] == ["mine.txt"]


def test_the_summary_is_strict_json_with_nulls_for_what_does_not_exist(tmp_path):
    write_results(toy_results(zero_layer=ZERO), tmp_path)
    text = (tmp_path / "spectrum.json").read_text()

    def refuse(constant):
        raise AssertionError(constant)

    summary = json.loads(text, parse_constant=refuse)
    assert summary["verdict"] == VERDICT
    zero = next(row for row in summary["layers"] if row["layer"] == ZERO)
    assert (zero["rank"], zero["stable_rank"], zero["rank_90"]) == (0, None, None)
    assert isinstance(zero["block"], int)
    outside = next(row for row in summary["layers"] if row["module"] == "pooler.dense")
    assert outside["block"] is None


@pytest.mark.parametrize("name", ["spectrum.json", "families.parquet"])
def test_an_incomplete_folder_is_refused_with_the_missing_file(tmp_path, name):
    write_results(toy_results(), tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(InputError, match=rf"no complete results \({name} missing\)"):
        read_results(tmp_path)


@pytest.mark.parametrize("name", ["spectrum.json", "families.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    write_results(toy_results(), tmp_path)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=rf"{name}.*run the (survey|command) again") as raised:
        read_results(tmp_path)
    assert len(str(raised.value).splitlines()) == 1


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="is not a folder"):
        read_results(tmp_path / "nothing")


def test_the_text_begins_with_the_verdict_and_names_every_layer():
    results = toy_results(zero_layer=ZERO)
    text = render_text(results)
    assert text.splitlines()[0] == VERDICT
    assert all(f"\n{layer} " in text for layer in results.layers["layer"])
    assert "nan" not in text.lower()


def test_columns_of_the_text_are_aligned():
    lines = render_view(module_view(toy_results())).splitlines()
    rule = lines[2]
    ends = [match.end() for match in re.finditer("─+", rule)]
    for line in lines[3:]:
        for end in ends[:-1]:
            assert line[end : end + 2].strip() == "", line


def test_a_zero_update_is_shown_with_dashes():
    (row,) = (row for row in layer_view(toy_results(zero_layer=ZERO)).rows if row[0] == ZERO)
    assert row[1:3] == ("24 × 24", "0")
    assert {cell for place, cell in enumerate(row[3:], 3) if place != 10} == {"–"}
    assert row[10] == "15.6 %"  # the law is there whatever the update is


def test_the_module_view_gives_medians_and_counts_of_its_layers():
    results = toy_results(blocks=3, zero_layer=ZERO)
    (row,) = (row for row in module_view(results).rows if row[0] == "attention.self.query")
    live = results.layers[results.layers["module"] == "attention.self.query"]
    assert row[1] == "3"
    assert row[4] == number(live["stable_rank"].median())
    assert row[-1] == "2 of 2"


def test_the_family_view_pools_every_family_at_every_common_budget():
    view = family_view(toy_results())
    assert [column.header for column in view.columns] == ["family", "rank 1", "rank 2", "rank 4"]
    assert len(view.rows) == 9 + 1
    assert "±" in view.rows[2][1]
    assert view.rows[-1][0].startswith("law")


def test_without_families_the_rest_is_still_shown():
    results = toy_results()
    results = dataclasses.replace(results, families=results.families[:0])
    assert family_view(results) is None
    assert "CoSA, measured" not in [column.header for column in layer_view(results).columns]
    assert render_text(results).startswith(VERDICT)
    assert 'id="captured_energy"' not in render_page(results)


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((None, "–"), (float("nan"), "–"), (pd.NA, "–"), (0, "0"), (1.0, "1.00"), (12.34, "12.3")),
        *((1234.5, "1,234"), (0.0123, "0.0123"), (1.5e-7, "1.5e-7"), (99.96, "100")),
    ],
)
def test_numbers_have_three_digits_and_missing_ones_a_dash(value, shown):
    assert number(value) == shown


@pytest.mark.parametrize(
    ("share", "shown"), [(1.0, "100 %"), (0.0634, "6.3 %"), (0.000634, "0.063 %"), (0, "0 %")]
)
def test_shares_are_percentages(share, shown):
    assert percent(share) == shown


def test_the_page_begins_with_the_verdict(page):
    text = " ".join(Visible(page).text)
    assert text.startswith(VERDICT)


def test_the_page_needs_no_script_and_no_other_file(page):
    tags = Visible(page).tags
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in tags}
    sources = [attributes["src"] for tag, attributes in tags if tag == "img"]
    assert len(sources) == 4
    assert all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    assert all(attributes.get("alt") for tag, attributes in tags if tag == "img")
    style = page[page.index("<style>") : page.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style


def test_the_page_names_every_layer_notice_and_check(page):
    text = " ".join(Visible(page).text)
    results = toy_results(zero_layer=ZERO)
    assert all(layer in text for layer in results.layers["layer"])
    assert "3 only in base <first: a>." in text
    assert "holds under conditions" in text
    assert text.index("How to read this") < text.index("in 3 of 39 <layers>")  # checks come last


def test_text_from_outside_cannot_become_markup():
    results = toy_results(CHECKS, blocks=1)
    results.layers["layer"] = [f"<script>alert({n})</script>" for n in range(len(results.layers))]
    page = render_page(dataclasses.replace(results, spectra=results.spectra[:0]))
    assert "<script" not in page
    assert "&lt;script&gt;alert(0)" in page
    assert "<tuned>" not in page


def test_all_zero_updates_still_make_a_page():
    results = toy_results(blocks=1)
    tables = {name: getattr(results, name).copy() for name in TABLES}
    tables["layers"][["delta_norm", "relative_norm"]] = 0.0
    tables["layers"][["stable_rank", "participation_ratio", "flatness", "mp_edge"]] = None
    tables["spectra"]["sigma"] = 0.0
    tables["spectra"]["resolved"] = False
    tables["families"][["captured", "ci_low", "ci_high"]] = None
    tables["crossover"][["top_share", "crossover_ratio", "winner"]] = None
    zero = Results("Nothing to compare: all 7 updates are zero.", (), {}, **tables)
    page = render_page(zero)
    assert "nan" not in " ".join(Visible(page).text).lower()


def test_a_page_without_any_matrix_has_no_empty_sections():
    results = toy_results(blocks=1)
    tables = {name: getattr(results, name)[:0] for name in TABLES}
    text = Visible(render_page(Results("No matrix was compared.", ("Why.",), {}, **tables))).text
    assert text[0] == "No matrix was compared."
    assert "Why." in text
    assert not {"Figures", "Layers", "At equal trainable parameters"} & set(text)


def test_equal_tables_give_an_equal_page(page):
    assert render_page(toy_results(CHECKS, zero_layer=ZERO)) == page
