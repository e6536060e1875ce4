"""Settings of a CoSA adapter, and the layer specifications they lead to."""

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.projection import ProjectionSpec
from cosa_theory.projections import ENSEMBLES, KINDS

__all__ = ["SHARED_KEY", "CosaSettings", "LayerSpec", "convert_alpha", "initial_core"]

SHARED_KEY = "*"
"""Key of projections that all layers of one size share; no module has such a name."""


@dataclass(frozen=True)
class LayerSpec:
    """One adapted layer: sizes, alpha and what its projections are drawn from.

    Attributes
    ----------
    name : str
        The module's name in the base model.
    m, n : int
        Output and input size.
    a, b : int
        Shape of the core.
    alpha : float
        The factor of the update.
    left : ProjectionSpec
        a × m, the transpose of L.
    right : ProjectionSpec
        b × n, R.
    """

    name: str
    m: int
    n: int
    a: int
    b: int
    alpha: float
    left: ProjectionSpec
    right: ProjectionSpec

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
        One of `cosa_theory.projections.KINDS`.
    options : mapping
        Options of the ensemble: ``density`` (very_sparse), ``nonzeros`` (sjlt).
    scale : {"synthesis", "analysis"}
        Normalisation of L and R: E‖L Y R‖² = ‖Y‖², or (mn/ab)‖Y‖² as in the released code.
    clip : bool
        Whether a > m and b > n are reduced to the layer, with one warning; else an error.
    shape_pattern : mapping of str to (a, b)
        Shapes of layers whose name, or its end after a dot, matches the regular expression.
    alpha_pattern : mapping of str to float
        Likewise for alpha.
    share_projections : bool
        One L for each (a, m) and one R for each (b, n) in the whole model.

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

    def __post_init__(self) -> None:
        problems = [
            f"{name} is {getattr(self, name)!r}; it must be a mapping"
            for name in ("options", "shape_pattern", "alpha_pattern")
            if not isinstance(getattr(self, name), Mapping)
        ]
        if problems:  # the other checks look into them
            raise InputError(*problems)
        problems = [*self._shape_problems(), *self._number_problems(), *self._ensemble_problems()]
        if problems:
            raise InputError(*problems)

    def _shape_problems(self) -> list[str]:
        problems = [
            f"{name} is {value!r}; it must be a positive integer"
            for name, value in (("a", self.a), ("b", self.b))
            if not _is_integer(value) or value < 1
        ]
        for pattern, shape in self.shape_pattern.items():
            pair = isinstance(shape, Sequence) and not isinstance(shape, str) and len(shape) == 2
            if not pair or not all(_is_integer(size) and size > 0 for size in shape):
                problems.append(
                    f"shape_pattern has {shape!r} for {pattern!r}; it must be two positive "
                    "integers, a and b"
                )
        for name, patterns in (
            ("shape_pattern", self.shape_pattern),
            ("alpha_pattern", self.alpha_pattern),
        ):
            problems += [
                f"{name} has {pattern!r}, which is no regular expression; write the end of a "
                "module's name, such as q_proj"
                for pattern in patterns
                if not _compiles(pattern)
            ]
        return problems

    def _number_problems(self) -> list[str]:
        alphas = {"alpha": self.alpha} | {
            f"alpha_pattern for {pattern!r}": alpha for pattern, alpha in self.alpha_pattern.items()
        }
        problems = [
            f"{name} is {value!r}; it must be a finite number"
            for name, value in alphas.items()
            if isinstance(value, bool)
            or not isinstance(value, (int, float))
            or not math.isfinite(value)
        ]
        if not _is_integer(self.seed) or self.seed < 0:
            problems.append(f"seed is {self.seed!r}; it must be a non-negative integer")
        return problems

    def _ensemble_problems(self) -> list[str]:
        problems = []
        if self.kind not in KINDS:
            problems.append(f"kind is {self.kind!r}; this version knows {', '.join(KINDS)}")
        if self.scale not in ("synthesis", "analysis"):
            problems.append(f"scale is {self.scale!r}; it must be synthesis or analysis")
        allowed = ENSEMBLES[self.kind].options if self.kind in ENSEMBLES else ()
        problems += [
            f"option {name} is {value!r}; {self.kind} takes {', '.join(allowed) or 'no option'}"
            for name, value in self.options.items()
            if name not in allowed
        ]
        return problems

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
            With `clip` False, if a core is larger than its layer; if haar or srht cannot have so
            many rows.

        Warns
        -----
        UserWarning
            Once, listing the layers whose core was reduced.
        """
        specs, clipped = {}, []
        for name, (m, n) in sizes.items():
            a, b = _matching(self.shape_pattern, name, (self.a, self.b))
            if a > m or b > n:
                clipped.append(f"{name}, {m} × {n}: ({a}, {b}) to ({min(a, m)}, {min(b, n)})")
            specs[name] = self._layer(name, m, n, min(a, m), min(b, n))
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

    def _layer(self, name: str, m: int, n: int, a: int, b: int) -> LayerSpec:
        key = SHARED_KEY if self.share_projections else name
        options = tuple(sorted(self.options.items()))

        def spec(k: int, d: int, role: str) -> ProjectionSpec:
            return ProjectionSpec(
                self.kind, k, d, seed=self.seed, scale=self.scale, key=(key, role), options=options
            )

        alpha = float(_matching(self.alpha_pattern, name, self.alpha))
        return LayerSpec(name, m, n, a, b, alpha, spec(a, m, "L"), spec(b, n, "R"))


def _is_integer(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _compiles(pattern: Any) -> bool:
    try:
        re.compile(pattern)
    except (re.error, TypeError):
        return False
    return isinstance(pattern, str)


def _matching(patterns: Mapping[str, Any], name: str, default: Any) -> Any:
    """Return the value of the first pattern that matches the name, or its end after a dot."""
    for pattern, value in patterns.items():
        if re.fullmatch(rf"(.*\.)?({pattern})", name):
            return value
    return default


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
    ValueError
        For another scale, or sizes that are not positive.
    """
    for name, scale in (("source", source), ("target", target)):
        if scale not in ("analysis", "synthesis"):
            raise ValueError(f"{name} is {scale!r}; it must be synthesis or analysis")
    if min(m, n, a, b) < 1:
        raise ValueError(f"(m, n, a, b) is {(m, n, a, b)}; sizes must be positive integers")
    if source == target:
        return alpha
    gain = math.sqrt(m * n / (a * b))
    return alpha * gain if target == "synthesis" else alpha / gain


def initial_core(
    a: int, b: int, *, init_weights: bool = True, dtype: torch.dtype = torch.float32
) -> Tensor:
    """Return the core a training starts from, shape (a, b).

    Parameters
    ----------
    a, b : int
        Shape.
    init_weights : bool, default True
        True: zeros, so that the adapted model starts as the base model. False: independent
        N(0, 1/b) entries from torch's generator, for tests that need an update at once.
    dtype : torch.dtype, default float32

    Returns
    -------
    Tensor
    """
    core = torch.zeros(a, b, dtype=dtype)
    return core if init_weights else nn.init.normal_(core, std=1 / math.sqrt(b))
