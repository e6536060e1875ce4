"""Singular value decompositions of updates, kept on disk: in memory there is one at a time."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.files import atomic_path

__all__ = ["Decompositions"]


class Decompositions:
    """Truncated decompositions by the name of the update, computed once.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    rank : int
        The most singular triples that are asked for.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.rank = rank

    def of(self, layer: LayerDelta) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return U, σ and Vᵀ of an update, cut to the largest rank."""
        m = layer.shape[0]
        path = self.folder / f"{hashlib.sha256(layer.name.encode()).hexdigest()[:32]}.npy"
        if not path.is_file():
            left, sigma, right = np.linalg.svd(layer.delta, full_matrices=False)
            kept = np.concatenate([left.T, sigma[:, None], right], axis=1)[: self.rank]
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, kept, allow_pickle=False)
        kept = np.load(path, allow_pickle=False)
        return kept[:, :m].T, kept[:, m], kept[:, m + 1 :]
