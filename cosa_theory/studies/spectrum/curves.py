"""Singular value spectra: σ against index, and the energy of ΔW held by the largest ones."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import Colormap
from matplotlib.ticker import MaxNLocator, NullFormatter, NullLocator, StrMethodFormatter

from cosa_theory.page.style import BLACK, BLUE, GREY, MATRIX_STYLES
from cosa_theory.spectrum.families.null import noise_top_share
from cosa_theory.studies.spectrum.verdict import LARGEST_MISFIT

__all__ = ["plot_cumulative_energy", "plot_spectrum"]


def _across_blocks(rows: pd.DataFrame) -> pd.DataFrame:
    """Return median, least and largest σ at each index, and whether most of them are resolved."""
    grouped = rows.groupby("index")
    table = grouped["sigma"].agg(["median", "min", "max"])
    table["resolved"] = grouped["resolved"].mean() > 0.5
    return table.sort_index()


def _positive(values: pd.Series) -> np.ndarray:
    """Return the values with zeros as gaps: a logarithmic axis has no place for them."""
    array = values.to_numpy(dtype=float)
    return np.where(array > 0, array, np.nan)


def plot_spectrum(ax: Axes, spectra: pd.DataFrame, layers: pd.DataFrame | None = None) -> None:
    """Draw σ against its index on a logarithmic axis, for the base, the tuned matrix and ΔW.

    `spectra` has the columns matrix ("base", "tuned" or "delta"), index (from 1), sigma (in the
    units of the weights), resolved (bool). Where it holds several layers, the line is the median
    over layers at each index and the band their range. Indices where most values of ΔW lie below
    the numerical resolution are shaded; nothing is drawn for them.

    `layers` (columns rounding_edge, mp_edge, noise_misfit) adds medians as horizontal lines: of the
    largest singular value that rounding of the stored type alone would give, and of the
    Marchenko-Pastur edge of the noise floor fitted to ΔW, over the layers whose tail is like such
    noise (a misfit of at most 0.1).
    """
    lowest, highest = np.inf, 0.0
    for matrix, style in MATRIX_STYLES.items():
        rows = spectra[spectra["matrix"] == matrix]
        if rows.empty:
            continue
        table = _across_blocks(rows)
        index, resolved = table.index.to_numpy(), table["resolved"].to_numpy()
        ax.fill_between(
            index,
            _positive(table["min"]),
            _positive(table["max"]),
            where=resolved,
            color=style.colour,
            alpha=0.15 if matrix == "tuned" else 0.25,
            linewidth=0,
        )
        line = np.where(resolved, _positive(table["median"]), np.nan)
        ax.plot(
            index,
            line,
            color=style.colour,
            ls=style.line,
            # The tuned spectrum lies on the base's: a thin line over a thick one shows both.
            lw=3.0 if matrix == "base" else 1.3,
            marker="o" if len(index) < 12 else None,  # a line through two points is hard to see
            ms=3.0,
            label=style.label,
        )
        if matrix == "delta" and not resolved.all():
            first, end = index[~resolved].min() - 0.5, index.max() + 0.5  # zeros included
            ax.axvspan(first, end, color="#ECECEC", lw=0, label="ΔW below the resolution")
        seen = line[np.isfinite(line)]
        lowest, highest = min(lowest, *seen, np.inf), max(highest, *seen, 0.0)
    ax.set_yscale("log")
    ax.yaxis.set_minor_locator(NullLocator())
    ax.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    if layers is not None and highest > 0:
        _draw_floors(ax, layers, lowest)
    ax.set_xlim(left=0)
    ax.set(xlabel="index i of the singular value", ylabel=r"$\sigma_i$ (units of the weights)")


def _draw_floors(ax: Axes, layers: pd.DataFrame, lowest: float) -> None:
    """Draw the rounding edge and the noise edge, where they are not far below every value."""
    noise = layers.loc[layers["noise_misfit"] <= LARGEST_MISFIT, "mp_edge"]
    floors = (
        (noise, "edge of the fitted noise floor", BLUE, (0, (5, 2))),
        (layers["rounding_edge"], "edge of pure rounding noise", BLACK, (0, (1, 1.5))),
    )
    for edges, label, colour, dashes in floors:
        values = edges.dropna().astype(float)
        if values.empty or values.median() <= 0:
            continue
        if values.median() >= lowest / 100:
            ax.axhline(values.median(), color=colour, lw=0.9, ls=dashes, label=label)


def plot_cumulative_energy(
    ax: Axes, spectra: pd.DataFrame, m: int, n: int, colours: Colormap | None = None
) -> None:
    """Draw the share of ‖ΔW‖²_F held by the i largest singular values, against i.

    The dashed line i(m + n)/(mn) is what a CoSA core with as many trainable parameters as rank i
    captures on average: where a curve lies above it, low rank wins. The dash-dotted curve is
    independent noise, the dotted line i/min(m, n) a perfectly flat spectrum. One curve per layer
    of the shape m × n, from the rows of ΔW; zero updates have no shares and are left out. `colours`
    maps the depth of a block, from 0 to 1 over the table, to a colour.
    """
    rows = spectra[spectra["matrix"] == "delta"]
    blocks = rows["block"].dropna()
    first, last = (int(blocks.min()), int(blocks.max())) if len(blocks) else (0, 0)
    for _, layer in rows.groupby("layer", sort=False):
        ordered = layer.sort_values("index")
        energy = ordered["sigma"].to_numpy(dtype=float) ** 2
        if not energy.sum() > 0:
            continue
        block = ordered["block"].iloc[0]
        colour: str | tuple[float, ...] = BLACK
        if colours is not None and pd.notna(block):
            colour = colours((int(block) - first) / max(last - first, 1))
        share = np.cumsum(energy) / energy.sum()
        ax.plot(ordered["index"], share, color=colour, lw=1.0, solid_capstyle="round")
    index = np.linspace(1, min(m, n), 400)
    ax.plot(index, index / min(m, n), color=GREY, ls=":", lw=1.0, label="flat spectrum")
    ranks = np.unique(np.geomspace(1, min(m, n), 60).astype(int)).tolist()
    noise = [noise_top_share(m, n, rank) for rank in ranks]
    ax.plot(ranks, noise, color=GREY, ls="-.", lw=1.2, label="noise")
    equal = index * (m + n) / (m * n)
    inside = equal <= 1
    ax.plot(index[inside], equal[inside], color=BLUE, ls="--", lw=1.2, label="CoSA, equal size")
    ax.set_xscale("log")
    if min(m, n) < 10:
        ax.set_xticks(sorted({1, min(m, n)}))
    ax.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set(xlim=(1, max(min(m, n), 2)), ylim=(0, 1.02))
    ax.set(xlabel="number i of singular values", ylabel="share of ‖ΔW‖²")
