"""The solvers, one file each; importing this folder imports them, and so fills `METHODS`."""

from importlib import import_module
from pkgutil import iter_modules

__all__: list[str] = []

for _solver in iter_modules(__path__):
    import_module(f"{__name__}.{_solver.name}")
