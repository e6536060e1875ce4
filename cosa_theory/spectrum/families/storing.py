"""Ways to store an update: signs, few bits, low rank at few bits, dropping, the adjoint of a core.

They train nothing. Their parameters are the numbers of `VALUE_BITS` bits that take as much room, so
that a budget P compares them at equal stored bits.
"""

import math
from functools import partial

import numpy as np

from cosa_theory.linear.basis import CosaBasis
from cosa_theory.projections import ENSEMBLES, KINDS
from cosa_theory.spectrum.budget import cosa_shape
from cosa_theory.spectrum.families.base import VALUE_BITS, Cost, Draws, Fit, Size, Update
from cosa_theory.spectrum.families.fitted import Matrix, add, drawn_places, leading_factors
from cosa_theory.spectrum.families.masks import entries, placed

__all__: list[str] = []

_MOST_BITS = 8
# Delta-CoMe: the leading directions at 8 bits take this share of the room, the next at 3 bits, the
# last at 2 bits.
_MIXED = ((8, 0.25), (3, 0.5), (2, 0.25))


def _numbers(bits: float) -> int:
    return math.ceil(bits / VALUE_BITS)


def _sized(bits: int, parameters: int, text: str, m: int, n: int, *parts: int) -> Size:
    if bits > VALUE_BITS * parameters:
        return Size.unmet(f"it takes {bits:,} bits, as {_numbers(bits):,} numbers do")
    return Size(_numbers(bits), text, None, None, min(m, n), parts)


def _sign_size(m: int, n: int, parameters: int) -> Size:
    return _sized(m * n + VALUE_BITS, parameters, "a bit for each entry", m, n)


def _signs(update: Update, size: Size, draws: Draws) -> Fit:
    """Return the signs of ΔW times the mean of its magnitudes, the best scale."""
    signs = np.where(update.delta >= 0, 1.0, -1.0)
    scale = np.array([np.mean(np.abs(update.delta))])
    return Fit((scale,), lambda scale: scale[0] * signs)


