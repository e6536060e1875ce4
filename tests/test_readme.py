"""What the README and the pages of docs/ tell a newcomer to type works as written."""

import contextlib
import functools
import importlib
import inspect
import io
import pkgutil
import re
import runpy
import shlex
import sys
import tomllib
import warnings
from pathlib import Path
from typing import get_args

import click
import numpy as np
import pytest
import typer
import yaml
from safetensors.numpy import save_file

from cosa_theory import studies
from cosa_theory.cli.app import app
from paper_checks.base import Word
from paper_checks.run import CHECKS
from paper_checks.thresholds import THRESHOLDS

ROOT = Path(__file__).resolve().parent.parent


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


README = read("README.md")
FOUND = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").glob("**/*.md"))
PAGES = {page: read(page) for page in ("README.md", *FOUND)}


def blocks(language, page="README.md"):
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], flags=re.DOTALL)


def test_the_readme_is_read_in_one_go():
    assert len(README.splitlines()) <= 150


def test_the_readme_gives_the_verdict_and_the_day_of_the_criterion_of_every_claim():
    for name, check in CHECKS.items():
        days = {
            threshold.date
            for key, threshold in THRESHOLDS.items()
            if key.startswith(f"{name.lower()}_") and str(threshold) in check.claim.criterion
        }
        (row,) = re.findall(rf"^\| {name} .* \|$", README, flags=re.MULTILINE) or [None]
        if name.endswith("i"):  # of informed projections: no claim of the paper
            assert row is None
        else:
            assert days
            assert days <= set(re.findall(r"\d{4}-\d\d-\d\d", row)), name
            assert row.split(" | ")[2] in get_args(Word)


def test_the_first_commands_are_make_report_and_make_test():
    first = [line.split("#")[0].strip() for line in blocks("sh")[0].splitlines()]
    assert first == ["make report", "make test"]
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert {"report", "test"} <= set(targets)


def pages(language):
    """Every block of a language, with its page and the line it begins on."""
    return [
        pytest.param(found[1], id=f"{page}:{text.count(chr(10), 0, found.start()) + 1}")
        for page, text in PAGES.items()
        if not page.startswith("docs/tutorials/")  # each a whole: tests/test_tutorials.py
        for found in re.finditer(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)
    ]


@pytest.mark.parametrize(
    "heading", re.findall(r"^## (.*)$", PAGES["docs/measurements.md"], flags=re.MULTILINE)
)
def test_every_measurement_has_the_command_that_makes_it(heading):
    section = PAGES["docs/measurements.md"].split(f"\n## {heading}\n")[1].split("\n## ")[0]
    assert "```sh\n" in section


@pytest.mark.parametrize("block", pages("python"))
def test_every_python_block_runs_as_written(block, tmp_path):
    rng = np.random.default_rng(0)
    base = {"q.weight": rng.standard_normal((48, 32)).astype(np.float32)}
    save_file(base, tmp_path / "base.safetensors")
    save_file({"q.weight": base["q.weight"] + 0.1}, tmp_path / "tuned.safetensors")
    names = {"__name__": "__main__"}
    with contextlib.chdir(tmp_path):
        exec(compile(block, "block", "exec"), names)
    if "basis" in names:  # the number that the comment beside it gives
        assert abs(names["basis"].captured_energy(names["dW"]) - 0.0208) < 0.003


@functools.cache
def options_of_module(name):
    """The help of a module as python -m prints it; a process for each would take a minute."""
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
        warnings.catch_warnings(action="ignore"),  # that it is imported already
        pytest.raises(SystemExit) as ended,
    ):
        patch.setattr(sys, "argv", [name, "--help"])
        runpy.run_module(name, run_name="__main__", alter_sys=True)
    assert not ended.value.code
    return out.getvalue()


def check_command(words):
    """Parse one line of a shell block, without doing what it asks for."""
    program, *rest = words
    if program == "make":
        assert re.search(rf"^{rest[0]}:", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    elif program == "cosa-theory":
        group = typer.main.get_command(app)
        command = group.get_command(click.Context(group), rest[0])
        assert command is not None, rest[0]
        command.make_context(rest[0], rest[1:])
    elif words[:2] == ["python", "-m"]:
        known = options_of_module(rest[1])
        for word in rest[2:]:
            assert not word.startswith("--") or word in known, word
            assert not word.endswith(".toml") or (ROOT / word).is_file(), word
    elif program == "pip":
        extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        for asked in re.findall(r"\[([a-z,]+)\]", " ".join(rest)):
            assert set(asked.split(",")) <= set(extras["optional-dependencies"])
        assert rest[0] in ("install", "wheel")
    else:
        assert program in ("source", "git", "cd", "dask"), f"{program}: no test knows this program"


@pytest.mark.parametrize("block", pages("sh"))
def test_every_shell_block_parses(block):
    lines = block.replace("\\\n", " ").splitlines()
    for words in (shlex.split(line, comments=True) for line in lines):
        if words:
            check_command(words)


def test_commands_are_written_as_they_are_typed():
    for text in PAGES.values():
        assert ".venv/bin/python" not in text
        assert ".venv/bin/cosa-theory" not in text


def test_every_function_that_draws_on_given_axes_is_listed():
    listed = dict(
        re.findall(
            r"^\| `([a-z_.]+)` \| (`plot_.*) \|$",
            PAGES["docs/guides/python.md"],
            flags=re.MULTILINE,
        )
    )
    found = {}
    for module in pkgutil.walk_packages(studies.__path__, "cosa_theory.studies."):
        loaded = importlib.import_module(module.name)
        names = [
            name
            for name in getattr(loaded, "__all__", ())
            if inspect.isfunction(getattr(loaded, name))
            and list(inspect.signature(getattr(loaded, name)).parameters)[:1] == ["ax"]
            and name.startswith("plot_")
        ]
        if names:
            found[module.name.removeprefix("cosa_theory.studies.")] = set(names)
    assert {name: set(re.findall(r"`(\w+)`", text)) for name, text in listed.items()} == found


@pytest.mark.parametrize(
    ("page", "target"),
    [
        (page, target)
        for page, text in (*PAGES.items(), ("CONTRIBUTING.md", read("CONTRIBUTING.md")))
        for target in re.findall(
            r"\]\(([^)\s]+)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        )
        if not target.startswith("http")
    ],
)
def test_every_link_leads_to_a_file_and_to_a_heading_of_it(page, target):
    path, _, anchor = target.partition("#")
    found = (ROOT / page).parent / path if path else ROOT / page
    assert found.exists()
    if anchor:
        headings = re.findall(r"^#+ (.*)$", found.read_text(encoding="utf-8"), flags=re.MULTILINE)
        assert anchor in {
            re.sub(r"[^\w\- ]", "", one.lower()).replace(" ", "-") for one in headings
        }
    if found.suffix == ".png":
        assert found.read_bytes().startswith(b"\x89PNG")


def test_the_citation_names_this_version_and_the_paper():
    cited = yaml.safe_load(read("CITATION.cff"))
    assert cited["version"] == tomllib.loads(read("pyproject.toml"))["project"]["version"]
    assert cited["references"][0]["url"] in README
