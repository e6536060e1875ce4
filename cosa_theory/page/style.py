"""House style of every figure: sizes, fonts, colours for colour-blind readers, saving."""

import contextlib
import io
import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cosa_theory.ground.files import atomic_path
from cosa_theory.ground.printable import printable, shortened
from cosa_theory.projections import printed_name
from cosa_theory.spectrum import FAMILIES

if TYPE_CHECKING:
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

__all__ = [
    "COLUMN_WIDTH",
    "MATRIX_STYLES",
    "PAGE_WIDTH",
    "Style",
    "as_data_uri",
    "ensemble_style",
    "family_style",
    "house_style",
    "label_text",
    "load_matplotlib",
    "log_axis",
    "save_figure",
]

COLUMN_WIDTH = 3.4  # inches: one column of a two-column paper
PAGE_WIDTH = 7.0  # inches: both columns

# Okabe & Ito (2008), "Color universal design": distinct for every common colour deficiency.
BLACK, GREY = "#000000", "#767676"
ORANGE, SKY, GREEN, YELLOW = "#E69F00", "#56B4E9", "#009E73", "#F0E442"
BLUE, VERMILION, PURPLE = "#0072B2", "#D55E00", "#CC79A7"
WINE, BROWN = "#882255", "#8C564B"  # two more, for informed families

_DOTS = 300  # per inch of a PNG

_RC: dict[Any, Any] = {
    "font.family": "STIXGeneral",  # ships with matplotlib: the same glyphs on every machine
    "mathtext.fontset": "stix",
    "font.size": 9.0,
    "axes.titlesize": 9.0,
    "axes.labelsize": 9.0,
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.titlepad": 4.0,
    "axes.titley": 1.0,  # no search for ticks above, which there are none
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E3E3E3",
    "grid.linewidth": 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "lines.linewidth": 1.3,
    "lines.markersize": 4.0,
    "legend.frameon": False,
    "legend.handlelength": 2.4,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "pdf.fonttype": 42,  # outlines as TrueType: text stays text, which publishers ask for
    "svg.hashsalt": "cosa_theory",  # the same figure gives the same bytes
    "svg.fonttype": "path",
}


@dataclass(frozen=True)
class Style:
    """How one curve is drawn: colour, line and marker together, never colour alone.

    Parameters
    ----------
    label : str
        The name in legends and tables.
    colour, line, marker : str
        In matplotlib's notation.
    """

    label: str
    colour: str
    line: str
    marker: str


# Low rank and cores have styles of their own: data-dependent ones in warm colours, oblivious in
# the others, each in their order.
_WARM = [(VERMILION, "-", "o"), (ORANGE, "--", "s"), (WINE, ":", "*"), (BROWN, "-.", "p")]
_COOL = [
    (BLUE, "-", "^"),
    (SKY, "--", "v"),
    (GREEN, "-.", "D"),
    (PURPLE, ":", "P"),
    (YELLOW, "-", "X"),
    (BLACK, "-.", "<"),
    (GREY, "--", ">"),
    (GREEN, ":", "*"),
    (PURPLE, "--", "p"),
]
_FAMILIES = {
    family: style
    for slots, informed in ((_WARM, True), (_COOL, False))
    for family, style in zip(
        [
            name
            for name, one in FAMILIES.items()
            if one.data_dependent == informed
            and name.startswith(("truncated_svd", "lora_xs", "cosa_"))
        ],
        slots,
        strict=False,
    )
}

MATRIX_STYLES: dict[str, Style] = {
    "base": Style("base W", SKY, "-", ""),
    "tuned": Style("tuned W + ΔW", BLACK, ":", ""),
    "delta": Style("update ΔW", VERMILION, "-", ""),
}


def family_style(family: str) -> Style:
    """Return the style of an update family.

    Parameters
    ----------
    family : str
        A name from `cosa_theory.spectrum.FAMILIES`, whose label is used. One that is not there,
        as in results of another version, is drawn in grey under its own name.

    Returns
    -------
    Style
    """
    label = FAMILIES[family].label if family in FAMILIES else family.replace("_", " ")
    return Style(label, *_FAMILIES.get(family, (GREY, "-", ".")))


def ensemble_style(kind: str) -> Style:
    """Return the style of an ensemble: that of its CoSA family, under the ensemble's own name.

    Parameters
    ----------
    kind : str
        A name from `cosa_theory.projections.ENSEMBLES`; others as for `family_style`.
    """
    return replace(family_style(f"cosa_{kind}"), label=printed_name(kind))


