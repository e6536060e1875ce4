"""The day that a threshold states is the day on which its bound was committed."""

import ast
import subprocess
from pathlib import Path

import pytest

from paper_checks.thresholds import THRESHOLDS

ROOT = Path(__file__).parents[2]


def git(*arguments):
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def bounds(source):
    """Return relation and value, as written, of every threshold that a module states."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        pairs = []
        if isinstance(node, ast.Dict):
            pairs = zip(node.keys, node.values, strict=True)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Subscript):
            pairs = [(node.targets[0].slice, node.value)]
        for key, value in pairs:
            if isinstance(value, ast.Call) and getattr(value.func, "id", "") == "Threshold":
                found[key.value] = tuple(ast.unparse(argument) for argument in value.args[1:3])
    return found


def introduced(path):
    """Return, for every bound that was ever committed, the day of the first commit with it."""
    found = {}
    history = git("log", "--reverse", "--format=%H %as", "--", path).splitlines()
    for commit, day in (line.split() for line in history):
        for key, bound in bounds(git("show", f"{commit}:{path}")).items():
            found.setdefault((key, bound), day)
    return found


def test_the_day_of_every_threshold_is_that_of_the_commit_that_brought_its_bound():
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: the history is not at hand")
    if git("rev-parse", "--is-shallow-repository").strip() == "true":
        pytest.skip("a shallow clone: the history is cut")
    stated = {}
    for module in (ROOT / "paper_checks").glob("*.py"):
        if (own := bounds(module.read_text())) and (
            days := introduced(f"paper_checks/{module.name}")
        ):
            # A bound that is still to be committed has no day yet.
            stated |= {key: days[key, bound] for key, bound in own.items() if (key, bound) in days}
    roots = git("rev-list", "--max-parents=0", "HEAD").split()
    if any(git("ls-tree", root, "paper_checks/thresholds.py") for root in roots):
        pytest.skip("the first commit has the thresholds already: the history is cut")
    assert len(stated) > 30
    assert {key: THRESHOLDS[key].date for key in stated} == stated


def test_the_day_stands_beside_the_criterion():
    assert str(THRESHOLDS["c4_kept"]).endswith("comes back at least 0.9 (set on 2026-11-22)")
