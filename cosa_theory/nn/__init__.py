"""CoSA layers in plain PyTorch: y = W x + bias + scaling · L(Y(R x)), with only Y trained.

The method for Hugging Face PEFT is in `cosa_theory.nn.peft`.
"""

from cosa_theory.nn.linear import CosaLinear
from cosa_theory.nn.loading import load_cosa
from cosa_theory.nn.model import add_cosa, merge_cosa, unmerge_cosa
from cosa_theory.nn.moments import Moments, layer_moments, random_batches
from cosa_theory.nn.saving import save_cosa
from cosa_theory.nn.settings import CosaSettings, convert_alpha

__all__ = [
    "CosaLinear",
    "CosaSettings",
    "Moments",
    "add_cosa",
    "convert_alpha",
    "layer_moments",
    "load_cosa",
    "merge_cosa",
    "random_batches",
    "save_cosa",
    "unmerge",
    "unmerge_cosa",
]

unmerge = unmerge_cosa
