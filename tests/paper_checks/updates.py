"""Small updates for tests of the checks, and a study of function whose numbers are chosen."""

import numpy as np
import pandas as pd

from cosa_theory.deltas import LayerDelta
from cosa_theory.projections import make_projection, stream
from cosa_theory.studies.function.pair import Function
from cosa_theory.studies.function.tables import PREDICTION_COLUMNS


def layer(delta, name="encoder.layer.0.attention.self.query.weight"):
    return LayerDelta(name, np.asarray(delta, dtype=np.float32), np.zeros_like(delta))


def decaying(m, n, name="decaying"):
    """An update like a real one: a few directions and a small floor."""
    generator = stream(0, "test", name, m, n)
    low_rank = generator.standard_normal((m, 3)) @ generator.standard_normal((3, n))
    return layer(1e-4 * (low_rank + 0.05 * generator.standard_normal((m, n))), name)


def flat(m, n, name="flat"):
    long, short = max(m, n), min(m, n)
    rows = np.asarray(make_projection("haar", short, long, seed=1, scale="synthesis"))
    return layer(rows.T if m > n else rows, name)


LAYERS = [decaying(64, 48, "one"), decaying(40, 80, "two")]
ZERO = layer(np.zeros((32, 32)), "zero")


RETURNED = {
    "svd": 0.98,
    "best_core_gaussian": 0.03,
    "adjoint_gaussian": 0.81,
    "best_core_haar": 0.03,
    "adjoint_haar": 0.86,
    "mask_rescaled": 0.97,
    "exact": 1.0,
    "noise": 0.0,
    "shuffled": -0.001,
}


def studied(gained=0.02, width=0.01, **changes):
    """Return a study at rank 8 on two sets of texts, where the domain's return `RETURNED`.

    General texts return a tenth less, q times an adjoint returns `gained` more.
    """
    rows = []
    for name, value in (RETURNED | changes).items():
        ranks = (
            [2, 8] if name == "svd" else [None] if name in ("exact", "noise", "shuffled") else [8]
        )
        for rank in ranks:
            key = {"approximation": name, "label": name, "group": "control", "rank": rank}
            rows.append(key | {"gain": 1.0, "recovered": 0.5 if rank == 2 else value})
            if name.startswith(("adjoint", "mask")):
                rows.append(key | {"gain": 0.8, "recovered": value + gained})
    table = pd.DataFrame(rows).astype({"rank": "Int64"})
    adjoint = table["approximation"].str.startswith("adjoint")
    energy = np.where(adjoint, -32.0 * table["gain"] ** 2, 0.031)
    parts = [table.assign(texts="domain"), table.assign(texts="general")]
    parts[1]["recovered"] -= 0.1 * (parts[1]["recovered"] < 0.99) * (parts[1]["recovered"] > 0.1)
    function = pd.concat(parts).sort_index(kind="stable")
    function = function.assign(
        low=function["recovered"] - width * (function["recovered"] < 0.99),
        high=function["recovered"] + width,
    )
    approximations = table.drop(columns="recovered").assign(energy=energy, energy_law=energy)
    listed = approximations.assign(numbers=1000, bits=16_000.0, weighted=energy)
    unknown = dict.fromkeys(("loss_recovered", "divergence"), np.nan)
    prediction = pd.DataFrame(columns=[*PREDICTION_COLUMNS])
    return Function(listed, function.assign(**unknown), pd.DataFrame({"layer": []}), prediction)
