"""How often projections of every ensemble fail, one panel per kind of vector.

Example: `python -m figures.jl_curves results/jl_curves --out results/figures`
"""

import sys

from cosa_theory.studies.jl.figures import CURVES_FIGURE
from figures.command import draw_table

if __name__ == "__main__":
    sys.exit(draw_table("jl_curves", CURVES_FIGURE, "jl_curves"))
