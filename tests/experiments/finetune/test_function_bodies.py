"""Functions of a library as texts: nothing lost, nothing twice, no module on both sides."""

import ast
import sys
import sysconfig
from pathlib import Path

import pytest

from cosa_theory.ground.errors import InputError
from experiments.finetune.function_bodies import FunctionText, read_functions, split_modules

SOURCE = '''
"""A module's docstring."""
import functools


def plain(x):
    """Return x."""
    # A comment before the first statement.
    return x


class Thing:
    """A class's docstring."""

    @functools.cached_property
    async def method(
        self, y: int = (1, 2)
    ) -> int:
        r"""Say \\d.

        More.
        """
        text = """
left of the margin"""

        def inner():
            """Not a function of its own."""
            return text
        return inner

    def idle(self):
        """Nothing."""
        ...

    def alone(self):
        """Nothing but this."""

    def undocumented(self):
        return 1


def short(): "On one line."; return 1
'''


@pytest.fixture
def library(tmp_path):
    (tmp_path / "one.py").write_text(SOURCE)
    (tmp_path / "two" / "test").mkdir(parents=True)
    (tmp_path / "two" / "copy.py").write_text('def plain(x):\n    """Two."""\n    return x\n')
    (tmp_path / "two" / "same.py").write_text(SOURCE)
    (tmp_path / "two" / "test" / "inside.py").write_text('def t():\n    """T."""\n    return 1\n')
    (tmp_path / "broken.py").write_text("def (")
    (tmp_path / "latin.py").write_bytes(b'def f():\n    """\xe9"""\n    return 1\n')
    return tmp_path


def test_a_function_is_cut_after_its_docstring(library):
    functions = {function.name: function for function in read_functions(library)}
    assert functions["one.py:plain"] == FunctionText(
        "one",
        "one.py:plain",
        'def plain(x):\n    """Return x."""\n',
        "    # A comment before the first statement.\n    return x\n",
    )
    method = functions["one.py:Thing.method"]
    assert method.prompt.startswith("async def method(\n    self, y: int = (1, 2)\n) -> int:\n")
    assert method.prompt.endswith('    More.\n    """\n')
    assert method.body.startswith('    text = """\nleft of the margin"""\n')
    assert method.body.endswith("    return inner\n")


def test_tests_repeats_and_functions_with_nothing_to_write_are_left_out(library):
    names = [function.name for function in read_functions(library)]
    assert names == ["one.py:plain", "one.py:Thing.method", "two/copy.py:plain"]


def test_both_parts_together_are_the_function_again(library):
    (library / "two" / "more.py").write_text(
        "class A:\n    def f(self):\n        '''F.'''\n        return 'x'\n"
    )
    for function in read_functions(library):
        (node,) = ast.parse(function.prompt + function.body).body
        assert ast.get_docstring(node)
        assert len(node.body) > 1


def test_signs_that_are_no_line_breaks_to_the_parser_shift_nothing(tmp_path):
    source = 'x = 1\n\f\ny = "\u2028"\n\n\ndef plain(x):\n    """Return x."""\n    return x\n'
    (tmp_path / "old.py").write_text(source, encoding="utf-8")
    (function,) = read_functions(tmp_path)
    assert function.prompt == 'def plain(x):\n    """Return x."""\n'
    assert function.body == "    return x\n"


def test_a_library_without_functions_is_refused_in_a_sentence(tmp_path):
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(InputError, match="holds no documented Python functions: use an interpret"):
        read_functions(tmp_path)


def test_the_standard_library_is_read_without_what_is_installed_beside_it(monkeypatch):
    # Of its modules these three, and its own tests: to read all takes seconds.
    assert {"textwrap", "email", "asyncio"} < sys.stdlib_module_names
    monkeypatch.setattr(sys, "stdlib_module_names", {"textwrap", "email", "asyncio", "test"})
    found = read_functions()
    assert len(found) > 150
    assert {function.module for function in found} == {"textwrap", "email", "asyncio"}
    source = Path(sysconfig.get_paths()["stdlib"], "textwrap.py").read_text()
    (dedent,) = [function for function in found if function.name == "textwrap.py:dedent"]
    assert dedent.prompt + dedent.body in source


@pytest.fixture
def standard():
    """Three functions of each module of the standard library, which needs no reading for it."""
    return [
        FunctionText(name, f"{name}.py:f{number}", "def f():", "    return 1")
        for name in sorted(sys.stdlib_module_names)
        for number in range(3)
    ]


def test_no_module_is_on_both_sides_and_every_function_on_one(standard):
    parts = split_modules(standard, (0.15, 0.25))
    modules = [{function.module for function in part} for part in parts]
    assert not modules[0] & modules[1]
    assert not modules[0] & modules[2]
    assert not modules[1] & modules[2]
    assert sorted(f.name for part in parts for f in part) == sorted(f.name for f in standard)
    total = len(set.union(*modules))
    # Within four standard deviations of a binomial count.
    for found, share in zip(modules[1:], (0.15, 0.25), strict=True):
        assert abs(len(found) - share * total) < 4 * (share * (1 - share) * total) ** 0.5


def test_where_a_module_belongs_does_not_depend_on_the_others(standard):
    parts = split_modules(standard, (0.15, 0.25))
    fewer = split_modules(standard[::7], (0.15, 0.25))
    for part, smaller in zip(parts, fewer, strict=True):
        assert {f.module for f in smaller} <= {f.module for f in part}


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.0,), (-0.1, 0.2)])
def test_shares_that_leave_nothing_are_refused(shares):
    with pytest.raises(ValueError, match="must be positive and below 1 in all"):
        split_modules([], shares)
