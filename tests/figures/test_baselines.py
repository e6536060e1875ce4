"""Every figure looks as it did, for tables that do not change."""

import pytest
from matplotlib.image import imread

from tests.figures.toys import BASELINES, distance, drawings, drawn

NAMES = sorted(path.stem for path in BASELINES.glob("*.png"))
LIMIT = 0.003  # rounding of the stored picture alone is 0.001


def test_every_figure_has_a_stored_picture():
    assert set(drawings()) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_figure_looks_as_it_did_and_missing_data_show(name):
    stored = imread(BASELINES / f"{name}.png")[..., 0]
    drawing, tables = drawings()[name]
    figure = drawing.draw(tables)
    assert distance(drawn(figure), stored) < LIMIT
    fullest = max(figure.axes, key=lambda ax: len(ax.lines) + len(ax.collections))
    for part in (*fullest.collections, *fullest.lines):
        part.remove()
    assert distance(drawn(figure), stored) > LIMIT
