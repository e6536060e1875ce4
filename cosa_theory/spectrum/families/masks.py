"""Some entries of ΔW: a random mask, masks chosen by W, by a gradient or by ΔW; rows, columns."""

from collections.abc import Callable
from functools import partial

import numpy as np

from cosa_theory.spectrum.families.base import Cost, Draws, Fit, Size, Update, log2_choices
from cosa_theory.spectrum.families.fitted import Matrix, Places, add, drawn_places

__all__ = ["entries", "largest", "placed"]

Scores = Callable[[Update], Matrix]


def entries(m: int, n: int, parameters: int) -> Size:
    """Return the size of P entries, at most mn."""
    count = min(parameters, m * n)
    return Size(count, f"{count:,} entries", None, None, min(m, n, count))


def largest(scores: Matrix, count: int) -> Places:
    """Return the places of the largest of some scores, in the flattened array, in order."""
    flat = scores.ravel()
    return np.sort(np.argpartition(flat, flat.size - count)[flat.size - count :])


def placed(values: Matrix, places: Places, shape: tuple[int, ...]) -> Matrix:
    """Return a matrix that is zero but for some places."""
    made = np.zeros(shape, dtype=values.dtype)
    made.flat[places] = values
    return made


def _at(update: Update, places: Places) -> Fit:
    shape, kept = update.shape, update.delta.flat[places]
    return Fit((kept,), lambda values: placed(values, places, shape), held=float(kept @ kept))


def _masked(update: Update, size: Size, draws: Draws) -> Fit:
    """Return ΔW at places that a seed gives."""
    return _at(update, drawn_places(update, update.delta.size, size, draws, "mask"))


def _chosen(update: Update, size: Size, draws: Draws, scores: Scores) -> Fit:
    return _at(update, largest(np.abs(scores(update)), size.parameters))


def _weight(update: Update) -> Matrix:
    assert update.base is not None
    return update.base


def _slope(update: Update) -> Matrix:
    assert update.slope is not None
    return update.slope


def _free(m: int, n: int, size: Size) -> Cost:
    return Cost.of(size, 0, size.parameters)


def _told(m: int, n: int, size: Size) -> Cost:
    """Return the cost of values whose places have to be stored."""
    return Cost.of(size, 0, size.parameters, log2_choices(m * n, size.parameters))


def _lines(m: int, n: int, parameters: int, rows: bool) -> Size:
    length, most = (n, m) if rows else (m, n)
    count = min(parameters // length, most)
    word = "rows" if rows else "columns"
    if not count:
        return Size.unmet(f"one of the {word} has {length:,} numbers")
    return Size(count * length, f"{count} {word}", None, None, min(count, m, n), (count,))


def _kept_lines(update: Update, size: Size, draws: Draws, rows: bool) -> Fit:
    """Return the rows or columns of ΔW of largest norm, which is the best choice."""
    delta, (count,), shape = update.delta, size.parts, update.shape
    energy = update.once("energies", lambda: np.sum(delta**2, axis=1 if rows else 0))
    kept = largest(energy, count)
    where = (kept, slice(None)) if rows else (slice(None), kept)

    def build(values: Matrix) -> Matrix:
        made = np.zeros(shape)
        made[where] = values
        return made

    return Fit((delta[where],), build, held=float(energy[kept].sum()))


def _lines_cost(m: int, n: int, size: Size, rows: bool) -> Cost:
    places = log2_choices(m if rows else n, size.parts[0])
    return Cost.of(size, 0, size.parameters, places)


_add = partial(add, group="entries")

_add(
    30,
    "mask",
    "random mask",
    "SHiRA: K. Bhardwaj et al., arXiv 2406.13175 (2024)",
    entries,
    _masked,
    _free,
    drawn=True,
    law=True,
)
_add(
    31,
    "shira_weight",
    "SHiRA, mask of the largest |W|",
    "K. Bhardwaj et al., arXiv 2406.13175 (2024)",
    entries,
    partial(_chosen, scores=_weight),
    _free,  # W gives the places back
    needs_base=True,
)
_add(
    32,
    "shira_gradient",
    "SHiRA, mask of the largest gradients",
    "K. Bhardwaj et al., arXiv 2406.13175 (2024)",
    entries,
    partial(_chosen, scores=_slope),
    _told,
    needs_slope=True,
)
_add(
    33,
    "top_entries",
    "largest entries of ΔW (the best mask)",
    "K. Bhardwaj et al., arXiv 2406.13175 (2024)",
    entries,
    partial(_chosen, scores=lambda update: update.delta),
    _told,
)
for _place, _rows in ((34, True), (35, False)):
    _add(
        _place,
        "s2ft_rows" if _rows else "s2ft_columns",
        f"S2FT, {'rows' if _rows else 'columns'} of largest norm",
        "X. Yang et al., arXiv 2412.06289 (2024)",
        partial(_lines, rows=_rows),
        partial(_kept_lines, rows=_rows),
        partial(_lines_cost, rows=_rows),
    )
