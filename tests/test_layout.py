"""The house keeps its order: dependencies point one way, importing is free of side effects."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
# Inside the library a module imports only rooms listed above it.
ROOMS = (
    "errors",
    "files",
    "provenance",
    "threads",
    "projections",
    "operators",
    "basis",
    "laws",
    "transforms",
    "isometry",
    "recovery",
    "spectrum",
    "deltas",
    "survey",
    "audit",
    "nn",
    "assets",
    "plotting",
    "report",
    "cli",
    "__main__",
)


def room_of(path: Path) -> str:
    return path.relative_to(ROOT / "cosa_theory").parts[0].removesuffix(".py")


def imported_modules(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative imports hide the room"
            names.add(node.module)
            if node.module == "cosa_theory":
                names.update(f"cosa_theory.{alias.name}" for alias in node.names)
    return names


LIBRARY = sorted((ROOT / "cosa_theory").rglob("*.py"))


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_library_module_imports_only_rooms_above_its_own(path):
    if path == ROOT / "cosa_theory" / "__init__.py":
        return  # the front door names what the rooms behind it offer
    own = ROOMS.index(room_of(path))
    for name in imported_modules(path):
        first, _, rest = name.partition(".")
        assert first not in {"experiments", "figures", "paper_checks", "tests"}, name
        if first == "cosa_theory" and rest and rest.split(".")[0] in ROOMS:
            assert ROOMS.index(rest.split(".")[0]) <= own, f"{path} imports {name}"


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_torch_is_imported_at_module_level_only_in_nn(path):
    if room_of(path) == "nn":
        return
    for node in ast.parse(path.read_text()).body:
        names = [alias.name for alias in getattr(node, "names", ())]
        module = getattr(node, "module", None) or ""
        assert not any(name.split(".")[0] == "torch" for name in (*names, module)), path


def test_importing_the_package_is_quiet_light_and_seeds_nothing():
    code = (
        "import sys, numpy as np; before = np.random.get_state()[1].copy(); import cosa_theory; "
        "assert (np.random.get_state()[1] == before).all(); "
        "heavy = {'torch', 'matplotlib', 'pandas', 'cvxpy', 'typer'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
