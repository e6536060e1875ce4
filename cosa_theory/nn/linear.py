"""A linear layer with a CoSA update, in plain PyTorch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from cosa_theory.ground.checks import choice, real, refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.fields import flag
from cosa_theory.nn.forward import ORDERS, Update, cosa_update, delta_weight, with_updates
from cosa_theory.nn.merging import MergeTrial
from cosa_theory.nn.projection import FrozenProjection, draw_projections
from cosa_theory.nn.settings import CosaSettings, LayerSpec, initial_core
from cosa_theory.projections import ENSEMBLES

__all__ = ["CosaLinear", "check_options"]


class CosaLinear(nn.Module):
    """A frozen linear layer plus a compressed update: y = W x + bias + scaling · L(Y(R x)) [1]_.

    L (m × a) and R (b × n) are random, drawn from the seed and the key, and frozen; the core Y
    (a × b) starts at zero and is the only trainable tensor.

    Parameters
    ----------
    base_layer : nn.Linear
        The layer to adapt, m × n; its parameters are frozen.
    a, b, alpha, seed, kind, options, scale, clip, left
        As for `cosa_theory.nn.settings.CosaSettings`.
    key : str, default ""
        What the projections belong to: the layer's name in its model. Layers of equal size with
        equal keys have equal projections.
    dropout : float, default 0
        Probability that an entry of the update's input is dropped while training.
    init_weights : bool, default True
        Whether the core starts at zero; see `cosa_theory.nn.settings.initial_core`.
    core_dtype : torch.dtype, default float32
        Type of the core. Small steps of the optimiser are lost in a core of half precision.
    order : {"auto", "through", "left", "right"}, default "auto"
        Order of the products; see `cosa_theory.nn.forward.cosa_update`.
    projections : (FrozenProjection, FrozenProjection), optional
        The a × m transpose of L and the b × n R, instead of drawing them; a and b are theirs.

    Attributes
    ----------
    Y : nn.Parameter, shape (a, b)
        The core.
    left, right : FrozenProjection
        The transpose of L, a × m, and R, b × n.
    scaling : float
        alpha, times the magnitudes of sign ensembles: the layers' `L` and `R` then hold signs.
    merged : bool
        Whether the base layer's weight contains the update.

    Raises
    ------
    InputError
        If `base_layer` is no linear layer, a setting is invalid, the projections given are not of
        the layer's size, or `kind` is made from data and none are given.

    References
    ----------
    .. [1] "CoSA: Compressed Sensing-Based Adaptation of Large Language Models", arXiv 2602.05148.
    """

    def __init__(
        self,
        base_layer: nn.Linear,
        a: int = 1024,
        b: int = 256,
        *,
        alpha: float = 1.0,
        seed: int = 0,
        kind: str = "gaussian",
        options: Mapping[str, Any] | None = None,
        scale: str = "synthesis",
        clip: bool = True,
        left: str | None = None,
        key: str = "",
        dropout: float = 0.0,
        init_weights: bool = True,
        core_dtype: torch.dtype = torch.float32,
        order: str = "auto",
        projections: tuple[FrozenProjection, FrozenProjection] | None = None,
    ) -> None:
        super().__init__()
        if not isinstance(base_layer, nn.Linear):
            raise InputError(
                f"base_layer is of type {type(base_layer).__name__}; CosaLinear adapts nn.Linear"
            )
        check_options(dropout, order, core_dtype, init_weights)
        settings = CosaSettings(a, b, alpha, seed, kind, options or {}, scale, clip, left=left)
        m, n = base_layer.out_features, base_layer.in_features
        weight = base_layer.weight
        if projections is None:
            projections = _drawn(settings.layers({key: (m, n)})[key], weight.dtype)
        one, other = projections
        if (one.d, other.d) != (m, n):
            raise refuse(
                "projections",
                f"{one.k} × {one.d} and {other.k} × {other.d}",
                f"a × {m} and b × {n} for a layer of {m} × {n}",
            )
        self.spec: LayerSpec = settings.layer(key, m, n, one.k, other.k)
        self.base_layer = base_layer.requires_grad_(False)
        self.left, self.right = one, other
        if weight.device.type != "meta":  # the seed can wait until the model has its memory
            self.left.to(weight.device)
            self.right.to(weight.device)
        self.scaling = alpha * self.left.factor * self.right.factor
        self.dropout, self.order, self.merged = float(dropout), order, False
        self._merged_scaling = self.scaling  # that the weight contains, whatever it becomes
        core = initial_core(self.spec.a, self.spec.b, init_weights=init_weights, dtype=core_dtype)
        self.Y = nn.Parameter(core.to(weight.device))

    @property
    def L(self) -> Tensor:
        """What is stored of L, shape (m, a): L itself, or its signs."""
        return self.left.matrix().mT

    @property
    def R(self) -> Tensor:
        """What is stored of R, shape (b, n): R itself, or its signs."""
        return self.right.matrix()

    @property
    def weight(self) -> Tensor:
        """The base layer's weight, shape (m, n)."""
        return self.base_layer.weight

    @property
    def bias(self) -> Tensor | None:
        """The base layer's bias, shape (m,)."""
        return self.base_layer.bias

    def delta_weight(self) -> Tensor:
        """Return ΔW = scaling · L Y R, shape (m, n), in float32 (float64 for such a core)."""
        return delta_weight(self.Y, self.left, self.right, self.scaling)

    def forward(self, x: Tensor) -> Tensor:
        """Return W x + bias + scaling · L(Y(R x)), shape (..., m)."""
        one = Update(
            self.Y, self.left, self.right, self.scaling, self.dropout, self.order, id(self)
        )
        updates = [] if self.merged else [one]
        return with_updates(self.base_layer, x, updates, training=self.training)

    @torch.no_grad()
    def merge(self) -> None:
        """Add ΔW to the base layer's weight; nothing happens if it is there already.

        Raises
        ------
        InputError
            If the sum is not finite, or the base layer then computes something else, as a hook that
            changes its weight makes it do; the weight is then left as it was.
        """
        if self.merged:
            return
        weight, name = self.base_layer.weight, self.spec.name or "the layer"
        before = weight.detach().clone()
        try:
            trial = MergeTrial.of(self.base_layer, weight, self.spec.n)
            self._add(self.scaling)
            if trial is not None:
                trial.check(cosa_update(trial.wide, self.Y, self.left, self.right, self.scaling))
        except InputError as error:
            weight.data.copy_(before)
            raise InputError(f"{name} cannot be merged: {error}") from None
        self.merged, self._merged_scaling = True, self.scaling

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take ΔW out of the base layer's weight again, to within a rounding of the weight."""
        if self.merged:
            self._add(-self._merged_scaling)
            self.merged = False

    def _add(self, scaling: float) -> None:
        delta = delta_weight(self.Y, self.left, self.right, scaling)
        weight = self.base_layer.weight
        changed = (weight.to(delta.dtype) + delta).to(weight.dtype)
        if not torch.isfinite(changed).all():
            raise InputError(
                "its weight with the update is not finite; the core holds NaN or values too large "
                "for the weight's dtype"
            )
        weight.data.copy_(changed)

    def extra_repr(self) -> str:
        """Return shape, scaling and dropout for `repr`."""
        a, b = self.Y.shape
        return f"core={a} × {b}, scaling={self.scaling:.4g}, dropout={self.dropout:g}"


def check_options(
    dropout: float, order: str, core_dtype: torch.dtype, init_weights: bool = True
) -> None:
    """Refuse options of a layer that are out of range, before anything is drawn."""
    flag("init_weights", init_weights)
    real("dropout", dropout, least=0, below=1)
    choice("order", order, ("auto", *ORDERS))
    if not isinstance(core_dtype, torch.dtype) or not core_dtype.is_floating_point:
        raise refuse("core_dtype", core_dtype, "a floating-point type, such as torch.float32")


def _drawn(spec: LayerSpec, dtype: torch.dtype) -> tuple[FrozenProjection, FrozenProjection]:
    if ENSEMBLES[spec.right.kind].data_dependent:
        raise InputError(
            f"kind is {spec.right.kind!r}, whose projections are made from data: adapt the layer "
            "inside its model with add_cosa, which takes the moments, or give projections",
            argument="kind",
        )
    made = draw_projections((spec.left, spec.right), dtype=dtype)
    return made[spec.left], made[spec.right]
