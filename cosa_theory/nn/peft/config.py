"""Configuration of a CoSA adapter for PEFT."""

import os
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, Self

from huggingface_hub import hf_hub_download
from peft.config import PeftConfig
from torch import Tensor

from cosa_theory.deltas.cosa_adapters import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    CosaFolder,
    is_released,
    read_cosa_folder,
)
from cosa_theory.deltas.cosa_records import check_description, check_recipe
from cosa_theory.deltas.wrapped_names import unwrapped_name
from cosa_theory.ground.checks import choice, real, refuse, whole
from cosa_theory.ground.errors import InputError, Problems
from cosa_theory.ground.expressions import Expression
from cosa_theory.ground.fields import either, flag, items, optional, text
from cosa_theory.ground.reading import read_json
from cosa_theory.ground.swap import reading, swapped
from cosa_theory.nn.folder import write_cosa_card
from cosa_theory.nn.peft.lora_habits import UnexpectedSetting
from cosa_theory.nn.peft.registration import METHOD, peft_type
from cosa_theory.nn.projection import ProjectionSpec
from cosa_theory.nn.settings import CosaSettings
from cosa_theory.projections import INFORMED

__all__ = ["CosaConfig"]

BIASES = ("none", "all", "cosa_only")
LOSSES = ("labels", "samples")
TOKENS = ("texts", "random")
_PICKLE = "adapter_model.bin"


def _names(setting: str, value: Any) -> Any:
    """Return names of modules, or a regular expression for them."""
    if isinstance(value, str):
        return Expression(setting, value)
    return either(items(text), must="a list of names, or a regular expression")(setting, value)


_index = partial(whole, least=0)
_SELECTION = {
    "target_modules": _names,
    "exclude_modules": _names,
    "modules_to_save": either(items(text), must="a list of names, such as ['lm_head']"),
    "layers_to_transform": either(_index, items(_index), must="an index from 0 on, or a list"),
    "layers_pattern": either(text, items(text), must="a name, or a list of names"),
}
"""The check of every setting that selects modules."""


