"""Approximations of an update: what stands in for ΔW, at a budget of numbers or of bits."""

from importlib import import_module
from pkgutil import iter_modules

from cosa_theory.spectrum.approximations.base import (
    APPROXIMATIONS,
    Approximation,
    Given,
    Stored,
    select_approximations,
)

__all__ = ["APPROXIMATIONS", "Approximation", "Given", "Stored", "select_approximations"]

for _module in iter_modules(__path__):  # every approximation that lies here registers itself
    import_module(f"{__name__}.{_module.name}")
