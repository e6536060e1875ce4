"""Equal trainable parameters: the size each update family gets for one budget.

A budget is counted in ranks of LoRA: rank r trains P = r(m + n) numbers on an m × n layer, and
every other family gets the largest size that trains at most P.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cosa_theory.ground.checks import choice, several, whole
from cosa_theory.ground.errors import InputError

__all__ = [
    "CosaShape",
    "check_ranks",
    "cosa_shape",
    "default_ranks",
    "lora_parameters",
    "lora_xs_rank",
    "one_sided_shape",
]

# a·m + b·n may exceed its least value by this share, in exchange for a product a·b nearer to P.
_MEMORY_SLACK = 0.01
# With ab fixed, t times the best a costs (t + 1/t)/2 times the least memory: solved for 1 + slack.
_SLACK_RATIO = 1 + _MEMORY_SLACK + math.sqrt((1 + _MEMORY_SLACK) ** 2 - 1)
# Products that agree to this share count as equal; the shape nearest to the optimum then wins.
_TIE = 0.001
# A whole side is exact and needs no draw: it is given up only for a product larger by this share.
_SHORTFALL = 0.01


@dataclass(frozen=True)
class CosaShape:
    """The shape of a CoSA core: a rows and b columns of Y; L is m × a and R is b × n."""

    a: int
    b: int

    @property
    def parameters(self) -> int:
        """Trainable parameters, a·b."""
        return self.a * self.b


def lora_parameters(m: int, n: int, rank: int) -> int:
    """Count the trainable parameters of LoRA, r(m + n), which define the budget of rank r."""
    return whole("rank", rank) * (whole("m", m) + whole("n", n))


def cosa_shape(m: int, n: int, parameters: int, rule: str = "memory") -> CosaShape:
    """Choose the shape (a, b) of a CoSA core with at most `parameters` entries.

    What a core captures depends on the product ab alone, so ab should come as near to the budget as
    integers allow, and the shape is free to serve something else. See docs/theory.md, 1.8.

    Parameters
    ----------
    m, n : int
        Shape of the layer.
    parameters : int
        The budget P. At or above mn the core is the whole layer, (m, n).
    rule : {"memory", "square"}
        "memory" keeps the projections small: among the shapes with a·m + b·n within 1 % of the
        least possible (reached at a·m = b·n), and the integers next to that optimum, the one with
        the largest product (to 0.1 %; then the nearest to the optimum), but one with a whole side
        (a = m or b = n) if it is among them and spends 99 % of the budget. "square" keeps the rank
        wall min(a, b) high: a = b = ⌊√P⌋. Under both, a side that would exceed the layer is the
        whole side, cut a little if that brings ab more than 1 % nearer to P, and the other side
        grows into what it frees.

    Returns
    -------
    CosaShape
        With 1 ≤ a ≤ m, 1 ≤ b ≤ n and ab ≤ P.

    Raises
    ------
    InputError
        If a size or the budget is not a positive integer, or the rule is unknown.

    Notes
    -----
    A whole side needs no random projection: an orthonormal factor spans everything exactly, where
    a square Gaussian one, or one a little short of square, is badly conditioned.
    """
    m, n, parameters = whole("m", m), whole("n", n), whole("parameters", parameters)
    choice("rule", rule, ("memory", "square"))
    if parameters >= m * n:
        return CosaShape(m, n)
    # Real-valued optimum (a, b), then the whole side wherever it leaves the layer.
    a = math.sqrt(parameters) if rule == "square" else math.sqrt(parameters * n / m)
    b = parameters / a
    if a >= m or b < 1:
        return CosaShape(*_whole_side(m, parameters))
    if b >= n or a < 1:
        return CosaShape(*_whole_side(n, parameters)[::-1])
    if rule == "square":
        return CosaShape(math.isqrt(parameters), math.isqrt(parameters))
    enough = (1 - _SHORTFALL) * parameters
    if a * _SLACK_RATIO >= m and m * (parameters // m) >= enough:
        return CosaShape(m, parameters // m)
    if b * _SLACK_RATIO >= n and n * (parameters // n) >= enough:
        return CosaShape(parameters // n, n)
    return _largest_near(m, n, parameters, a)


def _whole_side(side: int, parameters: int) -> tuple[int, int]:
    """Return (this side, the other) with this side whole, or just short of it (see cosa_shape)."""
    kept = min(side, parameters)
    freed = parameters // kept
    short = parameters // (freed + 1)
    if short * (freed + 1) > (1 + _SHORTFALL) * kept * freed:
        return short, freed + 1
    return kept, freed


def _largest_near(m: int, n: int, parameters: int, ideal: float) -> CosaShape:
    """Return the largest product within the memory slack around the real-valued optimum."""
    ideal_b = parameters / ideal
    low = min(math.floor(ideal / _SLACK_RATIO), parameters // math.ceil(ideal_b))
    high = max(math.ceil(ideal * _SLACK_RATIO), parameters // math.floor(ideal_b))
    a = np.arange(max(1, low), min(m, high, parameters) + 1, dtype=np.int64)
    b = np.minimum(n, parameters // a)
    least = 2 * math.sqrt(parameters * m * n)
    near = a * m + b * n <= (1 + _MEMORY_SLACK) * least
    # Where integers are coarse, the neighbours of the optimum count as near whatever they cost.
    near |= (np.abs(a - ideal) < 1) | (np.abs(b - ideal_b) < 1)
    a, b = a[near], b[near]
    best = np.flatnonzero(a * b >= (1 - _TIE) * (a * b).max())
    index = best[np.argmin(np.abs(np.log(a[best] / ideal)))]
    return CosaShape(int(a[index]), int(b[index]))


def one_sided_shape(m: int, n: int, parameters: int) -> CosaShape:
    """Return the core with a = m, or with b = 1 where the budget is below m.

    L is then the identity. See docs/theory.md, 7.3.
    """
    a = min(whole("m", m), whole("parameters", parameters))
    return CosaShape(a, min(whole("n", n), parameters // a))


def lora_xs_rank(m: int, n: int, parameters: int) -> int:
    """Return the rank of LoRA-XS, whose r × r core trains r² numbers: ⌊√P⌋, at most min(m, n).

    Source: Bałazy, Banaei, Aberer, Tabor, "LoRA-XS: Low-Rank Adaptation with Extremely Small Number
    of Parameters", 2024, arXiv 2405.17604.
    """
    return min(whole("m", m), whole("n", n), math.isqrt(whole("parameters", parameters)))


def default_ranks(m: int, n: int) -> tuple[int, ...]:
    """Choose the budgets at which an m × n layer is compared when none are given.

    LoRA ranks 4, 8 and 16 where the largest trains at most half of the layer's mn entries (from
    64 × 64 on, for square layers). A smaller layer gets the largest rank within that half, its half
    and its quarter, or 1, 2 and 3 where those are not three different ranks. Fewer than three come
    back only if the layer has fewer than three ranks that train less than the layer itself,
    r(m + n) < mn (only layers with a side of at most 6); a layer with no such rank at all, a single
    row for example, gets rank 1, where every family is the full update.
    """
    m, n = whole("m", m), whole("n", n)
    half = m * n // (2 * (m + n))
    if half >= 16:
        return (4, 8, 16)
    if half >= 4:
        return (half // 4, half // 2, half)
    below_full = (m * n - 1) // (m + n)
    return tuple(range(1, min(3, below_full) + 1)) or (1,)


def check_ranks(ranks: Iterable[int]) -> tuple[int, ...]:
    """Return LoRA ranks that a user gave in increasing order, each once; refuse none at all."""
    given = sorted({whole("ranks", rank) for rank in several("ranks", ranks)})
    if not given:
        raise InputError("ranks is empty: give positive integers, as in 4,8,16", argument="ranks")
    return tuple(given)
