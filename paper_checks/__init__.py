"""The paper's claims, measured and judged: `python -m paper_checks [IDs] [--json]`."""

from paper_checks.run import run_checks, to_frame

__all__ = ["run_checks", "to_frame"]
