"""What a model reads for the moments of its layers: random tokens, or texts of some kind."""

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from cosa_theory.assets import read_newsgroups, read_reuters
from cosa_theory.ground.errors import InputError
from cosa_theory.nn import layer_moments, random_batches
from cosa_theory.nn.moments import Moments, model_fingerprint, read_moments, write_moments
from cosa_theory.nn.moments.stored import check_moments
from cosa_theory.nn.readout import TextModel, load_text_model
from cosa_theory.projections import stream
from experiments.finetune.data import TEST_SHARE, VALIDATION_SHARE
from experiments.finetune.function_bodies import read_functions, split_modules
from experiments.pairs import PAIRS

__all__ = ["SOURCES", "batches_of", "calibrated", "calibrated_file", "texts_of"]

SOURCES = ("random", "reuters", "reuters_r52", "newsgroups", "functions", "sre_card")
"""Seeded random tokens; the parts of corpora that pairs were trained on; the sentences on the card
of "sre_encoder", whose training texts are not public."""


@lru_cache
def texts_of(source: str) -> tuple[str, ...]:
    """Return the texts of a source in a seeded order: fewer of them are the first of more."""
    if source == "functions":
        training = split_modules(read_functions(), (VALIDATION_SHARE, TEST_SHARE))[0]
        texts = [one.prompt + one.body for one in training]
    elif source == "sre_card":
        texts = (PAIRS["sre_encoder"].domain or list)()
    elif source == "newsgroups":
        texts = [one.text for one in read_newsgroups("train")]
    else:
        corpus = "r52" if source == "reuters_r52" else "r8"
        texts = [one.text for one in read_reuters("train", corpus)]
    order = stream(0, "calibration", source).permutation(len(texts))
    return tuple(texts[place] for place in order)


def calibrated(
    base: Path, source: str, count: int, folder: Path, *, gradients: str | None = None
) -> Moments:
    """Return moments of a model's layers, see `calibrated_file`."""
    return read_moments(calibrated_file(base, source, count, folder, gradients=gradients))


def calibrated_file(
    base: Path,
    source: str,
    count: int,
    folder: Path,
    *,
    tokens: int = 48,
    gradients: str | None = None,
) -> Path:
    """Return the file of moments of a model's layers, gathered once.

    Parameters
    ----------
    base : path
        The model before training.
    source : str
        One of `SOURCES`.
    count : int
        How many texts; all where there are fewer.
    folder : path
        Where the file is kept, under a name of the settings: for any model that is asked for.
    tokens : int
        Of each random text; others are cut to so many.
    gradients : str, optional
        As for `cosa_theory.nn.layer_moments`.
    """
    model = load_text_model(base)
    beside = f"_{gradients}" if gradients else ""
    name = f"{model_fingerprint(model.network)[:12]}_{source}_{count}_{tokens}{beside}"
    path = folder / f"{name}.safetensors"
    if not _current(path):
        folder.mkdir(parents=True, exist_ok=True)
        batches = list(batches_of(model, source, count, tokens))
        names = [name for name in model.weights() if not name.startswith(("pooler", "lm_head"))]
        settings: dict[str, Any] = {"gradients": gradients} if gradients else {}
        found = layer_moments(model.network, batches, names, **settings)
        write_moments(found, path)
    return path


def _current(path: Path) -> bool:
    """Whether there is a file of moments, of this version."""
    try:
        check_moments(path)
    except (InputError, OSError):
        return False
    return True


def batches_of(model: TextModel, source: str, count: int, tokens: int) -> Iterator[dict[str, Any]]:
    """Yield the first `count` texts of a source as the model takes them, at most `tokens` long."""
    if source == "random":
        yield from random_batches(model.network, count, tokens)
    else:
        for _, batch in model.batches(texts_of(source)[:count], tokens):
            yield batch
