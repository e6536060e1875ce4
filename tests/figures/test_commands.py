"""Each figure's own command."""

import re
import runpy
import sys
from importlib.util import find_spec

import pytest

from cosa_theory.page.document import Document, write_document
from cosa_theory.studies.spectrum.figures import FIGURES
from figures import audit, layer
from figures.atlas import DRAWING as ATLAS
from figures.command import draw, draw_table
from figures.subspace import DRAWING as SUBSPACE
from tests.studies.spectrum.survey_tables import toy_tables


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    document = Document("spectrum", "A verdict.", (), toy_tables(blocks=1), {})
    return write_document(document, tmp_path_factory.mktemp("stored"))


def written(folder):
    return sorted(path.name for path in folder.iterdir() if path.name != ".cosa-theory.json")


@pytest.mark.parametrize("name", ["captured_energy", "heatmap"])
def test_a_figure_is_written_as_pdf_and_png(name, stored, tmp_path, capsys):
    assert draw(name, [str(stored), "--out", str(tmp_path)]) == 0
    assert written(tmp_path) == [f"{name}.pdf", f"{name}.png"]
    assert capsys.readouterr().out.split() == [str(tmp_path / file) for file in written(tmp_path)]
    assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_has_a_module_with_an_example_in_its_help(name, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [name, "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"figures.{name}", run_name="__main__")
    assert ended.value.code == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert f"example: python -m figures.{name} " in shown


@pytest.mark.parametrize("words", [["decay", "--help"], ["decay"]])
def test_a_figure_of_a_module_of_several_is_told_by_the_words_that_call_it(words, capsys):
    with pytest.raises(SystemExit):
        audit.main(words)
    told = capsys.readouterr()
    said = told.out or told.err
    assert said.startswith("usage: python -m figures.audit decay [-h] --out DIR RESULTS")
    assert "figures.decay" not in said


def test_one_layer_is_drawn_under_its_name(stored, tmp_path):
    assert layer.main([str(stored), "pooler.dense.weight", "--out", str(tmp_path)]) == 0
    assert written(tmp_path) == ["pooler.dense.pdf", "pooler.dense.png"]


def test_a_layer_that_is_not_there_gives_the_nearest_names(stored, tmp_path, capsys):
    assert layer.main([str(stored), "pooler", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: no layer is named 'pooler'")
    assert "pooler.dense.weight" in error


def test_a_folder_without_results_gives_one_plain_line(tmp_path, capsys):
    assert draw("heatmap", [str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {tmp_path} holds no complete results")
    assert not (tmp_path / "out").exists()


def test_a_layer_whose_name_is_longer_than_a_file_may_have_is_drawn(tmp_path):
    name = "\u0304" * 300 + "ℓ" * 120
    tables = {
        key: table.replace({"layer": {"pooler.dense.weight": name}})
        for key, table in toy_tables(blocks=1).items()
    }
    write_document(Document("spectrum", "A verdict.", (), tables, {}), tmp_path / "in")
    assert layer.main([str(tmp_path / "in"), name, "--out", str(tmp_path / "out")]) == 0
    assert len(written(tmp_path / "out")) == 2


@pytest.mark.parametrize(
    ("name", "drawing", "table"),
    [("atlas", ATLAS, "atlas"), ("subspace", SUBSPACE, "subspace_compared")],
)
def test_a_missing_table_names_an_experiment_that_there_is(name, drawing, table, tmp_path, capsys):
    assert draw_table(name, drawing, table, [str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    said = capsys.readouterr().err
    assert f"{table}.parquet is missing" in said
    (module,) = re.findall(r"python -m ([\w.]+)", said)
    assert find_spec(module) is not None


def test_results_with_nothing_to_draw_are_refused(tmp_path, capsys):
    tables = toy_tables(blocks=1)
    tables["families"] = tables["families"][:0]
    write_document(Document("spectrum", "A verdict.", (), tables, {}), tmp_path)
    assert draw("captured_energy", [str(tmp_path), "--out", str(tmp_path / "out")]) == 2
    assert "nothing to draw for the figure captured_energy" in capsys.readouterr().err
