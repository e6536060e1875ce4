"""The tuner layer: a linear layer with any number of CoSA adapters."""

import warnings
from collections.abc import Sequence
from typing import Any, cast

import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features, check_adapters_to_merge
from peft.utils import quantization_extra_repr, resolve_quantization_backend
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cosa_theory.ground.errors import InputError
from cosa_theory.nn.forward import Update, cosa_update, delta_weight, with_updates
from cosa_theory.nn.merging import MergeTrial
from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.peft.injection import Injection
from cosa_theory.nn.projection import FrozenProjection
from cosa_theory.nn.settings import initial_core

__all__ = ["CosaLayer", "Linear"]


class CosaLayer(BaseTunerLayer):
    """What every layer with CoSA adapters holds, by the adapter's name.

    Parameters
    ----------
    base_layer : Module
        The layer to adapt, m × n, or another method's tuner layer around it.
    **kwargs
        For quantised layers, those of PEFT's `get_quantization_kwargs`.

    Attributes
    ----------
    cosa_Y : ParameterDict
        Cores, a × b.
    cosa_L, cosa_R : ModuleDict
        Frozen projections: the transpose of L (a × m) and R (b × n). They have no parameters and
        no buffers, so that neither an optimiser nor a state dict meets them.
    cosa_alpha, cosa_dropout, scaling : dict of str to float
        alpha and dropout of each adapter; alpha times the magnitudes of both projections.
    """

    base_layer: nn.Module
    adapter_layer_names = ("cosa_Y",)
    other_param_names = ("cosa_L", "cosa_R", "cosa_alpha", "cosa_dropout", "scaling")

    def __init__(self, base_layer: nn.Module, **kwargs: Any) -> None:
        self.base_layer = base_layer
        self.quantization_backend = resolve_quantization_backend(
            self.get_base_layer(), get_apply_tensor_subclass=kwargs.get("get_apply_tensor_subclass")
        )
        self.cosa_Y = nn.ParameterDict({})
        self.cosa_L = nn.ModuleDict({})
        self.cosa_R = nn.ModuleDict({})
        self.cosa_alpha: dict[str, float] = {}
        self.cosa_dropout: dict[str, float] = {}
        self.scaling: dict[str, float] = {}
        # Adapters whose core PEFT keeps in float32 whatever the type of the model.
        self._float32_cores: set[str] = set()
        self._disable_adapters = False
        self.merged_adapters: list[str] = []
        self._merged_scaling: dict[str, float] = {}  # that the weight contains
        self.in_features, self.out_features = _get_in_out_features(self.get_base_layer())
        self.fan_in_fan_out = isinstance(self.get_base_layer(), Conv1D)

    def update_layer(
        self,
        adapter_name: str,
        injection: Injection,
        config: CosaConfig,
        inference_mode: bool = False,
        **kwargs: Any,
    ) -> None:
        """Add an adapter: `injection` for this layer, with dropout and start by `config`."""
        self.cosa_L[adapter_name], self.cosa_R[adapter_name] = injection.left, injection.right
        self.cosa_alpha[adapter_name] = injection.alpha
        self.cosa_dropout[adapter_name] = float(config.dropout)
        self.update_scaling(adapter_name)
        core = initial_core(injection.left.k, injection.right.k, init_weights=config.init_weights)
        self.cosa_Y[adapter_name] = nn.Parameter(core)
        self._move_adapter_to_device_of_base_layer(adapter_name)
        self.set_adapter(self.active_adapters, inference_mode=inference_mode)

    def left(self, adapter: str) -> FrozenProjection:
        """Return the transpose of an adapter's L, a × m."""
        return cast(FrozenProjection, self.cosa_L[adapter])

    def right(self, adapter: str) -> FrozenProjection:
        """Return an adapter's R, b × n."""
        return cast(FrozenProjection, self.cosa_R[adapter])

    def update_scaling(self, adapter: str) -> None:
        """Set the scaling of an adapter to alpha times the magnitudes of its projections."""
        factor = self.left(adapter).factor * self.right(adapter).factor
        self.scaling[adapter] = self.cosa_alpha[adapter] * factor

    def keep_core_in_float32(self, adapter_name: str, keep: bool) -> None:
        """Note whether a core loaded later stays in float32 or takes the base layer's type."""
        (self._float32_cores.add if keep else self._float32_cores.discard)(adapter_name)

    def _move_adapter_to_device_of_base_layer(
        self, adapter_name: str, device: torch.device | None = None
    ) -> None:
        """Move a core to the base layer's device, and to its type unless float32 was asked for.

        The projections were planned for this place; only a device that is given moves them.
        """
        if adapter_name not in self.cosa_Y:
            return
        core = self.cosa_Y[adapter_name]
        if core.device.type != "meta":
            where, dtype = self._get_base_layer_device_and_dtype(self.get_base_layer())
            keep = adapter_name in self._float32_cores
            if keep or dtype is None or not dtype.is_floating_point:
                dtype = core.dtype
            moved = core.to(device or where or core.device, dtype)
            self.cosa_Y[adapter_name] = nn.Parameter(moved, requires_grad=core.requires_grad)
        if device is not None:
            self.cosa_L[adapter_name].to(device)
            self.cosa_R[adapter_name].to(device)

    def get_delta_weight(self, adapter: str) -> Tensor:
        """Return an adapter's ΔW = alpha · L Y R as the base layer stores its weight.

        (m, n), or (n, m) for Conv1D, in float32 (float64 for a core in float64).
        """
        return self._delta(adapter, self.scaling[adapter])

    def _delta(self, adapter: str, scaling: float) -> Tensor:
        core = self.cosa_Y[adapter]
        delta = delta_weight(core, self.left(adapter), self.right(adapter), scaling)
        return delta.T if self.fan_in_fan_out else delta

    def set_scale(self, adapter: str, scale: float) -> None:
        """Set the scaling of an adapter to `scale` times that of its alpha."""
        if adapter in self.cosa_Y:
            self.update_scaling(adapter)
            self.scaling[adapter] *= scale

    def scale_layer(self, scale: float) -> None:
        """Multiply the scaling of the active adapters; what is merged stays as it was merged."""
        for adapter in self.active_adapters:
            if adapter in self.cosa_Y:
                self.scaling[adapter] *= scale

    def unscale_layer(self, scale: float | None = None) -> None:
        """Divide the scaling of the active adapters; with None set it to that of their alpha."""
        for adapter in self.active_adapters:
            if adapter not in self.cosa_Y:
                continue
            if scale is None:
                self.update_scaling(adapter)
            else:
                self.scaling[adapter] /= scale

    @torch.no_grad()
    def merge(self, safe_merge: bool = False, adapter_names: list[str] | None = None) -> None:
        """Add the updates of adapters, by default the active ones, to the base weight.

        Every merge is checked, whether `safe_merge` or not.

        Raises
        ------
        InputError
            If a merged weight is not finite, or the base layer then computes something else than
            with the update beside it; its weight is then left as it was.
        """
        before, merged = None, len(self.merged_adapters)
        try:
            for adapter in check_adapters_to_merge(self, adapter_names):
                if adapter in self.cosa_Y:
                    before = self.get_base_weight() if before is None else before
                    self._merge_one(adapter)
        except Exception:
            if before is not None:
                self.set_base_weight(before)
            del self.merged_adapters[merged:]
            raise

    def _merge_one(self, adapter: str) -> None:
        # A quantised weight is rounded again, by more than could be told from an error.
        trial = None
        if self.quantization_backend is None:
            trial = MergeTrial.of(self.base_layer, self.get_base_weight(), self.in_features)
        weight = self._with_update(adapter, self.scaling[adapter])
        if not torch.isfinite(weight).all():
            raise InputError(
                f"NaNs detected in the merged weights. The adapter {adapter} seems to be broken"
            )
        self.set_base_weight(weight)
        if trial is not None:
            trial.check(self._update(trial.wide, adapter))
        self.merged_adapters.append(adapter)
        self._merged_scaling[adapter] = self.scaling[adapter]

    @torch.no_grad()
    def unmerge(self) -> None:
        """Take all merged updates out of the base weight, to within a rounding of the weight."""
        if not self.merged:
            warnings.warn("Already unmerged. Nothing to do.", stacklevel=2)
            return
        self.take_out(list(self.merged_adapters))

    @torch.no_grad()
    def take_out(self, adapters: Sequence[str]) -> None:
        """Take the updates of some merged adapters out of the base weight."""
        for adapter in reversed(adapters):
            self.merged_adapters.remove(adapter)
            if adapter in self.cosa_Y:
                self.set_base_weight(self._with_update(adapter, -self._merged_scaling[adapter]))

    def _with_update(self, adapter: str, scaling: float) -> Tensor:
        """Return the base weight + an update, summed in float32 at least and rounded once."""
        weight, delta = self.get_base_weight(), self._delta(adapter, scaling)
        dtype = torch.promote_types(delta.dtype, weight.dtype)
        return (weight.to(dtype) + delta.to(weight.device, dtype)).to(weight.dtype)

    def _update_of(self, adapter: str) -> Update:
        """Return what the update of an adapter consists of, with its dropout."""
        return Update(
            self.cosa_Y[adapter],
            self.left(adapter),
            self.right(adapter),
            self.scaling[adapter],
            dropout=self.cosa_dropout[adapter],
            reader=(id(self), adapter),
        )

    def _update(self, x: Tensor, adapter: str) -> Tensor:
        """Return the update of an adapter, (..., m), without dropout."""
        return cosa_update(x, *self._update_of(adapter)[:4])

    def supports_lora_conversion(self, adapter_name: str = "default") -> bool:
        """Return True: the update is a difference of weights, of rank at most min(a, b)."""
        return True


