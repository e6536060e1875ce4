"""Every figure of small tables: what `test_baselines` compares with the stored pictures.

`python -m tests.figures.toys` draws those again, after a change that was meant; look at them then.
"""

from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.image import imread, imsave

from cosa_theory.deltas import LayerDelta
from cosa_theory.page.presentation import Drawing
from cosa_theory.studies import commands, presentation
from cosa_theory.studies.atlas.pair import atlas_pair
from cosa_theory.studies.informed.figures import INFORMED_FIGURE
from cosa_theory.studies.jl.figures import CURVES_FIGURE, VARIANCE_FIGURE
from cosa_theory.studies.rip.brackets import BRACKETS_FIGURE
from cosa_theory.studies.rip.compute import layer_isometry
from experiments.phase_lines import crossings
from figures.__main__ import committed
from figures.atlas import DRAWING as ATLAS
from figures.subspace import DRAWING as SUBSPACE
from tests.figures import test_atlas, test_subspace
from tests.studies.audit import test_figures as test_audit
from tests.studies.jl.test_in_words import curves
from tests.studies.recovery import test_error_figures, test_phase_figures, test_views
from tests.studies.spectrum.survey_tables import toy_tables

BASELINES = Path(__file__).parent / "baselines"


def coarse(picture, side=12):
    """Return a picture's brightness, averaged over squares: by default from 300 to 25 dots an inch.

    The hinting of letters differs between versions.
    """
    bright = imread(picture)[..., :3].mean(axis=2)
    height, width = (size // side for size in bright.shape)
    cut = bright[: height * side, : width * side]
    return cut.reshape(height, side, width, side).mean(axis=(1, 3))


def distance(one, other):
    """Return the root mean square of the difference of two coarse pictures, 0 to 1."""
    return 1.0 if one.shape != other.shape else float(np.sqrt(((one - other) ** 2).mean()))


def drawn(figure: Figure) -> np.ndarray:
    """Return a figure as a coarse picture."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    buffer.seek(0)
    return coarse(buffer, 4)


def _updates():
    rng = np.random.default_rng(0)
    for block in range(2):
        for module in ("query", "value"):
            update = rng.standard_normal((24, 2)) @ rng.standard_normal((2, 16))
            base = rng.standard_normal((24, 16))
            yield LayerDelta(f"layer.{block}.{module}.weight", update, base)


def _atlas():
    families = ("truncated_svd", "mask", "cosa_gaussian", "ia3", "bitdelta")
    tables = atlas_pair(list(_updates()), budgets=(100, 600, 1500), families=families).document({})
    pooled = tables.tables["pooled"]
    return tables.tables | {"pooled": pooled.assign(recovered=pooled["captured"] ** 0.5)}


def _function():
    stored = committed("real_updates_function")["real_updates_function"]
    rows = stored[stored["pair"] == "sre_encoder"].reset_index(drop=True)
    named = {"domain": "recovered", "domain_low": "low", "domain_high": "high"}
    return {"approximations": rows, "function": rows.rename(columns=named).assign(texts="domain")}


def _brackets():
    rows = [
        {
            **{"structure": structure, "about": about, "kind": kind, "scale": "unit-norm"},
            **{"m": m, "n": m, "a": m // 2, "b": m // 2, "s": s, "status": "done"},
            **{"rows": m * m, "columns": m * m // 4, "vacuous": False},
            **{"lower": 0.1 * s * factor, "upper": 0.2 * s * factor},
        }
        for structure, factor in (("plain", 1.0), ("kronecker", 1.5))
        for about in ("tall", "wide")
        for kind in ("gaussian", "haar")
        for m, orders in ((8, (2,)), (16, (1, 2, 4)))
        for s in orders
    ]
    return pd.DataFrame(rows)


def _variances():
    law = np.geomspace(1e-4, 1e-1, 12)
    variance = law * np.linspace(0.7, 1.3, 12)
    kinds, sources = ["gaussian", "rademacher"] * 6, ["synthetic"] * 6 + ["real ΔW"] * 6
    ratios = {"participation_ratio": np.geomspace(1, 30, 12), "a": 6, "b": 4}
    ends = {"ci_low": 0.8 * variance, "ci_high": 1.2 * variance, "unstructured": law / 3}
    return pd.DataFrame(
        {"law": law, "variance": variance, "kind": kinds, "source": sources, **ratios, **ends}
    )


def _jl():
    return {"curves": curves(), "kronecker": _variances()}


def _isometry():
    return layer_isometry((12, 10), (6, 5), [1, 2], kinds=("gaussian", "haar"))


def _experiments():
    phase = test_phase_figures.toy_table()
    return {
        "phase_transition": phase,
        "phase_lines": crossings(phase),
        "recovery": test_error_figures.whole(),
    }


STUDIES = {
    "atlas": _atlas,
    "audit": test_audit.tables,
    "experiments": _experiments,
    "function": _function,
    "jl": _jl,
    "recover": test_views.tables,
    "rip": _isometry,
    "spectrum": toy_tables,
}
"""What makes the tables of every command that draws."""

EXPERIMENTS = {
    "jl_curves": (CURVES_FIGURE, lambda: {"jl_curves": curves()}),
    "of_updates_atlas": (ATLAS, test_atlas.toy),
    "of_updates_informed": (INFORMED_FIGURE, lambda: committed("informed")),
    "rip_brackets": (BRACKETS_FIGURE, lambda: {"rip_brackets": _brackets()}),
    "subspace": (SUBSPACE, test_subspace.tables),
    "variance_law": (VARIANCE_FIGURE, lambda: {"variance_law": _variances()}),
}
"""Figures of experiments, and what makes their tables."""


@cache
def _of(command):
    return STUDIES[command]()


def drawings() -> dict[str, tuple[Drawing, dict[str, pd.DataFrame]]]:
    """Return every figure by its name, with its tables."""
    found = {
        f"{command}-{name}": (drawing, _of(command))
        for command in commands()
        for name, drawing in presentation(command).drawings().items()
    }
    return found | {name: (drawing, make()) for name, (drawing, make) in EXPERIMENTS.items()}


def main():
    """Draw the stored pictures again."""
    BASELINES.mkdir(exist_ok=True)
    for name, (drawing, tables) in drawings().items():
        imsave(BASELINES / f"{name}.png", drawn(drawing.draw(tables)), cmap="gray", vmin=0, vmax=1)


if __name__ == "__main__":
    main()
