"""C9: whether CoSA's updates are low-rank after all."""

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from cosa_theory import CosaBasis
from cosa_theory.deltas import LayerDelta
from cosa_theory.projections import stream
from cosa_theory.spectrum.budget import CosaShape, cosa_shape, default_ranks, lora_parameters
from paper_checks.base import Case, Check, Claim, counts, exceptions, spread
from paper_checks.models import clipped, load_models, released_core
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

BEST, TRAINED, RELEASED = "best cores of real updates", "trained cores", "released core shapes"
TRAINED_SIZES = ((96, 64, 24, 16), (64, 96, 8, 40), (80, 80, 20, 20))
STEPS, EXAMPLES = 50, 256

CLAIM = Claim(
    id="C9",
    claim="CoSA's update is not confined to low rank.",
    source="abstract; a reviewer noted that its rank is at most min(a, b)",
    method="The numerical rank of L Y R, measured for the best core of every real update at three "
    "budgets and for cores trained by gradient descent on least squares; and its ceiling "
    "min(a, b) at the released core shapes, clipped to the layer, on six models. Layers with a "
    f"short side below {THRESHOLDS['c9_side'].value:g} are left out.",
    quantity=f"{THRESHOLDS['c9_lora'].quantity}; and {THRESHOLDS['c9_rank'].quantity}",
    criterion=f"{THRESHOLDS['c9_lora']}, and, the strictest reading, {THRESHOLDS['c9_rank']}, each "
    f"for each update; and as a control {THRESHOLDS['c9_wall']}",
)

Rank = Callable[[NDArray[np.float64]], int]
Shape = Callable[[int, int, int], CosaShape]


def matrix_rank(update: NDArray[np.float64]) -> int:
    """Return the number of singular values above max(m, n)·eps·σ₁."""
    tall = update if update.shape[0] >= update.shape[1] else update.T
    # The triangular factor has the same singular values and is square.
    sigma = np.linalg.svd(np.linalg.qr(tall, mode="r"), compute_uv=False)
    return int(np.count_nonzero(sigma > sigma[0] * max(update.shape) * np.finfo(np.float64).eps))


def measure(
    layers: Iterable[LayerDelta],
    seed: int = 0,
    *,
    rank_of: Rank = matrix_rank,
    shape: Shape = cosa_shape,
) -> list[Case]:
    """Return a case for each update, and the control that no rank exceeds its ceiling."""
    cases = [*_best_cores(layers, seed, rank_of, shape), *_trained_cores(seed, rank_of)]
    walls = [case.details["rank"] / case.details["wall"] for case in cases]
    cases += _released_shapes()
    cases.append(Case.exact("all measured ranks", "control", max(walls), "c9_wall", control=True))
    return cases


def _cases(name: str, group: str, m: int, n: int, a: int, b: int, rank: int) -> Iterator[Case]:
    """Yield the two readings: rank over LoRA's at equal parameters, and over the low-rank limit."""
    details = {"m": m, "n": n, "a": a, "b": b, "rank": rank, "wall": min(a, b)}
    yield Case.exact(name, group, rank * (m + n) / (a * b), "c9_lora", details)
    yield Case.exact(name, group, rank * (m + n) / (m * n), "c9_rank", details)


def _best_cores(
    layers: Iterable[LayerDelta], seed: int, rank_of: Rank, shape: Shape
) -> Iterator[Case]:
    for layer in layers:
        m, n = layer.shape
        if min(m, n) < THRESHOLDS["c9_side"].value or not layer.delta.any():
            continue
        delta = layer.delta.astype(np.float64)
        for rank in default_ranks(m, n):
            core = shape(m, n, lora_parameters(m, n, rank))
            basis = CosaBasis.sample(m, n, core.a, core.b, seed=seed, key=("C9", layer.name))
            update = basis.project(delta)
            name = f"{layer.name}, r = {rank}"
            yield from _cases(name, BEST, m, n, core.a, core.b, rank_of(update))


def _trained_cores(seed: int, rank_of: Rank) -> Iterator[Case]:
    """Train cores from zero on ‖X (L Y R)ᵀ − T‖², with a full-rank target and whole batches."""
    for m, n, a, b in TRAINED_SIZES:
        basis = CosaBasis.sample(m, n, a, b, seed=seed, key="C9 trained")
        generator = stream(seed, "C9", "task", m, n)
        inputs = generator.standard_normal((EXAMPLES, n))
        targets = inputs @ generator.standard_normal((n, m))
        core = np.zeros((a, b))
        # One over the largest curvature in the core: descent without a line search.
        curvature = (np.linalg.norm(inputs, 2) * basis.singular_value_range()[1]) ** 2
        for _ in range(STEPS):
            residual = inputs @ basis.synthesize(core).T - targets
            core -= basis.encode(residual.T @ inputs) / curvature
        name = f"least squares {m} × {n} with core {a} × {b}"
        yield from _cases(name, TRAINED, m, n, a, b, rank_of(basis.synthesize(core)))


def _released_shapes() -> Iterator[Case]:
    for model in load_models().values():
        for matrix, (m, n) in model.matrices.items():
            a, b = clipped(released_core(m, n), m, n)
            yield from _cases(f"{model.name} {matrix}", RELEASED, m, n, a, b, min(a, b))


def describe(cases: Sequence[Case]) -> str:
    """Return the ranks over LoRA's at equal parameters, then over the low-rank limit."""
    first, second = [], []
    for group in (BEST, TRAINED, RELEASED):
        own = [case for case in cases if case.group == group]
        if not own:
            continue
        lora, strict = (
            [case for case in own if case.threshold == name] for name in ("c9_lora", "c9_rank")
        )
        ranks = spread(case.details["rank"] for case in lora)
        reached = sum(case.details["rank"] == case.details["wall"] for case in lora)
        measured = "" if group == RELEASED else f", min(a, b) reached in {reached}"
        first.append(
            f"{spread(case.value for case in lora)} for {group} ({counts(lora)}; rank {ranks}"
            f"{measured})"
        )
        second.append(
            f"{spread(case.value for case in strict)} for {group} ({counts(strict)}"
            f"{exceptions(strict)})"
        )
    return (
        f"Over LoRA's rank at equal parameters the rank is {'; '.join(first)}. The strictest "
        f"reading, rank over mn/(m+n), no small core can meet, as a square layer needs a core of a "
        f"quarter of its entries for it: {'; '.join(second)}."
    )


CHECK = Check(CLAIM, measure, describe, needs_pair=True)
