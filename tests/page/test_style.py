"""Figures are the house's alone: no settings of a user and no name change how they are drawn."""

import os
import subprocess
import sys

import matplotlib
import matplotlib.style
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.figure import Figure
from matplotlib.text import Text

from cosa_theory.page.style import as_data_uri, house_style, label_text, log_axis, save_figure

OTHER = {
    **{"text.usetex": True, "font.size": 30, "font.family": "monospace", "figure.dpi": 20},
    **{"savefig.dpi": 7, "savefig.bbox": "tight", "axes.facecolor": "red", "lines.marker": "o"},
    **{"xtick.direction": "in", "legend.loc": "center", "pdf.use14corefonts": True},
    **{"svg.fonttype": "none", "axes.formatter.use_mathtext": True, "text.parse_math": False},
}


def drawn():
    with house_style():
        figure = Figure(figsize=(3, 2), layout="constrained")
        axes = figure.subplots()
        axes.plot([1, 10, 1000], [1, 2, 3], label=r"$\sigma_1$")
        log_axis(axes.xaxis)
        axes.set(title=label_text("$x_1^2$ \\frac{"), ylabel="‖ΔW‖")
        axes.legend()
    return figure


def files(folder):
    uri = as_data_uri(drawn())
    return [path.read_bytes() for path in save_figure(drawn(), folder, "figure")], uri


def test_settings_of_the_user_change_nothing_and_are_not_changed(tmp_path):
    plain = files(tmp_path / "plain")
    with matplotlib.rc_context(OTHER):
        before = dict(matplotlib.rcParams)
        assert files(tmp_path / "other") == plain
        assert dict(matplotlib.rcParams) == before
    with matplotlib.style.context("dark_background"):
        assert files(tmp_path / "dark") == plain


def test_a_figure_is_drawn_where_matplotlib_itself_cannot_be_imported(tmp_path):
    (tmp_path / "matplotlibrc").write_bytes(b"font.size: 30\n\xff\xfe")
    code = (
        "from cosa_theory.page.style import house_style, load_matplotlib, save_figure\n"
        "load_matplotlib()\nfrom matplotlib.figure import Figure\n"
        "with house_style(): figure = Figure(); figure.subplots().plot([1, 2])\n"
        "save_figure(figure, '.', 'figure')\n"
        "import os; assert os.environ['MPLBACKEND'] == 'none of them'"
    )
    environment = os.environ | {"MPLBACKEND": "none of them"}
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    assert (tmp_path / "figure.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", ["$x_1^2$", "a_b^c", r"\frac{", "$", "a$b", r"\$", "$$", "$\\"])
def test_a_name_is_drawn_as_it_is_spelt(name):
    assert Text(0, 0, label_text(name))._preprocess_math(label_text(name)) == (name, False)


@settings(max_examples=50)
@given(st.text(st.characters(exclude_categories=()), max_size=40))
def test_any_name_is_drawn_without_a_formula_or_a_warning(name):
    text, formula = Text()._preprocess_math(label_text(name))
    assert formula is False
    assert text.isprintable()


def test_signs_that_the_font_lacks_are_escaped_and_long_names_cut_in_the_middle():
    assert label_text("层.weight") == r"\u5c42.weight"
    assert label_text("a" * 50 + "b" * 50, 21) == "a" * 10 + "…" + "b" * 10
