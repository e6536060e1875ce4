"""Sums over tokens, from which second moments come: all of Σ x xᵀ, or its product with a few."""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import torch
from numpy.typing import NDArray

from cosa_theory.projections import SecondMoments, stream

__all__ = ["ExactSum", "SketchedSum", "Sum", "Thinning", "sketch_width"]

_BLOCK = 1024  # tokens that are multiplied at once, so that sums are seldom touched
_GOLDEN = (5**0.5 - 1) / 2
_PANEL = 512  # columns of a symmetric product that are computed at once, from the diagonal down


@dataclass(frozen=True)
class Thinning:
    """How many tokens of a batch are added: all at first, then a share of them."""

    first: int
    share: float

    def taken(self, seen: int, rows: int) -> int:
        """Return how many of so many more rows are added, at least one."""
        whole = min(max(self.first - seen, 0), rows)
        return whole + int(np.ceil(self.share * (rows - whole)))


class Sum(ABC):
    """Σ w x xᵀ of one layer's vectors x, Σ w x, and how many there are.

    Of the tokens of a batch one is taken of every so many, with weights w by which they stand for
    all: what is summed is on average over all tokens, whatever share was taken. Which one it is
    follows the golden ratio, so that each is taken as often: were it always the first of them, the
    first token of a text, which in language models may be far larger than all others, would stand
    for too many.

    Attributes
    ----------
    finite : bool
        Whether none of those that were taken was NaN or infinite.
    """

    def __init__(self, width: int, thinning: Thinning) -> None:
        self.finite = True
        self._thinning = thinning
        self._mean = np.zeros(width)  # times `seen`
        self._numbers = np.zeros(2)
        self._waiting: list[torch.Tensor] = []
        self._number = 0  # of rows that wait

    @property
    def seen(self) -> int:
        """How many vectors came."""
        return int(self._numbers[0])

    @property
    def count(self) -> int:
        """How many were taken."""
        return int(self._numbers[1])

    def add(self, vectors: torch.Tensor, places: torch.Tensor | None) -> None:
        """Add rows of a matrix: all, or those at some places, thinned."""
        rows = len(vectors) if places is None else len(places)
        if not rows:
            return
        taken = self._thinning.taken(self.seen, rows)
        chosen = self._spread(rows, taken).to(vectors.device)
        kept = vectors.detach()[chosen if places is None else places[chosen]]
        kept = kept if kept.dtype == torch.float64 else kept.float()
        if taken < rows:
            kept *= (rows / taken) ** 0.5
        totals = kept.new_full((taken,), (rows / taken) ** 0.5) @ kept
        self._mean += totals.double().cpu().numpy()
        self.finite = bool(np.isfinite(self._mean).all())
        self._numbers += rows, taken
        self._waiting.append(kept)
        self._number += taken
        if self._number >= _BLOCK:
            self.sum_up()

    def _spread(self, rows: int, taken: int) -> torch.Tensor:
        """Return places of one row in each of so many equal parts, every row as often as others."""
        numbers = torch.arange(taken, dtype=torch.float64)
        if taken < rows:
            numbers += ((self.count + numbers) * _GOLDEN).frac()
            numbers *= rows / taken
        return numbers.long().clamp_(max=rows - 1)

    def sum_up(self) -> None:
        """Multiply what waits, in the precision that it has, and add it to the sum in double."""
        if self._waiting:
            for rows in torch.cat(self._waiting).split(_BLOCK):
                self._multiply(rows)
            self._waiting, self._number = [], 0

    @abstractmethod
    def _multiply(self, rows: torch.Tensor) -> None:
        """Add the products of some rows."""

    def arrays(self) -> dict[str, NDArray[np.float64]]:
        """Return all that is summed: it adds up over processes, and may be written to."""
        self.sum_up()
        return {"mean": self._mean, "numbers": self._numbers, **self._products()}

    @abstractmethod
    def _products(self) -> dict[str, NDArray[np.float64]]:
        """Return the sums of products."""

    @abstractmethod
    def trace(self) -> float:
        """Return Σ w ‖x‖² of what is summed up."""

    @abstractmethod
    def moments(self, name: str) -> SecondMoments:
        """Return the moments, in single precision; the sum is used up."""

    def mean(self) -> NDArray[np.float32]:
        """Return E x."""
        return (self._mean / self.seen).astype(np.float32)


