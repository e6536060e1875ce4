"""Test the compressed-sensing theory of CoSA adapters, and use the method.

CoSA adapts a frozen weight W (m × n) by ΔW = L Y R with fixed random projections L (m × a) and
R (b × n) and a small trainable core Y (a × b).
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cosa_theory.ground.errors import InputError

if TYPE_CHECKING:
    from cosa_theory.linear.basis import CosaBasis
    from cosa_theory.linear.operators import KroneckerOperator

__all__ = ["CosaBasis", "InputError", "KroneckerOperator"]
__version__ = "0.1.0"


_LAZY = {
    "CosaBasis": "cosa_theory.linear.basis",
    "KroneckerOperator": "cosa_theory.linear.operators",
    "RandomProjection": "cosa_theory.sklearn",
}


def __getattr__(name: str) -> Any:
    """Import a name when it is asked for: `cosa-theory --help` needs no linear algebra."""
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name]), name)
