"""Settings of a CoSA adapter, and the layer specifications they lead to."""

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

from cosa_theory.ground.checks import MOST_SIZE, choice, factor, pair, real, refuse, sizes, whole
from cosa_theory.ground.errors import InputError, Problems, quoted
from cosa_theory.ground.expressions import by_pattern, name_end
from cosa_theory.ground.fields import either, flag
from cosa_theory.nn.projection import ProjectionSpec
from cosa_theory.projections import ENSEMBLES, INFORMED, KINDS, left_projection

__all__ = ["SHARED_KEY", "CosaSettings", "LayerSpec", "convert_alpha", "initial_core"]

SHARED_KEY = "*"
"""Key of projections that all layers of one size share; no module has such a name."""

SCALES = ("synthesis", "analysis")

LEFTS = (*KINDS, "identity")
"""Ensembles of L that are not those of R."""

PROJECTION_DTYPES = ("float32", "bfloat16")
"""Types in which projections made from data are stored."""

_option = either(flag, real, must="a number, true or false")


@dataclass(frozen=True)
class LayerSpec:
    """One adapted layer of m × n: its name in the base model, core and alpha, and what is drawn."""

    name: str
    m: int
    n: int
    a: int
    b: int
    alpha: float
    left: ProjectionSpec  # a × m, the transpose of L
    right: ProjectionSpec  # b × n, R

    @classmethod
    def of(
        cls,
        name: str,
        size: tuple[int, int],
        core: tuple[int, int],
        alpha: float,
        key: str,
        *,
        kind: str,
        options: Mapping[str, Any],
        left: str | None = None,
        **law: Any,
    ) -> Self:
        """Return a layer of a size (m, n) with a core (a, b), drawn for `key` from a `law`."""
        on_left, of_left = left_projection(kind, core[0], size[0], dict(options), left)
        of_left.pop("moments", None)
        ensembles = (on_left, of_left), (kind, options)
        sides = (
            ProjectionSpec(one, k, d, key=(key, role), options=tuple(sorted(own.items())), **law)
            for (one, own), k, d, role in zip(ensembles, core, size, "LR", strict=True)
        )
        return cls(name, *size, *core, alpha, *sides)

    @property
    def key(self) -> str:
        """The key of the draw: the name, or `SHARED_KEY`."""
        return str(self.left.key[0])


