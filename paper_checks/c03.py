"""C3: whether L Y R is nearly an isometry at the released shapes, and the core's problem tame."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import CosaBasis, laws
from cosa_theory.deltas import LayerDelta
from cosa_theory.linear.operators import Factor
from cosa_theory.projections import make_projection, stream
from paper_checks.base import Case, Check, Claim, counts, exceptions, percent, spread
from paper_checks.models import Model, clipped, load_models, released_core
from paper_checks.thresholds import THRESHOLDS

__all__ = ["CHECK", "measure"]

EVERY, ISOTROPIC, RANK_ONE = "every core", "typical dense core", "typical rank-one core"
CORES = 4000  # random cores of the control
CONTROL = (96, 80, 24, 16)

CLAIM = Claim(
    id="C3",
    claim="Synthesis from a core is nearly an isometry, so that optimising the core is stable.",
    source="notes of the released code",
    method="Gaussian L and R, one draw for every linear map of six models, at the released core "
    "shape clipped to the layer. Exact from the eigenvalues of LᵀL and RRᵀ: the constant over all "
    "cores at the best scale, with the condition number κ² of ΨᵀΨ, which is that of the core's "
    "problem; and the spread of ‖L Y R‖²/‖Y‖² over cores of random direction, dense and of rank "
    "one. Gradient norms along trainings are judged by the committed study of subspaces, with "
    "`--full`.",
    quantity=THRESHOLDS["c3_every"].quantity,
    criterion=f"{THRESHOLDS['c3_every']}; {THRESHOLDS['c3_typical']}; for each matrix; with "
    f"`--full` {THRESHOLDS['c3_steady']}; and as a control {THRESHOLDS['c3_law']}",
)


@dataclass(frozen=True)
class Side:
    """One factor's Gram matrix, LᵀL or RRᵀ, in numbers.

    Attributes
    ----------
    size : int
        Its order k.
    least, greatest : float
        Its extreme eigenvalues.
    trace, square : float
        tr G and tr G².
    """

    size: int
    least: float
    greatest: float
    trace: float
    square: float

    @classmethod
    def of(cls, factor: Any) -> "Side":
        """Measure a factor with k rows (Lᵀ, or R)."""
        rows = Factor(factor, "factor").dense(np.dtype(np.float64))
        values = np.linalg.eigvalsh(rows @ rows.T)
        rank = min(rows.shape)  # with more rows than columns the rest are zero to rounding
        least = float(values[0]) if rank == len(rows) else 0.0
        return cls(
            len(rows), max(least, 0.0), *map(float, (values[-1], values.sum(), values @ values))
        )

    @property
    def vector_excess(self) -> float:
        """Var/mean² of uᵀG u for a unit vector u of uniformly random direction.

        2 (k tr G²/(tr G)² − 1)/(k + 2), from the fourth moments of u (Isserlis).
        """
        return _excess(self.size, self.trace, self.square)


def _excess(size: int, trace: float, square: float) -> float:
    return max(2 * (size * square / trace**2 - 1) / (size + 2), 0.0)


def dense_spread(left: Side, right: Side) -> float:
    """Return the relative standard deviation of ‖L Y R‖²/‖Y‖², Y uniform on the unit sphere."""
    size, trace = left.size * right.size, left.trace * right.trace
    return _excess(size, trace, left.square * right.square) ** 0.5


def rank_one_spread(left: Side, right: Side) -> float:
    """Return that of ‖L u‖²‖vᵀR‖² for independent u and v, uniform on their unit spheres."""
    return ((1 + left.vector_excess) * (1 + right.vector_excess) - 1) ** 0.5


def measure(
    layers: Iterable[LayerDelta] = (),
    seed: int = 0,
    *,
    models: Mapping[str, Model] | None = None,
    core: Callable[[int, int], tuple[int, int]] = released_core,
    draw: Callable[..., Any] = make_projection,
) -> list[Case]:
    """Return three cases for each model and matrix, and the control of the spreads."""

    @cache  # equal sides of different matrices are one draw
    def side(k: int, d: int, role: str) -> Side:
        return Side.of(draw("gaussian", k, d, seed=seed, scale="analysis", key=("C3", role)))

    cases: list[Case] = []
    for model in (load_models() if models is None else models).values():
        for matrix, (m, n) in model.matrices.items():
            a, b = clipped(core(m, n), m, n)
            sides = side(a, m, "L"), side(b, n, "R")
            sizes = {"model": model.name, "matrix": matrix, "m": m, "n": n, "a": a, "b": b}
            name = f"{model.name} {matrix}, {m} × {n} with core {a} × {b}"
            cases += _cases(name, *sides, sizes)
    return [*cases, _control(seed)]


def _cases(name: str, left: Side, right: Side, sizes: dict[str, Any]) -> list[Case]:
    least, greatest = left.least * right.least, left.greatest * right.greatest
    gain = float(laws.scale_gain(*(sizes[key] for key in "mnab")))  # analysis to synthesis scale
    details = {
        **sizes,
        "squared_condition": greatest / least if least > 0 else None,
        "delta_as_released": max(greatest - 1, 1 - least),
        "delta_synthesis": max(greatest / gain - 1, 1 - least / gain),
    }
    return [
        Case.exact(name, EVERY, laws.scale_free_constant(least, greatest), "c3_every", details),
        Case.exact(name, ISOTROPIC, dense_spread(left, right), "c3_typical", sizes),
        Case.exact(name, RANK_ONE, rank_one_spread(left, right), "c3_typical", sizes),
    ]


def _control(seed: int) -> Case:
    """Compare the two spreads with those measured over random cores of a small basis."""
    basis = CosaBasis.sample(*CONTROL, seed=seed, key="C3")
    left, right = Side.of(basis.L.T), Side.of(basis.R)
    generator = stream(seed, "C3", "cores")
    dense = generator.standard_normal((CORES, basis.a, basis.b))
    u, v = (generator.standard_normal((CORES, size)) for size in (basis.a, basis.b))
    scores = [
        _score(basis, dense, left, right, dense_spread(left, right)),
        _score(basis, u[:, :, None] * v[:, None, :], left, right, rank_one_spread(left, right)),
    ]
    return Case.exact(
        "spreads of random cores", "control", float(np.max(scores)), "c3_law", control=True
    )


def _score(basis: CosaBasis, cores: NDArray, left: Side, right: Side, law: float) -> float:
    images = basis.synthesize(cores)
    ratios = (images**2).sum(axis=(1, 2)) / (cores**2).sum(axis=(1, 2))
    mean = left.trace / left.size * right.trace / right.size
    squares = (ratios / mean - 1) ** 2
    return float(abs(squares.mean() - law**2) / (squares.std(ddof=1) / len(squares) ** 0.5))


def describe(cases: Sequence[Case]) -> str:
    """Return what all cores, and typical ones, have to expect."""
    every, *typical = (
        [case for case in cases if case.group == group] for group in (EVERY, ISOTROPIC, RANK_ONE)
    )
    conditions = [case.details["squared_condition"] for case in every]
    released, synthesis = (
        spread(case.details[name] for case in every)
        for name in ("delta_as_released", "delta_synthesis")
    )
    sentences = [
        f"over all cores it {counts(every)} matrices{exceptions(every)}: "
        f"{spread(case.value for case in every)}, the condition number of ΨᵀΨ "
        f"{spread((x for x in conditions if x is not None), '{:.2g}'.format)}; at the released "
        f"scale δ is {released}, at synthesis scale {synthesis}"
    ]
    for those in typical:
        if those:
            sentences.append(
                f"for a {those[0].group} it {counts(those)}, with a spread of "
                f"{spread((case.value for case in those), percent)}"
            )
    text = "; ".join(sentences)
    return f"{text[0].upper()}{text[1:]}. Trainings are judged by the committed study alone."


CHECK = Check(CLAIM, measure, describe, needs_pair=False)
