"""From two checkpoints, or a model and its adapter, to a stream of weight updates ΔW."""

from cosa_theory.deltas.layers import LayerDelta, PairReport
from cosa_theory.deltas.stream import DeltaPair, open_pair

__all__ = ["DeltaPair", "LayerDelta", "PairReport", "open_pair"]
