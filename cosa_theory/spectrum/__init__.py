"""Spectra of weights and updates, and what an update of a given size can express of them."""

from cosa_theory.spectrum.families import FAMILIES, compare_families, crossover
from cosa_theory.spectrum.intruders import intruder_dimensions
from cosa_theory.spectrum.measures import SpectrumSummary, summarize
from cosa_theory.spectrum.overlap import subspace_overlap
from cosa_theory.spectrum.singular_values import (
    resolution,
    singular_values,
    singular_values_of_product,
)
from cosa_theory.spectrum.sparsity import sparsity_profile
from cosa_theory.spectrum.storage import bf16_sparsity

__all__ = [
    "FAMILIES",
    "SpectrumSummary",
    "bf16_sparsity",
    "compare_families",
    "crossover",
    "intruder_dimensions",
    "resolution",
    "singular_values",
    "singular_values_of_product",
    "sparsity_profile",
    "subspace_overlap",
    "summarize",
]
