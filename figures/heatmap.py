"""Flatness and excess over noise of every layer, module type against block.

Example: `python -m figures.heatmap results/report --out results/figures`
"""

import sys

from figures.command import draw

if __name__ == "__main__":
    sys.exit(draw("heatmap"))
