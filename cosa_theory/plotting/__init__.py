"""House style and every drawing: functions that take an Axes and a table, and return the Axes."""

from cosa_theory.plotting.budgets import at_budget, common_budgets, middle_budget
from cosa_theory.plotting.families import plot_captured_energy, plot_law_ratio, pool_families
from cosa_theory.plotting.figures import (
    FIGURES,
    SurveyTables,
    captured_figure,
    cumulative_figure,
    draw_figures,
    heatmap_figure,
    layer_figure,
    module_types,
    spectra_figure,
)
from cosa_theory.plotting.heatmap import plot_crossover_map, plot_flatness_map
from cosa_theory.plotting.spec import Drawing, FigureSpec
from cosa_theory.plotting.spectra import plot_cumulative_energy, plot_spectrum
from cosa_theory.plotting.style import (
    COLUMN_WIDTH,
    PAGE_WIDTH,
    as_data_uri,
    family_style,
    house_style,
    save_figure,
)

__all__ = [
    "COLUMN_WIDTH",
    "FIGURES",
    "PAGE_WIDTH",
    "Drawing",
    "FigureSpec",
    "SurveyTables",
    "as_data_uri",
    "at_budget",
    "captured_figure",
    "common_budgets",
    "cumulative_figure",
    "draw_figures",
    "family_style",
    "heatmap_figure",
    "house_style",
    "layer_figure",
    "middle_budget",
    "module_types",
    "plot_captured_energy",
    "plot_crossover_map",
    "plot_cumulative_energy",
    "plot_flatness_map",
    "plot_law_ratio",
    "plot_spectrum",
    "pool_families",
    "save_figure",
    "spectra_figure",
]
