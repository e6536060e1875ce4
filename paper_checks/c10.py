"""C10: whether the released core shapes fit the layers they are put on."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from cosa_theory import CosaBasis
from cosa_theory.deltas import LayerDelta
from paper_checks.base import Case, Check, Claim, counts, percent
from paper_checks.models import RELEASED_CORE, Model, adaptive_core, load_models, released_core
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

MODES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "default core": released_core,
    "adaptive core": adaptive_core,
}

CLAIM = Claim(
    id="C10",
    claim="The core fits the layer, a ≤ m and b ≤ n, so that different cores are different "
    "updates.",
    source="implied by the theory of the paper",
    method=f"The released core shapes, {RELEASED_CORE[0]} × {RELEASED_CORE[1]} and the adaptive "
    "rule, on every linear map of six models: the core has ab entries, but the updates L Y R form "
    "a space of min(a, m)·min(b, n) dimensions. Where the two differ, the dimension is also "
    "measured, as the product of the ranks of a drawn L and R.",
    quantity=THRESHOLDS["c10_redundant"].quantity,
    criterion=f"{THRESHOLDS['c10_redundant']}, matrix by matrix",
)


def measure(
    layers: Iterable[LayerDelta] = (),
    seed: int = 0,
    *,
    modes: Mapping[str, Callable[[int, int], tuple[int, int]]] = MODES,
    models: Mapping[str, Model] | None = None,
    draw: Callable[..., CosaBasis] = CosaBasis.sample,
) -> list[Case]:
    """Return one case for each mode, model and matrix, and the control of the counts."""
    cases: list[Case] = []
    redundant: set[tuple[int, int, int, int]] = set()
    for mode, core in modes.items():
        for model in (load_models() if models is None else models).values():
            for matrix, (m, n) in model.matrices.items():
                a, b = core(m, n)
                dimension = min(a, m) * min(b, n)
                if dimension < a * b:
                    redundant.add((m, n, a, b))
                name = f"{model.name} {matrix}, {m} × {n} with core {a} × {b}"
                share = 1 - dimension / (a * b)
                sizes = {"model": model.name, "matrix": matrix, "m": m, "n": n, "a": a, "b": b}
                cases.append(Case.exact(name, mode, share, "c10_redundant", sizes))
    if redundant:
        worst = max(_miscount(draw(*sizes, seed=seed, key="C10")) for sizes in sorted(redundant))
        cases.append(
            Case.exact("ranks of drawn factors", "control", worst, "c10_count", control=True)
        )
    return cases


def _miscount(basis: CosaBasis) -> float:
    """Return the relative difference between the measured and the counted dimension."""
    ranks = np.linalg.matrix_rank(basis.L), np.linalg.matrix_rank(basis.R)
    counted = min(basis.a, basis.m) * min(basis.b, basis.n)
    return float(abs(int(ranks[0]) * int(ranks[1]) / counted - 1))


def describe(cases: Sequence[Case]) -> str:
    """Return, for each mode, where the core does not fit and how much of it is redundant."""
    sentences = []
    for mode in dict.fromkeys(case.group for case in cases if not case.control):
        those = [case for case in cases if case.group == mode]
        sentence = f"with the {mode} it {counts(those)} kinds of matrix"
        wasted = _wasted(those)
        if wasted:
            sentence += f" (entries without effect, of all cores of a model: {wasted})"
        sentences.append(sentence)
    text = "; ".join(sentences)
    return f"{text[0].upper()}{text[1:]}."


def _wasted(cases: Sequence[Case]) -> str:
    """Return the share of redundant core entries of every model that has any, and where."""
    texts = []
    for model in dict.fromkeys(case.details["model"] for case in cases):
        those = [case for case in cases if case.details["model"] == model]
        entries = [case.details["a"] * case.details["b"] for case in those]
        share = sum(case.value * n for case, n in zip(those, entries, strict=True)) / sum(entries)
        if share:
            where = [case.details["matrix"] for case in those if case.value]
            texts.append(f"{model} {percent(share)} in {', '.join(where)}")
    return "; ".join(texts)


CHECK = Check(CLAIM, measure, describe, needs_pair=False)
