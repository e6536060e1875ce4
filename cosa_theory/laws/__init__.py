"""Closed forms, as plain functions of sizes: what the theory predicts before anything is drawn."""

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
    "advantage_bound",
    "bai_yin_edges",
    "best_core_noise",
    "energy_law",
    "energy_variance",
    "equal_budget_rank",
    "gradient_step_squared_cosine",
    "isotropic_core_norm",
    "marchenko_pastur_edges",
    "product_flops",
    "rank_one_energy_moment",
    "rank_wall",
    "scale_gain",
    "update_noise",
]
