"""What transformers itself knows of a model's names, from the model's configuration.

When transformers loads a checkpoint it renames its tensors (`WeightRenaming` in its
`conversion_mapping`), and it ties parameters that the files store once. Its own tables are asked,
for the class that the configuration names, which is built without weights and without code of the
model's author. Only names that do not match otherwise lead here: the import takes seconds.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Architecture", "architecture"]

_MOST_MODULES = 20_000  # of any kind that a configuration asks for: a model of more is not built


@dataclass(frozen=True)
class Architecture:
    """The names of a model's parameters as its class has them."""

    renamings: tuple[Any, ...]
    prefix: str
    known: Mapping[str, Any]
    tied: Mapping[str, str]  # name of a parameter to that of the one it is

    def names(self, stored: Iterable[str]) -> dict[str, str]:
        """Map names in a file to those in the model, as transformers does when it loads the file.

        A name that is the model's already, or that the model does not have, stays.
        """
        from transformers.core_model_loading import rename_source_key

        names = {}
        for name in stored:
            if name in self.known:
                names[name] = name
                continue
            found, _ = rename_source_key(name, self.renamings, [], self.prefix, self.known)
            names[name] = found if found in self.known else name
        taken: dict[str, int] = {}
        for found in names.values():
            taken[found] = taken.get(found, 0) + 1
        return {name: one if taken[one] == 1 else name for name, one in names.items()}

    def same(self, name: str) -> str:
        """Return one name for all that are tied to each other."""
        return self.tied.get(name, name)


def architecture(config: Mapping[str, Any]) -> Architecture | None:
    """Return what transformers knows of the model of a configuration, if it knows the model."""
    classes = config.get("architectures")
    if (
        not isinstance(config.get("model_type"), str)
        or not isinstance(classes, list)
        or not classes
    ):
        return None
    if _largest_count(config) > _MOST_MODULES:
        return None
    try:
        import torch
        import transformers
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import WeightRenaming
    except ImportError:  # not installed, or a version that has no such tables
        return None
    try:
        settings = transformers.CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
        with torch.device("meta"):
            model = getattr(transformers, classes[0])(settings)
        renamings = [
            one for one in get_model_conversion_mapping(model) if isinstance(one, WeightRenaming)
        ]
        tied = dict(getattr(model, "all_tied_weights_keys", None) or {})
        prefix, known = model.base_model_prefix, dict(model.state_dict())
    except Exception:  # a configuration can fail in any way; then its model's names are not known
        return None
    return Architecture(tuple(renamings), prefix, known, tied)


def _largest_count(config: Mapping[str, Any]) -> float:
    """Return the largest number in a configuration that may be one of modules to build."""
    words = ("layer", "depth", "block", "expert", "stage", "num_", "head")
    largest = 0.0
    for name, value in config.items():
        if isinstance(value, Mapping):
            largest = max(largest, _largest_count(value))
        elif isinstance(value, int | float) and any(word in str(name) for word in words):
            largest = max(largest, value)
    return largest
