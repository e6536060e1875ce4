"""Test the compressed-sensing theory of CoSA adapters, and use the method.

CoSA adapts a frozen weight W (m × n) by ΔW = L Y R with fixed random projections L (m × a) and
R (b × n) and a small trainable core Y (a × b).
"""

from cosa_theory.ground.errors import InputError
from cosa_theory.linear.basis import CosaBasis
from cosa_theory.linear.operators import KroneckerOperator

__all__ = ["CosaBasis", "InputError", "KroneckerOperator"]
__version__ = "0.1.0"
