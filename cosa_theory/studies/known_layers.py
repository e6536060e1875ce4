"""What is known of the layers of a pair beforehand: second moments, by the names of its updates."""

import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from cosa_theory.deltas import LayerDelta
from cosa_theory.deltas.matching import first_few
from cosa_theory.ground.errors import InputError
from cosa_theory.projections import SecondMoments

if TYPE_CHECKING:
    from cosa_theory.nn.moments import Moments

__all__ = ["Known", "KnownLayers"]


@dataclass(frozen=True, eq=False)
class Known:
    """Second moments of one layer: of its inputs, and of the gradients of its outputs.

    `transposed` tells whether its weight is stored as inputs × outputs.
    """

    inputs: SecondMoments
    gradients: SecondMoments | None = None
    transposed: bool = False

    @property
    def projections(self) -> dict[str, SecondMoments]:
        """The options of `cosa_theory.CosaBasis.sample`."""
        sides = {"moments": self.inputs, "gradients": self.gradients}
        return {name: side for name, side in sides.items() if side is not None}

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `cosa_theory.spectrum.compare_families`."""
        return {**self.projections, "transposed": self.transposed}

    @property
    def described(self) -> dict[str, Any]:
        """What a result depends on besides `arrays`, as plain JSON values."""
        sides = [side for side in (self.inputs, self.gradients) if side is not None]
        return {"known": [[one.trace, one.count] for one in sides], "transposed": self.transposed}

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """The arrays a result depends on."""
        sides = [side for side in (self.inputs, self.gradients) if side is not None]
        parts = (part for one in sides for part in (one.matrix, one.vectors, one.values))
        return [part for part in parts if part is not None]


class KnownLayers:
    """The moments of a file beside the matrices of a pair.

    A matrix is matched to the moments under its own name, or under the only one that is its name
    without leading parts, or with more of them ("encoder.…" and "bert.encoder.…"), unless those
    are another's too.

    Parameters
    ----------
    moments : Moments or path
        As `cosa_theory.nn.moments.read_moments` reads it; which model they are of is not compared.
    names : iterable of str
        The names of the matrices.
    gradients : bool
        Whether those of the gradients are needed too.

    Attributes
    ----------
    notices : list of str
        Which matrices have none.

    Raises
    ------
    InputError
        If the file is none of moments, or no matrix has any.
    """

    def __init__(
        self,
        moments: "Moments | str | os.PathLike[str]",
        names: Iterable[str],
        *,
        gradients: bool = False,
    ) -> None:
        if isinstance(moments, (str, os.PathLike)):
            from cosa_theory.nn.moments import read_moments

            moments = read_moments(moments)
        self._moments = moments
        self._sides = [moments.inputs, *([moments.gradients] if gradients else [])]
        names = list(names)
        found = {name: self._held(name) for name in names}
        taken = Counter(found.values())
        self._names = {
            name: one
            for name, one in found.items()
            if one is not None and (one == name or taken[one] == 1)
        }
        missing = [name for name in names if name not in self._names]
        if not self._names:
            held = first_few(list(self._sides[-1]), 3) or "no layer"
            raise InputError(
                f"moments hold {'output gradients' if gradients else 'inputs'} of {held}: none is "
                f"a matrix of the pair, which has {first_few(names, 3)}; gather them with its base "
                "model",
                argument="moments",
            )
        self.notices = []
        if missing:
            self.notices.append(
                f"{len(missing)} of {len(names)} matrices have no moments and no informed "
                f"projections: {first_few(missing, 3)}."
            )

    def _held(self, name: str) -> str | None:
        held = set.intersection(*map(set, self._sides))
        if name in held:
            return name
        found = [one for one in held if name.endswith(f".{one}") or one.endswith(f".{name}")]
        return found[0] if len(found) == 1 else None

    def complete(self) -> "KnownLayers":
        """Return these, for a use in which every matrix needs them.

        Raises
        ------
        InputError
            If some matrix has none.
        """
        if self.notices:
            remedy = "gather them with these layers, or leave the layers out"
            raise InputError(f"{self.notices[0].rstrip('.')}: {remedy}", argument="moments")
        return self

    def of(self, layer: LayerDelta) -> Known | None:
        """Return what is known of one layer; see `named`."""
        return self.named(layer.name, layer.shape)

    def oriented(self, layer: str, shape: tuple[int, int]) -> Known | None:
        """Return what is known of a matrix by its name, and its outputs and inputs."""
        turned = self._names.get(layer) in self._moments.transposed
        return self.named(layer, shape[::-1] if turned else shape)

    def named(self, layer: str, shape: tuple[int, int]) -> Known | None:
        """Return what is known of a matrix by its name and the shape in which it is stored.

        Raises
        ------
        InputError
            If its shape is not that of its moments.
        """
        name = self._names.get(layer)
        if name is None:
            return None
        turned = name in self._moments.transposed
        known = Known(self._moments.inputs[name], self._moments.gradients.get(name), turned)
        m, n = shape[::-1] if turned else shape
        for side, width in ((known.inputs, n), (known.gradients, m)):
            if side is not None and side.n != width:
                raise InputError(
                    f"{layer} meets vectors of length {width}, but its moments are of length "
                    f"{side.n}: gather them with the pair's base model",
                    argument="moments",
                )
        return known
