"""Figures of an audit: outcomes per matrix, participation ratios, decay of the coefficients.

Example: `python -m figures.audit decay results/audit --out results/figures`
"""

import argparse
import sys

from cosa_theory.studies.audit.figures import AUDIT_FIGURES
from figures.command import draw


def main(arguments: list[str] | None = None) -> int:
    """Draw one of the figures; the result is the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m figures.audit",
        description="Draw a figure from the results that `cosa-theory audit --out` stored.",
        epilog="example: python -m figures.audit decay results/audit --out results/figures",
    )
    parser.add_argument("name", choices=list(AUDIT_FIGURES), help="which figure")
    chosen, rest = parser.parse_known_args(arguments)
    return draw(chosen.name, rest, command="audit")


if __name__ == "__main__":
    sys.exit(main())
