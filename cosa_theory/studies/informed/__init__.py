"""What projections that know a layer's inputs hold of its update, beside uninformed ones."""

from cosa_theory.studies.informed.compute import BASELINES, NULLS, SHAPES, layer_shares
from cosa_theory.studies.informed.pooling import pooled_shares

__all__ = ["BASELINES", "NULLS", "SHAPES", "layer_shares", "pooled_shares"]
