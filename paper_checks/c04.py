"""C4: whether real updates survive being encoded into a small core and decoded again."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t

from cosa_theory import CosaBasis, laws
from cosa_theory.deltas import LayerDelta
from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.budget import cosa_shape, default_ranks, lora_parameters
from paper_checks.base import Case, Check, Claim, counts, spread
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

DRAWS = 4
REAL, LAW = "real update", "energy law"

CLAIM = Claim(
    id="C4",
    claim="A weight update can be encoded into a core much smaller than itself and mapped back "
    "without losing what matters.",
    source="abstract",
    method="Every matrix of a fully fine-tuned model: its update is encoded into the best core "
    "for Gaussian L and R and decoded, L Y R, with as many core entries as LoRA of three ranks "
    f"has parameters; {DRAWS} independent draws each, 95 % t intervals. Decoding is linear: "
    "decoding that searches for a sparse update is another question.",
    quantity=THRESHOLDS["c4_kept"].quantity,
    criterion=f"{THRESHOLDS['c4_kept']}, for each matrix and budget; and as a control "
    f"{THRESHOLDS['c4_law']}",
)


def measure(
    layers: Iterable[LayerDelta],
    seed: int = 0,
    *,
    ranks: Sequence[int] | None = None,
    draw: Callable[..., Any] = CosaBasis.sample,
) -> list[Case]:
    """Return one case for each layer and budget, and the control; zero updates are left out."""
    cases: list[Case] = []
    scores: list[float] = []
    for layer in layers:
        m, n = layer.shape
        delta = layer.delta.astype(np.float64)
        sigma = singular_values(layer.delta)
        if sigma[0] == 0:
            continue
        energy = (sigma / sigma[0]) ** 2
        ratio = float(energy.sum() ** 2 / (energy**2).sum())
        for rank in default_ranks(m, n) if ranks is None else ranks:
            core = cosa_shape(m, n, lora_parameters(m, n, rank))
            shares = [
                _kept(delta, draw(m, n, core.a, core.b, seed=seed, key=("C4", layer.name, rank, i)))
                for i in range(DRAWS)
            ]
            law = float(laws.energy_law(m, n, core.a, core.b))
            sd = math.sqrt(float(laws.energy_variance(m, n, core.a, core.b, ratio)))
            if sd > 0:
                scores.append((float(np.mean(shares)) - law) / (sd / math.sqrt(DRAWS)))
            sizes = {"rank_budget": rank, "m": m, "n": n, "a": core.a, "b": core.b}
            cases.append(_case(f"{layer.name}, r = {rank}", shares, {"law": law, **sizes}))
    if scores:
        # Each score has mean 0 and variance 1 if the law holds, and the draws are independent.
        z = abs(sum(scores)) / math.sqrt(len(scores))
        cases.append(Case.exact("all shares together", LAW, z, "c4_law", control=True))
    return cases


def _kept(delta: NDArray[np.float64], basis: Any) -> float:
    """Return 1 − ‖ΔW − decoded‖²/‖ΔW‖²."""
    decoded = basis.synthesize(basis.best_core(delta))
    return float(1 - np.sum((delta - decoded) ** 2) / np.sum(delta**2))


def _case(name: str, shares: Sequence[float], details: dict[str, Any]) -> Case:
    mean, error = float(np.mean(shares)), float(np.std(shares, ddof=1)) / math.sqrt(len(shares))
    half = float(t.ppf(0.975, len(shares) - 1)) * error
    return Case(name, REAL, mean, mean - half, mean + half, "c4_kept", details=details)


def describe(cases: Sequence[Case]) -> str:
    """Return how much comes back, beside the share that the energy law gives."""
    real = [case for case in cases if not case.control]
    kept = spread((case.value for case in real), percent=True)
    law = spread((case.details["law"] for case in real), percent=True)
    z = "".join(f", |z| = {case.value:.1f}" for case in cases if case.control)
    return (
        f"It {counts(real)} pairs of matrix and budget: {kept} of the energy comes back. The "
        f"energy law gives {law}{z}: a random core brings back its share of the entries and no "
        "more."
        if real
        else "There was no update to encode."
    )


CHECK = Check(CLAIM, measure, describe, needs_pair=True)
