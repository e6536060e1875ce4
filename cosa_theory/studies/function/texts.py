"""The texts that a model is measured on: those of its domain, and general ones."""

from cosa_theory.assets import read_reuters

__all__ = ["FEWEST", "MOST", "general_texts"]

FEWEST = 8
"""Different texts that an interval needs at least."""


MOST = 32
"""Texts of each kind that are read by default: what the model says of them is most of the work."""


def general_texts(count: int = MOST) -> list[str]:
    """Return texts of no model's domain: news wires of Reuters-21578, evenly spaced."""
    wires = [wire.text for wire in read_reuters("test")]
    step = max(1, len(wires) // count)
    return wires[::step][:count]
