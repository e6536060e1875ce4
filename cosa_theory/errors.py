"""The exception for input that a user can mend, under a short name; it lives in `ground.errors`."""

from cosa_theory.ground.errors import InputError

__all__ = ["InputError"]
