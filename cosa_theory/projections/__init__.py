"""Random projections: ensembles, two scales, one keyed source of randomness.

An ensemble is one file here that registers an `Ensemble`; see `ensembles`.

Normalisations
--------------
``analysis``
    E‖Ax‖² = ‖x‖² for every fixed x: entries of variance 1/k (Johnson-Lindenstrauss).
``synthesis``
    √(k/d) times the analysis scale: entries of variance 1/d, so that the columns of Aᵀ have unit
    norm in expectation (exactly for ``haar``) and E‖Aᵀy‖² = ‖y‖².
"""

from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from cosa_theory.projections.drawing import (
    draw_fingerprint,
    entry_variance,
    left_projection,
    make_projection,
    spanning_rows,
)
from cosa_theory.projections.ensembles import ENSEMBLES, Ensemble, printed_name
from cosa_theory.projections.second_moments import SecondMoments
from cosa_theory.projections.srht import SRHT, padded_length
from cosa_theory.projections.streams import fingerprint, stream

__all__ = [
    "ENSEMBLES",
    "INFORMED",
    "KINDS",
    "SRHT",
    "Ensemble",
    "SecondMoments",
    "draw_fingerprint",
    "entry_variance",
    "fingerprint",
    "left_projection",
    "make_projection",
    "padded_length",
    "printed_name",
    "spanning_rows",
    "stream",
]


def __getattr__(name: str) -> Any:
    """Import the transformer, which needs scikit-learn, when it is asked for."""
    if name != "RandomProjection":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("cosa_theory.sklearn").RandomProjection


for _module in iter_modules(__path__):  # every ensemble that lies here registers itself
    import_module(f"{__name__}.{_module.name}")

KINDS: tuple[str, ...] = tuple(
    name for name, one in ENSEMBLES.items() if not (one.data_dependent or one.fixed)
)
"""Names of the oblivious ensembles, drawn without looking at any data."""

INFORMED: tuple[str, ...] = tuple(name for name, one in ENSEMBLES.items() if one.data_dependent)
"""Names of the ensembles that are drawn from moments of the data."""
