"""What an injection will do, settled and checked before the model is touched."""

import copy
import difflib
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from peft.tuners.tuners_utils import BaseTunerLayer, _get_in_out_features
from peft.utils import resolve_quantization_backend
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers.pytorch_utils import Conv1D

from cosa_theory.deltas.cosa_adapters import CosaFolder, CosaRecord
from cosa_theory.deltas.matching import by_pattern
from cosa_theory.ground.errors import InputError
from cosa_theory.nn.folder import read_cores, whole_problems
from cosa_theory.nn.peft.config import CosaConfig
from cosa_theory.nn.projection import (
    FrozenProjection,
    ProjectionSpec,
    draw_projections,
    given_projection,
)
from cosa_theory.nn.settings import LayerSpec

__all__ = ["LayerPlan", "Placement", "base_of", "plan_layers", "refuse_unusable_values"]

SMALL = 1000
"""Entries below which a sparse projection may by chance have none that is not zero."""

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


@dataclass(frozen=True)
class LayerPlan:
    """One layer to adapt.

    Attributes
    ----------
    name : str
        Its name in the base model.
    a, b : int
        Shape of the core.
    alpha : float
        Factor of the update.
    left, right : FrozenProjection
        The transpose of L (a × m) and R (b × n), where and in the type the layer computes.
    """

    name: str
    a: int
    b: int
    alpha: float
    left: FrozenProjection
    right: FrozenProjection


@dataclass(frozen=True)
class Placement:
    """Where a layer computes, and in which type."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def of(cls, base: nn.Module) -> "Placement":
        """Return that of a base layer, quantised or not; the CPU where it has no memory yet."""
        tensors = (
            [getattr(base, name, None) for name in ("weight", "qweight", "W_q")]
            + list(base.parameters())
            + list(base.buffers())
        )
        weight = next((tensor for tensor in tensors if isinstance(tensor, torch.Tensor)), None)
        device = torch.device("cpu") if weight is None else weight.device
        dtype = getattr(base, "compute_dtype", None) or (
            weight.dtype if weight is not None else None
        )
        return cls(
            torch.device("cpu") if device.type == "meta" else device,
            dtype if dtype in FLOATS else torch.float32,
        )


def base_of(module: nn.Module) -> nn.Module:
    """Return what a tuner layer wraps, or the module itself."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def plan_layers(
    targets: Mapping[str, nn.Module],
    config: CosaConfig,
    present: Mapping[tuple[ProjectionSpec, Placement], FrozenProjection],
) -> dict[str, LayerPlan]:
    """Check an adapter against a model, and draw or read its projections.

    Parameters
    ----------
    targets : mapping of str to Module
        The modules to adapt, by their names in the base model.
    config : CosaConfig
        The adapter; if it was read from a folder, its stored projections are used, and what it
        says of its layers must be true of the model.
    present : mapping of (ProjectionSpec, Placement) to FrozenProjection
        Those of adapters that the model has already: an equal draw is used again.

    Returns
    -------
    dict of str to LayerPlan

    Raises
    ------
    InputError
        Naming every setting, layer or tensor that does not fit.
    """
    config.check()
    bases = {name: base_of(module) for name, module in targets.items()}
    sizes = _sizes(bases)
    folder = config.stored()
    records = {} if folder is None else folder.layers
    _raise_if(_misfits(sizes, config, records))
    given = {name: record for name, record in records.items() if record.left and record.right}
    specs = config.settings().layers(
        {name: size for name, size in sizes.items() if name not in given}
    )
    _raise_if(_other_cores(specs, config.layers or {}, records))
    _warn_of_idle_patterns(config, sizes)
    pool = _Pool(folder, config.layers or {}, dict(present))
    pool.draw({name: (spec, Placement.of(bases[name])) for name, spec in specs.items()})
    plans = {}
    for name in sizes:
        place = Placement.of(bases[name])
        if name in given:
            record = given[name]
            alpha = float(by_pattern(config.alpha_pattern, name, config.alpha))
            left, right = pool.given(record, place)
            plans[name] = LayerPlan(name, record.a, record.b, alpha, left, right)
        else:
            spec = specs[name]
            left, right = pool.drawn(spec.left, place), pool.drawn(spec.right, place)
            plans[name] = LayerPlan(name, spec.a, spec.b, spec.alpha, left, right)
    return plans


