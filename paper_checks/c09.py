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


def _case(name: str, group: str, m: int, n: int, a: int, b: int, rank: int) -> Case:
    details = {"m": m, "n": n, "a": a, "b": b, "rank": rank, "wall": min(a, b)}
    # LoRA's rank at the same number of trainable parameters, at least 1.
    details["lora_rank"] = max(1, a * b // (m + n))
    return Case.exact(name, group, rank * (m + n) / (m * n), "c9_rank", details)


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
            yield _case(name, BEST, m, n, core.a, core.b, rank_of(update))


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
        yield _case(name, TRAINED, m, n, a, b, rank_of(basis.synthesize(core)))


def _released_shapes() -> Iterator[Case]:
    for model in load_models().values():
        for matrix, (m, n) in model.matrices.items():
            a, b = clipped(released_core(m, n), m, n)
            yield _case(f"{model.name} {matrix}", RELEASED, m, n, a, b, min(a, b))


def describe(cases: Sequence[Case]) -> str:
    """Return the ranks, beside the low-rank limit and LoRA's rank at equal parameters."""
    sentences = []
    for group in (BEST, TRAINED, RELEASED):
        those = [case for case in cases if case.group == group]
        if not those:
            continue
        ranks = spread(case.details["rank"] for case in those)
        ratio = spread(case.details["rank"] / case.details["lora_rank"] for case in those)
        reached = sum(case.details["rank"] == case.details["wall"] for case in those)
        measured = "" if group == RELEASED else f", min(a, b) reached in {reached}"
        sentences.append(
            f"For {group} it {counts(those)}{exceptions(those)}: rank {ranks}{measured}, "
            f"{spread(case.value for case in those)} times the low-rank limit mn/(m+n) and {ratio} "
            "times LoRA's rank at equal parameters."
        )
    text = " ".join(sentences)
    return f"{text} A square layer needs a core of a quarter of its entries to reach it."


CHECK = Check(CLAIM, measure, describe, needs_pair=True)
