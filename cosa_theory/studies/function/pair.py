"""The study of a pair: what every approximation of its update returns of the model's function."""

import math
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from cosa_theory.deltas import DeltaPair, open_pair
from cosa_theory.deltas.matching import first_few
from cosa_theory.deltas.renaming import match_names
from cosa_theory.ground.checks import choice, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.ground.memory import check_memory
from cosa_theory.ground.tensor_files import TensorInfo
from cosa_theory.ground.texts import check_texts
from cosa_theory.page.document import Document
from cosa_theory.spectrum.approximations import Approximation, select_approximations
from cosa_theory.spectrum.budget import check_ranks
from cosa_theory.studies.function.compute import Bench, Trial, needed_memory, run_trials, trials
from cosa_theory.studies.function.decompositions import Decompositions
from cosa_theory.studies.function.inputs import LayerMoments, moments_of_inputs, moments_of_updates
from cosa_theory.studies.function.tables import build_tables
from cosa_theory.studies.function.texts import FEWEST, general_texts
from cosa_theory.studies.function.verdict import verdict
from cosa_theory.studies.layers import coverage_of

if TYPE_CHECKING:
    from cosa_theory.nn.readout import TextModel

__all__ = ["RANKS", "SVD_RANKS", "Function", "function_pair"]

RANKS = (2, 8, 32)
"""Default budgets, as ranks of a LoRA."""

SVD_RANKS = (1, 2, 4, 8, 16, 32, 64)
"""Ranks at which the truncated SVD is measured besides."""

TASKS = ("embeddings", "causal-lm")


@dataclass(frozen=True)
class Function:
    """What approximations of an update return of a model's function.

    Parameters
    ----------
    approximations : pandas.DataFrame
        One row per approximation, budget and gain: what it stores (`numbers`, `bits`), the share of
        the energy it holds (`energy`, negative where its error exceeds the update), the same under
        the inputs' second moments (`weighted`), what the laws predict of either (`energy_law`,
        `weighted_law`), and what a sketch's own test vectors tell of its energy (`energy_told`,
        with the standard deviation `energy_told_sd`).
    function : pandas.DataFrame
        One row per row of `approximations` and set of texts: `recovered` with its interval; for
        causal models also `loss_recovered`, of the excess loss, and `divergence`, the mean
        Kullback-Leibler divergence from the tuned model's next-token distribution, in nats.
    layers : pandas.DataFrame
        `energy` and `weighted` of every matrix.
    prediction : pandas.DataFrame
        Per set of texts, the rank correlation of each predictor with function recovered.
    notices : tuple of str
        What a reader should know.
    coverage : str
        How a verdict on a part of the layers begins.
    """

    approximations: pd.DataFrame
    function: pd.DataFrame
    layers: pd.DataFrame
    prediction: pd.DataFrame
    notices: tuple[str, ...] = ()
    coverage: str = ""

    @property
    def verdict(self) -> str:
        """One plain sentence, computed from the tables."""
        return self.coverage + verdict(self.approximations, self.function)

    def document(self, provenance: Mapping[str, Any]) -> Document:
        """Return the tables with their verdict; those of single layers are too many to list."""
        names = ("approximations", "function", "prediction", "layers")
        return Document(
            "function",
            self.verdict,
            self.notices,
            {name: getattr(self, name) for name in names},
            provenance,
            unlisted=("layers",),
        )


