"""Singular values of base, tuned and update against their index, one panel per module type.

Example: `python -m figures.spectra results/report --out results/figures`
"""

import sys

from figures.command import draw

if __name__ == "__main__":
    sys.exit(draw("spectra"))
