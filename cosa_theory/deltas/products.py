"""Adapters whose updates are products of two factors, as if they were sparse tuned models."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping

from cosa_theory.deltas.checkpoint import Checkpoint
from cosa_theory.deltas.layers import Matrix
from cosa_theory.deltas.tying import is_vocabulary
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["AdapterCheckpoint"]


class AdapterCheckpoint(Checkpoint):
    """The update of an adapter in PEFT's folder format, as if it were a sparse tuned model.

    `stored` are the adapter's own tensors; `fan_in_fan_out` is what its configuration says of the
    layers it was put on: whether they store their weight as in × out. `products` are the weights,
    without PEFT's wrapper, that are given by factors, and whether the product is the transpose of
    the weight; other names are whole replacement tensors (`modules_to_save`).
    """

    partial = True

    def __init__(self, label: str, stored: Checkpoint, fan_in_fan_out: bool) -> None:
        self.label, self.config, self.infos = label, {}, {}
        self.products: dict[str, bool] = {}
        self._stored, self._flag = stored, fan_in_fan_out
        self._whole: dict[str, str] = {}
        self._fixed: set[str] = set()  # orientation known whatever the base's weight looks like

    def _add_whole(self, name: str, tensor: str) -> None:
        """Take in a replacement tensor."""
        self._whole[name] = tensor
        self.infos[name] = self._stored.infos[tensor]

    def _add_product(self, name: str, dtype: str, shape: tuple[int, ...], transposed: bool) -> None:
        """Take in a product of this shape, out × in, that may be the transpose of the weight."""
        self.products[name] = transposed
        self.infos[name] = TensorInfo(dtype, shape[::-1] if transposed else shape)

    def align(self, pairs: Iterable[tuple[str, str]], base: Mapping[str, TensorInfo]) -> list[str]:
        """Orient every product like the weight it is added to.

        PEFT goes by the class of the layer, which files do not tell: a rectangular weight shows
        its orientation, a square one follows `fan_in_fan_out`, provided the rectangular ones do
        not contradict it.
        """
        squares, seen = [], set()
        for base_name, name in pairs:
            info = self.infos[name]
            if name not in self.products or name in self._fixed or len(info.shape) != 2:
                continue
            if info.shape[0] == info.shape[1]:
                squares.append(base_name)
                continue
            if base[base_name].shape == info.shape[::-1]:
                self.infos[name] = TensorInfo(info.dtype, info.shape[::-1])
                self.products[name] = not self.products[name]
            # A head is a linear layer also where the others are Conv1D layers.
            if base[base_name].shape == self.infos[name].shape and not is_vocabulary(name):
                seen.add(self.products[name])
        if squares and seen - {self._flag}:
            return [
                f"{self.label}: fan_in_fan_out is {str(self._flag).lower()} in "
                f"adapter_config.json, but other weights are stored the other way, so the "
                f"orientation of square ones is unknown ({len(squares)}, first {squares[0]}): "
                "correct the setting, or exclude them."
            ]
        return []

    def factors(self, name: str) -> tuple[Matrix, Matrix]:
        """Return B and A with ΔW = B A in the orientation of the base's weight."""
        left, right = self._factors(name)
        return (right.T, left.T) if self.products[name] else (left, right)

    @abstractmethod
    def _factors(self, name: str) -> tuple[Matrix, Matrix]:
        """Return the factors of the product as out × in, the scaling in one of them."""

    def load(self, name: str, part: int | None = None) -> Matrix:
        """Return a replacement tensor (`modules_to_save`)."""
        loaded: Matrix = self._stored.load(self._whole[name], part)
        return loaded

    def sample(self, name: str) -> bytes:
        """Return a few entries of a replacement tensor as bytes; none for factors."""
        return b"" if name in self.products else self._stored.sample(self._whole[name])

    def identical(self, first: str, second: str) -> bool:
        """Tell whether two replacement tensors are the same, bit for bit."""
        return self._stored.identical(self._whole[first], self._whole[second])
