"""Update families: the share of ΔW that each can express with equal trainable parameters."""

from importlib import import_module
from pkgutil import iter_modules

from cosa_theory.spectrum.families.base import FAMILIES
from cosa_theory.spectrum.families.compare import compare_families, crossover, select_families

__all__ = ["FAMILIES", "compare_families", "crossover", "select_families"]

for _module in iter_modules(__path__):  # every family that lies here registers itself
    import_module(f"{__name__}.{_module.name}")
