"""Which moments of a model are gathered in full, which are sketched, and from how many tokens."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from cosa_theory.ground.checks import whole
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.moments.sums import ExactSum, SketchedSum, Sum, Thinning, sketch_width

__all__ = ["Plan", "linear_weights"]

# Multiplications that cost no time to speak of: tokens are thinned beyond them, ...
_FREE = 2e9
# ... but not below so many of a layer, ...
_FEWEST = 256
# ... and to what this share of the model's own multiplications pays for.
_SHARE = 0.08


def linear_weights(network: nn.Module) -> dict[str, nn.Module]:
    """Return the linear layers of a model by the names of their weights, each weight once.

    `Conv1D` of transformers counts as well, although it stores in × out.
    """
    found, seen = {}, set()
    for name, module in network.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, nn.Parameter) or weight.ndim != 2 or id(weight) in seen:
            continue
        if isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D":
            seen.add(id(weight))
            found[f"{name}.weight" if name else "weight"] = module
    return found


class Plan:
    """Makes the empty sums of a model's layers, all of which fit into a bound of memory.

    Parameters
    ----------
    network : nn.Module
        The model.
    modules : mapping of str to nn.Module
        Those of its linear layers that moments are wanted of.
    gradients : bool
        Whether moments of gradients are wanted too.
    seed, most_bytes, directions : int
        See `layer_moments`.

    Raises
    ------
    InputError
        If they do not fit.
    """

    def __init__(
        self,
        network: nn.Module,
        modules: Mapping[str, nn.Module],
        gradients: bool,
        seed: int,
        most_bytes: int,
        directions: int,
    ) -> None:
        shapes = {name: _shape(module) for name, module in modules.items()}
        self._widths = {("inputs", name): n for name, (_, n) in shapes.items()}
        if gradients:
            self._widths |= {("gradients", name): m for name, (m, _) in shapes.items()}
        self._seed, self._directions = seed, whole("directions", directions)
        self._sketched = self._chosen(whole("most_bytes", most_bytes))
        price = sum(map(self._price, self._widths))
        own = sum(m * n for m, n in map(_shape, linear_weights(network).values()))
        own *= 3 if gradients else 1  # going backwards takes twice what going forwards does
        self._thinning = Thinning(max(_FEWEST, int(_FREE / price)), min(1.0, _SHARE * own / price))

    def __call__(self, side: str, name: str) -> Sum:
        """Return the empty sum of "inputs" or "gradients" of a layer."""
        width = self._widths[side, name]
        if (side, name) not in self._sketched:
            return ExactSum(width, self._thinning)
        return SketchedSum(width, self._thinning, self._directions, self._seed, f"{side} {name}")

    def _price(self, key: tuple[str, str]) -> float:
        """Return the multiplications that one vector takes."""
        width = self._widths[key]
        if key in self._sketched:
            return 2.0 * width * sketch_width(width, self._directions)
        return width**2 / 2

    def _chosen(self, most_bytes: int) -> set[tuple[str, str]]:
        """Return which sums are sketched: the widest."""
        total = sum(map(ExactSum.bytes, self._widths.values()))
        sketched: set[tuple[str, str]] = set()
        for key, width in sorted(self._widths.items(), key=lambda item: -item[1]):
            saved = ExactSum.bytes(width) - SketchedSum.bytes(width, self._directions)
            if total <= most_bytes or saved <= 0:
                break
            total -= saved
            sketched.add(key)
        if total > most_bytes:
            raise InputError(
                f"most_bytes is {most_bytes:,}: the moments of {len(self._widths)} layers take "
                f"{total:,} with {self._directions} directions of the widest: allow as much, or "
                "ask for fewer directions or layers",
                argument="most_bytes",
            )
        return sketched


def _shape(module: nn.Module) -> tuple[int, int]:
    """Return outputs and inputs of a linear layer; `Conv1D` of transformers stores in × out."""
    weight: Any = module.weight
    rows, columns = weight.shape
    return (rows, columns) if isinstance(module, nn.Linear) else (columns, rows)
