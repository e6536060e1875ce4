"""The committed pictures are what the committed tables draw."""

from pathlib import Path

from cosa_theory.page.document import write_document
from cosa_theory.page.style import save_figure
from cosa_theory.studies.informed.figures import INFORMED_FIGURE
from figures.__main__ import committed, main, sources
from figures.atlas import DRAWING as ATLAS
from tests.figures import toys
from tests.studies.spectrum.survey_page import toy_document

PICTURES = Path("figures/pictures")


def distance(one, other):
    """Return how different two pictures are, 0 to 1."""
    return toys.distance(toys.coarse(one), toys.coarse(other))


def test_the_picture_of_informed_projections_is_that_of_its_table(tmp_path):
    tables = committed("informed")
    _, picture = save_figure(INFORMED_FIGURE.draw(tables), tmp_path, "informed")
    assert distance(picture, PICTURES / "informed.png") < 0.005
    table = tables["informed"]
    fewer = {"informed": table[table["basis"] != "weights"]}
    _, other = save_figure(INFORMED_FIGURE.draw(fewer), tmp_path, "other")
    assert distance(other, PICTURES / "informed.png") > 0.01  # one curve of eight is missing


def test_the_picture_of_the_atlas_is_that_of_its_tables(tmp_path):
    tables = committed("atlas", "atlas_leads")
    _, picture = save_figure(ATLAS.draw(tables), tmp_path, "atlas")
    assert distance(picture, PICTURES / "atlas.png") < 0.005
    doubled = tables["atlas"].assign(captured=lambda rows: 2 * rows["captured"])
    _, other = save_figure(ATLAS.draw(tables | {"atlas": doubled}), tmp_path, "other")
    assert distance(other, PICTURES / "atlas.png") > 0.01


def test_all_figures_of_stored_results_are_drawn_and_others_are_named_with_their_command(
    tmp_path, capsys
):
    document = toy_document(blocks=1)
    write_document(document, tmp_path / "report")
    assert main(["--results", str(tmp_path), "--out", str(tmp_path / "out")]) == 0
    names = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert names == {
        "atlas",
        "informed",
        "subspace",
        "captured_energy",
        "cumulative_energy",
        "heatmap",
        "spectra",
    }
    said = capsys.readouterr().err
    missing = {one.name for one in sources(tmp_path) if not one.stored.is_file()}
    assert all(f"not drawn: {name}, " in said for name in missing)
    assert "python -m experiments.rip_brackets" in said
