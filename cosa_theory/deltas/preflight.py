"""Everything that can be decided about a pair of models before a weight is read."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from cosa_theory.deltas.checkpoint import Checkpoint
from cosa_theory.deltas.layers import PairReport
from cosa_theory.deltas.matching import NameFilter, NameMatch, first_few, match_names
from cosa_theory.deltas.selection import SelectedLayer, quantised_problems, select_layers
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["preflight"]

_HEAD = re.compile(r"(lm_head|embed_out|predictions\.decoder)\.weight$")


def preflight(
    base: Checkpoint, tuned: Checkpoint, names: NameFilter, on_shape: str, on_other: str
) -> tuple[list[SelectedLayer], PairReport]:
    """Match, filter and check two sources from their headers alone, as `open_pair` documents it.

    Only the search for tied weights looks at entries, and only where a few sampled bytes agree.
    """
    problems = names.problems(list(base.infos), list(tuned.infos))
    left = {name: info for name, info in base.infos.items() if not names.drops(name)}
    right = {name: info for name, info in tuned.infos.items() if not names.drops(name)}
    match = NameMatch({}, None, tuple(left), tuple(right))
    unmatched: tuple[str, ...] = ()
    try:
        match = match_names(left, right)
    except InputError as error:
        unmatched = error.problems
    wanted = {name: partner for name, partner in match.pairs.items() if names.keeps(name)}
    for role, source, chosen in (
        ("base", base, [*wanted, *filter(names.keeps, match.only_in_base)]),
        ("tuned", tuned, [*wanted.values(), *filter(names.keeps, match.only_in_tuned)]),
    ):
        where = f"{role} ({source.label})"
        problems += quantised_problems(where, chosen, source.infos, source.config)
        problems += _unusable(where, source.infos)
    if unmatched:  # a quantised model does not match; that is then no news
        raise InputError(*(problems or unmatched))
    problems += tuned.align(wanted, left)
    selection = select_layers(wanted, left, tuned.infos, on_shape, on_other)
    problems += selection.problems
    if not problems and not selection.layers:
        problems.append(f"no matrix to compare: {_count(selection.skipped)}.")
    if problems:
        raise InputError(*problems, remedies=[("on_shape", "skip"), ("on_shape", "truncate")])
    tied = [] if tuned.partial else _tied(base, tuned, selection.layers)
    dropped = {name for name, _ in tied}
    layers = [layer for layer in selection.layers if layer.name not in dropped]
    only_base = () if tuned.partial else tuple(filter(names.keeps, match.only_in_base))
    only_tuned = tuple(filter(names.keeps, match.only_in_tuned))
    tied += _copies(base, only_base, [layer.base_name for layer in layers])
    tied += _copies(tuned, only_tuned, [layer.tuned_name for layer in layers])
    copies = {name for name, _ in tied}
    report = PairReport(
        matched=tuple(wanted),
        only_in_base=tuple(name for name in only_base if name not in copies),
        only_in_tuned=tuple(name for name in only_tuned if name not in copies),
        prefix=match.prefix,
        tied=tuple(tied),
        skipped=tuple(selection.skipped),
    )
    notices = [*_notices(report, tuned), *selection.notices, *_untied(base, tuned, layers, tied)]
    return layers, replace(report, notices=tuple(notices))


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


def _tied(
    base: Checkpoint, tuned: Checkpoint, layers: Sequence[SelectedLayer]
) -> list[tuple[str, str]]:
    """Find matrices that are the same on both sides under two names, as (dropped, kept)."""
    groups: dict[object, list[SelectedLayer]] = {}
    for layer in layers:
        infos = base.infos[layer.base_name], tuned.infos[layer.tuned_name]
        if layer.part is None and all(len(info.shape) == 2 for info in infos):
            key = (layer.shape, *((info.dtype, info.shape) for info in infos))
            groups.setdefault(key, []).append(layer)
    tied: list[tuple[str, str]] = []
    for group in groups.values():
        kept: dict[tuple[bytes, bytes], list[SelectedLayer]] = {}
        for layer in group if len(group) > 1 else []:
            samples = base.sample(layer.base_name), tuned.sample(layer.tuned_name)
            if not any(samples[0]) or not any(samples[1]):
                continue  # zero matrices are alike without being one
            others = kept.setdefault(samples, [])
            twin = next((other for other in others if _same(base, tuned, layer, other)), None)
            if twin is None:
                others.append(layer)
            else:
                tied.append((layer.name, twin.name))
    return tied


def _same(base: Checkpoint, tuned: Checkpoint, one: SelectedLayer, other: SelectedLayer) -> bool:
    return base.identical(one.base_name, other.base_name) and tuned.identical(
        one.tuned_name, other.tuned_name
    )


def _copies(
    source: Checkpoint, unmatched: Sequence[str], compared: Sequence[str]
) -> list[tuple[str, str]]:
    """Find unmatched matrices that are copies of compared ones: tied weights stored twice."""

    def key(name: str) -> tuple[object, ...]:
        return source.infos[name].dtype, source.infos[name].shape

    candidates = [name for name in unmatched if len(source.infos[name].shape) == 2]
    wanted = {key(name) for name in candidates if 0 not in source.infos[name].shape}
    known = {(key(name), source.sample(name)): name for name in compared if key(name) in wanted}
    found = []
    for name in candidates:
        if key(name) not in wanted:
            continue
        sample = source.sample(name)
        twin = known.get((key(name), sample))
        if twin is not None and any(sample) and source.identical(name, twin):
            found.append((name, twin))
    return found


def _untied(
    base: Checkpoint,
    tuned: Checkpoint,
    layers: Sequence[SelectedLayer],
    tied: Sequence[tuple[str, str]],
) -> list[str]:
    """Say where a configuration ties an output head that the files store as a matrix of its own."""
    heads = [layer.name for layer in layers if _HEAD.search(layer.name)]
    says_tied = [side.label for side in (base, tuned) if side.config.get("tie_word_embeddings")]
    if not heads or not says_tied or tied:
        return []
    return [
        f"{heads[0]}: config.json ({says_tied[0]}) has tie_word_embeddings, but the stored head "
        "differs from the embedding: both are compared."
    ]


def _notices(report: PairReport, tuned: Checkpoint) -> list[str]:
    """Put the report into sentences."""
    sentence = f"{_tensors(len(report.matched))} matched"
    for side, only in (("base", report.only_in_base), ("tuned", report.only_in_tuned)):
        if only:
            sentence += f", {len(only)} only in {side} ({first_few(only)})"
    notices = [sentence + "."]
    if tuned.partial:
        notices.append("tuned is an adapter: the tensors it does not name are as in base.")
    if report.prefix:
        old, new = (f"{prefix!r}" if prefix else "no prefix" for prefix in report.prefix)
        notices.append(f"prefix renamed: {old} in base is {new} in tuned.")
    notices += [f"{name} is tied to {kept}: counted once." for name, kept in report.tied]
    if report.skipped:
        count = _tensors(len(report.skipped))
        notices.append(f"{count} not compared: {_count(report.skipped)}.")
    return notices


def _tensors(count: int) -> str:
    return f"{count} tensor{'' if count == 1 else 's'}"


def _count(skipped: Iterable[tuple[str, str]]) -> str:
    """Return "24 one-dimensional; 1 int64 entries, not floating point", sizes left out."""
    counts = Counter(re.sub(r" \(.*?\)|: .*", "", reason) for _, reason in skipped)
    parts = [f"{count} {reason}" for reason, count in counts.most_common()]
    return "; ".join(parts) or "nothing is left"
