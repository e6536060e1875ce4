"""The theorem's assumptions on real updates: which hold and which fail, layer by layer."""

from cosa_theory.studies.audit.assumptions import ASSUMPTIONS, Assumption
from cosa_theory.studies.audit.pair import TABLES, Audit, audit_pair

__all__ = ["ASSUMPTIONS", "TABLES", "Assumption", "Audit", "audit_pair"]
