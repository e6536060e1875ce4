"""What comes back of an update from its core, synthetic and real.

Example: `python -m figures.recovery results/recovery --out results/figures`
"""

import sys

from cosa_theory.studies.recovery.error_figures import RECOVERY_FIGURE
from figures.command import draw_table

if __name__ == "__main__":
    sys.exit(draw_table("recovery", RECOVERY_FIGURE, "recovery"))
