"""Choosing tensors by their names: filters, patterns, and names in messages."""

import difflib
import re
from collections.abc import Sequence

from cosa_theory.ground.expressions import Expression

__all__ = ["NameFilter", "first_few"]


def first_few(names: Sequence[str], count: int = 5) -> str:
    """Return "a, b, c" for few names, and "a, b, c and 4 more" for many."""
    more = len(names) - count
    return ", ".join(names[:count]) + (f" and {more} more" if more > 0 else "")


# Looking for the closest name is a courtesy; it may not take minutes on a huge model.
_MOST_COMPARED = 8000


class NameFilter:
    """Regular expressions that choose tensors by name, by `re.search`.

    A name must match one of `include`, if there are any, and none of `exclude`. Raises InputError
    for a pattern that is no regular expression.
    """

    def __init__(
        self, include: str | Sequence[str] | None, exclude: str | Sequence[str] | None
    ) -> None:
        self.include = _expressions("include", include)
        self.exclude = _expressions("exclude", exclude)

    def keeps(self, name: str) -> bool:
        """Tell whether a tensor of this name is wanted."""
        wanted = not self.include or any(pattern.search(name) for pattern in self.include)
        return wanted and not self.drops(name)

    def drops(self, name: str) -> bool:
        """Tell whether a tensor of this name is excluded."""
        return any(pattern.search(name) for pattern in self.exclude)

    def problems(self, base: Sequence[str], tuned: Sequence[str]) -> list[str]:
        """Say which patterns match nothing, with the names that come closest."""
        problems = []
        for role, patterns in (("include", self.include), ("exclude", self.exclude)):
            for pattern in patterns:
                names = base if role == "include" else [*base, *tuned]
                if not any(pattern.search(name) for name in names):
                    problems.append(
                        f"{role}: {pattern.pattern!r} matches none of the {len(base)} tensors of "
                        f"base; {_nearest(pattern.pattern, base)}."
                    )
        if not problems and base and not any(self.keeps(name) for name in base):
            problems.append("include and exclude together leave no tensor: loosen one of them.")
        return problems


def _expressions(role: str, patterns: str | Sequence[str] | None) -> list[Expression]:
    listed = [patterns] if isinstance(patterns, str) else patterns or ()
    return [Expression(role, pattern) for pattern in listed]


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Name the tensors most like a pattern, as whole names or as one of their parts."""
    plain = re.sub(r"[\\^$.*+?()\[\]{}|]+", ".", pattern).strip(".").lower()
    scored: list[tuple[float, str]] = []
    compared = 0
    for name in names:
        parts = [name.lower(), *name.lower().split(".")]
        compared += len(parts)
        if compared > _MOST_COMPARED:
            break
        ratio = max(difflib.SequenceMatcher(None, plain, part).ratio() for part in parts)
        scored.append((-ratio, name))
    best = [name for ratio, name in sorted(scored)[:3] if ratio <= -0.6]
    if best:
        return f"the closest are {', '.join(best)}"
    return f"the first are {', '.join(names[:3])}"
