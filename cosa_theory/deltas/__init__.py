"""From two checkpoints, or a model and its adapter, to a stream of weight updates ΔW."""

from cosa_theory.deltas.stream import DeltaPair, LayerDelta, PairReport, open_pair

__all__ = ["DeltaPair", "LayerDelta", "PairReport", "open_pair"]
