"""C4: whether real updates survive being encoded into a small core and decoded again."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import CosaBasis, laws
from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.estimates import mean_interval
from cosa_theory.projections import make_projection
from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.budget import cosa_shape, default_ranks, lora_parameters
from paper_checks.base import (
    Case,
    Check,
    Claim,
    counts,
    exceptions,
    failed_controls,
    percent,
    spread,
)
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

# The spread over draws falls with the size of a layer, and the cost rises with it.
DRAWS, DRAWS_LARGE, LARGE = 4, 2, 4_000_000
REAL, LAW = "real update", "energy law"

CLAIM = Claim(
    id="C4",
    claim="A weight update can be encoded into a core much smaller than itself and mapped back "
    "without losing what matters.",
    source="abstract",
    method="By energy: every matrix of a fully fine-tuned model; its update is encoded into the "
    "best core for Gaussian L and R (an orthonormal one where it is square) and decoded, L Y R, "
    "with as many core entries as LoRA of three ranks has parameters; 95 % t intervals over "
    f"{DRAWS} independent draws ({DRAWS_LARGE} above {LARGE} entries). By function and by energy: "
    "an encoder that others fine-tuned, all its matrices at the budget of rank 8, one draw each, "
    "the core decoded by least squares, by its adjoint, and by q times its adjoint with q chosen "
    "on held-out texts; what the model with the decoded update says on texts of its domain and on "
    "others, 95 % bootstrap intervals over texts. Decoding is linear: decoding that searches for a "
    "sparse update is another question.",
    quantity=f"{THRESHOLDS['c4_kept'].quantity}; and {THRESHOLDS['c4_function'].quantity}",
    criterion=f"{THRESHOLDS['c4_kept']}, for each matrix and budget, and for each decoder; "
    f"{THRESHOLDS['c4_function']}, for each decoder and set of texts; and as controls "
    f"{THRESHOLDS['c4_law']}, {THRESHOLDS['c4_null']}, and {THRESHOLDS['c4_exact']}",
)


def draw_basis(
    m: int, n: int, a: int, b: int, *, seed: int, key: tuple[str | int, ...], dtype: Any
) -> CosaBasis:
    """Draw Gaussian factors, except that a square one is orthonormal.

    A square Gaussian factor spans everything just as well, but it is nearly singular.
    """
    kinds = ["haar" if rows == columns else "gaussian" for rows, columns in ((a, m), (b, n))]
    settings = {"seed": seed, "scale": "synthesis", "dtype": dtype}
    L = make_projection(kinds[0], a, m, key=(*key, "L"), **settings).T
    return CosaBasis(L, make_projection(kinds[1], b, n, key=(*key, "R"), **settings))


def measure(
    layers: Iterable[LayerDelta],
    seed: int = 0,
    *,
    ranks: Sequence[int] | None = None,
    draw: Callable[..., Any] = draw_basis,
) -> list[Case]:
    """Return one case for each layer and budget, and the control; zero updates are left out."""
    cases: list[Case] = []
    scores: list[float] = []
    for layer in layers:
        m, n = layer.shape
        size = np.abs(layer.delta).max()
        if size == 0:
            continue
        delta = layer.delta / size  # shares do not depend on it, and squares stay in range
        sigma = singular_values(delta)
        energy = sigma**2
        ratio = float(energy.sum() ** 2 / (energy**2).sum())
        for rank in default_ranks(m, n) if ranks is None else ranks:
            core = cosa_shape(m, n, lora_parameters(m, n, rank))
            draws = DRAWS if m * n <= LARGE else DRAWS_LARGE
            keys = [("C4", layer.name, rank, i) for i in range(draws)]
            settings = {"seed": seed, "dtype": delta.dtype}
            shares = [_kept(delta, draw(m, n, core.a, core.b, key=key, **settings)) for key in keys]
            law = float(laws.energy_law(m, n, core.a, core.b))
            sd = math.sqrt(float(laws.energy_variance(m, n, core.a, core.b, ratio)))
            if sd > 0:
                scores.append((float(np.mean(shares)) - law) / (sd / math.sqrt(draws)))
            sizes = {"rank_budget": rank, "m": m, "n": n, "a": core.a, "b": core.b}
            cases.append(_case(f"{layer.name}, r = {rank}", shares, {"law": law, **sizes}))
    if scores:
        # Each score has mean 0 and variance 1 if the law holds, and the draws are independent.
        z = abs(sum(scores)) / math.sqrt(len(scores))
        cases.append(Case.exact("all shares together", LAW, z, "c4_law", control=True))
    return cases


def _kept(delta: NDArray, basis: Any) -> float:
    """Return 1 − ‖ΔW − decoded‖²/‖ΔW‖², the sums in double precision."""
    lost = delta - basis.synthesize(basis.best_core(delta))
    return 1 - float(np.sum(lost**2, dtype=np.float64) / np.sum(delta**2, dtype=np.float64))


def _case(name: str, shares: Sequence[float], details: dict[str, Any]) -> Case:
    return Case(name, REAL, *mean_interval(shares), "c4_kept", details=details)


def describe(cases: Sequence[Case]) -> str:
    """Return how much comes back, beside the share that the energy law gives."""
    real = [case for case in cases if not case.control]
    if not real:
        return "There was no update to encode."
    kept = spread((case.value for case in real), percent)
    law = spread((case.details["law"] for case in real), percent)
    z = ", ".join(f"|z| = {case.value:.1f}" for case in cases if case.control)
    text = (
        f"It {counts(real)} pairs of matrix and budget{exceptions(real)}: {kept} of the energy "
        f"comes back, where the energy law ab/(mn) gives {law}"
    )
    if failed_controls(cases) or not z:
        return f"{text}."
    return f"{text} ({z}): a random core brings back its share of the entries and no more."


CHECK = Check(CLAIM, measure, describe, needs_pair=True)