class Linear(nn.Module, CosaLayer):
    """A linear layer (quantised or not, or Conv1D) with CoSA adapters.

    y = W x + bias + Σ scaling · L(Y(R x)) over the active adapters.

    Parameters
    ----------
    base_layer : Module
        As for `CosaLayer`.
    adapter_name : str
        Name of the first adapter.
    injection, config, **kwargs
        As for `CosaLayer.update_layer` and `CosaLayer`.
    """

    base_layer: nn.Module
    active_adapters: list[str]

    def __init__(
        self,
        base_layer: nn.Module,
        adapter_name: str,
        injection: Injection,
        config: CosaConfig,
        **kwargs: Any,
    ) -> None:
        super().__init__()
        CosaLayer.__init__(self, base_layer, **kwargs)
        self._active_adapter = adapter_name
        self.update_layer(adapter_name, injection, config)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return the base layer's output with the updates of the active adapters, (..., m).

        What follows x is for the base layer, but for `adapter_names`: an adapter for every sample
        of the batch, "__base__" for none.

        Raises
        ------
        ValueError
            If `adapter_names` does not fit the batch, or adapters are merged.
        """
        adapter_names = kwargs.pop("adapter_names", None)
        if self.disable_adapters:
            if self.merged:
                self.unmerge()
            return self.base_layer(x, *args, **kwargs)
        if adapter_names is not None:
            self._check_names(x, adapter_names)
        base = self.base_layer if self.quantization_backend is None else self._cloned
        if self.merged or adapter_names is not None:
            result = base(x, *args, **kwargs)
            return result if self.merged else self._mixed(x, result, adapter_names)
        updates = [self._update_of(one) for one in self.active_adapters if one in self.cosa_Y]
        return with_updates(base, x, updates, *args, training=self.training, **kwargs)

    def _cloned(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Return a quantised base layer's output, copied where its kind asks for it."""
        result = self.base_layer(x, *args, **kwargs)
        return self.quantization_backend.maybe_clone_base_result(result)

    def _mixed(self, x: Tensor, result: Tensor, adapter_names: Sequence[str]) -> Tensor:
        """Add to each sample the update of its own adapter."""
        for adapter in dict.fromkeys(adapter_names):
            if adapter not in self.cosa_Y:  # "__base__", or an adapter of other layers
                continue
            rows = [row for row, name in enumerate(adapter_names) if name == adapter]
            where = torch.tensor(rows, device=x.device)
            rows_of_x = x.index_select(0, where)
            update = self._update(rows_of_x, adapter).to(result.dtype)
            result = result.index_add(0, where, update)
        return result

    def _check_names(self, x: Tensor, adapter_names: Sequence[str]) -> None:
        if len(x) != len(adapter_names):
            raise ValueError(
                "Length of `adapter_names` should be the same as the number of inputs, but got "
                f"{len(adapter_names)} and {len(x)} respectively."
            )
        if self.merged:
            raise ValueError(
                "Cannot pass `adapter_names` when there are merged adapters, please call "
                "`unmerge_adapter` first."
            )

    def extra_repr(self) -> str:
        """Return the quantisation, if any, for `repr`."""
        return str(quantization_extra_repr(self))

    def __repr__(self) -> str:
        return "cosa." + super().__repr__()