def refuse_unusable_values(model: nn.Module, config: CosaConfig) -> None:
    """Refuse an adapter whose file lacks trained modules, or holds values that are no numbers.

    Parameters
    ----------
    model : Module
        The model that it is loaded into.
    config : CosaConfig
        The adapter; nothing is checked if it was not read from a folder.

    Raises
    ------
    InputError
        Naming every tensor that cannot be used.
    """
    folder = config.stored()
    if folder is None:
        return
    wanted: dict[str, tuple[str | None, torch.Tensor | None]] = {
        name: (tensor, None)
        for name, tensor in folder.whole.items()
        if ".original_module." not in name
    }
    ends = tuple(config.modules_to_save or ())
    whole: list[str] = []
    for name, module in model.named_modules() if ends else ():
        if name.endswith(ends) and not name.startswith(tuple(whole)):
            whole.append(f"{name}.")
            own = module.original_module if isinstance(module, ModulesToSaveWrapper) else module
            for key, value in own.state_dict().items():
                wanted[f"{name}.{key}"] = folder.whole.get(f"{name}.{key}"), value
    _raise_if(whole_problems(folder, wanted))
    read_cores(folder)


def _raise_if(problems: list[str]) -> None:
    if problems:
        raise InputError(*problems)


def _sizes(bases: Mapping[str, nn.Module]) -> dict[str, tuple[int, int]]:
    """Return (m, n) of every layer."""
    sizes, problems = {}, []
    for name, base in bases.items():
        if not isinstance(base, (nn.Linear, Conv1D)) and not _is_quantised_linear(base):
            problems.append(
                f"Target module {name} is a {type(base).__name__}, which is not supported: CoSA "
                "adapts torch.nn.Linear (quantised or not) and transformers' Conv1D; change "
                "target_modules, or name it in exclude_modules"
            )
            continue
        n, m = _get_in_out_features(base)
        sizes[name] = (int(m), int(n))
    _raise_if(problems)
    return sizes


def _is_quantised_linear(base: nn.Module) -> bool:
    backend = resolve_quantization_backend(base, get_apply_tensor_subclass=lambda: None)
    return backend is not None and backend.layer_type == "linear"


def _misfits(
    sizes: Mapping[str, tuple[int, int]], config: CosaConfig, records: Mapping[str, CosaRecord]
) -> list[str]:
    """Say where the layers of a saved adapter are not those of the model."""
    described = {name: entry["size"] for name, entry in (config.layers or {}).items()}
    described |= {name: [record.m, record.n] for name, record in records.items()}
    if not described:
        return []
    remedy = "load it into the model it was trained for"
    problems = []
    for name, (m, n) in described.items():
        if name not in sizes:
            near = difflib.get_close_matches(name, sizes, n=3)
            hint = f" (closest: {', '.join(near)})" if near else ""
            problems.append(
                f"the adapter has a core for {name}, which is not among the layers that "
                f"target_modules selects in this model{hint}; {remedy}"
            )
        elif tuple(sizes[name]) != (m, n):
            problems.append(
                f"{name} is {sizes[name][0]} × {sizes[name][1]} in this model and {m} × {n} for "
                f"the adapter; {remedy}"
            )
    problems += [
        f"the adapter has no core for {name}, which target_modules selects in this model; {remedy}"
        for name in sizes
        if name not in described
    ]
    return _shortened(problems)


def _shortened(problems: list[str], most: int = 5) -> list[str]:
    """Keep the first few of many problems of one cause."""
    if len(problems) <= most:
        return problems
    return [*problems[:most], f"and {len(problems) - most} more of this kind"]


def _other_cores(
    specs: Mapping[str, LayerSpec],
    described: Mapping[str, Any],
    records: Mapping[str, CosaRecord],
) -> list[str]:
    """Say where the settings lead to other cores or draws than those of the saved adapter."""
    problems = []
    for name, spec in specs.items():
        entry, core = described.get(name), (spec.a, spec.b)
        if name in records:
            core = records[name].a, records[name].b
        elif entry:
            core = tuple(entry["core"])
        if core != (spec.a, spec.b):
            problems.append(
                f"the core of {name} is {core[0]} × {core[1]} in the adapter, and {spec.a} × "
                f"{spec.b} by its settings a, b and shape_pattern; correct them, or set layers to "
                "None to start a new adapter"
            )
        elif entry and entry["key"] != spec.key:
            problems.append(
                f"{name} was drawn with the key {entry['key']!r}, not {spec.key!r}; correct "
                "share_projections, or load the adapter into the model it was trained for"
            )
    return _shortened(problems)


