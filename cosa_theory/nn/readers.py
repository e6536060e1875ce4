"""Layers whose weight is read past their forward, found in the code of the modules that hold them.

`self.out_proj.weight` in what the forward of a module runs, as in torch's multi-head attention or
in the fused kernels of state-space models, uses the weight and never calls the layer, so an update
of the layer is idle there. Reading what a weight is (its dtype, its device) does not count.
"""

import ast
import inspect
import re
import textwrap
from collections.abc import Collection, Iterator
from functools import cache
from types import CodeType
from typing import Any, NamedTuple

from torch import nn

from cosa_theory.nn.wrappers import plain_names

__all__ = ["weights_read_past"]

_ABOUT = {
    "device", "dim", "dtype", "element_size", "is_cuda", "is_meta", "itemsize", "ndim", "numel",
    "requires_grad", "shape", "size",
}  # fmt: skip
"""What says of a tensor what it is, and not what is in it."""


class _Read(NamedTuple):
    """A weight read in a module's code: a pattern of the layer's name below it, and where."""

    layer: str
    where: str
    conditions: tuple[tuple[ast.expr, bool], ...]  # of the `if`s around it, with their outcome


def weights_read_past(model: nn.Module, names: Collection[str]) -> dict[str, str]:
    """Return which of the layers of a model have their weight read by others, and by whom.

    `names` are plain names of layers in the model; the reader is told as "Class.function".
    """
    found: dict[str, str] = {}
    plain = plain_names(model)
    for own_name, module in model.named_modules(remove_duplicate=False):
        place = plain[own_name]
        for read in _reads(module.__class__):
            if not all(_may_be(test, outcome, module) for test, outcome in read.conditions):
                continue
            name = f"{place}.{read.layer}" if place else read.layer
            if "*" not in name:
                found |= {name: read.where} if name in names else {}
                continue
            pattern = re.compile(re.escape(name).replace(r"\*", "[^.]+"))
            found |= {one: read.where for one in names if pattern.fullmatch(one)}
    return found


@cache
def _reads(kind: type) -> tuple[_Read, ...]:
    """Return what the methods of a class read, but for those that set the weights up."""
    if kind.__module__.startswith("torch.nn") and not issubclass(kind, nn.MultiheadAttention):
        return ()  # torch's encoder layer does in its fast path, which is switched off
    reads: list[_Read] = []
    waiting = [name for name in dir(kind) if not name.startswith("_") and "init" not in name]
    seen: set[str] = set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        for owner in kind.__mro__:
            function = inspect.unwrap(vars(owner)[name]) if callable(vars(owner).get(name)) else 0
            code = getattr(function, "__code__", None)
            if owner is nn.Module or not isinstance(code, CodeType):
                continue
            used = _names_in(code)
            waiting.extend(used)
            if "weight" in used:
                reads.extend(_reads_of(function, f"{owner.__name__}.{name}"))
            if "super" not in used:
                break
    return tuple(reads)


def _names_in(code: CodeType) -> set[str]:
    """Return the global names and attributes that a function, or one within it, uses."""
    inner = (one for one in code.co_consts if isinstance(one, CodeType))
    return set(code.co_names).union(*map(_names_in, inner))


@cache
def _reads_of(function: Any, where: str) -> tuple[_Read, ...]:
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError, SyntaxError):
        return ()  # code without a source
    short: dict[str, str] = {"self": ""}  # local names of modules
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.For, ast.comprehension)):
            target = node.targets[0] if isinstance(node, ast.Assign) else node.target
            value = node.value if isinstance(node, ast.Assign) else node.iter
            path = _path(value, short)
            if isinstance(target, ast.Name) and path:
                short[target.id] = path if isinstance(node, ast.Assign) else f"{path}.*"
    return tuple(_walk(tree, where, short, ()))


def _walk(
    node: ast.AST, where: str, short: dict[str, str], conditions: tuple[tuple[ast.expr, bool], ...]
) -> Iterator[_Read]:
    for child in ast.iter_child_nodes(node):
        if isinstance(node, (ast.If, ast.IfExp)) and child is not node.test:
            above = node.body if isinstance(node.body, list) else [node.body]
            around = (*conditions, (node.test, child in above))
        else:
            around = conditions
        if isinstance(child, ast.Attribute) and child.attr == "weight":
            layer = _path(child.value, short)
            if layer and isinstance(child.ctx, ast.Load) and not _asks_about(node):
                yield _Read(layer, where, around)
        yield from _walk(child, where, short, around)


def _path(node: ast.AST, short: dict[str, str]) -> str | None:
    """Return the name below `self` that an expression stands for; a place in a list is "*"."""
    if isinstance(node, ast.Name):
        return short.get(node.id)
    if not isinstance(node, (ast.Attribute, ast.Subscript)):
        return None
    above, last = _path(node.value, short), getattr(node, "attr", "*")
    return None if above is None else f"{above}.{last}" if above else last


def _asks_about(node: ast.AST) -> bool:
    """Tell whether what a weight stands in asks what it is: `weight.dtype`, `isinstance`, `is`."""
    if isinstance(node, ast.Attribute):
        return node.attr in _ABOUT
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in ("isinstance", "hasattr")
    return isinstance(node, ast.Compare)


def _may_be(test: ast.expr, outcome: bool, module: nn.Module) -> bool:
    """Tell whether a condition can have an outcome: a module's settings stand, its mode not."""
    parts = list(ast.walk(test))
    known = (ast.Attribute, ast.BoolOp, ast.Compare, ast.Constant, ast.Name, ast.UnaryOp)
    plain = all(
        isinstance(part, (*known, ast.boolop, ast.cmpop, ast.expr_context, ast.unaryop))
        for part in parts
    )
    names = {part.id for part in parts if isinstance(part, ast.Name)}
    if not plain or names != {"self"} or any(getattr(p, "attr", "") == "training" for p in parts):
        return True
    try:
        code = compile(ast.Expression(test), "<condition>", "eval")
        return bool(eval(code, {"__builtins__": {}}, {"self": module})) == outcome
    except Exception:
        return True
