"""Pieces of the charts of explorers: what follows a reader's choices, and the map of all layers."""

from collections.abc import Mapping
from typing import Any

import altair as alt
import pandas as pd

from cosa_theory.ground.printable import printable
from cosa_theory.page.heatmap import OUTSIDE

__all__ = ["CHOSEN_LAYER", "followed", "layer_map", "module_axis"]

CHOSEN_LAYER: dict[str, Any] = {
    "stroke": alt.condition("datum.layer == layer", alt.value("currentColor"), alt.value(None)),
    "strokeWidth": alt.condition("datum.layer == layer", alt.value(3), alt.value(0)),
    "opacity": alt.condition(
        "module == '' || datum.module == module", alt.value(1), alt.value(0.25)
    ),
}
"""Encodings of a map whose chosen layer is outlined, and other types of modules faint."""


def followed(name: str, start: Mapping[str, Any], *params: str, height: int = 260) -> alt.Chart:
    """Return a chart of one table that follows these choices, which begin with `start`."""
    chart = alt.Chart(alt.NamedData(name), width="container", height=height)
    return chart.add_params(*(alt.param(name=one, value=start[one]) for one in params))


def layer_map(
    name: str, grid: pd.DataFrame, start: Mapping[str, Any], *params: str, module: str = "module"
) -> alt.Chart:
    """Return a map of all layers, module type against block, whose cells can be clicked.

    Parameters
    ----------
    name : str
        The table, with columns `block` and the one of the module types.
    grid : pandas.DataFrame
        As `cosa_theory.page.heatmap.module_grid` lays the layers out.
    start, *params
        As for `followed`.
    module : str
        The column of the module types.
    """
    height = max(160, 22 * len(grid) + 10)
    chart = followed(name, start, *params, height=height).mark_rect(cursor="pointer")
    blocks = alt.X("block:N", sort=list(grid.columns), title=f"block ({OUTSIDE}: outside)")
    return chart.encode(blocks.axis(labelAngle=0, labelOverlap=True), module_axis(grid, module))


def module_axis(grid: pd.DataFrame, module: str = "module") -> alt.Y:
    """Return the axis of module types, in the order of a grid."""
    order = [printable(str(one)) for one in grid.index]
    return alt.Y(f"{module}:N", sort=order, title=None).axis(labelLimit=170)
