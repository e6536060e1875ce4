"""Run as a program of its own by C7: what projections come back from, and what they are then.

Reads one JSON object from standard input, {"folders": [...], "layers": ..., "a": ..., "m": ...,
"seed": ...}, and prints one: the hash of every projection that the adapter folders stand for, and
those of a draw whose seed is salted as in the released code.
"""

import hashlib
import json
import os
import sys
from typing import Any

import numpy as np

from cosa_theory.deltas.cosa_adapters import read_cosa_folder
from cosa_theory.ground.errors import InputError

__all__ = ["main", "of_folder", "of_values", "salted"]


def of_values(A: Any) -> str:
    """Return the SHA-256 hash of a projection's float32 entries: an array, csr array or SRHT."""
    dense = A.toarray() if hasattr(A, "toarray") else A
    if not isinstance(dense, np.ndarray):
        dense = (A.T @ np.eye(A.shape[0], dtype=np.float32)).T
    return hashlib.sha256(np.ascontiguousarray(dense, dtype=np.float32).tobytes()).hexdigest()


def of_folder(folder: str) -> dict[str, list[str]]:
    """Return the hashes of the projections of every layer, drawn from what the folder says.

    A draw that is not the one the layers had, by the fingerprint in the folder, has no hash that
    another process could have.
    """
    adapter = read_cosa_folder(folder)
    hashes = {}
    for name in adapter.layers:
        try:
            hashes[name] = [of_values(A) for A in adapter.projections(name)]
        except InputError:
            hashes[name] = [f"refused in process {os.getpid()}"] * 2
    return hashes


def salted(layers: int, a: int, m: int, seed: int) -> list[str]:
    """Return the hashes of one projection for each layer, drawn in the manner of the release.

    There the seed is the adapter's plus Python's `hash` of a constant text, which differs from
    process to process, and the layer's name is no part of it.
    """
    hashes = []
    for _ in range(layers):
        generator = np.random.default_rng((seed + hash("L")) % 2**32)
        hashes.append(of_values(generator.standard_normal((a, m), dtype=np.float32)))
    return hashes


def main() -> None:
    """Answer the question on standard input."""
    asked = json.load(sys.stdin)
    folders = {folder: of_folder(folder) for folder in asked["folders"]}
    released = salted(asked["layers"], asked["a"], asked["m"], asked["seed"])
    print(json.dumps({"folders": folders, "released": released}))


if __name__ == "__main__":
    main()
