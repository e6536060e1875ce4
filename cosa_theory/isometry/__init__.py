"""Restricted isometry and Johnson-Lindenstrauss properties, measured with certificates."""

from cosa_theory.ground.estimates import Estimate
from cosa_theory.isometry.certificates import RipBound, RipBracket, Witness, combine
from cosa_theory.isometry.coherence import (
    SparkBounds,
    babel,
    mutual_coherence,
    spark_bounds,
    welch_bound,
)
from cosa_theory.isometry.cores import CoreIsometry, core_isometry
from cosa_theory.isometry.guarantees import Guarantee, recovery_guarantees
from cosa_theory.isometry.jl import JLDistortion, jl_distortion, jl_min_dim
from cosa_theory.isometry.jl_costs import (
    JLComparison,
    cheapest,
    jl_ensembles,
    needed_dimensions,
)
from cosa_theory.isometry.jl_curves import (
    KroneckerVariance,
    jl_failure_curve,
    jl_ratios,
    kronecker_ratios,
    kronecker_variance,
)
from cosa_theory.isometry.kronecker import kronecker_rip_bounds, norm_condition
from cosa_theory.isometry.lower import rip_lower
from cosa_theory.isometry.rip import rip_bracket, rip_exact
from cosa_theory.isometry.sdp import dual_bound, rip_sdp
from cosa_theory.isometry.upper import UPPER_METHODS, rip_upper
from cosa_theory.linear.gram import DenseGram, KroneckerGram

__all__ = [
    "UPPER_METHODS",
    "CoreIsometry",
    "DenseGram",
    "Estimate",
    "Guarantee",
    "JLComparison",
    "JLDistortion",
    "KroneckerGram",
    "KroneckerVariance",
    "RipBound",
    "RipBracket",
    "SparkBounds",
    "Witness",
    "babel",
    "cheapest",
    "combine",
    "core_isometry",
    "dual_bound",
    "jl_distortion",
    "jl_ensembles",
    "jl_failure_curve",
    "jl_min_dim",
    "jl_ratios",
    "kronecker_ratios",
    "kronecker_rip_bounds",
    "kronecker_variance",
    "mutual_coherence",
    "needed_dimensions",
    "norm_condition",
    "recovery_guarantees",
    "rip_bracket",
    "rip_exact",
    "rip_lower",
    "rip_sdp",
    "rip_upper",
    "spark_bounds",
    "welch_bound",
]
