"""Share of the update's energy in its largest singular values, one curve per layer.

Example: `python -m figures.cumulative_energy results/report --out results/figures`
"""

import sys

from figures.command import draw

if __name__ == "__main__":
    sys.exit(draw("cumulative_energy"))
