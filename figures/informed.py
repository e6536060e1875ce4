"""Captured energy against budget: informed projections, baselines, nulls, law and low rank.

Example: `python -m figures.informed results/informed --out results/figures`
"""

import sys

from cosa_theory.studies.informed.figures import INFORMED_FIGURE
from figures.command import draw_table

if __name__ == "__main__":
    sys.exit(draw_table("informed", INFORMED_FIGURE, "informed"))
