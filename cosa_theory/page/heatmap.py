"""Layer × module heat maps: one cell per matrix."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.colors import Colormap, Normalize

from cosa_theory.page.style import label_text

__all__ = ["OUTSIDE", "draw_cells", "module_grid"]

OUTSIDE = "–"  # the column of matrices that belong to no numbered block


def module_grid(table: pd.DataFrame, column: str) -> pd.DataFrame:
    """Arrange one value per (module, block); matrices outside the blocks share a column."""
    rows = table.assign(
        block=table["block"].astype("Int64").astype("string").fillna(OUTSIDE),
        value=table[column].astype(float),
    )
    grid = rows.pivot_table(
        index="module", columns="block", values="value", aggfunc="median", sort=False, dropna=False
    )
    numbered = sorted((name for name in grid.columns if name != OUTSIDE), key=int)
    order = numbered + [name for name in grid.columns if name == OUTSIDE]
    # Modules inside the blocks first, so that the column outside them stays a tidy corner.
    inside = grid[numbered].notna().any(axis=1) if numbered else pd.Series(False, grid.index)
    return grid.loc[[*grid.index[inside], *grid.index[~inside]], order]


def draw_cells(
    ax: Axes, grid: pd.DataFrame, norm: Normalize, colours: str | Colormap, most_labels: int
) -> QuadMesh:
    """Draw one coloured cell per value, with the names of modules and blocks.

    Parameters
    ----------
    ax : matplotlib.axes.Axes
        Where to draw.
    grid : pandas.DataFrame
        As `module_grid` makes it; cells without a value show the ground.
    norm, colours
        From values to colours.
    most_labels : int
        Of blocks; with more blocks, every second, third, … is named.

    Returns
    -------
    matplotlib.collections.QuadMesh
        The cells: vectors, not an image, so that they are crisp at any size.
    """
    values = np.ma.masked_invalid(grid.to_numpy(dtype=float))
    mesh = ax.pcolormesh(values, norm=norm, cmap=colours, edgecolors="white", linewidth=0.6)
    ax.set_yticks(np.arange(len(grid)) + 0.5, [label_text(str(name), 34) for name in grid.index])
    every = -(-grid.shape[1] // most_labels)
    ax.set_xticks(np.arange(0, grid.shape[1], every) + 0.5, list(grid.columns)[::every])
    ax.invert_yaxis()
    ax.tick_params(length=0)
    ax.grid(visible=False)
    for spine in ax.spines.values():
        spine.set_visible(False)
    ax.set_xlabel(f"block ({OUTSIDE}: outside the blocks)" if OUTSIDE in grid else "block")
    return mesh
