"""Everything that can be decided about a pair of models before a weight is read."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from cosa_theory.deltas.checkpoint import Checkpoint
from cosa_theory.deltas.layers import PairReport
from cosa_theory.deltas.matching import NameFilter, first_few
from cosa_theory.deltas.pairing import Pairing, pair_names
from cosa_theory.deltas.renaming import match_names
from cosa_theory.deltas.selection import (
    SelectedLayer,
    layers_in,
    quantised_problems,
    select_layers,
)
from cosa_theory.deltas.tying import copies, tied_layers, untied
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.printable import shortened
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["preflight"]

_MOST_TOLD = 5  # renamed prefixes


def preflight(
    base: Checkpoint,
    tuned: Checkpoint,
    names: NameFilter,
    on_shape: str,
    on_other: str,
    partial: bool,
) -> tuple[list[SelectedLayer], PairReport]:
    """Match, filter and check two sources from their headers alone, as `open_pair` documents it.

    Only the search for tied weights looks at entries, and only where a few sampled bytes agree.
    """
    problems = names.problems(list(base.infos), list(tuned.infos))
    left = {name: info for name, info in base.infos.items() if not names.drops(name)}
    right = {name: info for name, info in tuned.infos.items() if not names.drops(name)}
    found = Pairing({}, tuple(left), tuple(right), (), (), ())
    unmatched: tuple[str, ...] = ()
    try:
        found = pair_names(base, tuned, left, right)
    except InputError as error:
        unmatched = error.problems
    found = _wanted(found, base, tuned, names)
    for role, source, chosen in (
        ("base", base, [*(one for one, _ in found.pairs.values()), *found.only_in_base]),
        ("tuned", tuned, [*(other for _, other in found.pairs.values()), *found.only_in_tuned]),
    ):
        where = f"{role} ({source.label})"
        problems += quantised_problems(where, chosen, source.infos, source.config)
        problems += _unusable(where, source.infos)
    if unmatched:  # a quantised model does not match; that is then no news
        raise InputError(*(problems or unmatched))
    problems += tuned.align(found.pairs.values(), left)
    selection = select_layers(found.pairs, left, tuned.infos, on_shape, on_other)
    problems += selection.problems
    if not problems and not selection.layers:
        both = " and ".join(shortened(one.label, 60) for one in (base, tuned))
        problems.append(
            f"{both} have no matrix to compare ({_count(selection.skipped)}): name models with "
            'matrices of floating-point numbers; on_other="flatten" (--flatten) takes experts and '
            "convolutions as matrices"
        )
    if problems:
        raise InputError(*problems, remedies=[("on_shape", "skip"), ("on_shape", "truncate")])
    tied = tied_layers(base, tuned, selection.layers)
    dropped = {name for name, _ in tied}
    layers = [layer for layer in selection.layers if layer.name not in dropped]
    only_base = () if tuned.partial else found.only_in_base
    tied += copies(base, only_base, [layer.base_name for layer in layers])
    tied += copies(tuned, found.only_in_tuned, [layer.tuned_name for layer in layers])
    once = {name for name, _ in tied}
    report = PairReport(
        matched=tuple(found.pairs),
        only_in_base=tuple(name for name in only_base if name not in once),
        only_in_tuned=tuple(name for name in found.only_in_tuned if name not in once),
        renamed=found.renamed,
        tied=tuple(tied),
        skipped=tuple(selection.skipped),
    )
    left_out = _left_out(report, found, base, tuned)
    missing = [name for name in found.missing if name in left_out]
    if missing and not partial:
        raise _refusal(missing, len(layers), left_out, report, tuned)
    notices = [
        *_notices(report, tuned, left_out),
        *found.notices,
        *selection.notices,
        *untied(base, tuned, layers, tied),
    ]
    return layers, replace(report, left_out=sum(left_out.values()), notices=tuple(notices))


def _wanted(found: Pairing, base: Checkpoint, tuned: Checkpoint, names: NameFilter) -> Pairing:
    """Leave out what a filter leaves out, on both sides: also by its partner's name."""
    hidden = set()
    for alone, others in ((found.only_in_tuned, base), (found.only_in_base, tuned)):
        own = tuned if others is base else base
        dropped = {name: info for name, info in others.infos.items() if names.drops(name)}
        if alone and dropped:
            rest = {name: own.infos[name] for name in alone}
            with suppress(InputError):
                hidden |= {*match_names(rest, dropped).pairs}
    keeps = [name for name in found.missing if names.keeps(name) and name not in hidden]
    return replace(
        found,
        pairs={name: pair for name, pair in found.pairs.items() if names.keeps(name)},
        only_in_base=tuple(
            name for name in found.only_in_base if names.keeps(name) and name not in hidden
        ),
        only_in_tuned=tuple(
            name for name in found.only_in_tuned if names.keeps(name) and name not in hidden
        ),
        missing=tuple(keeps),
    )


