"""The variance of Kronecker projections, measured against its law.

Example: `python -m figures.variance_law results/variance_law --out results/figures`
"""

import sys

from cosa_theory.studies.jl.figures import VARIANCE_FIGURE
from figures.command import draw_table

if __name__ == "__main__":
    sys.exit(draw_table("variance_law", VARIANCE_FIGURE, "variance_law"))