@dataclass(frozen=True)
class CosaSettings:
    """What defines a CoSA adapter, whatever model it is put on.

    Parameters
    ----------
    a, b : int
        Rows and columns of the core; by default those of the paper [1]_.
    alpha : float
        The update is alpha · L Y R.
    seed : int
        Of the projections, non-negative.
    kind : str
        Ensemble of R, and of L: one of `cosa_theory.projections.KINDS`, or of `INFORMED`, whose
        projections are made from moments of the data, see `cosa_theory.nn.informed`.
    options : mapping
        Options of the ensemble: ``density`` (very_sparse), ``nonzeros`` (sjlt); ``power``,
        ``whiten``, ``centre`` (the informed ones).
    scale : {"synthesis", "analysis"}
        Normalisation of L and R: E‖L Y R‖² = ‖Y‖², or (mn/ab)‖Y‖² as in the released code.
    clip : bool
        Whether a > m and b > n are reduced to the layer, with one warning; else an error.
    shape_pattern : mapping of str to (a, b)
        Shapes of layers whose name, or its end after a dot, matches the regular expression.
    alpha_pattern : mapping of str to float
        Likewise for alpha.
    share_projections : bool
        One L for each (a, m) and one R for each (b, n) in the whole model. Layers that read the
        same input (q, k and v; gate and up) then compute R x once, and share its dropout.
    left : str, optional
        Another ensemble for L: one of `KINDS`, or "identity", which leaves the layers' output
        uncompressed. a is then each layer's m, whatever is given, and L costs nothing. Without
        it L of an informed kind is the identity where a = m; elsewhere Haar for "activation".
    projection_dtype : {"float32", "bfloat16"}
        To which projections made from data are rounded when they are made, and stored.

    Raises
    ------
    InputError
        For a value outside these.

    References
    ----------
    .. [1] "CoSA: Compressed Sensing-Based Adaptation of Large Language Models", arXiv 2602.05148.
    """

    a: int = 1024
    b: int = 256
    alpha: float = 1.0
    seed: int = 0
    kind: str = "gaussian"
    options: Mapping[str, Any] = field(default_factory=dict)
    scale: str = "synthesis"
    clip: bool = True
    shape_pattern: Mapping[str, Sequence[int]] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)
    share_projections: bool = False
    left: str | None = None
    projection_dtype: str = "float32"

    def __post_init__(self) -> None:
        found = Problems()
        for name in ("options", "shape_pattern", "alpha_pattern"):
            if not isinstance(getattr(self, name), Mapping):
                found.append(refuse(name, getattr(self, name), "a mapping"))
        found.report()  # the other checks look into them
        checked: dict[str, Any] = {"shape_pattern": {}, "alpha_pattern": {}}
        for name, bounds in (("a", (1, MOST_SIZE)), ("b", (1, MOST_SIZE)), ("seed", (0, None))):
            with found:
                checked[name] = whole(name, getattr(self, name), *bounds)
        with found:
            checked["alpha"] = factor("alpha", self.alpha)
        with found:
            choice("kind", self.kind, (*KINDS, *INFORMED))
        with found:
            choice("scale", self.scale, SCALES)
        with found:
            choice("projection_dtype", self.projection_dtype, PROJECTION_DTYPES)
        for name in ("clip", "share_projections"):
            with found:
                flag(name, getattr(self, name))
        with found:
            if self.left is not None:
                choice("left", self.left, LEFTS)
        if self.share_projections and self.kind in INFORMED:
            found.add(
                f"share_projections is True, but those of kind {self.kind!r} differ from layer to "
                "layer, as their inputs do: leave it False"
            )
        for pattern, shape in self.shape_pattern.items():
            with found:
                name_end("a name in shape_pattern", pattern)
                where = f"shape_pattern of {quoted(pattern)}"
                checked["shape_pattern"][pattern] = pair(where, shape, MOST_SIZE)
        for pattern, alpha in self.alpha_pattern.items():
            with found:
                name_end("a name in alpha_pattern", pattern)
                where = f"alpha_pattern of {quoted(pattern)}"
                checked["alpha_pattern"][pattern] = factor(where, alpha)
        found.add(*self._unknown_options())
        for name, value in self.options.items():
            with found:
                _option(f"option {name}", value)
        found.report()
        for name, value in checked.items():  # plain numbers, which a file can hold
            object.__setattr__(self, name, value)

    def _unknown_options(self) -> list[str]:
        known = ENSEMBLES[self.kind].options if self.kind in (*KINDS, *INFORMED) else ()
        allowed = [name for name in known if name != "moments"]  # no setting, but data
        return [
            f"option {name} is {quoted(value)}: "
            f"{self.kind} takes {', '.join(allowed) or 'no option'}"
            for name, value in self.options.items()
            if name not in allowed
        ]

    def layers(self, sizes: Mapping[str, tuple[int, int]]) -> dict[str, LayerSpec]:
        """Return the specification of every layer.

        Parameters
        ----------
        sizes : mapping of str to (m, n)
            Output and input size of every layer to adapt, by its name in the base model.

        Returns
        -------
        dict of str to LayerSpec

        Raises
        ------
        InputError
            With `clip` False, if a core is larger than its layer; if a layer has no inputs or no
            outputs.

        Warns
        -----
        UserWarning
            Once, listing the layers whose core was reduced.
        """
        specs, clipped = {}, []
        for name, (m, n) in sizes.items():
            label = name or "the layer"
            if not (m and n):
                raise InputError(f"{label} is {m} × {n}, which leaves nothing to adapt: exclude it")
            a, b = by_pattern(self.shape_pattern, name, (self.a, self.b))
            a = m if self.left == "identity" else a
            if a > m or b > n:
                clipped.append(f"{label}, {m} × {n}: ({a}, {b}) to ({min(a, m)}, {min(b, n)})")
            specs[name] = self.layer(name, m, n, min(a, m), min(b, n))
        if clipped and not self.clip:
            raise InputError(
                f"the core is larger than {len(clipped)} of {len(sizes)} layers: "
                f"{'; '.join(clipped)}; choose a smaller core, or let clip=True reduce it"
            )
        if clipped:
            warnings.warn(
                f"the core is larger than {len(clipped)} of {len(sizes)} layers and was reduced: "
                f"{'; '.join(clipped)}",
                stacklevel=3,
            )
        return specs

    def layer(self, name: str, m: int, n: int, a: int, b: int) -> LayerSpec:
        """Return the specification of one layer, m × n, with a core of just these a × b."""
        return LayerSpec.of(
            name,
            (m, n),
            (a, b),
            by_pattern(self.alpha_pattern, name, self.alpha),
            SHARED_KEY if self.share_projections else name,
            kind=self.kind,
            seed=self.seed,
            scale=self.scale,
            options=self.options,
            left=self.left,
        )


def convert_alpha(
    alpha: float,
    m: int,
    n: int,
    a: int,
    b: int,
    *,
    source: str = "analysis",
    target: str = "synthesis",
) -> float:
    """Carry alpha from one scale of the projections to the other: the same update ΔW.

    At analysis scale L Y R is √(mn/ab) times what it is at synthesis scale, so alpha at synthesis
    scale is √(mn/ab) times alpha at analysis scale, that of the released code.

    Parameters
    ----------
    alpha : float
        At the source's scale.
    m, n : int
        Size of the layer.
    a, b : int
        Shape of the core.
    source, target : {"analysis", "synthesis"}
        The two scales.

    Returns
    -------
    float

    Raises
    ------
    InputError
        For another scale, or sizes that are not positive.
    """
    choice("source", source, SCALES)
    choice("target", target, SCALES)
    sizes(m=m, n=n, a=a, b=b)
    if source == target:
        return alpha
    gain = math.sqrt(m * n / (a * b))
    return alpha * gain if target == "synthesis" else alpha / gain


def initial_core(
    a: int, b: int, *, init_weights: bool = True, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the core a training starts from, shape (a, b).

    Zeros, so that the adapted model starts as the base model; without `init_weights` independent
    N(0, 1/b) entries from torch's generator, for tests that need an update at once.
    """
    core = torch.zeros(a, b, dtype=dtype)
    return core if init_weights else nn.init.normal_(core, std=1 / math.sqrt(b))
