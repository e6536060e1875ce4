"""The tuner: CoSA layers put into a model, with what PEFT asks of a method."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from peft.tuners.tuners_utils import BaseTuner, BaseTunerLayer, onload_layer
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING, get_quantization_kwargs
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from cosa_theory.deltas.wrapped_names import unwrapped_name
from cosa_theory.ground.checks import choice, refuse
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.adaptable import tie_problems, warn_unmergeable
from cosa_theory.nn.pairs import Placement
from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.peft.injection import (
    Injection,
    prepare_injections,
    refuse_unusable_values,
)
from cosa_theory.nn.peft.layer import CosaLayer, Linear
from cosa_theory.nn.peft.mixed import adapters_of_samples
from cosa_theory.nn.peft.registration import PREFIX
from cosa_theory.nn.peft.state import (
    adapter_tensors,
    layer_records,
    restore_stored,
    stored_projections,
)
from cosa_theory.nn.peft.targeting import (
    base_of,
    name_targets,
    plain_check,
    plain_name,
    plain_places,
    target_layers,
)
from cosa_theory.nn.peft.weighted import combined_config, combined_injections, set_combined_cores
from cosa_theory.nn.targets import call_encoder_layers, is_all_linear
from cosa_theory.nn.wrappers import uncompiled, unparallel

__all__ = ["CosaModel"]


class CosaModel(BaseTuner):
    """A model whose linear layers learn ΔW = alpha · L Y R, by compressed-sensing adaptation [1]_.

    Parameters
    ----------
    model : Module
        The model to adapt.
    peft_config : CosaConfig
        What to adapt, and how.
    adapter_name : str
        Name of the adapter.
    low_cpu_mem_usage : bool, default False
        Leave the cores without memory, for values that are loaded at once.

    Attributes
    ----------
    model : Module
        The adapted model.
    peft_config : dict of str to CosaConfig
        By adapter.

    References
    ----------
    .. [1] "CoSA: Compressed Sensing-Based Adaptation of Large Language Models", arXiv 2602.05148.

    Examples
    --------
    >>> from peft import get_peft_model
    >>> from cosa_theory.nn.peft import CosaConfig
    >>> model = get_peft_model(base, CosaConfig(a=256, b=256, task_type="CAUSAL_LM"))
    """

    prefix: str = PREFIX
    tuner_layer_cls = CosaLayer
    target_module_mapping = TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING

    def __init__(self, model: nn.Module, *args: Any, **kwargs: Any) -> None:
        super().__init__(unparallel(uncompiled(model)), *args, **kwargs)

    def inject_adapter(
        self,
        model: nn.Module,
        adapter_name: str,
        autocast_adapter_dtype: bool = True,
        low_cpu_mem_usage: bool = False,
        state_dict: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Put an adapter into the model, after everything about it was checked and drawn.

        Parameters as for PEFT's `BaseTuner`.

        Raises
        ------
        ValueError
            If the adapter cannot be put into this model, which is then left as it was.
        """
        _refuse_name(adapter_name)
        config = self.peft_config[adapter_name]
        targets = target_layers(model, config, state_dict)
        present = {
            (projection.spec, Placement.of(layer.get_base_layer())): projection
            for layer in model.modules()
            if isinstance(layer, CosaLayer)
            for adapter in layer.cosa_Y
            for projection in (layer.left(adapter), layer.right(adapter))
            if projection.spec is not None
        }
        refuse_unusable_values(model, config)
        prepared = prepare_injections(targets, config, present, state_dict, model)
        if is_all_linear(config.target_modules) and state_dict is None:
            name_targets(model, config, list(targets))
        _follow_orientation(config, targets)
        warn_unmergeable(model, targets)
        self._inject_prepared(
            prepared,
            model,
            adapter_name,
            autocast_adapter_dtype=autocast_adapter_dtype,
            low_cpu_mem_usage=low_cpu_mem_usage,
            state_dict=state_dict,
        )

    def _inject_prepared(
        self, prepared: dict[str, Injection], model: nn.Module, adapter_name: str, **kwargs: Any
    ) -> None:
        self._prepared, self._plain = prepared, plain_places(model)
        try:
            super().inject_adapter(model, adapter_name, **kwargs)
        finally:
            self._prepared = {}
        call_encoder_layers(model, CosaLayer)

    def _check_target_module_exists(self, peft_config: CosaConfig, key: str) -> Any:
        """Match a module by its plain name; of a wrapper and what it wraps, only the latter."""
        return plain_check(self._plain)(peft_config, key)

    def _create_and_replace(
        self,
        peft_config: CosaConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        **optional_kwargs: Any,
    ) -> None:
        injection = self._prepared[self._plain[current_key]]
        if isinstance(target, CosaLayer):
            target.update_layer(adapter_name, injection, config=peft_config)
            return
        kwargs = get_quantization_kwargs(self)
        layer = Linear(target, adapter_name, injection, config=peft_config, **kwargs)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(
        self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module
    ) -> None:
        if isinstance(new_module, CosaLayer):
            # It is where it belongs already, and projections must not follow a base layer
            # without memory to the meta device.
            setattr(parent, child_name, new_module)
        else:
            super()._replace_module(parent, child_name, new_module, child)

    def _cast_adapter_dtype(self, adapter_name: str, autocast_adapter_dtype: bool = True) -> None:
        for module in self.model.modules():
            if isinstance(module, CosaLayer):
                module.keep_core_in_float32(adapter_name, autocast_adapter_dtype)
        super()._cast_adapter_dtype(adapter_name, autocast_adapter_dtype)

    def merge_adapter(
        self, adapter_names: list[str] | None = None, safe_merge: bool = False
    ) -> None:
        """Merge adapters into the weights, all layers or none; parameters as for PEFT.

        Raises
        ------
        InputError
            If a weight is tied to that of another module, or a layer cannot be merged; it is named,
            and weights that were merged before are restored to within a rounding.
        """
        self._check_merge_allowed()
        done: list[tuple[Any, list[str]]] = []
        for name, layer in self.model.named_modules():
            if not isinstance(layer, BaseTunerLayer):
                continue
            earlier = list(layer.merged_adapters)
            try:
                with onload_layer(layer):
                    layer.merge(adapter_names=adapter_names, safe_merge=safe_merge)
            except Exception as error:
                for other, names in done:
                    with onload_layer(other):
                        other.take_out(names) if isinstance(other, CosaLayer) else other.unmerge()
                if isinstance(error, InputError):
                    raise InputError(f"{plain_name(name)} cannot be merged: {error}") from None
                raise
            done.append((layer, [one for one in layer.merged_adapters if one not in earlier]))

    def _check_merge_allowed(self) -> None:
        adapted = [
            plain
            for name, plain in plain_places(self.model).items()
            if isinstance(self.model.get_submodule(name), CosaLayer)
        ]
        problems = tie_problems(self.model, adapted)
        if problems:
            raise InputError(problems[0])  # the others have the same cause
        super()._check_merge_allowed()

    def _unload_and_optionally_merge(self, merge: bool = True, **kwargs: Any) -> Any:
        if merge:  # all or none, before a layer is replaced
            names, safe = kwargs.get("adapter_names"), kwargs.get("safe_merge", False)
            self.merge_adapter(names, safe)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "All adapters are already merged|Already following")
            return super()._unload_and_optionally_merge(merge=merge, **kwargs)

    @contextmanager
    def _enable_peft_forward_hooks(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        adapter_names = kwargs.get("adapter_names")
        if adapter_names is None:
            yield
            return
        num_beams = kwargs.get("num_beams")
        with adapters_of_samples(
            self, adapter_names, num_beams if isinstance(num_beams, int) else 1
        ):
            yield

    def add_weighted_adapter(
        self,
        adapters: list[str],
        weights: list[float],
        adapter_name: str,
        combination_type: str = "linear",
    ) -> None:
        """Add an adapter whose update is a weighted sum of the updates of others: exactly.

        Adapters with the same L and R add by their cores: Σ wᵢ αᵢ L Yᵢ R = L (Σ wᵢ αᵢ Yᵢ) R. The
        new adapter has alpha = 1; layers that an adapter lacks count as zero.

        Parameters
        ----------
        adapters : list of str
            Adapters of equal seed, kind, scale and shapes.
        weights : list of float
            One for each.
        adapter_name : str
            Name of the new adapter, which is neither active nor trainable.
        combination_type : {"linear"}, default "linear"
            As PEFT's LoRA has it; of its ways to combine, here only this one is exact.

        Raises
        ------
        InputError
            If the adapters do not share their projections, or cannot be added for another reason,
            or no adapter can have the name.
        """
        choice("combination_type", combination_type, ("linear",))
        _refuse_name(adapter_name)
        config = combined_config(self.model, self.peft_config, adapters, weights, adapter_name)
        prepared = combined_injections(self.model, adapters)
        self.peft_config[adapter_name] = config
        try:
            self._inject_prepared(prepared, self.model, adapter_name)
        except Exception:
            del self.peft_config[adapter_name]
            raise
        set_combined_cores(self.model, adapters, weights, adapter_name)

    @classmethod
    def _get_adapter_state_dict(
        cls,
        model: nn.Module,
        config: CosaConfig,
        adapter_name: str,
        state_dict: dict[str, Tensor],
        unwanted_adapter_names: list[str],
    ) -> dict[str, Tensor]:
        tensors = adapter_tensors(model, adapter_name, state_dict, config.bias)
        projections = stored_projections(model, adapter_name, config)
        config._records = {
            "layers": layer_records(model, adapter_name, config, tensors),
            "model_type": getattr(getattr(model, "config", None), "model_type", None),
            "projection_bytes": sum(one.nbytes for one in projections.values()),
        }
        return tensors | projections

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: nn.Module, config: CosaConfig, adapter_name: str, state_dict: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        return restore_stored(model, adapter_name, config, state_dict)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        return unwrapped_name(super()._remove_adapter_name_from_key(key, adapter_name))


def _refuse_name(adapter_name: str) -> None:
    """Raise InputError for a name that torch cannot give a module, and so PEFT no adapter."""
    if not adapter_name or "." in adapter_name or hasattr(nn.ModuleDict(), adapter_name):
        raise refuse(
            "adapter_name",
            adapter_name,
            "a name without a dot, and none that torch's modules use themselves, such as keys",
        )


def _follow_orientation(config: CosaConfig, targets: Mapping[str, nn.Module]) -> None:
    """Set `fan_in_fan_out` to what the layers are, with a warning if it was set otherwise."""
    transposed = any(isinstance(base_of(module), Conv1D) for module in targets.values())
    if targets and config.fan_in_fan_out != transposed:
        kind = "`Conv1D`" if transposed else "`torch.nn.Linear`"
        warnings.warn(
            f"fan_in_fan_out is set to {config.fan_in_fan_out} but the target module is {kind}. "
            f"Setting fan_in_fan_out to {transposed}.",
            stacklevel=3,
        )
        config.fan_in_fan_out = transposed
