"""Restricted isometry and Johnson-Lindenstrauss properties, measured with certificates."""

from cosa_theory.isometry.certificates import RipBound, RipBracket
from cosa_theory.isometry.coherence import babel, mutual_coherence, spark_bounds, welch_bound
from cosa_theory.isometry.cores import core_isometry
from cosa_theory.isometry.guarantees import recovery_guarantees
from cosa_theory.isometry.jl import jl_distortion, jl_min_dim
from cosa_theory.isometry.jl_curves import jl_ratios, kronecker_variance
from cosa_theory.isometry.kronecker import kronecker_rip_bounds, norm_condition
from cosa_theory.isometry.lower import rip_lower
from cosa_theory.isometry.rip import rip_bracket, rip_exact
from cosa_theory.isometry.upper import UPPER_METHODS, rip_upper

__all__ = [
    "UPPER_METHODS",
    "RipBound",
    "RipBracket",
    "babel",
    "core_isometry",
    "jl_distortion",
    "jl_min_dim",
    "jl_ratios",
    "kronecker_rip_bounds",
    "kronecker_variance",
    "mutual_coherence",
    "norm_condition",
    "recovery_guarantees",
    "rip_bracket",
    "rip_exact",
    "rip_lower",
    "rip_upper",
    "spark_bounds",
    "welch_bound",
]
