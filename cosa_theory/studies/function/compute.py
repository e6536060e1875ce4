"""Every approximation put into the model, one after another, and what the model then says."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory import __version__
from cosa_theory.deltas import LayerDelta
from cosa_theory.ground.cells import cell_name, from_cell
from cosa_theory.ground.workers import map_unordered
from cosa_theory.laws import InputMoments
from cosa_theory.spectrum.approximations import Approximation, Given
from cosa_theory.studies.function.decompositions import Decompositions
from cosa_theory.studies.function.inputs import LayerMoments
from cosa_theory.studies.layers import Pair

if TYPE_CHECKING:
    from cosa_theory.nn.readout import Readout, TextModel

__all__ = ["Bench", "Trial", "needed_memory", "run_trials", "trials"]

# Raised when the content of a stored cell changes meaning, so that older ones are computed anew.
_CELL_FORMAT = 2
_GAIN_STEPS = 8
_LAYER_BYTES = 60  # for each entry: W, ΔW, Â and what makes it, partly in double precision


@dataclass(frozen=True)
class Trial:
    """One approximation at one budget; `rank` is 0 where it does not depend on a budget."""

    approximation: Approximation
    rank: int

    def directions(self, m: int, n: int) -> int:
        """Return how many directions of the inputs it takes of a layer with m outputs."""
        count = self.approximation.directions
        return 0 if count is None else count(m, n, max(self.rank, 1))

    @property
    def title(self) -> str:
        """For a progress bar."""
        at = f" at rank {self.rank}" if self.rank else ""
        return f"{self.approximation.label}{at}"


def trials(
    approximations: Sequence[Approximation], ranks: Sequence[int], svd_ranks: Sequence[int]
) -> list[Trial]:
    """Return what is measured: low rank at its own ranks, the rest at every budget or once."""
    found = []
    for one in approximations:
        chosen = sorted({*ranks, *svd_ranks}) if one.name == "svd" else list(ranks)
        found += [Trial(one, rank) for rank in (chosen if one.budgeted else [0])]
    return found


def needed_memory(
    shapes: Iterable[tuple[int, int]],
    readouts: "Mapping[str, Readout]",
    chosen: Sequence[Trial],
    workers: int = 1,
) -> dict[str, int]:
    """Estimate the bytes that a study takes beside the model, by what takes them.

    Parameters
    ----------
    shapes : iterable of (int, int)
        Of the matrices that are exchanged. The moments of their inputs are counted once for each,
        as if no two had the same inputs.
    readouts, chosen, workers
        As of `Bench` and `run_trials`.
    """
    sizes = list(shapes)
    scaled = any(trial.approximation.unbiased for trial in chosen)
    return {
        "moments of the inputs": sum(8 * n * n for _, n in sizes),
        "the scaled update": sum(4 * m * n for m, n in sizes) if scaled else 0,
        "the decompositions of the largest matrices": sum(
            sorted(_LAYER_BYTES * m * n for m, n in sizes)[-workers:]
        ),
        "logits": sum(readout.memory() for readout in readouts.values()),
    }


@dataclass
class Bench:
    """A model whose weights are exchanged, the updates, and the texts it is asked about.

    Parameters
    ----------
    model : TextModel
        At the base's weights.
    pair : Pair
        The updates, by the base's names.
    weights : mapping of str to str
        From the name of an update to that of the model's weight; those that are exchanged.
    readouts : mapping of str to Readout
        By the name of the set of texts; "held out" is what gains are chosen on.
    moments : mapping of str to LayerMoments
        By the name of the update.
    seed : int
        Of what is drawn.
    decompositions : Decompositions
        Of the updates.
    workers : int
        How many matrices are approximated at once, each on one thread.
    """

    model: "TextModel"
    pair: Pair
    weights: Mapping[str, str]
    readouts: "Mapping[str, Readout]"
    moments: Mapping[str, LayerMoments]
    seed: int
    decompositions: Decompositions
    workers: int = 1

    def __post_init__(self) -> None:
        self._parameters = self.model.weights()
        self.put(lambda layer: layer.base + layer.delta)
        for readout in self.readouts.values():
            readout.remember()

    def layers(self) -> Iterator[LayerDelta]:
        """Yield the updates that are exchanged, one after another."""
        for layer in self.pair:
            if layer.name in self.weights:
                yield layer

    def put(self, weight: Callable[[LayerDelta], NDArray[Any]]) -> None:
        """Set every exchanged weight; `weight` is called from several threads."""
        import torch

        def made(layer: LayerDelta) -> tuple[str, NDArray[Any]]:
            return layer.name, np.ascontiguousarray(weight(layer))

        with torch.no_grad():
            for _, (name, value) in map_unordered(made, self.layers(), self.workers):
                # Conv1D stores the transpose of what it multiplies by, and so do its files.
                self._parameters[self.weights[name]].copy_(torch.from_numpy(value))

    def shift(self, updates: Mapping[str, NDArray[Any]], by: float) -> None:
        """Add updates times a number to the weights as they are."""
        import torch

        with torch.no_grad():
            for name, update in updates.items():
                self._parameters[self.weights[name]].add_(torch.from_numpy(update), alpha=by)

    def changes(self) -> dict[str, dict[str, list[float]]]:
        """Return, per set and text, how far the two models are apart: what is to be recovered."""
        self.put(lambda layer: layer.base)
        return {name: self._read(name) for name in self.readouts}

    def _read(self, name: str) -> dict[str, list[float]]:
        readout = self.readouts[name]
        apart = readout.apart()
        found = {"squared": apart.squared.tolist()}
        if apart.divergence is not None and apart.loss is not None:
            found |= {"divergence": apart.divergence.tolist(), "loss": apart.loss.tolist()}
            found["tokens"] = readout.tokens().tolist()
        return found

    def measure(self, trial: Trial) -> dict[str, Any]:
        """Put an approximation into the model and ask it: plain JSON values.

        Returns
        -------
        dict
            `layers`, what `_energies` returns for each; and, for each `gain`, in `runs`, what the
            model is apart from the tuned one, per set and text. The gain is 1, and for an unbiased
            approximation also the one in [0, 1] that serves the held-out texts best.
        """
        made: dict[str, NDArray[Any]] = {}
        layers: dict[str, dict[str, Any]] = {}
        unbiased = trial.approximation.unbiased

        def weight(layer: LayerDelta) -> NDArray[Any]:
            given = self._given(layer, trial.rank)
            update = trial.approximation.make(given)
            layers[layer.name] = found = self._energies(layer, update, trial)
            if trial.approximation.estimate is not None:
                told, variance = trial.approximation.estimate(given, update)
                energy = found["energy"]
                found |= {"error": told / energy, "error_variance": variance / energy**2}
            if unbiased:
                made[layer.name] = np.ascontiguousarray(update)
            total: NDArray[Any] = layer.base + update
            return total

        self.put(weight)
        runs = [self._run(1.0)]
        if unbiased:
            gain = self._best_gain(made)
            runs += [self._run(gain)] if gain < 1 else []
        return {"layers": [layers[name] for name in self.weights if name in layers], "runs": runs}

    def _given(self, layer: LayerDelta, rank: int) -> Given:
        moments = self.moments.get(layer.name)
        return Given(
            layer.delta,
            max(rank, 1),
            base=layer.base,
            seed=self.seed,
            key=(layer.name, "function"),
            moments=None if moments is None else moments.inputs,
            transposed=moments is not None and moments.transposed,
            decompose=partial(self.decompositions.of, layer.name),
        )

    def _run(self, gain: float) -> dict[str, Any]:
        texts = {name: self._read(name) for name in self.readouts if name != "held out"}
        return {"gain": gain, "texts": texts}

    def _best_gain(self, made: Mapping[str, NDArray[Any]]) -> float:
        """Return the gain in [0, 1] that leaves the held-out texts the least, by a bounded search.

        The weights are left at that gain.
        """
        from scipy.optimize import minimize_scalar

        name = "held out" if "held out" in self.readouts else next(iter(self.readouts))
        at = 1.0

        def left(gain: float) -> float:
            nonlocal at
            self.shift(made, gain - at)
            at = gain
            return float(self.readouts[name].apart().squared.sum())

        whole = left(1.0)
        found = minimize_scalar(
            left, bounds=(0.0, 1.0), method="bounded", options={"maxiter": _GAIN_STEPS}
        )
        gain = float(found.x) if found.fun < whole else 1.0
        self.shift(made, gain - at)
        return gain

    def _energies(self, layer: LayerDelta, update: NDArray[Any], trial: Trial) -> dict[str, Any]:
        """Return ‖Â‖², ⟨Â, ΔW⟩ and the same under C, each over that of ΔW, and the laws."""
        delta = layer.delta.astype(np.float64)
        made = update.astype(np.float64)
        energy = float(np.vdot(delta, delta))
        found = {
            "name": layer.name,
            "energy": energy,
            "norm": float(np.vdot(made, made)) / energy,
            "inner": float(np.vdot(made, delta)) / energy,
        }
        law = trial.approximation.law
        m, n = layer.shape
        if law is not None:
            found["law"] = law(m, n, max(trial.rank, 1), InputMoments(n, 1.0))
        moments = self.moments.get(layer.name)
        if moments is not None:
            seen = update.astype(np.float32)
            seen = moments.matrix @ seen if moments.transposed else seen @ moments.matrix
            found["mapped"] = moments.mapped
            found["weighted_norm"] = float(np.vdot(seen, made)) / moments.mapped
            found["weighted_inner"] = float(np.vdot(seen, delta)) / moments.mapped
            if law is not None:
                out, into = (n, m) if moments.transposed else (m, n)
                found["weighted_law"] = law(out, into, max(trial.rank, 1), moments.weighted)
        return found

    def identity(self) -> str:
        """Return a digest of updates, weights and texts: what every result depends on."""
        digest = hashlib.sha256()
        for layer in self.layers():
            digest.update(layer.name.encode())
            digest.update(cell_name({}, [layer.delta, layer.base]).encode())
        for name, readout in self.readouts.items():
            digest.update(name.encode())
            for _, batch in readout.batches:
                digest.update(batch["input_ids"].numpy().tobytes())
        for name, moments in self.moments.items():
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(moments.matrix).data)
        return digest.hexdigest()


def run_trials(
    bench: Bench,
    chosen: Sequence[Trial],
    *,
    cells: Path | None,
    progress: Callable[[int, int, str], None] | None,
) -> list[dict[str, Any]]:
    """Return what `Bench.measure` returns for every trial, from its cell or computed."""
    shared = {
        "format": _CELL_FORMAT,
        "version": __version__,
        "bench": bench.identity() if cells is not None else "",
        "seed": bench.seed,
        "task": bench.model.task,
        "normalised": bench.model.normalised,
    }
    results = []
    for done, trial in enumerate(chosen, start=1):
        identity = shared | {"approximation": trial.approximation.name, "rank": trial.rank}
        results.append(from_cell(cells, identity, [], partial(bench.measure, trial)))
        if progress is not None:
            progress(done, len(chosen), trial.title)
    return results
