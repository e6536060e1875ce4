"""Figures as a reader meets them: nothing cut off, nothing overlapping, always the same bytes."""

import itertools

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from cosa_theory.page.style import BLACK, GREY, as_data_uri, family_style, house_style, save_figure
from cosa_theory.studies.spectrum.figures import (
    FIGURES,
    captured_figure,
    layer_figure,
    spectra_figure,
)
from cosa_theory.studies.spectrum.pair import SURVEYED
from tests.studies.spectrum.survey_tables import toy_tables

LAYER = "encoder.layer.1.attention.self.query.weight"
ZERO_AND_FLAT = {"zero_layer": LAYER, "flat_module": "output.dense"}


@pytest.fixture
def drawn(monkeypatch):
    """The texts that reach the paper, with their boxes in pixels, as they are drawn."""
    texts = []
    draw = Text.draw

    def recorded(self, renderer):
        draw(self, renderer)
        if self.get_visible() and self.get_text().strip():
            texts.append((self.get_text(), self.get_window_extent(renderer)))

    monkeypatch.setattr(Text, "draw", recorded)
    return texts


@pytest.mark.parametrize(
    ("name", "case"),
    [
        ("captured_energy", ZERO_AND_FLAT),
        ("cumulative_energy", {"blocks": 33}),
        ("heatmap", {"blocks": 33}),
        ("heatmap", ZERO_AND_FLAT),
        ("spectra", ZERO_AND_FLAT),
    ],
)
def test_no_text_is_cut_off_or_overlaps_another(name, case, drawn):
    figure = FIGURES[name].draw(toy_tables(**case))
    with house_style():
        FigureCanvasAgg(figure).draw()
    assert len(drawn) > 20
    for text, box in drawn:
        assert box.x0 >= -1, text
        assert box.y0 >= -1, text
        assert box.x1 <= figure.bbox.x1 + 1, text
        assert box.y1 <= figure.bbox.y1 + 1, text
    for (first, one), (second, other) in itertools.combinations(drawn, 2):
        apart = (
            one.x1 <= other.x0 + 1
            or other.x1 <= one.x0 + 1
            or one.y1 <= other.y0 + 1
            or other.y1 <= one.y0 + 1
        )
        assert apart, f"{first!r} and {second!r} overlap"


def test_a_figure_without_anything_to_draw_is_left_out():
    tables = toy_tables(blocks=1)
    nothing = {name: table[:0] for name, table in tables.items()}
    assert not any(figure.drawable(nothing) for figure in FIGURES.values())
    few = tables | {name: nothing[name] for name in ("spectra", "families")}
    assert [name for name, figure in FIGURES.items() if figure.drawable(few)] == ["heatmap"]


def test_without_a_law_there_is_nothing_to_compare_with_it():
    tables = toy_tables(blocks=1)
    assert len(captured_figure(tables).axes) == 2
    families = tables["families"]
    svd = families[families["family"] == "truncated_svd"]
    assert len(captured_figure(tables | {"families": svd}).axes) == 1


def test_panels_split_a_module_by_shape():
    tables = toy_tables(blocks=2)
    tables["layers"].loc[tables["layers"]["layer"] == LAYER, "m"] = 12
    titles = [ax.get_title(loc="left") for ax in spectra_figure(tables).axes]
    query = [title for title in titles if title.startswith("attention.self.query")]
    assert [title.split("\n")[1] for title in query] == ["24 × 24", "12 × 24"]


def test_a_layer_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="no layer is named 'nothing'"):
        layer_figure(toy_tables(blocks=1), "nothing")


def test_equal_tables_give_equal_bytes(tmp_path):
    def written(folder):
        figure = layer_figure(toy_tables(blocks=1), "pooler.dense.weight")
        paths = save_figure(figure, tmp_path / folder, "layer")
        return [path.read_bytes() for path in paths], as_data_uri(figure)

    assert written("a") == written("b")


def test_the_house_style_is_put_back():
    before = matplotlib.rcParams.copy()
    with house_style():
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert matplotlib.rcParams == before


def test_families_differ_by_line_or_marker_as_well_as_by_colour():
    styles = [family_style(family) for family in SURVEYED]
    assert len({(style.line, style.marker) for style in styles}) == len(styles)
    assert len({style.colour for style in styles}) == len(styles)
    assert len({style.label for style in styles}) == len(styles)


def test_a_family_of_another_version_is_drawn_under_its_own_name():
    style = family_style("some_new_family")
    assert (style.label, style.colour) == ("some new family", GREY)
    assert style.colour != BLACK