class ExactSum(Sum):
    """All of Σ x xᵀ: its lower triangle.

    The product of the first block is kept in its own precision, until there is another to add.
    """

    def __init__(self, width: int, thinning: Thinning) -> None:
        super().__init__(width, thinning)
        self.total: torch.Tensor | None = None

    @staticmethod
    def bytes(width: int) -> int:
        """Return the memory of one, and of what waits."""
        return 8 * width**2 + 4 * _BLOCK * width

    def _multiply(self, rows: torch.Tensor) -> None:
        width = rows.shape[1]
        if self.total is None:
            self.total = torch.zeros(width, width, dtype=rows.dtype)
        else:
            self.total = self.total.double()
        for start in range(0, width, _PANEL):
            columns = slice(start, min(start + _PANEL, width))
            self.total[start:, columns] += (rows[:, start:].T @ rows[:, columns]).cpu()

    def _products(self) -> dict[str, NDArray[np.float64]]:
        if self.total is None:
            self.total = torch.zeros(len(self._mean), len(self._mean))
        self.total = self.total.double()
        return {"total": self.total.numpy()}

    def trace(self) -> float:
        """Return the sum of the diagonal."""
        return 0.0 if self.total is None else float(self.total.diagonal().sum(dtype=torch.float64))

    def moments(self, name: str) -> SecondMoments:
        """Return C, all of it, and the mean."""
        self.sum_up()
        total, self.total = self.total, None
        assert total is not None
        lower = total.tril_().mul_(1 / self.seen).float()
        del total  # in double precision the most of the memory
        lower.diagonal().mul_(0.5)
        whole = lower.add_(lower.T.contiguous()).numpy()
        return SecondMoments(whole, mean=self.mean(), count=self.count, where=name)


class SketchedSum(Sum):
    """Y = Σ x (xᵀ Ω) with a Gaussian Ω of few columns, and Σ ‖x‖².

    Parameters
    ----------
    directions : int
        Eigenpairs that are wanted.
    seed : int
        Of Ω.
    name : str
        Which layer's it is: Ω of each has a stream of its own.

    Notes
    -----
    C is approximated by C Ω (Ωᵀ C Ω)⁻¹ (C Ω)ᵀ, which is at most C and exact where its rank is no
    larger than the number of columns [1]_.

    References
    ----------
    .. [1] J. A. Tropp, A. Yurtsever, M. Udell, V. Cevher, "Fixed-rank approximation of a
       positive-semidefinite matrix from streaming data", NIPS 2017, algorithm 3.
    """

    def __init__(
        self, width: int, thinning: Thinning, directions: int, seed: int, name: str
    ) -> None:
        super().__init__(width, thinning)
        self.directions = min(directions, width)
        columns = sketch_width(width, directions)
        drawn = stream(seed, "moments", name).standard_normal((width, columns), np.float32)
        self.test = torch.from_numpy(drawn)
        self.total = np.zeros((width, columns))
        self._trace = np.zeros(1)

    @staticmethod
    def bytes(width: int, directions: int) -> int:
        """Return the memory of one, and of what waits."""
        return 12 * width * sketch_width(width, directions) + 4 * _BLOCK * width

    def _multiply(self, rows: torch.Tensor) -> None:
        self.test = self.test.to(rows.device)
        # Every column of the sketch holds the largest direction, and in single precision its
        # roundings would hide those that are a ten-millionth of it.
        rows = rows.double()
        product = rows.T @ (rows @ self.test.double())
        self.total += product.cpu().numpy()
        self._trace += float(torch.linalg.vector_norm(rows)) ** 2

    def _products(self) -> dict[str, NDArray[np.float64]]:
        return {"total": self.total, "trace": self._trace}

    def trace(self) -> float:
        """Return Σ w ‖x‖², which is exact."""
        return float(self._trace[0])

    def moments(self, name: str) -> SecondMoments:
        """Return the leading eigenpairs of C, its exact trace, and the mean."""
        self.sum_up()
        test = self.test.cpu().numpy().astype(np.float64)
        sketch, trace = self.total / self.seen, self.trace() / self.seen
        inner = test.T @ sketch
        values, vectors = scipy.linalg.eigh((inner + inner.T) / 2, check_finite=False)
        # Of fewer vectors than columns some are zero, but for rounding.
        least = len(values) * np.finfo(np.float64).eps * float(values[-1])
        root = vectors / np.sqrt(np.maximum(values, least))
        basis, singular, _ = scipy.linalg.svd(
            sketch @ root, full_matrices=False, check_finite=False
        )
        kept = slice(0, self.directions)
        return SecondMoments(
            vectors=basis[:, kept].astype(np.float32),
            values=(singular[kept] ** 2).astype(np.float32),
            trace=trace,
            mean=self.mean(),
            count=self.count,
            where=name,
        )


def sketch_width(width: int, directions: int) -> int:
    """Return the columns of Ω: a quarter more than the directions, and some."""
    return min(width, directions + directions // 4 + 10)
