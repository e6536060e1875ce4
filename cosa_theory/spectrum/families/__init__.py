"""Update families: the share of ΔW that each can express with equal trainable parameters."""

from cosa_theory.spectrum.families.compare import (
    FAMILIES,
    compare_families,
    crossover,
    select_families,
)

__all__ = ["FAMILIES", "compare_families", "crossover", "select_families"]
