"""Recovery: solvers that bring ΔW back from its measurements, each with a certificate."""

from cosa_theory.recovery import solvers
from cosa_theory.recovery.door import SparsityWarning, default_method, recover
from cosa_theory.recovery.methods import METHODS, Method, options_of
from cosa_theory.recovery.problem import BASES, RecoveryProblem
from cosa_theory.recovery.result import (
    STATUSES,
    Certificate,
    RecoveryResult,
    Solution,
    relative_error,
)
from cosa_theory.recovery.system import RowSpace, System

__all__ = [
    "BASES",
    "METHODS",
    "STATUSES",
    "Certificate",
    "Method",
    "RecoveryProblem",
    "RecoveryResult",
    "RowSpace",
    "Solution",
    "SparsityWarning",
    "System",
    "default_method",
    "options_of",
    "recover",
    "relative_error",
    "solvers",
]
