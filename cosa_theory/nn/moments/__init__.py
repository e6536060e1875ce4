"""Second moments of what linear layers are fed, gathered in one pass of the model and stored."""

from cosa_theory.nn.moments.digests import batches_digest, model_fingerprint
from cosa_theory.nn.moments.gathering import layer_moments
from cosa_theory.nn.moments.random_tokens import random_batches
from cosa_theory.nn.moments.stored import Moments, read_moments, write_moments

__all__ = [
    "Moments",
    "batches_digest",
    "layer_moments",
    "model_fingerprint",
    "random_batches",
    "read_moments",
    "write_moments",
]
