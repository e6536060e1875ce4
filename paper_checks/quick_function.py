"""The quick study of function: what the report leads with and C4 judges, measured once."""

from functools import lru_cache
from pathlib import Path

from cosa_theory.ground.progress import progress_bar
from cosa_theory.studies.function.pair import Function, function_pair
from experiments.pairs import PAIRS

__all__ = ["CELLS", "PAIR", "RANK", "quick_function"]

PAIR = PAIRS["sre_encoder"]
"""An update that others trained, with texts of its domain."""
RANK = 8
CELLS = Path("results/function_check/cells")

_APPROXIMATIONS = (
    "svd",
    "best_core_gaussian",
    "adjoint_gaussian",
    "best_core_haar",
    "adjoint_haar",
    "mask_rescaled",
    "remainder",
    "exact",
    "noise",
    "shuffled",
)


@lru_cache(maxsize=1)
def quick_function(seed: int = 0) -> Function:
    """Measure a handful of approximations at one budget; finished ones are kept in `CELLS`."""
    assert PAIR.domain is not None
    with progress_bar("approximations") as advance:
        return function_pair(
            *PAIR.paths(),
            texts=PAIR.domain(),
            ranks=(RANK,),
            approximations=_APPROXIMATIONS,
            seed=seed,
            cells=CELLS,
            progress=advance,
        )
