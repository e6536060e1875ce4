"""Charts that follow their reader's choices: what a study declares, as Vega-Lite and JSON.

Vega-Lite, because its whole runtime is one file of 0.9 MB that pip installs (plotly's package has
5 MB in one piece, more than a page may weigh), draws SVG in the colours of the page, and evaluates
its expressions without `eval`, so that a page can forbid every request and every foreign script.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pandas as pd

from cosa_theory.ground.printable import printable

if TYPE_CHECKING:
    import altair as alt

__all__ = ["CONFIG", "Chart", "Choice", "Explorer", "script_json", "short_records"]

CONFIG: dict[str, Any] = {
    # What has no colour of its own takes that of the page's text, light or dark.
    "background": "transparent",
    "font": "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, 'DejaVu Sans'",
    "view": {"stroke": "transparent"},
    "axis": {
        "domainColor": "#8888",
        "gridColor": "#8883",
        "labelColor": "currentColor",
        "labelFontSize": 11,
        "tickColor": "#8888",
        "titleColor": "currentColor",
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "legend": {
        "labelColor": "currentColor",
        "labelFontSize": 11,
        "labelLimit": 260,
        "titleColor": "currentColor",
        "titleFontSize": 12,
        "titleFontWeight": "normal",
    },
    "text": {"color": "currentColor"},
    "rule": {"color": "currentColor"},
}
"""The house style of charts, as Vega-Lite's config."""


@dataclass(frozen=True)
class Choice:
    """What a reader chooses: a parameter of all charts, and a field of their rows.

    Parameters
    ----------
    name : str
        Of both.
    label : str
        What the reader sees before it.
    options : mapping
        The values, each with its label.
    chosen : str or int
        The value to begin with.
    within : str
        The name of another choice that narrows this one, and
    places : sequence of str
        the value of that other one under which each option is offered.
    """

    name: str
    label: str
    options: Mapping[Any, str]
    chosen: str | int
    within: str = ""
    places: Sequence[str] = ()


@dataclass(frozen=True)
class Chart:
    """One chart.

    Parameters
    ----------
    title, about : str
        In plain words.
    draw : callable
        An `altair` chart of named data: a table of the explorer. It has a parameter for every
        choice that it follows.
    wide : bool
        Whether it takes the whole width of the page.
    """

    title: str
    about: str
    draw: "alt.Chart | alt.LayerChart"
    wide: bool = False


@dataclass(frozen=True)
class Explorer:
    """The interactive part of a page.

    Parameters
    ----------
    choices : sequence of Choice
        In the order of the page.
    charts : sequence of Chart
        Two of them stand side by side where there is room.
    tables : mapping of str to list of dict
        Their data by name, as `short_records` makes them.
    told : str
        The table whose row, among those that agree with every choice, is told in words: its field
        "says".
    """

    choices: Sequence[Choice]
    charts: Sequence[Chart]
    tables: Mapping[str, list[dict[str, Any]]] = field(default_factory=dict)
    told: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return everything that the page's script needs."""
        return {
            "choices": [
                {"name": one.name, "options": list(one.options), "chosen": one.chosen}
                for one in self.choices
            ],
            "charts": [_spec(one) for one in self.charts],
            "tables": dict(self.tables),
            "told": self.told,
            "config": CONFIG,
        }


def _spec(chart: Chart) -> dict[str, Any]:
    spec: dict[str, Any] = chart.draw.to_dict()
    spec.pop("config", None)  # altair's own default
    return spec | {"description": f"{chart.title}. {chart.about}"}


def short_records(table: pd.DataFrame | Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return rows for a page: numbers with four digits, null where there is none, text seen."""
    rows = table.to_dict("records") if isinstance(table, pd.DataFrame) else table
    return [{str(name): _short(value) for name, value in row.items()} for row in rows]


def _short(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_short(one) for one in value]
    if isinstance(value, str):
        return printable(value)
    if hasattr(value, "item"):
        value = value.item()
    if isinstance(value, float):
        return float(f"{value:.4g}") if math.isfinite(value) else None
    return None if value is pd.NA or value is None else value


def script_json(value: Any) -> str:
    """Return JSON that cannot end the script element it stands in, nor begin another."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