def function_pair(
    base: str | os.PathLike[str],
    tuned: Any,
    *,
    texts: Sequence[str] | None = None,
    general: Sequence[str] | None = None,
    task: str | None = None,
    ranks: Iterable[int] = RANKS,
    approximations: Iterable[str | Approximation] | None = None,
    moments: str | os.PathLike[str] | None = None,
    save_moments: str | os.PathLike[str] | None = None,
    seed: int = 0,
    max_tokens: int = 128,
    cells: str | os.PathLike[str] | None = None,
    workers: int = 1,
    progress: Callable[[int, int, str], None] | None = None,
    **opening: Any,
) -> Function:
    """Put every approximation of an update into its model, and measure what the model then says.

    Parameters
    ----------
    base : path or hub id
        A folder of transformers: weights, configuration, tokenizer.
    tuned : path, hub id or tensors
        The same fine-tuned, or an adapter, as `cosa_theory.deltas.open_pair` takes it.
    texts : sequence of str, optional
        Of the fine-tuning's domain: at least eight. A quarter of them is held out, to choose gains
        on; without them, of the general texts.
    general : sequence of str, optional
        Texts of another kind; by default 32 news wires (see `cosa_theory.assets`).
    task : {"embeddings", "causal-lm"}, optional
        What f is: mean-pooled embeddings, or logits. By default what the architecture is for.
    ranks : iterable of int
        Budgets, as ranks of a LoRA with as many numbers.
    approximations : iterable of str or Approximation, optional
        Names of `cosa_theory.spectrum.approximations.APPROXIMATIONS`, or others; all by default.
    moments : path, optional
        Second moments of the layers' inputs, stored before; by default they are gathered from the
        base model on the first set of texts.
    save_moments : path, optional
        Where to store them (`cosa_theory.nn.moments.write_moments`).
    seed : int
        Of projections, masks, noise and the resamples of texts.
    max_tokens : int
        Longer texts are cut.
    cells : path, optional
        A folder where every finished approximation is kept; an interrupted study resumes from it.
    workers : int
        How many matrices are approximated at once, each on one thread.
    progress : callable, optional
        Called as ``progress(done, total, title)`` after each approximation.
    **opening
        Further arguments of `open_pair`, such as `include`.

    Returns
    -------
    Function

    Raises
    ------
    InputError
        For texts, models or settings that do not fit: before any long work.

    Notes
    -----
    f(W) is the base with every matrix as it was, f(W + ΔW) the base with the matrices of its linear
    layers as tuned; other tensors (biases, norms, embeddings) stay the base's in both. In memory
    there are the base model, its gain-scaled approximations where one is searched for, and as many
    layers at a time as there are workers.
    """
    from cosa_theory.nn.moments.stored import check_moments, check_target
    from cosa_theory.nn.readout import Readout, load_text_model

    if task is not None:
        choice("task", task, TASKS)
    budgets = check_ranks(ranks)
    chosen = trials(select_approximations(approximations), budgets, SVD_RANKS)
    whole("seed", seed, 0)
    whole("max_tokens", max_tokens, least=4)
    whole("workers", workers)
    if save_moments is not None:
        check_target(save_moments, "save_moments")
    if moments is not None:
        check_moments(moments)
    _check_folder(base)
    pair = open_pair(base, tuned, **opening)
    sets = _sets(texts, general)
    numbers = sum(math.prod(info.shape) for info in pair.base.infos.values())
    check_memory("the study", {"the model": 4 * numbers}, "take a machine with more")
    model = load_text_model(base, task)
    model.normalised = _normalised(base)
    weights, left_out = _exchanged(pair, model)
    readouts = {name: Readout(model, listed, max_tokens) for name, listed in sets.items()}
    shapes = {one.name: one.shape for one in pair.layers if one.name in weights}
    needed = needed_memory(shapes.values(), readouts, chosen, workers)
    check_memory("the study", needed, "choose matrices with include, or take fewer, shorter texts")
    first = next(iter(readouts.values()))
    inputs, own = moments_of_inputs(model, weights, first, moments, save_moments)
    known = moments_of_updates(pair, weights, inputs, model.transposed())
    notices = [*pair.report.notices, *left_out]
    chosen = _with_moments(chosen, [name for name in weights if name not in known], notices)
    notices += _about_moments(chosen, known, next(iter(readouts)) if own else None)
    with (
        tempfile.TemporaryDirectory(prefix="cosa_theory.") as folder,
        # numpy's products are small here, and its waiting threads take cores from the model's.
        threadpool_limits(1, user_api="blas"),
    ):
        rank = max(one.rank for one in chosen) or 1
        bench = Bench(
            model,
            pair,
            weights,
            readouts,
            known,
            seed,
            Decompositions(Path(folder), rank),
            workers,
        )
        changes = _checked(bench.changes())
        results = run_trials(
            bench,
            chosen,
            cells=None if cells is None else Path(cells),
            progress=progress,
        )
    turned = {name for name, one in known.items() if one.transposed}
    tables = build_tables(chosen, results, changes, shapes, turned, seed)
    return Function(notices=tuple(notices), coverage=coverage_of(pair), **tables)


def _sets(texts: Sequence[str] | None, general: Sequence[str] | None) -> dict[str, Sequence[str]]:
    """Return the sets of texts by name, a quarter of the first held out."""
    named: dict[str, Sequence[str]] = {}
    if texts is not None:
        check_texts("texts", texts, FEWEST)
        named["domain"] = texts
    named["general"] = general_texts() if general is None else general
    check_texts("general", named["general"], FEWEST)
    first = next(iter(named))
    held_out = named[first][::4]
    measured = [text for place, text in enumerate(named[first]) if place % 4]
    return {**named, first: measured, "held out": held_out}


def _check_folder(base: str | os.PathLike[str]) -> None:
    """Refuse a path that transformers cannot load, before a weight is read."""
    path = Path(base)
    if path.exists() and not (path / "config.json").is_file():
        what = "holds no config.json" if path.is_dir() else "is a file"
        raise InputError(
            f"base is {path}, which {what}: name a folder of transformers, with weights, "
            "configuration and tokenizer",
            argument="base",
        )


