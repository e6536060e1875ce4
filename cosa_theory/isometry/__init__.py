"""Restricted isometry and Johnson-Lindenstrauss properties, measured with certificates."""

from importlib import import_module
from typing import Any

from cosa_theory.isometry.certificates import RipBound, RipBracket, Witness, combine
from cosa_theory.isometry.lower import rip_lower
from cosa_theory.isometry.rip import rip_bracket, rip_exact

_LATER = {
    "rip_upper": "upper",
    "sdp_bound": "sdp",
    "kronecker_rip_bounds": "kronecker",
    "core_isometry": "kronecker",
    "mutual_coherence": "coherence",
    "babel": "coherence",
    "welch_bound": "coherence",
    "spark_bounds": "coherence",
    "recovery_guarantees": "guarantees",
    "jl_min_dim": "jl",
    "jl_distortion": "jl",
    "jl_failure_curve": "jl",
    "kronecker_variance": "jl",
}

__all__ = [
    "RipBound",
    "RipBracket",
    "Witness",
    "combine",
    "rip_bracket",
    "rip_exact",
    "rip_lower",
    *_LATER,
]


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(import_module(f"cosa_theory.isometry.{_LATER[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
