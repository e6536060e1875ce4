"""C4, C5 and C8 asked of informed projections: rows of their own, and no claims of the paper.

The paper's projections know nothing of the layer. Those here take the leading directions of its
inputs, from texts of another kind than the update's; they are judged by the bounds of the paper's
claims.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pandas as pd

from cosa_theory.deltas import LayerDelta, open_pair
from cosa_theory.ground.progress import progress_bar
from cosa_theory.spectrum import singular_values
from cosa_theory.studies.function.pair import Function, function_pair
from experiments.command import REFERENCE
from experiments.informed_predictions import LORA, compared
from paper_checks.base import NO_CLAIM, Case, Check, Claim, counts, percent, spread
from paper_checks.quick_function import CELLS, PAIR, RANK
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECKS", "quick_informed"]

CORES = {"one_sided_activation": "one-sided", "best_core_activation": "two-sided"}
EXACT, SHUFFLED = "exact", "shuffled"
ENERGY, FUNCTION, CONTROL = "energy", "function", "control"
TEXTS = 64
TRAINED = REFERENCE / "informed_training_runs.csv"
METHODS = {
    "tokens": "of random tokens",
    "texts": "of texts",
    "whitened": "of texts, whitened",
    "centred": "of texts, centred and whitened",
}


@lru_cache(maxsize=1)
def quick_informed(seed: int = 0) -> Function:
    """Measure informed cores on the pair of `quick_function`, with moments of 64 news wires."""
    from experiments.calibration import calibrated_file  # here: it imports torch

    assert PAIR.domain is not None
    base, tuned = PAIR.paths()
    moments = calibrated_file(base, "reuters", TEXTS, CELLS.parent)
    with progress_bar("informed approximations") as advance:
        return function_pair(
            base,
            tuned,
            texts=PAIR.domain(),
            ranks=(RANK,),
            approximations=(*CORES, EXACT, SHUFFLED),
            moments=moments,
            seed=seed,
            cells=CELLS,
            progress=advance,
        )


_PAIR = (
    "An encoder that others fine-tuned, its 36 matrices, at the budget of rank 8, with the inputs' "
    f"moments from {TEXTS} news wires through the base model: R in their leading directions; L the "
    "identity with as many columns of the core as the budget allows, or orthonormal and random in "
    "a random core's shape."
)

C4 = Claim(
    id="C4i",
    claim="A weight update can be encoded into a core much smaller than itself, with projections "
    "on the leading directions of the layer's inputs, and mapped back without losing what matters.",
    source=NO_CLAIM,
    method=f"{_PAIR} Decoded by least squares; 95 % bootstrap intervals over texts, those of the "
    "update's domain and others.",
    quantity=f"{THRESHOLDS['c4_kept'].quantity}; and {THRESHOLDS['c4_function'].quantity}",
    criterion=f"{THRESHOLDS['c4_kept']}; {THRESHOLDS['c4_function']}, for each shape and set of "
    f"texts; and as controls {THRESHOLDS['c4_null']}, and {THRESHOLDS['c4_exact']}",
)
C5 = Claim(
    id="C5i",
    claim="An informed core holds more of an update than low rank does at equal parameters.",
    source=NO_CLAIM,
    method=f"{_PAIR} For every matrix, the energy in its top 8 singular values over that in the "
    "informed core.",
    quantity=THRESHOLDS["c5_ratio"].quantity,
    criterion=f"{THRESHOLDS['c5_ratio']}, for each matrix and shape",
)
C8 = Claim(
    id="C8i",
    claim="Training with informed projections matches or outperforms training with LoRA.",
    source=NO_CLAIM,
    method="The stored trainings of `python -m experiments.informed_training`: a sentence encoder "
    "on Reuters R8, 50 steps, as many trainable parameters in every layer, each method at its own "
    "rate; Student's 95 % intervals over seeds, paired.",
    quantity=THRESHOLDS["c8_informed"].quantity,
    criterion=f"{THRESHOLDS['c8_informed']}, for each kind of informed projections",
)


def measure_kept(
    layers: Iterable[LayerDelta] = (),
    seed: int = 0,
    *,
    study: Callable[[int], Function] = quick_informed,
) -> list[Case]:
    """Return the energy and the function that come back of each core, and the controls."""
    del layers
    found = study(seed)
    cases = []
    for name, label in CORES.items():
        (stored,) = _rows(found.approximations, name)
        cases.append(Case.exact(label, ENERGY, float(stored["energy"]), "c4_kept"))
        for row in _rows(found.function, name):
            cases.append(_recovered(label, FUNCTION, row, "c4_function"))
    for name, threshold in ((SHUFFLED, "c4_null"), (EXACT, "c4_exact")):
        for row in _rows(found.function, name):
            cases.append(_recovered(name, CONTROL, row, threshold, control=True))
    return cases


def _rows(table: pd.DataFrame, name: str) -> list[dict[str, Any]]:
    own = table[(table["approximation"] == name) & (table["gain"] == 1)]
    own = own[own["rank"].isna() | (own["rank"] == RANK)]
    return [dict(row) for _, row in own.iterrows()]


def _recovered(
    label: str, group: str, row: dict[str, Any], threshold: str, *, control: bool = False
) -> Case:
    value, low, high = (float(row[name]) for name in ("recovered", "low", "high"))
    return Case(f"{label}, {row['texts']} texts", group, value, low, high, threshold, control)


def describe_kept(cases: Sequence[Case]) -> str:
    """Return how much comes back by energy and by function, shape by shape."""
    parts = []
    for label in CORES.values():
        own = [case for case in cases if case.name.startswith(label)]
        energy = [case.value for case in own if case.group == ENERGY]
        returned = [case.value for case in own if case.group == FUNCTION]
        parts.append(
            f"{label} {percent(energy[0])} of the energy and {percent(min(returned))} to "
            f"{percent(max(returned))} of the function come back"
        )
    return f"It {counts(cases)}: {'; '.join(parts)}."


def low_rank() -> dict[str, float]:
    """Return the share of the energy of each matrix in its top singular values."""
    squares = {one.name: singular_values(one.delta) ** 2 for one in open_pair(*PAIR.paths())}
    return {name: float(one[:RANK].sum() / one.sum()) for name, one in squares.items() if one.any()}


def measure_ratio(
    layers: Iterable[LayerDelta] = (),
    seed: int = 0,
    *,
    study: Callable[[int], Function] = quick_informed,
    best: Callable[[], Mapping[str, float]] = low_rank,
) -> list[Case]:
    """Return low rank's energy over each core's, matrix by matrix."""
    del layers
    table, tops = study(seed).layers, best()
    own = table[(table["gain"] == 1) & (table["rank"] == RANK)]
    return [
        Case.exact(f"{layer}, {label}", label, tops[layer] / energy, "c5_ratio")
        for name, label in CORES.items()
        for layer, energy in own[own["approximation"] == name][["layer", "energy"]].to_numpy()
    ]


def describe_ratio(cases: Sequence[Case]) -> str:
    """Return by how much low rank is ahead, shape by shape."""
    parts = []
    for label in CORES.values():
        own = [case for case in cases if case.group == label]
        parts.append(f"{label}, {spread(case.value for case in own)}; it {counts(own)}")
    return f"Low rank over informed cores, {'. '.join(parts)}."


def measure_trained(
    layers: Iterable[LayerDelta] = (), seed: int = 0, *, runs: pd.DataFrame | None = None
) -> list[Case]:
    """Return LoRA's loss less that of each kind of informed projections; nothing is trained."""
    del layers, seed
    if runs is None:
        runs = pd.read_csv(TRAINED) if TRAINED.is_file() else pd.DataFrame()
    found = compared(runs) if len(runs) else pd.DataFrame(columns=["method", "against"])
    own = found[(found["against"] == LORA) & found["method"].isin(list(METHODS))]
    own = own[own["seeds"] > 1] if len(own) else own
    return [
        Case(
            METHODS[row["method"]],
            "trainings",
            -row["difference"],
            -row["high"],
            -row["low"],
            "c8_informed",
            details={"seeds": row["seeds"]},
        )
        for row in own.to_dict(orient="records")
    ]


def describe_trained(cases: Sequence[Case]) -> str:
    """Return by how much each kind is ahead of LoRA, with how many seeds."""
    if not cases:
        return "There were no trainings with informed projections."
    parts = [
        f"{case.name} {abs(case.value):.3g} nats {'ahead' if case.value > 0 else 'behind'} "
        f"(interval of the lead {case.low:.3g} to {case.high:.3g}, {case.details['seeds']} seeds)"
        for case in cases
        if case.known
    ]
    return f"It {counts(cases)}, against LoRA: {'; '.join(parts) or 'no lead is known'}."


CHECKS = (
    Check(C4, measure_kept, describe_kept, needs_pair=False),
    Check(C5, measure_ratio, describe_ratio, needs_pair=False),
    Check(C8, measure_trained, describe_trained, needs_pair=False),
)
