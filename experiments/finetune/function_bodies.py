"""A text task that every interpreter carries: the documented functions of its standard library.

Signature and docstring are what is given, the body is what is to be written. The functions are
read with `ast` from the sources beside the running interpreter; nothing is imported.
"""

import ast
import hashlib
import io
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cosa_theory.ground.errors import InputError

__all__ = ["FunctionText", "read_functions", "split_modules"]

_TEST_FOLDERS = {"test", "tests", "idle_test"}


@dataclass(frozen=True)
class FunctionText:
    """A documented function, cut in two; both parts keep their line breaks and indentation.

    Attributes
    ----------
    module : str
        The top-level module or package, such as "email".
    name : str
        File and name, such as "email/utils.py:formataddr".
    prompt : str
        From `def` to the end of the docstring.
    body : str
        The rest.
    """

    module: str
    name: str
    prompt: str
    body: str


def read_functions(folder: Path | None = None) -> list[FunctionText]:
    """Return the documented functions and methods of a library's sources.

    Left out are the library's own tests, functions inside functions, bodies that are only `pass`
    or `...`, and repeated texts (the first is kept).

    Parameters
    ----------
    folder : path, optional
        Where the sources are; by default the running interpreter's standard library, without
        what is installed beside it.

    Returns
    -------
    list of FunctionText
        In the order of the files' names and of the lines in them.

    Raises
    ------
    InputError
        If there are none: some interpreters come without their sources.
    """
    root = Path(sysconfig.get_paths()["stdlib"]) if folder is None else folder
    allowed = sys.stdlib_module_names if folder is None else None
    found: dict[str, FunctionText] = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        module = parts[0].removesuffix(".py")
        if _TEST_FOLDERS.intersection(parts) or (allowed is not None and module not in allowed):
            continue
        for function in _functions_of(path, module, "/".join(parts)):
            found.setdefault(function.prompt + function.body, function)
    if not found:
        raise InputError(
            f"{root} holds no documented Python functions: use an interpreter that comes with the "
            "sources of its standard library"
        )
    return list(found.values())


def _functions_of(path: Path, module: str, label: str) -> Iterator[FunctionText]:
    try:
        source = path.read_text(encoding="utf-8")
        tree = ast.parse(source)
    except (OSError, SyntaxError, UnicodeDecodeError):
        return  # templates and files in other encodings are no loss
    # As the parser counts lines; `splitlines` would also break at form feeds and other signs.
    lines = list(io.StringIO(source))
    for name, node in _definitions(tree, ""):
        cut = _cut(node)
        if cut is None or node.end_lineno is None:
            continue
        prompt = _shifted(lines[node.lineno - 1 : cut], node.col_offset)
        body = _shifted(lines[cut : node.end_lineno], node.col_offset)
        yield FunctionText(module, f"{label}:{name}", prompt, body.rstrip() + "\n")


def _definitions(
    parent: ast.AST, prefix: str
) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Yield functions and methods with their dotted names."""
    for node in ast.iter_child_nodes(parent):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield prefix + node.name, node
        elif isinstance(node, ast.ClassDef):
            yield from _definitions(node, f"{prefix}{node.name}.")


def _cut(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int | None:
    """Return the docstring's last line; None without a docstring, or a body on lines of its own."""
    if ast.get_docstring(node, clean=False) is None or len(node.body) < 2:
        return None
    rest = node.body[1:]
    idle = all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in rest
    )
    last = node.body[0].end_lineno
    return None if idle or last is None or rest[0].lineno <= last else last


def _shifted(lines: Sequence[str], columns: int) -> str:
    """Join lines, moved to the left where they are indented that far."""
    return "".join(
        line[columns:] if not line[:columns].strip() and len(line) > columns else line
        for line in lines
    )


def split_modules(
    functions: Sequence[FunctionText], shares: Sequence[float]
) -> list[list[FunctionText]]:
    """Split functions into parts that have no module in common.

    Parameters
    ----------
    functions : sequence of FunctionText
        What to split.
    shares : sequence of float
        The chance of a module to be in each part but the first, which gets the rest.

    Returns
    -------
    list of list of FunctionText
        One part more than `shares`. Where a module belongs follows from its name alone, so it is
        the same in every version of the library.

    Raises
    ------
    ValueError
        If the shares are not positive, or leave nothing for the first part.
    """
    if min(shares, default=1.0) <= 0 or sum(shares) >= 1:
        raise ValueError(f"shares are {tuple(shares)}: they must be positive and below 1 in all")
    parts: list[list[FunctionText]] = [[] for _ in range(len(shares) + 1)]
    for function in functions:
        parts[_part(function.module, shares)].append(function)
    return parts


def _part(module: str, shares: Sequence[float]) -> int:
    draw = int.from_bytes(hashlib.sha256(module.encode()).digest()[:8], "big") / 2**64
    for number, share in enumerate(shares, start=1):
        if draw < share:
            return number
        draw -= share
    return 0
