"""Which tensor of one model is which of the other: names, prefixes, filters.

Names are compared as they are first. What is left over may differ by one renamed prefix (`bert.`
and none, `model.` and `model.language_model.`); that mapping is used only if it is the only one.
"""

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["NameFilter", "NameMatch", "by_pattern", "expression", "first_few", "match_names"]


def first_few(names: Sequence[str], count: int = 5) -> str:
    """Return "a, b, c" for few names and "first five: a, b, …" for many."""
    if len(names) <= count:
        return ", ".join(names)
    words = {3: "three", 5: "five"}
    return f"first {words[count]}: {', '.join(names[:count])}"


def by_pattern(patterns: Mapping[str, Any] | None, module: str, default: Any) -> Any:
    """Return the value of the first pattern that a module's name ends with.

    A pattern is a regular expression for the whole name or for its last parts, after a dot; the
    first that matches counts, in the order of the file (PEFT's `get_pattern_key`).
    """
    for pattern, value in (patterns or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", module):
            return value
    return default


def expression(argument: str, pattern: Any) -> re.Pattern[str]:
    """Compile a regular expression, or raise InputError in the name of an argument."""
    try:
        return re.compile(pattern + "")  # compiled ones and bytes are no text
    except (re.error, TypeError) as error:
        text = f"{argument} is {pattern!r}: it must be a regular expression ({error})"
        raise InputError(text, argument=argument) from error


# Looking for the closest name is a courtesy; it may not take minutes on a huge model.
_MOST_COMPARED = 2000


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


def _expressions(role: str, patterns: str | Sequence[str] | None) -> list[re.Pattern[str]]:
    listed = [patterns] if isinstance(patterns, str) else patterns or ()
    return [expression(role, pattern) for pattern in listed]


def _nearest(pattern: str, names: Sequence[str]) -> str:
    """Name the tensors most like a pattern, as whole names or as one of their parts."""
    plain = re.sub(r"[\\^$.*+?()\[\]{}|]+", ".", pattern).strip(".").lower()
    scored = []
    for name in names[:_MOST_COMPARED]:
        parts = [name.lower(), *name.lower().split(".")]
        ratio = max(difflib.SequenceMatcher(None, plain, part).ratio() for part in parts)
        scored.append((-ratio, name))
    best = [name for ratio, name in sorted(scored)[:3] if ratio <= -0.6]
    if best:
        return f"the closest are {', '.join(best)}"
    return f"the first are {', '.join(names[:3])}"


@dataclass(frozen=True)
class NameMatch:
    """The result of matching names; those without a partner are in `only_in_…`."""

    pairs: dict[str, str]  # base name to tuned name, in the order of the base
    prefix: tuple[str, str] | None  # renamed, (in base, in tuned), where one was needed
    only_in_base: tuple[str, ...]
    only_in_tuned: tuple[str, ...]


def match_names(base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo]) -> NameMatch:
    """Pair the names of two models, allowing one renamed prefix.

    Raises InputError if two different prefix mappings are possible, or nothing matches.
    """
    exact = base.keys() & tuned.keys()
    left = {name: info for name, info in base.items() if name not in exact}
    right = {name: info for name, info in tuned.items() if name not in exact}
    prefix, renamed = _find_prefix(left, right)
    pairs = {
        name: name if name in exact else renamed[name]
        for name in base
        if name in exact or name in renamed
    }
    if not pairs:
        raise InputError(
            f"no tensor matches: base has {first_few(list(base), 3) or 'none'}; tuned has "
            f"{first_few(list(tuned), 3) or 'none'}: are these two versions of one model?"
        )
    partners = set(pairs.values())
    return NameMatch(
        pairs,
        prefix,
        tuple(name for name in base if name not in pairs),
        tuple(name for name in tuned if name not in partners),
    )


def _find_prefix(
    base: Mapping[str, TensorInfo], tuned: Mapping[str, TensorInfo]
) -> tuple[tuple[str, str] | None, dict[str, str]]:
    """Return the only possible prefix mapping of left-over names, or none."""
    candidates = []
    for old in _prefixes(base):
        for new in _prefixes(tuned):
            if old == new or not _extends(old, new):
                continue
            pairs = {
                name: new + name[len(old) :]
                for name in base
                if name.startswith(old) and new + name[len(old) :] in tuned
            }
            # At least one tensor of the same shape has to vouch for the mapping.
            agreeing = sum(_alike(base[a], tuned[b]) for a, b in pairs.items())
            if agreeing:
                candidates.append((agreeing, (old, new), pairs))
    if not candidates:
        return None, {}
    # Longest mapping first; of equal ones the shortest prefix, which says the same more simply.
    candidates.sort(key=lambda item: (-item[0], len(item[1][0]) + len(item[1][1])))
    _, prefix, pairs = candidates[0]
    for _, other, rival in candidates[1:]:
        clash = _clash(pairs, rival, base, tuned)
        if clash:
            name, first, second = clash
            raise InputError(
                f"ambiguous prefix: {name} of one model could be {first} or {second} of the other "
                f"({_arrow(prefix)} or {_arrow(other)}): exclude one of the two."
            )
    return prefix, pairs


def _arrow(prefix: tuple[str, str]) -> str:
    return f"{prefix[0]!r} → {prefix[1]!r}"


def _clash(
    pairs: Mapping[str, str],
    rival: Mapping[str, str],
    base: Mapping[str, TensorInfo],
    tuned: Mapping[str, TensorInfo],
) -> tuple[str, str, str] | None:
    """Return a name to which two mappings give different partners of the same shape."""
    reverse = {b: a for a, b in pairs.items()}
    for a, b in rival.items():
        if not _alike(base[a], tuned[b]):
            continue
        if a in pairs and pairs[a] != b:
            return a, pairs[a], b
        if b in reverse and reverse[b] != a:
            return b, reverse[b], a
    return None


def _alike(first: TensorInfo, second: TensorInfo) -> bool:
    """Tell whether two shapes agree, up to a transposition (which is reported later)."""
    return sorted(first.shape) == sorted(second.shape)


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return "" and every leading run of name parts before the first number."""
    found = {""}
    for name in names:
        parts = name.split(".")[:-1]
        for count, part in enumerate(parts, start=1):
            if any(character.isdigit() for character in part):
                break
            found.add(".".join(parts[:count]) + ".")
    return sorted(found, key=lambda prefix: (len(prefix), prefix))


def _extends(first: str, second: str) -> bool:
    """Tell whether one prefix has all the parts of the other.

    So a wrapper may be added, removed or moved (`model.` and `model.language_model.`), but
    `encoder.` never becomes `decoder.`.
    """
    a, b = Counter(first.split(".")[:-1]), Counter(second.split(".")[:-1])
    return a <= b or b <= a
