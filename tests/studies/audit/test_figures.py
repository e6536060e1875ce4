"""The figures of an audit show its tables, whatever is in them."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure

from cosa_theory.page.style import save_figure
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS
from cosa_theory.studies.audit.figures import (
    AUDIT_FIGURES,
    OUTCOMES,
    plot_decay,
    plot_outcomes,
    plot_participation,
)
from cosa_theory.studies.audit.pair import audit_pair
from tests.studies.audit.layers import dense, layer, low_rank


def tables(gradient=True, blocks=3):
    layers = [layer(dense(40, 30, seed=i), f"enc.layer.{i}.q.weight") for i in range(blocks)]
    layers += [layer(low_rank(1, 40, 30, seed=9), "embed.weight")]
    given = {one.name: low_rank(2, 40, 30, seed=3) for one in layers} if gradient else None
    return audit_pair(layers, draws=4, gradients=given).tables


@pytest.fixture(scope="module")
def audited():
    return tables()


@pytest.fixture
def ax():
    return Figure().subplots()


def rows(audited, assumption):
    chosen = audited["assumptions"]
    return chosen[(chosen["assumption"] == assumption) & (chosen["subject"] == "update")]


def marks(ax):
    """Return every mark as (x, y, outcome), known by its marker and colour together."""
    known = {(one.marker, one.colour): name for name, one in OUTCOMES.items()}
    return {
        (float(x), float(y), known[line.get_marker(), line.get_color()])
        for line in ax.lines
        for x, y in zip(*line.get_data(), strict=True)
    }


def test_every_cell_says_its_outcome_by_colour_and_mark_and_its_value(ax, audited):
    chosen = rows(audited, "compressible").assign(
        outcome=["holds", "fails", "undecided", "holds"], value=[0.954, 62_518.0, 158.2, 8.66]
    )
    plot_outcomes(ax, chosen)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["0", "1", "2", "–"]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["q", "embed"]
    expected = {(0.5, 0.25, "holds"), (1.5, 0.25, "fails"), (2.5, 0.25, "undecided")}
    assert marks(ax) == expected | {(3.5, 1.25, "holds")}
    texts = {text.get_position()[0]: text.get_text() for text in ax.texts}
    assert texts == {0.5: "0.95", 1.5: "63k", 2.5: "158", 3.5: "8.66"}
    mesh = ax.collections[0]
    mesh.update_scalarmappable()
    colours = {tuple(colour) for colour in mesh.get_facecolors() if colour[3] > 0}
    assert len(colours) == 3
    assert to_rgba("#FBDCCB") in colours


def test_many_blocks_keep_their_marks_and_lose_their_numbers(ax, audited):
    one = rows(audited, "compressible").iloc[[0]]
    many = pd.concat([one.assign(block=block) for block in range(60)])
    many["block"] = many["block"].astype("Int64")
    plot_outcomes(ax, many)
    assert not ax.texts
    assert len(marks(ax)) == 60
    assert len(ax.get_xticks()) <= 16


def test_the_line_of_participation_ratios_is_where_the_variance_doubles(ax, audited):
    plot_participation(ax, audited["layers"])
    lines = {line.get_label(): line for line in ax.lines}
    x, y = lines["needed: variance doubled"].get_data()
    assert np.array_equal(x, y)
    drawn = {
        tuple(np.round(point, 6))
        for container in ax.containers
        for point in zip(*container.lines[0].get_data(), strict=True)
    }
    layers = audited["layers"]
    expected = zip(layers["participation_needed"], layers["participation_ratio"], strict=True)
    assert drawn == {tuple(np.round(point, 6)) for point in expected}


def test_gaussian_entries_follow_the_dotted_line(ax):
    audit = audit_pair([layer(dense(400, 300))], draws=4)
    plot_decay(ax, audit.decay)
    lines = {line.get_label(): line for line in ax.lines}
    x, gaussian = lines["Gaussian noise"].get_data()
    for label in ("entries", "cosine transform", "singular basis of W"):
        at, error = lines[label].get_data()
        assert np.abs(error - np.interp(at, x, gaussian)).max() < 0.01, label


def test_every_figure_is_drawn_and_saved(audited, tmp_path):
    for name, spec in AUDIT_FIGURES.items():
        assert spec.drawable(audited), name
        figure = spec.draw(audited)
        assert all(path.stat().st_size > 1000 for path in save_figure(figure, tmp_path, name))
    titles = [ax.get_title(loc="left") for ax in AUDIT_FIGURES["assumptions"].draw(audited).axes]
    assert [title.split(":")[0] for title in titles if title] == [
        one.title for one in ASSUMPTIONS.values()
    ]


def test_without_a_gradient_its_figure_is_not_drawn_and_without_numbers_two_are_not():
    drawable = {name for name, spec in AUDIT_FIGURES.items() if spec.drawable(tables(False, 1))}
    assert drawable == {"assumptions", "participation", "decay"}
    zero = audit_pair([layer(np.zeros((40, 30)))], draws=4).tables
    assert {name for name, spec in AUDIT_FIGURES.items() if spec.drawable(zero)} == {"assumptions"}
    AUDIT_FIGURES["assumptions"].draw(zero)
