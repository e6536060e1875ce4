"""Captured energy against trainable parameters, one curve per update family.

Example: `python -m figures.captured_energy results/report --out results/figures`
"""

import sys

from figures.command import draw

if __name__ == "__main__":
    sys.exit(draw("captured_energy"))