def log_axis(axis: "Axis") -> None:
    """Set an axis to logarithms with plain numbers at 1, 3, 10, 30, …, which few decades need."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})  # type: ignore[attr-defined]
    axis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def load_matplotlib() -> None:
    """Import matplotlib, whatever the user's settings are, which no figure of the house depends on.

    A backend in MPLBACKEND that does not exist, or a matplotlibrc that cannot be read, would keep
    it from being imported at all: only then they are left aside.
    """
    if "matplotlib" in sys.modules:
        return
    logger = logging.getLogger("matplotlib")
    level, before = logger.level, {name: os.environ.get(name) for name in _SETTINGS}
    logger.setLevel(logging.ERROR)  # it would warn of lines that it does not know
    try:
        try:
            import_module("matplotlib.font_manager")  # it looks for a place of its cache
        except Exception:  # whatever reading those settings raises
            for name in [one for one in sys.modules if one.partition(".")[0] == "matplotlib"]:
                del sys.modules[name]  # what was begun
            os.environ |= _SETTINGS
            with contextlib.chdir(os.path.dirname(os.__file__)):  # its first choice is the cwd's
                import_module("matplotlib.font_manager")
    finally:
        logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


_SETTINGS = {"MPLBACKEND": "agg", "MATPLOTLIBRC": os.devnull}


@contextmanager
def house_style() -> Iterator[None]:
    """Apply the house style inside the block, and leave matplotlib as it was.

    The style is complete: what it does not say is as matplotlib ships it, whatever a matplotlibrc
    or the style around the block says.
    """
    load_matplotlib()
    import matplotlib

    shipped: dict[Any, Any] = dict(matplotlib.rcParamsDefault.items())
    shipped.pop("backend")
    with matplotlib.rc_context(shipped | _RC):
        yield


def label_text(name: str, length: int | None = None) -> str:
    """Return a name from outside as the text of a figure: no mathematics, nothing unseen.

    Characters that the font lacks are escaped; of more than `length` the middle is left out.
    """
    drawn = "".join(
        one if ord(one) in _glyphs() else one.encode("unicode_escape").decode()
        for one in printable(name)
    )
    shown = drawn if length is None else shortened(drawn, length)
    return shown.replace("$", r"\$")  # else what stands between two is read as a formula


@cache
def _glyphs() -> Mapping[int, Any]:
    load_matplotlib()
    from matplotlib.font_manager import findfont, get_font

    return get_font(findfont(_RC["font.family"])).get_charmap()


def save_figure(figure: "Figure", folder: str | os.PathLike[str], name: str) -> list[Path]:
    """Write a figure as `name`.pdf and `name`.png (300 dots per inch).

    Parameters
    ----------
    figure : matplotlib.figure.Figure
        The figure.
    folder : path
        Created if it is not there.
    name : str
        File name without its ending.

    Returns
    -------
    list of pathlib.Path
        The PDF and the PNG. Equal figures give equal bytes: no date is stored.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.backends.backend_pdf import FigureCanvasPdf

    pdf, png = (Path(folder) / f"{name}.{ending}" for ending in ("pdf", "png"))
    with _laid_out(figure):
        with atomic_path(pdf) as path:
            FigureCanvasPdf(figure).print_pdf(path, metadata={"CreationDate": None})
        figure.set_dpi(_DOTS)
        with atomic_path(png) as path:
            FigureCanvasAgg(figure).print_png(path, metadata={"Software": None})
    return [pdf, png]


def as_data_uri(figure: "Figure") -> str:
    """Return the figure as an SVG data URI, for a page that needs no other file."""
    from matplotlib.backends.backend_svg import FigureCanvasSVG

    buffer = io.BytesIO()
    with _laid_out(figure):
        FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None})
    svg = buffer.getvalue().decode().replace('"', "'")
    svg = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    # Hundredths of a point are seen by nobody, and make up most of a figure of many curves.
    svg = re.sub(r" d='[^']*'", lambda path: re.sub(r"(\.\d\d)\d+", r"\1", path[0]), svg)
    return "data:image/svg+xml," + quote(svg, safe=" =:/,;()'.-!?@+*")


@contextmanager
def _laid_out(figure: "Figure") -> Iterator[None]:
    """Place the axes once and for all, for `savefig` would do it again for every format.

    The canvases are called directly, because `savefig` draws everything twice.
    """
    with house_style():
        engine = figure.get_layout_engine()
        if engine is not None:
            figure.set_dpi(_DOTS)
            engine.execute(figure)
            figure.set_layout_engine("none")
        yield
