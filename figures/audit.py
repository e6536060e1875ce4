"""Figures of an audit: outcomes per matrix, participation ratios, decay of the coefficients.

Example: `python -m figures.audit decay results/audit --out results/figures`
"""

import argparse
import sys
from collections.abc import Sequence

from cosa_theory.studies.audit.figures import AUDIT_FIGURES
from figures.command import draw


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw one of the figures; the result is the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m figures.audit",
        description="Draw a figure from the results that `cosa-theory audit --out` stored.",
        epilog="example: python -m figures.audit decay results/audit --out results/figures",
    )
    parser.add_argument("name", choices=list(AUDIT_FIGURES), help="which figure")
    words = sys.argv[1:] if arguments is None else arguments
    name = parser.parse_args(words[:1]).name
    return draw(name, words[1:], command="audit", called=f"audit {name}")


if __name__ == "__main__":
    sys.exit(main())
