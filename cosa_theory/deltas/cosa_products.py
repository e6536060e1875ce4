"""CoSA adapters as updates of a model: ΔW = alpha · L Y R as a product of two thin factors."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.deltas.cosa_adapters import CosaFolder, CosaRecord
from cosa_theory.deltas.layers import Matrix
from cosa_theory.deltas.products import AdapterCheckpoint
from cosa_theory.linear.operators import Factor

__all__ = ["CosaCheckpoint", "thin_factors"]


def thin_factors(folder: CosaFolder, name: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return B (m × r) and A (r × n) with B A = alpha · L Y R and r = min(a, b), in float64.

    For b ≤ a, B = alpha · L Y and A = R; otherwise B = alpha · L and A = Y R. Nothing of the size
    of ΔW is formed. Errors as of `CosaFolder.projections`.
    """
    record, core = folder.layers[name], folder.core(name).astype(np.float64)
    left, right = (Factor(matrix) for matrix in folder.projections(name))
    if record.b <= record.a:
        return left.T.left(record.alpha * core), _dense(right)
    return record.alpha * _dense(left).T, right.T.left(core.T).T


def _dense(factor: Factor) -> Any:
    """Return a wide factor as a dense array, from products with the smaller identity matrix."""
    if factor.is_operator:
        return factor.T.left(np.eye(factor.shape[0])).T
    return factor.dense(np.dtype(np.float64))


class CosaCheckpoint(AdapterCheckpoint):
    """The update of a CoSA adapter, as if it were a sparse tuned model.

    Its projections are drawn when a layer is read, and compared with their fingerprints.
    """

    def __init__(self, folder: CosaFolder) -> None:
        super().__init__(folder.label, folder.stored, bool(folder.settings.get("fan_in_fan_out")))
        self._folder = folder
        self._records: dict[str, CosaRecord] = {}
        for module, record in folder.layers.items():
            name = f"{module}.weight" if module else "weight"
            self._records[name] = record
            dtype = folder.stored.infos[record.core].dtype
            self._add_product(name, dtype, (record.m, record.n), self._flag)
        for name, tensor in folder.whole.items():
            if ".base_layer." not in name:  # copies of the base's own tensors
                self._add_whole(name, tensor)

    def _factors(self, name: str) -> tuple[Matrix, Matrix]:
        """Return (alpha · L Y, R), or (alpha · L, Y R) where a is the smaller of the two."""
        record = self._records[name]
        left, right = thin_factors(self._folder, record.name)
        wide = self._stored.infos[record.core].dtype == "float64"
        dtype = np.dtype(np.float64 if wide else np.float32)
        return left.astype(dtype), right.astype(dtype)
