"""Where a result comes from: versions, commit, arguments, time, machine."""

import platform
import subprocess
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["provenance"]

_PACKAGES = ("cosa-theory", "numpy", "scipy", "torch", "safetensors", "transformers", "peft")


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Return the commit of the checkout this package runs from, with "+changes" if it is dirty."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    git = ["git", "-C", str(root)]
    try:
        head = subprocess.run([*git, "rev-parse", "HEAD"], capture_output=True, text=True)
        status = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"], capture_output=True, text=True
        )
    except OSError:  # no git on this machine
        return None
    if head.returncode:
        return None
    return head.stdout.strip() + ("+changes" if status.stdout.strip() else "")


def provenance(arguments: Mapping[str, Any], *, seed: int | None = None) -> dict[str, Any]:
    """Describe the run that made a result.

    Parameters
    ----------
    arguments : mapping
        The settings of the run, as plain JSON values.
    seed : int, optional
        The seed of its random streams.

    Returns
    -------
    dict
        JSON-ready: `arguments`, `seed`, `versions` (package to version; null where absent),
        `python`, `machine`, `commit` (null outside a checkout; "+changes" after it when tracked
        files differ), `time` (UTC, ISO 8601).
    """
    return {
        "arguments": dict(arguments),
        "seed": seed,
        "versions": {package: _version(package) for package in _PACKAGES},
        "python": sys.version.split()[0],
        "machine": f"{platform.system()} {platform.machine()}",
        "commit": _commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
