"""How much memory there is left, and whether what is foreseen fits into it."""

from collections.abc import Mapping
from pathlib import Path

from cosa_theory.ground.errors import InputError

__all__ = ["available_memory", "check_memory"]

_MEMINFO = Path("/proc/meminfo")
_GROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return the bytes that may still be taken: of the machine, or of a container's limit if less.

    None where the system does not say.
    """
    found = []
    try:
        lines = _MEMINFO.read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    except (OSError, ValueError, IndexError):
        pass
    try:
        limit, used = (int((_GROUP / f"memory.{name}").read_text()) for name in ("max", "current"))
        found.append(max(limit - used, 0))
    except (OSError, ValueError):  # "max" is no number: there is no limit
        pass
    return min(found, default=None)


def check_memory(what: str, needed: Mapping[str, int], remedy: str) -> None:
    """Refuse what needs more bytes than there are; `needed` is by what takes them."""
    available, total = available_memory(), sum(needed.values())
    if available is not None and total > available:
        largest = max(needed, key=lambda name: needed[name])
        raise InputError(
            f"out of memory foreseen: {what} needs about {total / 1e9:,.1f} GB (most for "
            f"{largest}) and {available / 1e9:,.1f} GB are free: {remedy}"
        )
