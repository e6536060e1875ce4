"""The pages name what exists, and what they say to do works."""

import ast
import importlib
import importlib.util
import inspect
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
THEORY = (ROOT / "docs/theory.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
NUMBERS = [
    f"{section}.{number}"
    for section, last in {1: 10, 2: 7, 3: 5, 4: 3, 5: 8, 6: 6, 7: 5}.items()
    for number in range(1, last + 1)
]


def statements():
    """The text of every numbered statement, by its number."""
    parts = re.split(r"^#{2,3} (.*)$", THEORY, flags=re.MULTILINE)
    found = zip(parts[1::2], parts[2::2], strict=True)
    return {head.split()[0]: body for head, body in found if re.match(r"\d+\.\d+ ", head)}


def named(body, label):
    """What stands in backticks after "- LABEL:", up to the next bullet."""
    entry = re.search(rf"^- {label}:\s(.*?)(?=^- |^$|\Z)", body, flags=re.MULTILINE | re.DOTALL)
    return re.findall(r"`([^`]+)`", entry[1]) if entry else []


def resolve(path):
    """Return what a dotted path names: attributes first, and modules where there is none."""
    first, *rest = path.split(".")
    found, so_far = importlib.import_module(first), first
    for name in rest:
        so_far += f".{name}"
        found = getattr(found, name) if hasattr(found, name) else importlib.import_module(so_far)
    return found


@cache
def functions_of(path):
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def citations(text):
    """The numbers of the statements that a text cites, for each time it names the page."""
    cited = re.findall(r"docs/theory\.md((?:,?\s+(?:and\s+)?\d+\.\d+)*)", text)
    return [re.findall(r"\d+\.\d+", numbers) for numbers in cited]


def test_every_statement_stands_on_the_page_in_order():
    assert list(statements()) == NUMBERS


@pytest.mark.parametrize("number", NUMBERS)
def test_a_statement_names_functions_that_exist_and_tests_that_exist(number):
    body = statements()[number]
    paths, tests = named(body, "Computed by"), named(body, "Proved by")
    assert paths
    assert tests
    for path in paths:
        assert path.startswith("cosa_theory.")
        assert callable(resolve(path)) or isinstance(resolve(path), property), path
    cited = [inspect.getdoc(resolve(path)) or "" for path in paths]
    assert any(number in numbers for text in cited for numbers in citations(text)), number
    for test in tests:
        path, _, name = test.partition("::")
        assert name.startswith("test_")
        assert name in functions_of(path), test


def test_everything_else_that_the_page_names_exists():
    for name in re.findall(r"`((?:cosa_theory|experiments|figures|paper_checks)\.[\w.]+)`", THEORY):
        resolve(name)
    for name in re.findall(r"`(tests/[\w/.]+)(?:::(\w+))?`", THEORY):
        assert (ROOT / name[0]).exists(), name
        assert not name[1] or name[1] in functions_of(name[0]), name


def test_docstrings_refer_to_statements_that_are_there():
    for path in (ROOT / "cosa_theory").rglob("*.py"):
        for numbers in citations(path.read_text(encoding="utf-8")):
            assert numbers, f"{path} cites the page without a number"
            assert set(numbers) <= set(NUMBERS), (path, numbers)


def test_what_the_pages_say_to_run_and_to_look_into_is_there():
    files = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("**/*.md"))
    pages = "\n".join(path.read_text(encoding="utf-8") for path in files)
    added = [Path(name).with_suffix("").as_posix().replace("/", ".") for name in examples()]
    for module in set(re.findall(r"python -m ((?:experiments|figures|paper_checks)[\w.]*)", pages)):
        assert module in added or importlib.util.find_spec(module), module
    for table in re.findall(r"^\| (?:room|floor) \|.*\n(?:\|.*\n)+", pages, flags=re.MULTILINE):
        for row in table.splitlines()[2:]:
            for name in re.findall(r"`([^`]+)`", row.split("|")[1]):
                path = name if name.endswith(".py") else name.replace(".", "/")  # nn.peft
                assert any((top / path).exists() for top in (ROOT, ROOT / "cosa_theory")), name


def examples():
    """The files that CONTRIBUTING shows, by their paths."""
    found = re.findall(r"```python\n# (\S+)\n(.*?)```", CONTRIBUTING, flags=re.DOTALL)
    assert len(found) == CONTRIBUTING.count("```python")
    return dict(found)


def test_contributing_says_for_each_thing_which_test_it_takes():
    tests = [name for name in examples() if name.startswith("tests/")]
    assert len(tests) == CONTRIBUTING.count("\n### ")
    assert not [name for name in examples() if (ROOT / name).exists()]


def test_the_examples_of_contributing_take_no_more_than_their_files(tmp_path):
    for folder in ("cosa_theory", "experiments", "figures", "paper_checks", "tests"):
        shutil.copytree(ROOT / folder, tmp_path / folder)  # compiled modules too, for speed
    for name, text in examples().items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    tests = [name for name in examples() if name.startswith("tests/")]
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout
    assert f"{len(tests)} passed" in run.stdout