@dataclass
class CosaConfig(PeftConfig):
    """Configuration of a `CosaModel`: every targeted layer learns ΔW = alpha · L Y R [1]_.

    L (m × a) and R (b × n) are random, frozen and drawn from `seed` and the layer's name; the core
    Y (a × b) is trained, and is all that is stored.

    Parameters
    ----------
    a, b : int, default 1024 and 256
        Rows and columns of the core.
    alpha : float, default 1.0
        Factor of the update. There is no division by a rank.
    seed : int, default 0
        Of the projections, non-negative.
    kind : str, default "gaussian"
        Ensemble of the projections, one of `cosa_theory.projections.KINDS`; or "activation" or
        "gradient", whose R lies in the leading directions of the layer's inputs: see
        `cosa_theory.nn.peft.prepare_cosa`, which has to gather them first.
    options : dict, default {}
        ``density`` for very_sparse, ``nonzeros`` for sjlt; ``power``, ``whiten`` and ``centre``
        for the kinds made from data, see `cosa_theory.projections.informed`.
    scale : {"synthesis", "analysis"}, default "synthesis"
        E‖L Y R‖² = ‖Y‖², or (mn/ab)‖Y‖² as in the released code; see
        `cosa_theory.nn.convert_alpha`.
    clip : bool, default True
        Reduce a > m and b > n to the layer, with one warning; an error if False.
    shape_pattern : dict of str to [a, b], default {}
        Shapes of the layers whose name, or its end after a dot, matches a regular expression.
    alpha_pattern : dict of str to float, default {}
        Likewise for alpha.
    share_projections : bool, default False
        One L for each (a, m) and one R for each (b, n) in the whole model. Layers that read the
        same input (q, k and v; gate and up) then compute R x once, and share its dropout.
    save_projections : bool, default False
        Store L and R (in float32, at their true scale) beside the core, for readers that cannot
        draw them. A stored projection is used as it is, and not drawn. What was made from data is
        stored in any case.
    left : str, optional
        Another ensemble for L, one of `KINDS`; or "identity", which leaves the layers' output
        uncompressed: a is then each layer's m, whatever is given, and L costs nothing. L of
        "activation" and "gradient" is the identity where a = m.
    projection_dtype : {"float32", "bfloat16"}, default "float32"
        To which projections made from data are rounded when they are made, and stored; bfloat16
        loses nothing where the model computes in it.
    gradients : {"labels", "samples"}, default "labels"
        For kind "gradient", of which loss `prepare_cosa` takes the gradients of the layers'
        outputs: that of the labels in the batches, or of labels drawn from the model itself.
    dropout : float, default 0.0
        Probability that an entry of a layer's input is dropped from the update while training.
    init_weights : bool, default True
        Start at Y = 0, hence at the base model. False starts from random cores, for tests.
    tokens : {"texts", "random"}, default "texts"
        Whether `prepare_cosa` runs the model on texts that it is given, or on seeded random tokens,
        which need none. With ``power`` among the options, what random tokens made of the inputs is
        not stored (unless with `save_projections`) but made again when the adapter is loaded, by
        one pass of the base model; see `cosa_theory.nn.restoring` for how exactly.
    target_modules : list of str or str, optional
        Ends of the names of the linear layers to adapt, a regular expression for whole names, or
        "all-linear"; by default those that PEFT's LoRA adapts in a model of this type.
    exclude_modules : list of str or str, optional
        Modules to leave out, given likewise.
    modules_to_save : list of str, optional
        Other modules to train and save as a whole, such as a new head.
    layers_to_transform : int or list of int, optional
        Indices of the blocks to adapt, with `target_modules` as a list.
    layers_pattern : str or list of str, optional
        Name of the module list whose indices these are, such as "layers" or "h".
    fan_in_fan_out : bool, default False
        Whether the layers store their weight transposed, as Conv1D of GPT-2 does. It follows the
        layers that are found; a different setting is corrected with a warning.
    bias : {"none", "all", "cosa_only"}, default "none"
        Biases to train: none, all of the model, or those of the adapted layers.
    layers : dict, optional
        Filled when an adapter is saved: for every layer the key of its draw, its size, the shape
        of its core and the fingerprints of L and R, with which a later draw is compared.
    model_type : str, optional
        Filled likewise: the base model's type in transformers.
    projection_bytes : int, optional
        Filled likewise: bytes of the projections stored.
    recipe : dict, optional
        Filled by `prepare_cosa`: the random tokens by which R is made again, as arguments of
        `cosa_theory.nn.random_batches`.

    Raises
    ------
    InputError
        For a value outside these (a ValueError), or for a setting that is none of these, such as
        LoRA's ``r`` and ``lora_alpha``: the message names what stands for it.

    References
    ----------
    .. [1] "CoSA: Compressed Sensing-Based Adaptation of Large Language Models", arXiv 2602.05148.
    """

    a: int = 1024
    b: int = 256
    alpha: float = 1.0
    seed: int = 0
    kind: str = "gaussian"
    options: dict[str, Any] = field(default_factory=dict)
    scale: str = "synthesis"
    clip: bool = True
    shape_pattern: dict[str, Any] = field(default_factory=dict)
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    share_projections: bool = False
    save_projections: bool = False
    left: str | None = None
    projection_dtype: str = "float32"
    gradients: str = "labels"
    tokens: str = "texts"
    dropout: float = 0.0
    init_weights: bool = True
    target_modules: list[str] | str | None = None
    exclude_modules: list[str] | str | None = None
    modules_to_save: list[str] | None = None
    layers_to_transform: list[int] | int | None = None
    layers_pattern: list[str] | str | None = None
    fan_in_fan_out: bool = False
    bias: str = "none"
    layers: dict[str, Any] | None = None
    model_type: str | None = None
    projection_bytes: int | None = None
    recipe: dict[str, int] | None = None

    def __new__(cls, *args: Any, **settings: Any) -> Self:
        """Refuse settings that there are not, before the dataclass does so in fewer words."""
        known = [one.name for one in fields(cls)]
        unexpected = [name for name in settings if name not in known]
        if unexpected:
            raise UnexpectedSetting(unexpected, known)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.peft_type = peft_type()
        for name in ("target_modules", "exclude_modules"):
            value = getattr(self, name)
            if isinstance(value, (list, tuple, set)):  # a compiled model's had its wrappers'
                value = {unwrapped_name(str(one)) for one in value}
            setattr(self, name, value)
        for name in ("shape_pattern", "alpha_pattern", "options"):
            if getattr(self, name) is None:
                setattr(self, name, {})
        if isinstance(self.layers, dict):
            self.layers = {unwrapped_name(name): one for name, one in self.layers.items()}
        self.check()
        # Not fields: what a saved model says of itself, for `layers` and `model_type`, and the
        # folder this configuration was read from.
        self._records: dict[str, Any] = {}
        self._folder: str | None = None
        # Layers of the folder that the model names otherwise, by their names in the folder.
        self._renamed: dict[str, str] = {}
        # Projections that `prepare_cosa` made from data.
        self._made: dict[ProjectionSpec, Tensor] = {}

    def settings(self) -> CosaSettings:
        """Return the part that does not depend on PEFT, checked.

        Raises
        ------
        InputError
            Naming every value that cannot be used.
        """
        return CosaSettings(**{one.name: getattr(self, one.name) for one in fields(CosaSettings)})

    def check(self) -> None:
        """Check every field; PEFT's users change them after construction.

        Raises
        ------
        InputError
            Naming every value that cannot be used.
        """
        found = Problems()
        with found:
            self.dropout = real("dropout", self.dropout, least=0, below=1)
        with found:
            choice("bias", self.bias, BIASES)
        with found:
            choice("gradients", self.gradients, LOSSES)
        with found:
            choice("tokens", self.tokens, TOKENS)
        for name, check in _SELECTION.items():
            with found:
                optional(check)(name, getattr(self, name))
        for name in ("save_projections", "init_weights"):
            with found:
                flag(name, getattr(self, name))
        with found:
            self.recipe = optional(check_recipe)("recipe", self.recipe)
        if isinstance(self.target_modules, str):
            found.add(
                *(
                    f"{name} is {getattr(self, name)!r}, but target_modules is the regular "
                    f"expression {self.target_modules!r}; select the layers in the expression, or "
                    "give a list"
                    for name in ("layers_to_transform", "layers_pattern")
                    if getattr(self, name) is not None and self.target_modules != "all-linear"
                )
            )
        elif self.layers_pattern and self.layers_to_transform is None:
            found.add(
                f"layers_pattern is {self.layers_pattern!r} without layers_to_transform; give the "
                "indices of the layers too"
            )
        if self.layers is not None and not isinstance(self.layers, dict):
            found.append(refuse("layers", self.layers, "an object or null"))
        else:
            for name, entry in (self.layers or {}).items():
                with found:
                    check_description(f"layers of {name}", entry)
        with found:
            # As JSON gives them back, so that a configuration equals itself after a round trip.
            for name, value in vars(self.settings()).items():
                setattr(self, name, value)
            self.shape_pattern = {name: list(shape) for name, shape in self.shape_pattern.items()}
        found.report()

    @property
    def restored(self) -> bool:
        """Whether what was made from data is not stored, but made again when it is loaded."""
        return self.recipe is not None and not self.save_projections

    def to_dict(self) -> dict[str, Any]:
        """Return the fields, with `layers` as the model that was last saved describes them."""
        result = {
            name: sorted(value) if isinstance(value, set) else value  # equal in every process
            for name, value in super().to_dict().items()
        }
        return result | self._records

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:
        """Write adapter_config.json, and with an adapter's layers a card that says how to load it.

        Parameters as for PEFT. Both files are replaced as a whole or not at all.
        """
        folder = Path(save_directory)
        with swapped(folder) as new:
            super().save_pretrained(os.fspath(new), **kwargs)
            settings = read_json(new / ADAPTER_CONFIG)
            if settings.get("layers"):
                write_cosa_card(folder, new, settings)

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str, subfolder: str | None = None, **kwargs: Any
    ) -> PeftConfig:
        """Read a configuration; that of an adapter of the released code is translated.

        Parameters as for PEFT, where too the result is of the method that the file names.

        Raises
        ------
        InputError
            If the configuration, or an adapter of the released code with it, cannot be used.
        """
        folder = Path(pretrained_model_name_or_path, subfolder or "")
        if _is_released(folder / ADAPTER_CONFIG):
            config: PeftConfig = cls(**read_cosa_folder(folder).settings)
        else:
            with reading(folder):  # finishes what an interrupted saving left
                config = super().from_pretrained(
                    pretrained_model_name_or_path, subfolder=subfolder, **kwargs
                )
        if isinstance(config, CosaConfig):
            if not folder.is_dir() and config.kind in INFORMED:  # PEFT fetches them after the draws
                hub, _, _ = cls._split_kwargs(kwargs)
                fetched = hf_hub_download(
                    pretrained_model_name_or_path, ADAPTER_WEIGHTS, subfolder=subfolder, **hub
                )
                folder = Path(fetched).parent
            if (folder / ADAPTER_WEIGHTS).is_file():
                config._folder = os.fspath(folder)
            elif config.kind in INFORMED and not config.recipe and (folder / _PICKLE).is_file():
                raise InputError(
                    f"{folder / _PICKLE} is a pickle, from which projections that were made from "
                    "data are not read: save the adapter with safe_serialization=True, which "
                    f"writes {ADAPTER_WEIGHTS}"
                )
        return config

    @classmethod
    def check_kwargs(cls, **kwargs: Any) -> dict[str, Any]:
        """Return the settings of a file, after PEFT's own checks.

        Raises
        ------
        InputError
            If they are of the released code, whose files are needed to translate them.
        """
        if kwargs.get("peft_type") == METHOD.upper():
            if is_released(kwargs):
                raise InputError(
                    "this adapter was saved by the code released with the paper; download its "
                    "folder and load it from there"
                )
            kwargs["peft_type"] = peft_type()
        return super().check_kwargs(**kwargs)

    def stored(self) -> CosaFolder | None:
        """Return the folder this configuration was read from; None if it was not read with one.

        Raises
        ------
        InputError
            If a file in it is missing, damaged or does not fit the others.
        """
        return None if self._folder is None else read_cosa_folder(self._folder)


def _is_released(path: Path) -> bool:
    """Return whether a file is the configuration of an adapter of the released code."""
    if not path.is_file():
        return False
    settings = read_json(path)
    return settings.get("peft_type") == METHOD.upper() and is_released(settings)
