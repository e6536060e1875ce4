"""The script that draws charts: Vega, Vega-Lite and their embedding, from an installed package."""

import hashlib
from functools import cache
from importlib.metadata import version
from pathlib import Path

from cosa_theory.assets import cache_folder
from cosa_theory.ground.files import atomic_path

__all__ = ["vega_script"]

_EXPORTED = "window.vegaEmbed = vegaEmbed;"


@cache
def vega_script() -> str:
    """Return the script, a module that sets `window.vegaEmbed`.

    Making it takes four seconds, so that it is kept in the cache of assets under the version of its
    package and its own hash; where that folder cannot be written, it is made every time.
    """
    import vl_convert

    name = f"vega-{version('vl-convert-python')}"
    for kept in sorted(cache_folder().glob(f"{name}-*.js")):
        text = _read(kept)
        if kept.name == _name(name, text):
            return text
    made = vl_convert.javascript_bundle(_EXPORTED)
    _keep(cache_folder() / _name(name, made), made)
    return made


def _name(name: str, text: str) -> str:
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.js"


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""


def _keep(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as new:
            new.write_text(text, encoding="utf-8")
    except OSError:
        pass  # a page needs no cache
