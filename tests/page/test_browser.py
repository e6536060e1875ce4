"""The page of a survey in a real browser: it explores, sorts, filters, and harms nobody."""

import csv
import io

import pytest

from tests.page.browser import chromium, opened
from tests.studies.spectrum.survey_page import HOSTILE, ZERO, drawn_page, toy_document

pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(drawn_page(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def view(browser, page):
    """The page at a usual width, for tests that do not need one of their own."""
    with opened(browser, page, viewport={"width": 1280, "height": 900}) as (found, wrongs):
        yield found
        assert wrongs == []


@pytest.mark.parametrize(
    ("width", "scheme"), [(390, "light"), (768, "light"), (1280, "light"), (1280, "dark")]
)
def test_the_page_fits_and_can_be_used_by_everyone(view, width, scheme):
    from axe_playwright_python.sync_playwright import Axe

    layer = ZERO if width == 768 else HOSTILE  # one without, one with an update
    view.select_option("#choice-layer", layer)
    view.wait_for_function(
        "name => document.getElementById('told').textContent.startsWith(name)", arg=layer
    )
    view.set_viewport_size({"width": width, "height": 900})
    view.emulate_media(color_scheme=scheme)
    assert view.evaluate("document.documentElement.scrollWidth") == width
    found = Axe().run(view).response["violations"]
    assert [(one["id"], [node["html"][:200] for node in one["nodes"]]) for one in found] == []


def test_a_chosen_layer_changes_the_linked_views(view):
    layer = "encoder.layer.1.intermediate.dense.weight"
    if view.input_value("#choice-layer") == layer:
        layer = "encoder.layer.0.intermediate.dense.weight"
    before = view.inner_html("#chart-1 svg")
    view.select_option("#choice-layer", layer)
    view.wait_for_selector(f"#explore[data-shown*='{layer}']")
    assert view.inner_html("#chart-1 svg") != before
    assert view.inner_text("#told").startswith(f"{layer}, 96 × 24: its 2 largest")
    marked = view.locator("tr.chosen td:first-child").all_inner_texts()
    assert set(marked) == {layer}


def test_a_click_on_the_heat_map_chooses_the_layer_under_it(view):
    view.select_option("#choice-layer", "encoder.layer.1.intermediate.dense.weight")
    cells = view.locator("#chart-0 .role-mark path")
    chosen = set()
    for place in (0, cells.count() - 1):
        cells.nth(place).click()
        view.wait_for_function(
            "layer => document.getElementById('told').textContent.startsWith("
            "document.getElementById('choice-layer').value)"
        )
        chosen.add(view.input_value("#choice-layer"))
    assert len(chosen) == 2


def test_a_module_type_narrows_the_layers_and_a_budget_changes_the_numbers(view):
    view.select_option("#choice-module", "output.dense")
    offered = view.locator("#choice-layer option:not([disabled])").all_inner_texts()
    assert offered == [f"encoder.layer.{block}.output.dense.weight" for block in range(2)]
    assert view.input_value("#choice-layer") == offered[0]
    view.select_option("#choice-budget", "4")
    view.wait_for_selector("#explore[data-shown^='4 ']")
    assert "its 4 largest singular values" in view.inner_text("#told")
    view.select_option("#choice-module", "all")


def test_hovering_a_cell_shows_its_values(view):
    view.locator("#chart-0 .role-mark path").first.hover()
    tip = view.wait_for_selector("#vg-tooltip-element.visible")
    assert "that of noise" in tip.inner_text()


def table_of(view, title):
    region = view.get_by_role("region", name=title)
    return region, region.locator("xpath=preceding-sibling::div[1]")


def first_cells(region):
    return region.locator("tbody tr:not([hidden]) td:first-child").all_inner_texts()


def test_a_table_sorts_by_numbers_in_both_orders_and_back(view):
    region, _ = table_of(view, "Every layer, at the budget of rank 2")
    before = first_cells(region)
    button = region.get_by_role("button", name="stable rank")
    head = region.locator("th", has_text="stable rank")

    def values():
        place = head.evaluate("one => one.cellIndex") + 1
        cells = region.locator(f"tbody td:nth-child({place})").all_inner_texts()
        assert cells[-1] == "–"  # the zero update stays last
        return [float(cell) for cell in cells[:-1]]

    button.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    assert values() == sorted(values())
    button.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert values() == sorted(values(), reverse=True)
    button.press("Enter")
    assert first_cells(region) == before


def test_the_csv_has_the_rows_that_the_filter_leaves_with_their_numbers_in_full(view):
    region, tools = table_of(view, "Every layer, at the budget of rank 2")
    field = tools.get_by_role("searchbox")
    field.fill("layer.1 dense")
    left = first_cells(region)
    assert left
    assert all("layer.1" in name and "dense" in name for name in left)
    assert f"{len(left)} of 12 rows" in tools.inner_text()
    with view.expect_download() as waiting:
        tools.get_by_role("button", name="CSV").click()
    rows = list(csv.DictReader(io.StringIO(waiting.value.path().read_text("utf-8-sig"))))
    assert [row["layer"] for row in rows] == left
    stored = (
        toy_document(blocks=2, zero_layer=ZERO).tables["layers"].set_index("layer")["stable_rank"]
    )
    assert [float(row["stable rank"]) for row in rows] == pytest.approx(
        [stored[name] for name in left], rel=1e-6
    )
    field.fill("")
    assert len(first_cells(region)) == 12


def test_a_name_that_would_be_markup_or_a_formula_stays_text(view):
    assert view.evaluate("window.hit") is None
    assert HOSTILE in first_cells(table_of(view, "Every layer, at the budget of rank 2")[0])
    view.select_option("#choice-layer", HOSTILE)
    view.wait_for_function("document.getElementById('told').textContent.includes('onerror')")
    assert view.evaluate("window.hit") is None


def test_the_policy_of_the_page_forbids_requests_and_foreign_scripts(browser, page):
    with opened(browser, page) as (view, wrongs):
        blocked = "fetch('https://example.org/').then(() => 'sent', () => 'blocked')"
        assert view.evaluate(blocked) == "blocked"
        view.evaluate(
            "document.body.append(Object.assign(document.createElement('script'), "
            "{textContent: 'window.hit = 1'}))"
        )
        assert view.evaluate("window.hit") is None
        assert wrongs  # it says what it blocked


def test_every_control_is_reached_by_the_keyboard_in_the_order_of_the_page(view):
    wanted = view.evaluate("""() => [...document.querySelectorAll(
        'a[href], button, select, input, [tabindex="0"]')].length""")
    view.evaluate("""() => {
        window.seen = [];
        const all = [...document.querySelectorAll("*")];
        document.addEventListener("focusin", (one) => window.seen.push(all.indexOf(one.target)));
    }""")
    view.locator("nav a").first.focus()
    for _ in range(wanted - 1):
        view.keyboard.press("Tab")
    places = view.evaluate("window.seen")
    assert places == sorted(places)
    assert len(set(places)) == wanted


def test_without_scripts_the_figures_and_tables_are_there_and_no_dead_control(browser, page):
    with opened(browser, page, java_script_enabled=False) as (view, wrongs):
        assert not view.is_visible("#explore")
        images = view.locator("#figures img")
        assert images.count() == 4
        assert all(image.bounding_box()["width"] > 300 for image in images.all())
        assert view.locator("button, select, input").filter(visible=True).count() == 0
        assert view.locator("caption").filter(visible=True).count() == 4
        assert wrongs == []


def test_on_paper_there_are_figures_and_no_controls(view):
    view.emulate_media(media="print")
    assert not view.is_visible("nav")
    assert not view.is_visible("#explore")
    assert view.locator(".tools").filter(visible=True).count() == 0
    assert view.is_visible("#figures img >> nth=0")
    view.emulate_media(media="screen")
