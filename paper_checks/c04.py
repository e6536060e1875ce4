"""C4: whether real updates survive being encoded into a small core and decoded again."""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory import CosaBasis, laws
from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.estimates import mean_interval
from cosa_theory.projections import make_projection
from cosa_theory.spectrum import singular_values
from cosa_theory.spectrum.budget import cosa_shape, default_ranks, lora_parameters
from cosa_theory.studies.function.pair import Function
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
from paper_checks.quick_function import quick_function
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

# The spread over draws falls with the size of a layer, and the cost rises with it.
DRAWS, DRAWS_LARGE, LARGE = 4, 2, 4_000_000
REAL, LAW = "real update", "energy law"
ENERGY, FUNCTION, CONTROL = "others' update, energy", "others' update, function", "control"

LEAST_SQUARES, ADJOINT, SCALED = "least squares", "adjoint", "q times adjoint"
PROJECTIONS = {"gaussian": "Gaussian", "haar": "orthonormal"}
CONTROLS = {"noise": "noise alone", "shuffled": "the update shuffled", "exact": "the update itself"}
REFERENCES = {"svd": "the truncated SVD", "mask_rescaled": "a random mask over p"}

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
    function: Callable[[int], Function] = quick_function,
) -> list[Case]:
    """Return one case for each layer and budget, those of `function_cases`, and the controls.

    Zero updates are left out; where all are, nothing else is measured.
    """
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
    return cases + function_cases(function(seed)) if cases else []


def function_cases(study: Function) -> list[Case]:
    """Return the cases of every decoder, by energy and by function, and the controls.

    Parameters
    ----------
    study : Function
        With the best core and the adjoint of `PROJECTIONS` and with `CONTROLS`, at one budget.
    """
    cases = []
    for kind, label in PROJECTIONS.items():
        for decoder, name in (
            (LEAST_SQUARES, f"best_core_{kind}"),
            (ADJOINT, f"adjoint_{kind}"),
            (SCALED, f"adjoint_{kind}"),
        ):
            (stored,) = _rows(study.approximations, name, decoder == SCALED)
            details = {"decoder": decoder, "projections": label, "gain": float(stored["gain"])}
            title, energy = f"{decoder}, {label}", float(stored["energy"])
            known = details | {"law": float(stored["energy_law"])}
            cases.append(Case.exact(title, ENERGY, energy, "c4_kept", known))
            for row in _rows(study.function, name, decoder == SCALED):
                known = details | {"texts": row["texts"]}
                cases.append(_recovered(title, FUNCTION, row, "c4_function", known))
    beside: dict[str, dict[str, float]] = {}
    for name, label in REFERENCES.items():
        for row in _rows(study.function, name):
            beside.setdefault(row["texts"], {})[label] = float(row["recovered"])
    for name, label in CONTROLS.items():
        threshold = "c4_exact" if name == "exact" else "c4_null"
        for row in _rows(study.function, name):
            known = {"texts": row["texts"]} | (beside[row["texts"]] if name == "exact" else {})
            cases.append(_recovered(label, CONTROL, row, threshold, known, control=True))
    return cases


def _rows(table: pd.DataFrame, name: str, scaled: bool = False) -> list[dict[str, Any]]:
    """Return the rows of an approximation, one for each set of texts, in full or times q.

    Times q comes last, also where q is 1. Ranks other than the cores' are left out.
    """
    rank = table.loc[table["approximation"] == "best_core_gaussian", "rank"].iloc[0]
    own = table[(table["approximation"] == name) & (table["rank"].isna() | (table["rank"] == rank))]
    groups = own.groupby("texts", sort=False) if "texts" in own else [("", own)]
    return [dict(part.iloc[-1 if scaled else 0]) for _, part in groups]


def _recovered(
    title: str,
    group: str,
    row: dict[str, Any],
    threshold: str,
    details: dict[str, Any],
    *,
    control: bool = False,
) -> Case:
    value, low, high = (float(row[name]) for name in ("recovered", "low", "high"))
    name = f"{title}, {row['texts']} texts"
    return Case(name, group, value, low, high, threshold, control, details)


def _kept(delta: NDArray, basis: Any) -> float:
    """Return 1 − ‖ΔW − decoded‖²/‖ΔW‖², the sums in double precision."""
    lost = delta - basis.synthesize(basis.best_core(delta))
    return 1 - float(np.sum(lost**2, dtype=np.float64) / np.sum(delta**2, dtype=np.float64))


def _case(name: str, shares: Sequence[float], details: dict[str, Any]) -> Case:
    return Case(name, REAL, *mean_interval(shares), "c4_kept", details=details)


def describe(cases: Sequence[Case]) -> str:
    """Return how much comes back by energy and by function, decoder by decoder."""
    real = [case for case in cases if case.group == REAL]
    if not real:
        return "There was no update to encode."
    return f"{_by_energy(real, cases)} {_by_function(cases)}"


def _by_energy(real: Sequence[Case], cases: Sequence[Case]) -> str:
    """Return what least squares brings back, beside the share that the energy law gives."""
    kept = spread((case.value for case in real), percent)
    law = spread((case.details["law"] for case in real), percent)
    z = ", ".join(f"|z| = {case.value:.1f}" for case in cases if case.group == LAW)
    text = (
        f"By energy, least squares {counts(real)} pairs of matrix and budget{exceptions(real)}: "
        f"{kept} comes back, where the energy law ab/(mn) gives {law}"
    )
    if failed_controls(cases) or not z:
        return f"{text}."
    return f"{text} ({z}): a random core brings back its share of the entries and no more."


def _by_function(cases: Sequence[Case]) -> str:
    """Return what each decoder does to the model, beside its error and what knows nothing."""
    parts = []
    for decoder in (LEAST_SQUARES, ADJOINT, SCALED):
        own = [case for case in cases if case.details.get("decoder") == decoder]
        kept = [case.value for case in own if case.group == ENERGY]
        if max(kept) >= 0:
            first = f"keeps {_range(kept, percent)} of the energy and"
        else:
            errors = [1 - share for share in kept]
            first = f"has an error of {_range(errors)} times the update's energy and yet"
        returned = [case for case in own if case.group == FUNCTION]
        recovered = _range([case.value for case in returned], percent)
        parts.append(f"{decoder} {first} returns {recovered} of the function ({counts(returned)})")
    known = [case.details for case in cases if case.threshold == "c4_exact"]
    beside = [
        f"{label} {_range([one[label] for one in known if label in one], percent)}"
        for label in REFERENCES.values()
    ]
    null = max(case.value for case in cases if case.threshold == "c4_null")
    return (
        "On an encoder that others fine-tuned, over two ensembles and two sets of texts: "
        f"{'; '.join(parts)}. Of as many numbers {' and '.join(beside)}; noise alone and the "
        f"update shuffled return {percent(null)} at most."
    )


def _range(values: Sequence[float], text: Callable[[float], str] = "{:.3g}".format) -> str:
    low, high = text(min(values)), text(max(values))
    return low if low == high else f"{low} to {high}"


CHECK = Check(CLAIM, measure, describe, needs_pair=True)
