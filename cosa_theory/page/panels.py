"""Panels of one figure: their grid, their outer labels, and one legend for all."""

from collections.abc import Iterable, Sequence
from typing import Any

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure

__all__ = ["keep_outer_labels", "legend_above", "panels_of"]


def panels_of(figure: Figure, count: int, columns: int, **settings: Any) -> list[Axes]:
    """Return so many panels in rows of `columns`; places that are left over stay empty.

    Further settings are those of `matplotlib.figure.Figure.subplots`.
    """
    axes = list(figure.subplots(-(-count // columns), columns, squeeze=False, **settings).flat)
    for spare in axes[count:]:
        spare.set_axis_off()
    return axes[:count]


def keep_outer_labels(axes: Sequence[Axes], columns: int) -> None:
    """Keep the y label on the left panels and the x label on the lowest ones."""
    for place, ax in enumerate(axes):
        if place % columns:
            ax.set_ylabel("")
        if place + columns < len(axes):
            ax.set_xlabel("")


def legend_above(figure: Figure, axes: Iterable[Axes], columns: int) -> None:
    """Set one legend above all panels: each label once, in the order of first appearance."""
    seen: dict[str, Artist] = {}
    for ax in axes:
        for handle, label in zip(*ax.get_legend_handles_labels(), strict=True):
            seen.setdefault(label, handle)
    figure.legend(
        list(seen.values()), list(seen), loc="outside upper left", ncols=columns, borderpad=0
    )
