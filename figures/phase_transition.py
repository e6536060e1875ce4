"""Success of ℓ1 recovery over undersampling and sparsity, with the 50 % lines beside the theory.

Example: `python -m figures.phase_transition results/phase_transition --out results/figures`
"""

import dataclasses
import sys

from cosa_theory.studies.recovery.phase_figures import PHASE_FIGURE
from experiments.phase_lines import crossings
from figures.command import draw_table

# The lines are fitted here, from the table alone, so that no stored number stands between.
FIGURE = dataclasses.replace(
    PHASE_FIGURE,
    draw=lambda tables: PHASE_FIGURE.draw(
        {**tables, "phase_lines": crossings(tables["phase_transition"])}
    ),
)

if __name__ == "__main__":
    sys.exit(draw_table("phase_transition", FIGURE, "phase_transition"))