def _grid_size(m: int, n: int, parameters: int) -> Size:
    """Return the most bits for each entry, with one scale for each row."""
    bits = max(2, min(_MOST_BITS, (parameters - m) * VALUE_BITS // (m * n)))
    return _sized(bits * m * n + VALUE_BITS * m, parameters, f"{bits} bits", m, n, bits)


def _on_grid(values: Matrix, bits: int) -> tuple[Matrix, Matrix]:
    """Return whole numbers of so many bits and a step for each row: at its largest entry, the end.

    Two bits have the steps −1, 0 and 1, which serve best where 1 is nearer to the typical entry:
    of some ends the one with the least error is taken, row by row.
    """
    most = 2 ** (bits - 1) - 1
    top = np.max(np.abs(values), axis=1, keepdims=True)
    best_error = np.full(len(values), np.inf)
    steps, whole = np.zeros_like(top), np.zeros_like(values)
    for part in np.linspace(0.3, 1.0, 8) if bits < 5 else (1.0,):
        step = np.where(top > 0, part * top / most, 1.0)
        rounded = np.clip(np.rint(values / step), -most, most)
        error = np.sum((values - rounded * step) ** 2, axis=1)
        better = error < best_error
        best_error[better] = error[better]
        steps[better], whole[better] = step[better], rounded[better]
    return whole, steps


def _rounded(update: Update, size: Size, draws: Draws) -> Fit:
    whole, steps = _on_grid(update.delta, size.parts[0])
    return Fit((steps,), lambda steps: whole * steps)


def _mixed_size(m: int, n: int, parameters: int) -> Size:
    """Return how many directions get 8, 3 and 2 bits: each with one scale for either vector."""
    room = VALUE_BITS * parameters
    counts, left = [], min(m, n)
    for bits, share in _MIXED:
        count = min(left, int(share * room / (bits * (m + n) + 2 * VALUE_BITS)))
        counts.append(count)
        left -= count
    taken = sum(
        count * (bits * (m + n) + 2 * VALUE_BITS)
        for count, (bits, _) in zip(counts, _MIXED, strict=True)
    )
    if not sum(counts):
        least = _MIXED[-1][0] * (m + n) + 2 * VALUE_BITS
        return Size.unmet(f"one direction takes a quarter of {4 * least:,} bits")
    text = f"{counts[0]} + {counts[1]} + {counts[2]} directions at 8, 3 and 2 bits"
    return Size(_numbers(taken), text, None, None, sum(counts), tuple(counts))


def _mixed(update: Update, size: Size, draws: Draws) -> Fit:
    left, right = leading_factors(update, sum(size.parts))
    lengths = np.sqrt(np.linalg.norm(right, axis=1, keepdims=True))
    sides = left.T * lengths, right / np.where(lengths > 0, lengths, 1)
    ends = np.cumsum([0, *size.parts])
    whole: list[list[Matrix]] = [[], []]
    steps: list[list[Matrix]] = [[], []]
    for side, rows in enumerate(sides):
        for place, (bits, _) in enumerate(_MIXED):
            numbers, step = _on_grid(rows[ends[place] : ends[place + 1]], bits)
            whole[side].append(numbers)
            steps[side].append(step)
    rows, columns = (np.concatenate(parts) for parts in whole)
    trained = tuple(np.concatenate(parts) for parts in steps)
    return Fit(trained, lambda by, beside: (by * rows).T @ (beside * columns))


def _dropped(update: Update, size: Size, draws: Draws) -> Fit:
    """Return ΔW at P random places over P/(mn), whose mean over the places is ΔW."""
    shape, total = update.shape, update.delta.size
    places = drawn_places(update, total, size, draws, "mask")
    by = total / size.parameters
    kept = update.delta.flat[places]
    held = (2 * by - by**2) * float(kept @ kept)
    return Fit((kept,), lambda values: by * placed(values, places, shape), held)


def _core_size(m: int, n: int, parameters: int) -> Size:
    shape = cosa_shape(m, n, parameters)
    a, b = shape.a, shape.b
    return Size(a * b, f"a={a}, b={b}", a, b, min(a, b))


def _adjoint(update: Update, size: Size, draws: Draws, kind: str) -> Fit:
    """Return L (Lᵀ ΔW R) Rᵀ with projections whose adjoint has the mean ΔW."""
    assert size.a is not None
    assert size.b is not None
    basis = CosaBasis.sample(
        *update.shape, size.a, size.b, kind=kind, seed=draws.seed, scale="analysis", key=draws.key
    )
    core = basis.encode(update.delta)
    held = 2 * float(np.vdot(core, core)) - basis.update_energy(core)  # ⟨ΔW, L Y R⟩ is ‖Y‖²
    return Fit((core,), basis.synthesize, held)


def _stored(m: int, n: int, size: Size) -> Cost:
    """Return the cost of an update that is added to W before use."""
    return Cost(0, 0, VALUE_BITS * size.parameters)


_add = partial(add, group="stored")

_add(
    60,
    "bitdelta",
    "BitDelta (signs, one scale)",
    "J. Liu et al., arXiv 2402.10193 (2024)",
    _sign_size,
    _signs,
    _stored,
)
_add(
    61,
    "low_bits",
    "rounded to few bits, a scale per row",
    "uniform rounding to the nearest step",
    _grid_size,
    _rounded,
    _stored,
    "lower bound",
)
_add(
    62,
    "delta_come",
    "Delta-CoMe (low rank at 8, 3 and 2 bits)",
    "B. Ping et al., arXiv 2406.08903 (2024)",
    _mixed_size,
    _mixed,
    _stored,
    "lower bound",
)
_add(
    63,
    "dare",
    "DARE (random mask over p)",
    "L. Yu et al., arXiv 2311.03099 (2023)",
    entries,
    _dropped,
    _stored,
    drawn=True,
)
for _kind in KINDS:
    _add(
        64 + ENSEMBLES[_kind].order,
        f"adjoint_{_kind}",
        f"adjoint of a core, {ENSEMBLES[_kind].label}",
        "docs/theory.md, 6.3",
        _core_size,
        partial(_adjoint, kind=_kind),
        _stored,
        drawn=True,
    )