def _normalised(base: str | os.PathLike[str]) -> bool:
    """Tell whether the embeddings of a sentence encoder are used at length one."""
    listed = Path(base) / "modules.json"
    return listed.is_file() and "Normalize" in listed.read_text(encoding="utf-8", errors="replace")


def _exchanged(pair: DeltaPair, model: "TextModel") -> tuple[dict[str, str], list[str]]:
    """Match changed updates to the weights of the model's linear layers, and tell what is not."""
    parameters = model.weights()
    shapes = {layer.name: layer.shape for layer in pair.layers}
    match = match_names(
        {name: TensorInfo("float32", shape) for name, shape in shapes.items()},
        {name: TensorInfo("float32", tuple(one.shape)) for name, one in parameters.items()},
    )
    weights = {
        name: other
        for name, other in match.pairs.items()
        if tuple(parameters[other].shape) == shapes[name]
    }
    if not weights:
        raise InputError(
            "none of the updates belongs to a linear layer of the base model: its linear layers "
            f"are {first_few(list(parameters), 3)}; the updates {first_few(list(shapes), 3)}"
        )
    changed = {layer.name for layer in pair if layer.delta.any()}
    weights = {name: other for name, other in weights.items() if name not in pair.nonfinite}
    zero = [name for name in weights if name not in changed]
    if len(zero) == len(weights):
        raise InputError("no change to recover: the update of every linear layer is zero")
    told = [f"{len(zero)} updates are zero and left out: {first_few(zero, 3)}."] if zero else []
    others = [name for name in shapes if name in changed and name not in weights]
    others += _changed_vectors(pair)
    if others:
        told.append(
            f"{len(others)} other tensors changed too and stay the base's: {first_few(others, 3)}."
        )
    return {name: other for name, other in weights.items() if name in changed}, told


def _changed_vectors(pair: DeltaPair) -> list[str]:
    """Return the names of biases, norms and the like that differ; an adapter brings none."""
    if pair.tuned.partial:
        return []
    base, tuned = (
        {n: info for n, info in one.infos.items() if len(info.shape) == 1 and "float" in info.dtype}
        for one in (pair.base, pair.tuned)
    )
    pairs: Mapping[str, str] = {}
    with suppress(InputError):  # where their names do not match there is nothing to tell
        pairs = match_names(base, tuned).pairs
    same = {name: other for name, other in pairs.items() if base[name].shape == tuned[other].shape}
    return [
        name
        for name, other in same.items()
        if not np.array_equal(pair.base.load(name), pair.tuned.load(other))
    ]


def _with_moments(
    chosen: Sequence[Trial], without: Sequence[str], notices: list[str]
) -> list[Trial]:
    """Return the trials that can be measured where some matrices have no moments; tell the others.

    Raises
    ------
    InputError
        If none is left.
    """
    if not without:
        return list(chosen)
    kept = [trial for trial in chosen if not trial.approximation.needs_moments]
    if len(kept) < len(chosen):
        notices.append(
            f"Informed approximations are left out: there are no moments of the inputs of "
            f"{first_few(without, 3)}."
        )
    if not kept:
        raise InputError(notices[-1])
    return kept


def _about_moments(
    chosen: Sequence[Trial], known: Mapping[str, LayerMoments], own: str | None
) -> Iterator[str]:
    """Say what the moments are of: the texts of the set named, others where None is given."""
    informed = [trial for trial in chosen if trial.approximation.needs_moments]
    if own is None:
        yield (
            "Weighted energies and informed approximations are of stored moments, which were "
            "gathered on other texts."
        )
    elif informed:
        yield (
            f"Informed approximations know the inputs of the {own} texts, on which function is "
            "measured too: with stored moments of other texts they are judged on texts unseen."
        )
    few = {}
    for name, moments in known.items():
        asked = max((trial.directions(*moments.shape) for trial in informed), default=0)
        if asked and (found := moments.inputs.independent(asked)) < asked:
            few[name] = f"{name} has {found} of {asked}"
    if few:
        yield (
            f"The inputs of {len(few)} matrices have fewer independent directions than informed "
            f"cores take, and the others are drawn: {first_few(list(few.values()), 3)}."
        )


def _checked(
    changes: dict[str, dict[str, list[float]]],
) -> dict[str, dict[str, list[float]]]:
    """Refuse models that say the same."""
    for name, change in changes.items():
        total = float(np.sum(change["squared"]))
        if not np.isfinite(total):
            raise InputError(f"the models' outputs on the {name} texts are not finite")
        if total == 0:
            raise InputError(
                f"no change to recover: base and tuned say the same on the {name} texts"
            )
    return changes
