"""Closed forms, as plain functions of sizes: what the theory predicts before anything is drawn.

Sizes are positive whole numbers. An argument outside the range that is stated for it is refused
with an `InputError` that names it.
"""

from cosa_theory.laws.decoders import (
    InputMoments,
    best_gain,
    decoder_error,
    gram_growth,
    input_moments,
)
from cosa_theory.laws.informed import (
    InformedBudget,
    explained_share,
    informed_budget,
    informed_shape,
    informed_share,
    prior_error,
)
from cosa_theory.laws.isometry import (
    RIP_ALGORITHMS,
    dictionary_edges,
    kronecker_rip_upper,
    measurement_bound,
    rip_condition,
    scale_free_constant,
    spark_wall,
    uniform_sparsity_limit,
)
from cosa_theory.laws.kronecker import (
    MatrixMoments,
    core_participation,
    kronecker_inflation,
    kronecker_variance_law,
    matrix_moments,
    participation_ratio,
)
from cosa_theory.laws.noise import noise_crossover
from cosa_theory.laws.norms import (
    GramMoments,
    chi_square_failure,
    exact_failure,
    fourth_power,
    haar_failure,
)
from cosa_theory.laws.recovery import l1_weak_threshold, packed_l1_threshold
from cosa_theory.laws.synthesis import (
    advantage_bound,
    bai_yin_edges,
    best_core_noise,
    energy_law,
    energy_variance,
    equal_budget_rank,
    gradient_step_squared_cosine,
    isotropic_core_norm,
    marchenko_pastur_edges,
    product_flops,
    rank_one_energy_moment,
    rank_wall,
    scale_gain,
    update_noise,
)

__all__ = [
    "RIP_ALGORITHMS",
    "GramMoments",
    "InformedBudget",
    "InputMoments",
    "MatrixMoments",
    "advantage_bound",
    "bai_yin_edges",
    "best_core_noise",
    "best_gain",
    "chi_square_failure",
    "core_participation",
    "decoder_error",
    "dictionary_edges",
    "energy_law",
    "energy_variance",
    "equal_budget_rank",
    "exact_failure",
    "explained_share",
    "fourth_power",
    "gradient_step_squared_cosine",
    "gram_growth",
    "haar_failure",
    "informed_budget",
    "informed_shape",
    "informed_share",
    "input_moments",
    "isotropic_core_norm",
    "kronecker_inflation",
    "kronecker_rip_upper",
    "kronecker_variance_law",
    "l1_weak_threshold",
    "marchenko_pastur_edges",
    "matrix_moments",
    "measurement_bound",
    "noise_crossover",
    "packed_l1_threshold",
    "participation_ratio",
    "prior_error",
    "product_flops",
    "rank_one_energy_moment",
    "rank_wall",
    "rip_condition",
    "scale_free_constant",
    "scale_gain",
    "spark_wall",
    "uniform_sparsity_limit",
    "update_noise",
]
