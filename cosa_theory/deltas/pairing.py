"""Which tensors of two models belong together, and which are left without a partner."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cosa_theory.deltas.architecture import Architecture, architecture
from cosa_theory.deltas.checkpoint import Checkpoint
from cosa_theory.deltas.renaming import match_names, plain_names
from cosa_theory.deltas.selection import layers_in
from cosa_theory.deltas.tying import is_vocabulary, says_tied, stored_as
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["Pairing", "pair_names"]

_LANGUAGE_HEAD = re.compile(
    r"(^|\.)(lm_head|cls|predictions|generator_predictions|discriminator_predictions|mlm|lm_loss"
    r"|vocab_transform)\."
)

Infos = Mapping[str, TensorInfo]
Plain = tuple[dict[str, str], dict[str, str]]
"""For base and tuned: their names to those they are compared by."""


@dataclass(frozen=True)
class Pairing:
    """Names of two models put together.

    `pairs` maps the name in the stream to those in base and tuned; `missing` are the layers that
    should have a partner and have none.
    """

    pairs: dict[str, tuple[str, str]]
    only_in_base: tuple[str, ...]
    only_in_tuned: tuple[str, ...]
    renamed: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]
    missing: tuple[str, ...]


def pair_names(base: Checkpoint, tuned: Checkpoint, left: Infos, right: Infos) -> Pairing:
    """Pair the tensors of two models, of which `left` and `right` are wanted.

    Names are translated where that is certain (see `renaming`, `tying`, and, where layers would
    be missing, `architecture`). InputError where names are ambiguous or nothing matches.
    """
    error = None
    found = None
    try:
        found = _paired(base, tuned, left, right, None, ())
    except InputError as caught:
        error = caught
    if found is not None and not found.missing:
        return found
    models = [architecture(side.config) for side in (base, tuned)]
    one, other = models[0] or models[1], models[1] or models[0]
    if one is not None and other is not None:
        plain = _translated(left, one), _translated(right, other)
        try:
            second = _paired(base, tuned, left, right, plain, (one, other))
            if found is None or len(second.missing) < len(found.missing):
                return second
        except InputError as caught:
            error = error or caught
    if found is None:
        assert error is not None
        raise error
    return found


def _translated(infos: Infos, model: Architecture) -> dict[str, str]:
    plain = plain_names(infos)
    names = model.names(plain.values())
    return {name: names[one] for name, one in plain.items()}


def _paired(
    base: Checkpoint,
    tuned: Checkpoint,
    left: Infos,
    right: Infos,
    plain: Plain | None,
    models: tuple[Architecture, ...],
) -> Pairing:
    match = match_names(left, right, plain)
    pairs = {name: (name, other) for name, other in match.pairs.items()}
    notices = []
    if match.translated:
        count = f"{match.translated} tensor{'s' * (match.translated > 1)} matched"
        notices.append(
            f"{count} without the parts that wrappers put into names."
            if plain is None
            else f"{count} by the names that transformers gives when it loads the model."
        )
    alone = {name for name in match.only_in_tuned if layers_in(name, right[name])}
    for name in sorted(alone):
        stored = _tied_partner(name, right, left, base, plain, models, 0)
        if stored and name not in pairs:
            pairs[name] = stored, name
            notices.append(f"{name} is tied to {stored} in base: compared with that.")
    if not tuned.partial:
        for name in match.only_in_base:
            if layers_in(name, left[name]):
                stored = _tied_partner(name, left, right, tuned, plain, models, 1)
                if stored:
                    pairs[name] = name, stored
                    notices.append(f"{name} is tied to {stored} in tuned: compared with that.")
    used = {one for one, _ in pairs.values()}, {other for _, other in pairs.values()}
    only_in_base = tuple(name for name in match.only_in_base if name not in used[0])
    only_in_tuned = tuple(name for name in match.only_in_tuned if name not in used[1])
    missing = missing_layers(
        {} if tuned.partial else {name: left[name] for name in only_in_base},
        {name: right[name] for name in only_in_tuned},
        tuned.products,
    )
    return Pairing(pairs, only_in_base, only_in_tuned, match.renamed, tuple(notices), missing)


def _tied_partner(
    name: str,
    infos: Infos,
    others: Infos,
    side: Checkpoint,
    plain: Plain | None,
    models: tuple[Architecture, ...],
    place: int,
) -> str | None:
    """Return the tensor among `others`, those of `side`, that a tied model stores for `name`."""
    if plain is not None and models:
        model, ours, theirs = models[place], plain[1 - place], plain[place]
        root = model.same(ours[name])
        same = [other for other in others if model.same(theirs[other]) == root]
        if len(same) == 1:
            return same[0]
    return stored_as(name, infos[name], others) if says_tied(side) else None


def missing_layers(
    base_only: Infos, tuned_only: Infos, products: Iterable[str] = ()
) -> tuple[str, ...]:
    """Return the layers without a partner that a user would miss.

    A new head of the tuned model has no update, and a head or pooler that it lacks has none
    either. Anything inside a numbered stack, a vocabulary, a layer of an adapter, or what could be
    one matrix under two names, is missing.
    """
    ours = {name: info for name, info in base_only.items() if layers_in(name, info)}
    theirs = {name: info for name, info in tuned_only.items() if layers_in(name, info)}
    inside = set(products)
    shapes = {
        tuple(sorted(info.shape)) for name, info in ours.items() if not _LANGUAGE_HEAD.search(name)
    }
    rivals = {tuple(sorted(info.shape)) for info in theirs.values()}
    return (
        *(
            name
            for name, info in ours.items()
            if _numbered(name)
            or (
                not _LANGUAGE_HEAD.search(name)
                and (is_vocabulary(name) or tuple(sorted(info.shape)) in rivals)
            )
        ),
        *(
            name
            for name, info in theirs.items()
            if name in inside
            or _numbered(name)
            or is_vocabulary(name)
            or tuple(sorted(info.shape)) in shapes
        ),
    )


def _numbered(name: str) -> bool:
    return any(part.isdecimal() for part in name.split("."))
