"""Layer × module heat maps of a survey: flatness, and the excess over the noise null."""

from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize

from cosa_theory.page.heatmap import draw_cells, module_grid

__all__ = ["plot_excess_map", "plot_flatness_map"]


def _number(value: float) -> str:
    if value >= 9.95:
        return f"{value:.0f}"
    return f"{value:.2g}" if value < 0.0995 else f"{value:.1f}" if value >= 1 else f"{value:.2f}"


def _draw(ax: Axes, grid: pd.DataFrame, norm: Normalize, colours: str, label: str) -> Any:
    """Draw the cells with their numbers, and a colour bar, which is returned."""
    ax.set_facecolor("#EFEFEF")
    mesh = draw_cells(ax, grid, norm, colours, most_labels=24)
    bar = ax.figure.colorbar(mesh, ax=ax, pad=0.015, aspect=12, label=label)
    bar.outline.set_visible(False)
    if grid.shape[1] <= 16:  # every number of more would collide with its neighbour
        _write_values(ax, grid.to_numpy(dtype=float), mesh)
    return bar


def _write_values(ax: Axes, values: np.ndarray, mesh: ScalarMappable) -> None:
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = mesh.to_rgba(value)
            dark = 0.2126 * red + 0.7152 * green + 0.0722 * blue < 0.5
            ax.text(
                column + 0.5,
                row + 0.5,
                _number(value),
                ha="center",
                va="center",
                fontsize=7,
                color="white" if dark else "black",
            )


def plot_flatness_map(ax: Axes, layers: pd.DataFrame) -> None:
    """Draw the flatness of each layer's ΔW, the geometric over the arithmetic mean of σ².

    The colour scale is logarithmic from 0.001 to 1, which is a perfectly flat spectrum. Cells
    without a value (zero updates) stay grey.
    """
    grid = module_grid(layers, "flatness")
    # Three decades tell real updates apart; smaller values take the colour of the lowest.
    bar = _draw(ax, grid, LogNorm(1e-3, 1.0), "cividis", "1: flat")
    bar.minorticks_off()
    bar.set_ticks([1e-3, 1e-2, 1e-1, 1.0], labels=["≤ 0.001", "0.01", "0.1", "1"])


def plot_excess_map(ax: Axes, crossover: pd.DataFrame) -> None:
    """Draw the excess of each layer on a logarithmic scale that diverges around 1.

    The excess is the crossover ratio over that of independent noise of the same shape: above 1 the
    top r singular values hold more than those of noise, below 1 the spectrum is flatter than
    noise. The rows are those of one budget; cells without a value (zero updates) stay grey.
    """
    grid = module_grid(crossover, "excess")
    excess = crossover["excess"].astype(float)
    excess = excess[np.isfinite(excess) & (excess > 0)]
    # The same distance on both sides of 1, so that the neutral colour means noise.
    reach = max(2.0, float(np.exp(np.abs(np.log(excess)).max()))) if len(excess) else 2.0
    bar = _draw(ax, grid, LogNorm(1 / reach, reach), "PuOr_r", "")
    bar.set_label("crossover ratio / that of noise\n(below 1: flatter than noise)")
    ticks = np.outer(10.0 ** np.arange(-6, 7), (1, 2, 5)).ravel()
    if reach > 30:
        ticks = ticks[::3]
    inside = [float(tick) for tick in ticks if 1 / reach <= tick <= reach]
    bar.set_ticks(inside, labels=[f"{tick:g}" for tick in inside])
    bar.minorticks_off()
