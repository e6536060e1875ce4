"""Singular value decompositions of updates, kept on disk: in memory there is one at a time."""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.ground.files import atomic_path
from cosa_theory.spectrum.budget import lora_xs_rank

__all__ = ["Decompositions"]


class Decompositions:
    """Truncated decompositions of weights and their updates, each computed once.

    Parameters
    ----------
    folder : Path
        Where they are kept.
    rank : int
        The largest budget, as a rank of LoRA: as many singular triples are kept as LoRA-XS has of
        that budget, which is more.
    """

    def __init__(self, folder: Path, rank: int) -> None:
        self.folder = folder
        self.rank = rank

    def of(
        self, layer: str, role: str, matrix: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Return U, σ and Vᵀ of the matrix that has a role in a layer."""
        m, n = matrix.shape
        name = hashlib.sha256(f"{role} {layer}".encode()).hexdigest()[:32]
        path = self.folder / f"{name}.npy"
        if not path.is_file():
            most = lora_xs_rank(m, n, min(self.rank * (m + n), m * n))
            left, sigma, right = np.linalg.svd(matrix, full_matrices=False)
            kept = np.concatenate([left.T, sigma[:, None], right], axis=1)[:most]
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                np.save(file, kept, allow_pickle=False)
        kept = np.load(path, allow_pickle=False)
        return kept[:, :m].T, kept[:, m], kept[:, m + 1 :]
