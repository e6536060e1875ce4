"""Function recovered against captured energy, one point per approximation of the update.

Example: `python -m figures.function results/function --out results/figures`
"""

import sys

from figures.command import draw

if __name__ == "__main__":
    sys.exit(draw("function", command="function"))