def _left_out(
    report: PairReport, found: Pairing, base: Checkpoint, tuned: Checkpoint
) -> dict[str, int]:
    """Count the weight matrices of either side that are not compared, by the tensors' names."""
    counts = {name: layers_in(name, base.infos[name]) for name in report.only_in_base}
    counts |= {name: layers_in(name, tuned.infos[name]) for name in report.only_in_tuned}
    for name, _ in report.skipped:
        one, other = found.pairs[name]
        counts[name] = max(layers_in(one, base.infos[one]), layers_in(other, tuned.infos[other]))
    return {name: count for name, count in counts.items() if count}


def _refusal(
    missing: Sequence[str],
    compared: int,
    left_out: Mapping[str, int],
    report: PairReport,
    tuned: Checkpoint,
) -> InputError:
    """Say how many layers have no partner, and which."""
    total = compared + sum(left_out.values())
    count = sum(left_out[name] for name in missing)
    text = f"{count} of {total} layers"
    if tuned.partial:
        text = f"{shortened(tuned.label, 60)}: {text} are not in base ({_named(missing)}): give "
        text += "the base that it was trained on, with its config.json"
    else:
        alone = {*report.only_in_base}
        sides = [
            f"{len(names)} tensor{'s' * (len(names) > 1)} only in {side} ({_named(names)})"
            for side, names in (
                ("base", [name for name in missing if name in alone]),
                ("tuned", [name for name in missing if name not in alone]),
            )
            if names
        ]
        text += f" have no partner: {'; '.join(sides)}: exclude them"
    text += f", or pass partial=True to judge the other {compared}."
    return InputError(text, remedies=[("partial", True)])


def _named(names: Sequence[str]) -> str:
    few = ", ".join(shortened(name, 34) for name in names[:2])
    return few if len(names) <= 2 else f"{few}, …"


def _unusable(where: str, infos: Mapping[str, TensorInfo]) -> list[str]:
    """Say what makes a whole model unusable: no data behind it, or factors not merged into it."""
    problems = []
    meta = [name for name, info in infos.items() if info.dtype.endswith("on the meta device")]
    if meta:
        problems.append(
            f"{where}: {len(meta)} tensors are on the meta device and have no entries, first "
            f"{meta[0]}: load the weights."
        )
    factors = [name for name in infos if ".lora_A." in name or ".lora_embedding_A." in name]
    if factors:
        problems.append(
            f"{where}: holds {len(factors)} LoRA layers that are not merged, first {factors[0]}: "
            "merge them (merge_and_unload), or save the adapter and pass its folder as tuned."
        )
    cores = [name for name in infos if re.search(r"\.cosa_Y\.", name)]
    cores += [name for name in infos if f"{name.removesuffix('.Y')}.base_layer.weight" in infos]
    if cores:
        problems.append(
            f"{where}: holds {len(cores)} CoSA layers that are not merged, first {cores[0]}: merge "
            "them, or save the adapter and pass its folder as tuned."
        )
    return problems


def _notices(report: PairReport, tuned: Checkpoint, left_out: Mapping[str, int]) -> list[str]:
    """Put the report into sentences."""
    sentence = f"{_tensors(len(report.matched))} matched"
    for side, only in (("base", report.only_in_base), ("tuned", report.only_in_tuned)):
        if only:
            sentence += f", {len(only)} only in {side} ({first_few(only)})"
    notices = [sentence + "."]
    if tuned.partial:
        notices.append("tuned is an adapter: the tensors it does not name are as in base.")
    for prefixes in report.renamed[:_MOST_TOLD]:
        old, new = (f"{prefix!r}" if prefix else "no prefix" for prefix in prefixes)
        notices.append(f"prefix renamed: {old} in base is {new} in tuned.")
    if len(report.renamed) > _MOST_TOLD:
        notices.append(f"{len(report.renamed) - _MOST_TOLD} more prefixes are renamed.")
    notices += [f"{name} is tied to {kept}: counted once." for name, kept in report.tied]
    if report.skipped:
        count = _tensors(len(report.skipped))
        notices.append(f"{count} not compared: {_count(report.skipped)}.")
    if left_out:
        notices.append(f"left out of the verdict: {first_few(list(left_out))}.")
    return notices


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


def _count(skipped: Iterable[tuple[str, str]]) -> str:
    """Return "24 one-dimensional; 1 int64 entries, not floating point", sizes left out."""
    counts = Counter(re.sub(r" \(.*\)|: .*", "", reason) for _, reason in skipped)
    parts = [f"{count} {reason}" for reason, count in counts.most_common()]
    return "; ".join(parts) or "nothing is left"
