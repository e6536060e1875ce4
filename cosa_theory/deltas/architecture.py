"""What transformers itself knows of a model's names, from the model's configuration.

When transformers loads a checkpoint it renames its tensors (`WeightRenaming` in its
`conversion_mapping`), and it ties parameters that the files store once. Its own tables are asked,
for the class that the configuration names, which is built without weights and without code of the
model's author. Only names that do not match otherwise lead here: the import takes seconds.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["Architecture", "architecture", "oversized"]

# Fields that say how many parts there are or how large they are, and far more than any model has.
_COUNTS = re.compile(r"(^|_)(layers?|blocks?|depths?|stages?|levels?|experts?|codebooks)($|_)")
_SIZES = re.compile(
    r"(^|_)(size|dim|positions?|embeddings|length|heads?|labels|embd|model|ctx)($|_)"
)
_MOST_COUNT = 10_000
_MOST_SIZE = 1 << 24


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
    if oversized(config):
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


def oversized(config: Mapping[str, Any]) -> tuple[str, float, int] | None:
    """Return a field of a configuration whose model would take hours or all memory to build.

    transformers makes as many modules, or entries of a list, as a field says. Returned are its
    name, its value and the most there may be.
    """
    for name, value in config.items():
        if isinstance(value, Mapping):
            found = oversized(value)
            if found:
                return found
            continue
        size, count = _SIZES.search(str(name)), _COUNTS.search(str(name))
        most = _MOST_SIZE if size else _MOST_COUNT if count else None
        for number in value if isinstance(value, (list, tuple)) else [value]:
            if most is not None and isinstance(number, (int, float)) and number > most:
                return str(name), number, most
    return None
