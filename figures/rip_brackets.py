"""Brackets of restricted isometry constants against order and shape, one row for each ensemble.

Example: `python -m figures.rip_brackets results/rip_brackets --out results/figures`
"""

import sys

from cosa_theory.studies.rip.brackets import BRACKETS_FIGURE
from figures.command import draw_table

if __name__ == "__main__":
    sys.exit(draw_table("rip_brackets", BRACKETS_FIGURE, "rip_brackets"))
