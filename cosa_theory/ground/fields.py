"""The fields of an object that a file holds, each with the check that its value has to pass.

A table of fields says once what a configuration may be; `read_fields` returns the checked values,
or names the file, every field at fault, its value and what it must be.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from cosa_theory.ground.checks import refuse
from cosa_theory.ground.errors import Problems, quoted

__all__ = [
    "Check",
    "Field",
    "either",
    "flag",
    "items",
    "optional",
    "read_fields",
    "table_of",
    "text",
]

Check: TypeAlias = Callable[[str, Any], Any]
"""Returns a value in the form the library works with, or refuses it in the name of an argument."""


class Field(NamedTuple):
    """What a field has to be, and what it is where the file does not name it.

    A field whose check refuses None, and that has no other default, has to be there.
    """

    check: Check
    default: Any = None


def read_fields(
    values: Mapping[str, Any], fields: Mapping[str, Field], where: str
) -> dict[str, Any]:
    """Return the values of these fields, checked; other fields are left out.

    Parameters
    ----------
    values : mapping
        As the file has them.
    fields : mapping of str to Field
        What is looked at.
    where : str
        The file, with which the errors begin.

    Raises
    ------
    InputError
        With one sentence for each field that cannot be used.
    """
    found = Problems()
    read = {}
    for name, (check, default) in fields.items():
        with found:
            read[name] = check(f"{where}: {name}", values.get(name, default))
    found.report()
    return read


def optional(check: Check) -> Check:
    """Return a check that lets null be, as None."""
    return lambda argument, value: None if value is None else check(argument, value)


def flag(argument: str, value: Any) -> bool:
    """Return true or false; a number is neither."""
    if not isinstance(value, bool):
        raise refuse(argument, value, "true or false")
    return value


def text(argument: str, value: Any) -> str:
    """Return a text."""
    if not isinstance(value, str):
        raise refuse(argument, value, "a text")
    return value


def items(check: Check) -> Check:
    """Return a check of a list whose items all pass another one."""

    def checked(argument: str, value: Any) -> list[Any]:
        if not isinstance(value, (list, tuple, set)):
            raise refuse(argument, value, "a list")
        return [check(f"an item of {argument}", item) for item in value]

    return checked


def table_of(check: Check, name: Check | None = None) -> Check:
    """Return a check of an object whose values, and names if asked, all pass another one."""

    def checked(argument: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise refuse(argument, value, "an object")
        found = Problems()
        read = {}
        for key, entry in value.items():
            with found:
                if name is not None:
                    name(f"a name in {argument}", key)
                read[key] = check(f"{argument} of {quoted(key)}", entry)
        found.report()
        return read

    return checked


def either(*checks: Check, must: str) -> Check:
    """Return a check that one of several has to pass."""

    def checked(argument: str, value: Any) -> Any:
        for check in checks:
            try:
                return check(argument, value)
            except ValueError:
                continue
        raise refuse(argument, value, must)

    return checked
