"""Singular value decompositions of updates, kept on disk: in memory there is one at a time."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.files import atomic_path

__all__ = ["Decompositions"]


class Decompositions:
    """Truncated decompositions of updates, each computed once.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    rank : int
        How many singular triples are kept of each.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.rank = rank

    def of(
        self, layer: str, matrix: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return U, σ and Vᵀ of the update of a layer."""
        m = len(matrix)
        name = hashlib.sha256(layer.encode()).hexdigest()[:32]
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            left, sigma, right = np.linalg.svd(matrix, full_matrices=False)
            kept = np.concatenate([left.T, sigma[:, None], right], axis=1)[: self.rank]
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, kept, allow_pickle=False)
        kept = np.load(path, allow_pickle=False)
        return kept[:, :m].T, kept[:, m], kept[:, m + 1 :]