def _warn_of_idle_patterns(config: CosaConfig, names: Iterable[str]) -> None:
    """Warn of shapes for layers that do not exist, as PEFT does for alphas."""
    idle = [
        pattern
        for pattern in config.shape_pattern
        if not any(by_pattern({pattern: True}, name, False) for name in names)
    ]
    if idle:
        warnings.warn(f"shape_pattern has {idle}, which match no targeted module", stacklevel=4)


@dataclass
class _Pool:
    """The projections of one injection: each drawn or read once for every place it is needed."""

    folder: CosaFolder | None
    described: Mapping[str, Any]
    ready: dict[tuple[Any, Placement], FrozenProjection]

    def draw(self, wanted: Mapping[str, tuple[LayerSpec, Placement]]) -> None:
        """Draw what is not there, and compare it with the fingerprints of the saved adapter."""
        missing: dict[torch.dtype, list[ProjectionSpec]] = {}
        for spec, place in wanted.values():
            for one in (spec.left, spec.right):
                if (one, place) not in self.ready:
                    missing.setdefault(place.dtype, []).append(one)
        for dtype, specs in missing.items():
            for one, projection in draw_projections(specs, dtype=dtype).items():
                self.ready[one, Placement(torch.device("cpu"), dtype)] = projection
        problems, idle = [], []
        for name, (spec, place) in wanted.items():
            for role, one in (("L", spec.left), ("R", spec.right)):
                projection = self._source(one, place)
                problems += self._mismatch(name, role, one, projection.fingerprint)
                if one.k * one.d < SMALL and not projection.matrix().any():
                    idle.append(f"{role} of {name} ({one.k} × {one.d})")
        _raise_if(_shortened(problems))
        if idle:
            warnings.warn(
                f"{', '.join(idle)}: all entries were drawn as zero, so that nothing can be "
                "learnt there; take another kind or seed, or exclude the module",
                stacklevel=5,
            )

    def _mismatch(self, name: str, role: str, spec: ProjectionSpec, found: str) -> list[str]:
        """Say so if a draw is not the one that the adapter was trained with."""
        expected = self.described.get(name, {}).get(role)
        if expected is None or found == expected:
            return []
        return [
            f"{role} of {name} drawn from seed {spec.seed} has the fingerprint {found}, and the "
            f"adapter was trained with {expected}; use the settings and the version of cosa-theory "
            "that saved it, or an adapter saved with save_projections from a local folder"
        ]

    def drawn(self, spec: ProjectionSpec, place: Placement) -> FrozenProjection:
        """Return a drawn projection where it is needed."""
        if (spec, place) not in self.ready:
            self.ready[spec, place] = copy.deepcopy(self._source(spec, place)).to(place.device)
        return self.ready[spec, place]

    def _source(self, spec: ProjectionSpec, place: Placement) -> FrozenProjection:
        at_home = spec, Placement(torch.device("cpu"), place.dtype)
        return self.ready[spec, place] if (spec, place) in self.ready else self.ready[at_home]

    def given(
        self, record: CosaRecord, place: Placement
    ) -> tuple[FrozenProjection, FrozenProjection]:
        """Return the stored projections of a layer where they are needed."""
        keys = (record.left, place), (record.right, place)
        if not all(key in self.ready for key in keys):
            assert self.folder is not None
            for key, values in zip(keys, self.folder.projections(record.name), strict=True):
                if not np.isfinite(values).all():
                    raise InputError(
                        f"{self.folder.label}: {key[0]} holds NaN or infinite entries; the file is "
                        "damaged: save the adapter again"
                    )
                one = given_projection(torch.from_numpy(values)).to(place.device, place.dtype)
                self.ready.setdefault(key, one)
        return self.ready[keys[0]], self.ready[keys[1]]
