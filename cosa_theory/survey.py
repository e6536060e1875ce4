"""Every update of a model: spectra, families at equal parameters, and the verdict."""

from cosa_theory.deltas.layers import module_and_block
from cosa_theory.studies.spectrum.pair import MATRICES, Survey, survey_pair

__all__ = ["MATRICES", "Survey", "module_and_block", "survey_pair"]
