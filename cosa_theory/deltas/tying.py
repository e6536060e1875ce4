"""Matrices that are one under two names: output heads tied to embeddings, copies stored twice."""

import re
from collections.abc import Mapping, Sequence

from cosa_theory.deltas.checkpoint import Checkpoint
from cosa_theory.deltas.selection import SelectedLayer
from cosa_theory.ground.tensor_files import TensorInfo

__all__ = ["copies", "is_vocabulary", "says_tied", "stored_as", "tied_layers", "untied"]

_HEAD = re.compile(
    r"(^|\.)(lm_head|embed_out|lm_head\.decoder|predictions\.decoder|vocab_projector|lm_loss"
    r"|output_projection)\.weight$|^(output|decoder)\.weight$"
)
_EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|word_embeddings?|tok_embeddings|tokens_embed|embed_in|shared"
    r"|token_embeddings?|embedding)\.weight$"
)


def is_vocabulary(name: str) -> bool:
    """Tell whether a name is that of a token embedding or of a language model's output head."""
    return bool(_HEAD.search(name) or _EMBEDDING.search(name))


def says_tied(side: Checkpoint) -> bool:
    """Tell whether a configuration ties the output head to the embedding, itself or its text's."""
    for config in (side.config, side.config.get("text_config"), side.config.get("decoder")):
        if isinstance(config, Mapping) and isinstance(config.get("tie_word_embeddings"), bool):
            return bool(config["tie_word_embeddings"])
    return False


def stored_as(name: str, info: TensorInfo, infos: Mapping[str, TensorInfo]) -> str | None:
    """Return the tensor that a model with tied embeddings stores for a head or embedding.

    None where `name` is neither, or where there is not exactly one that it could be.
    """
    wanted = _EMBEDDING if _HEAD.search(name) else _HEAD if _EMBEDDING.search(name) else None
    if wanted is None:
        return None
    found = [other for other in infos if wanted.search(other)]
    if len(found) > 1:
        found = [other for other in found if sorted(infos[other].shape) == sorted(info.shape)]
    return found[0] if len(found) == 1 else None


def tied_layers(
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
        first: dict[bytes, list[SelectedLayer]] = {}
        for layer in group if len(group) > 1 else []:
            first.setdefault(base.sample(layer.base_name), []).append(layer)
        for sample, alike in first.items():
            if len(alike) == 1 or not any(sample):
                continue  # zero matrices are alike without being one
            kept: dict[bytes, list[SelectedLayer]] = {}
            for layer in alike:
                second = tuned.sample(layer.tuned_name)
                if not any(second):
                    continue
                others = kept.setdefault(second, [])
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


def copies(
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


def untied(
    base: Checkpoint,
    tuned: Checkpoint,
    layers: Sequence[SelectedLayer],
    tied: Sequence[tuple[str, str]],
) -> list[str]:
    """Say where a configuration ties an output head that the files store as a matrix of its own."""
    heads = [layer.name for layer in layers if _HEAD.search(layer.base_name)]
    ties = [side.label for side in (base, tuned) if says_tied(side)]
    if not heads or not ties or tied:
        return []
    return [
        f"{heads[0]}: config.json ({ties[0]}) has tie_word_embeddings, but the stored head "
        "differs from the embedding: both are compared."
    ]
