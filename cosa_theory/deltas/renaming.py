"""Which tensor of one model is which of the other, by their names.

Names are compared as they are first, then without what wrappers put into them, or as a table gives
them (see `architecture`). What is left over may differ by renamed prefixes: parts added, removed or
swapped before the first number (`bert.` and none, `visual.` and `model.visual.`). Such a mapping is
used only where it is the only one. All of it takes a time linear in the number of names.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from typing import Any

from cosa_theory.deltas.matching import first_few
from cosa_theory.deltas.wrapped_names import unwrapped_name
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["NameMatch", "match_names", "plain_names"]

# A model may have modules of these names itself, so they are left out only to compare names.
_OUTER = re.compile(r"(?:^|(?<=\.))(?:_fpw_module|_module|module|base_layer|base_model\.model)\.")

# What may be renamed ends before the first number, so that a layer of a stack keeps its number.
_PREFIX = re.compile(r"(?:[^.\d]+\.)*")
_LONGEST_RUN = 4  # parts added in the middle of a prefix
_LONGEST_LEAD = 16  # parts added in front
_DEEPEST = 8  # part behind which nothing is renamed

Infos = Mapping[str, TensorInfo]
Prefixes = tuple[str, str]
"""A renamed prefix, as (in base, in tuned)."""


def plain_names(names: Iterable[str]) -> dict[str, str]:
    """Map names to themselves without wrappers, those of DDP, DeepSpeed and PEFT among them.

    Names that would become one stay as they are.
    """
    plain = {name: _without_wrappers(name) for name in names}
    counts = Counter(plain.values())
    return {name: one if counts[one] == 1 else name for name, one in plain.items()}


def _without_wrappers(name: str) -> str:
    """Remove them until none is left, since one may stand inside the name of another."""
    while (shorter := _OUTER.sub("", unwrapped_name(name))) != name:
        name = shorter
    return name


@dataclass(frozen=True)
class NameMatch:
    """The result of matching names; those without a partner are in `only_in_…`."""

    pairs: dict[str, str]  # base name to tuned name, in the order of the base
    only_in_base: tuple[str, ...]
    only_in_tuned: tuple[str, ...]
    renamed: tuple[Prefixes, ...] = ()  # the prefixes of most tensors first
    translated: int = 0  # tensors that match by the names they are compared by


def match_names(
    base: Infos,
    tuned: Infos,
    plain: tuple[Mapping[str, str], Mapping[str, str]] | None = None,
) -> NameMatch:
    """Pair the names of two models.

    `plain` maps the names of base and of tuned to those they are compared by, which differ from
    each other; by default they are left without wrappers. Raises InputError if a matrix could be
    two of the other model, or nothing matches.
    """
    pairs = {name: name for name in base if name in tuned}
    ours, theirs = plain or (
        plain_names(name for name in names if name not in pairs) for names in (base, tuned)
    )
    left = {ours[name]: name for name in base if name not in pairs}
    right = {theirs[name]: name for name in tuned if name not in pairs}
    pairs |= {name: right[one] for one, name in left.items() if one in right}
    same = left.keys() & right.keys()
    found = _by_prefix(
        {one: base[name] for one, name in left.items() if one not in same},
        {one: tuned[name] for one, name in right.items() if one not in same},
    )
    pairs |= {left[one]: right[other] for one, (other, _) in found.items()}
    if not pairs:
        raise InputError(
            f"no tensor matches: base has {first_few(list(base), 3) or 'none'}; tuned has "
            f"{first_few(list(tuned), 3) or 'none'}: are these two versions of one model?"
        )
    partners = set(pairs.values())
    return NameMatch(
        {name: pairs[name] for name in base if name in pairs},
        tuple(name for name in base if name not in pairs),
        tuple(name for name in tuned if name not in partners),
        tuple(prefixes for prefixes, _ in Counter(one for _, one in found.values()).most_common()),
        len(same),
    )


def _by_prefix(base: Infos, tuned: Infos) -> dict[str, tuple[str, Prefixes]]:
    """Match names by renamed prefixes where there is one way only; no name is in both models."""
    edges = {
        (name, other): prefixes
        for name, other, prefixes in _edges(base, tuned)
        if len(base[name].shape) == len(tuned[other].shape)
    }
    # At least one tensor of the same shape has to vouch for a mapping.
    vouched = {one for (name, other), one in edges.items() if _alike(base[name], tuned[other])}
    edges = {pair: prefixes for pair, prefixes in edges.items() if prefixes in vouched}
    degrees = Counter(chain.from_iterable(edges))
    found: dict[str, tuple[str, Prefixes]] = {}
    graph: dict[str, dict[str, Prefixes]] = {}
    for (name, other), prefixes in edges.items():
        if degrees[name] == degrees[other] == 1:
            found[name] = other, prefixes
        else:
            graph.setdefault(name, {})[other] = prefixes
            graph.setdefault(other, {})[name] = prefixes
    for names in _components(graph):
        matched = _only_matching(graph, names)
        if matched:
            pairs = ((name, matched[name]) for name in names if name in base)
            found |= {name: (other, graph[name][other]) for name, other in pairs}
        elif len((base.get(names[0]) or tuned[names[0]]).shape) > 1:
            raise _ambiguous(graph, names)
        # Vectors are not compared, so it is no matter which is which.
    return found


def _ambiguous(graph: Mapping[str, Mapping[str, Prefixes]], names: Iterable[str]) -> InputError:
    name = next(name for name in names if len(graph[name]) > 1)
    (first, one), (second, other) = list(graph[name].items())[:2]
    return InputError(
        f"ambiguous prefix: {name} of one model could be {first} or {second} of the other "
        f"({_arrow(one)} or {_arrow(other)}): exclude one of the two."
    )


def _arrow(prefix: Prefixes) -> str:
    return f"{prefix[0]!r} → {prefix[1]!r}"


def _components(graph: Mapping[str, Iterable[str]]) -> Iterator[list[str]]:
    """Yield the names of each part of the graph that hangs together."""
    seen: set[str] = set()
    for start in graph:
        if start not in seen:
            seen.add(start)
            part = [start]
            for name in part:  # grows on the way
                fresh = [other for other in graph[name] if other not in seen]
                seen.update(fresh)
                part += fresh
            yield part


def _only_matching(
    graph: Mapping[str, Mapping[str, Any]], names: Sequence[str]
) -> dict[str, str] | None:
    """Return the one perfect matching of names, both ways, or None if there are none or several.

    A unique one has a name with a single edge, which belongs to it, and leaves a unique one of the
    others (A. Kotzig, "On the theory of finite graphs with a linear factor II", 1959).
    """
    degrees = {name: len(graph[name]) for name in names}
    leaves = [name for name in names if degrees[name] == 1]
    matched: dict[str, str] = {}
    while leaves:
        leaf = leaves.pop()
        partner = next((other for other in graph[leaf] if other not in matched), None)
        if leaf in matched or partner is None:
            continue
        matched |= {leaf: partner, partner: leaf}
        for other in graph[partner]:
            degrees[other] -= 1
            if degrees[other] == 1 and other not in matched:
                leaves.append(other)
    return matched if len(matched) == len(names) else None


def _alike(first: TensorInfo, second: TensorInfo) -> bool:
    """Tell whether two shapes agree, up to a transposition (which is reported later)."""
    return sorted(first.shape) == sorted(second.shape)


def _edges(base: Infos, tuned: Infos) -> Iterator[tuple[str, str, Prefixes]]:
    """Yield every (base name, tuned name, prefixes) that differ by one change of their prefix."""
    for name, other, begin, end in _shortened(tuned, base):
        yield other, name, _reduced(name[:begin], name[:end])
    for name, other, begin, end in _shortened(base, tuned):
        yield name, other, _reduced(name[:end], name[:begin])
    for name, other, end in _swapped(tuned, base):
        yield other, name, (other[:end], name[:end])


@lru_cache(1024)
def _starts(prefix: str) -> tuple[int, ...]:
    """Return where each part of a prefix begins, and where the last of them ends."""
    parts = prefix.split(".", _DEEPEST + _LONGEST_LEAD)[:-1]
    return tuple(accumulate((len(part) + 1 for part in parts), initial=0))


def _shortened(names: Iterable[str], others: Infos) -> Iterator[tuple[str, str, int, int]]:
    """Yield (name, other) where the other lacks a run of parts of the prefix, and its two ends."""
    lengths = {(len(other), other.count(".")) for other in others}  # spares most of the slicing
    for name in names:
        starts, length, parts = _starts(_prefix(name)), len(name), name.count(".")
        for first, begin in enumerate(starts[:_DEEPEST]):
            longest = _LONGEST_RUN if first else _LONGEST_LEAD
            for count, end in enumerate(starts[first + 1 : first + 1 + longest], start=1):
                if (length - end + begin, parts - count) in lengths:
                    other = name[:begin] + name[end:]
                    if other in others:
                        yield name, other, begin, end


def _swapped(names: Iterable[str], others: Infos) -> Iterator[tuple[str, str, int]]:
    """Yield (name, other) with two neighbouring parts of the prefix swapped, and where they end."""
    lengths = {(len(other), other.count(".")) for other in others}
    for name in names:
        if (len(name), name.count(".")) in lengths:
            starts = _starts(_prefix(name))[:_DEEPEST]
            for begin, middle, end in zip(starts, starts[1:], starts[2:], strict=False):
                other = name[:begin] + name[middle:end] + name[begin:middle] + name[end:]
                if other in others:
                    yield name, other, end


def _prefix(name: str) -> str:
    """Return the parts of a name before the first with a digit, and before its last part."""
    match = _PREFIX.match(name)
    assert match is not None  # it may be empty
    return match[0]


def _reduced(first: str, second: str) -> Prefixes:
    """Return two prefixes without the last parts that they share."""
    if not first or not second:
        return first, second
    one, other = first.split("."), second.split(".")
    while len(one) > 1 and len(other) > 1 and one[-2] == other[-2]:
        del one[-2], other[-2]
    return ".".join(one), ".".join(other)
