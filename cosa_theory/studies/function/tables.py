"""The tables of the study, from what was measured of every approximation."""

import math
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from cosa_theory.spectrum.families.compare import typed_frame
from cosa_theory.studies.function.compute import Trial
from cosa_theory.studies.function.measures import Resampling, rank_correlation
from cosa_theory.studies.layers import NAME_COLUMNS, named_tables

__all__ = ["PREDICTORS", "build_tables"]

_KEY = {
    "approximation": "object",
    "label": "object",
    "group": "object",
    "rank": "Int64",
    "gain": "float64",
}
APPROXIMATION_COLUMNS = {
    **_KEY,
    "numbers": "int64",
    "bits": "float64",
    "energy": "float64",
    "weighted": "float64",
    "signal": "float64",
    "noise": "float64",
    "energy_law": "float64",
    "weighted_law": "float64",
    "energy_told": "float64",
    "energy_told_sd": "float64",
}
FUNCTION_COLUMNS = {
    **_KEY,
    "texts": "object",
    "recovered": "float64",
    "low": "float64",
    "high": "float64",
    "loss_recovered": "float64",
    "loss_low": "float64",
    "loss_high": "float64",
    "divergence": "float64",
}
LAYER_COLUMNS = {**NAME_COLUMNS, **_KEY, "energy": "float64", "weighted": "float64"}
PREDICTION_COLUMNS = {
    "predictor": "object",
    "texts": "object",
    "approximations": "int64",
    "correlation": "float64",
    "low": "float64",
    "high": "float64",
}

PREDICTORS = {
    "energy": "captured energy",
    "weighted": "activation-weighted energy",
    "weighted_law": "its law, where there is one",
    "signal_and_noise": "signal and noise, calibrated on one control",
}
"""What may tell the function before it is measured, by the column of the approximations."""

Result = Mapping[str, Any]


def build_tables(
    chosen: Sequence[Trial],
    results: Sequence[Result],
    changes: Mapping[str, Mapping[str, list[float]]],
    shapes: Mapping[str, tuple[int, int]],
    turned: Container[str],
    seed: int,
) -> dict[str, pd.DataFrame]:
    """Return the tables of `cosa_theory.studies.function.pair.Function`.

    `turned` names the matrices that are stored as inputs × outputs. What predicts function: see
    docs/theory.md, 6.6.
    """
    sets = [name for name in changes if name != "held out"]
    resampling = {name: Resampling(len(changes[name]["squared"]), seed) for name in sets}
    rows, read = [], []
    resampled: dict[str, list[NDArray[np.float64]]] = {name: [] for name in sets}
    for trial, result in zip(chosen, results, strict=True):
        for run in result["runs"]:
            key = _key(trial, run["gain"])
            rows.append(
                {**key, **_stored(trial, shapes, turned), **_pooled(result["layers"], run["gain"])}
            )
            for name in sets:
                one, draws = _function(run["texts"][name], changes[name], resampling[name])
                read.append({**key, "texts": name, **one})
                resampled[name].append(draws)
    table = _frame(rows, APPROXIMATION_COLUMNS)
    prediction = [
        row for name in sets for row in _prediction(table, name, np.array(resampled[name]).T, read)
    ]
    per_layer = named_tables(_layers(chosen, results), {"layers": LAYER_COLUMNS})
    return {
        "approximations": table,
        "function": _frame(read, FUNCTION_COLUMNS),
        "layers": per_layer["layers"],
        "prediction": typed_frame(prediction, PREDICTION_COLUMNS),
    }


def _frame(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> pd.DataFrame:
    """Return a table in which what a row does not have is null."""
    return typed_frame([dict.fromkeys(columns) | dict(row) for row in rows], dict(columns))


def _key(trial: Trial, gain: float) -> dict[str, Any]:
    one = trial.approximation
    label = one.label if gain == 1 else f"{one.label}, times q"
    return {
        "approximation": one.name,
        "label": label,
        "group": one.group,
        "rank": trial.rank or None,
        "gain": gain,
    }


def _stored(
    trial: Trial, shapes: Mapping[str, tuple[int, int]], turned: Container[str]
) -> dict[str, Any]:
    one = trial.approximation
    oriented = (
        (n, m) if one.needs_moments and name in turned else (m, n)
        for name, (m, n) in shapes.items()
    )
    sizes = [one.stored(m, n, max(trial.rank, 1)) for m, n in oriented]
    return {
        "numbers": sum(one.numbers for one in sizes),
        "bits": sum(one.bits for one in sizes),
    }


def _share(one: Mapping[str, float], gain: float, kind: str = "") -> float:
    """Return 1 − ‖qÂ − ΔW‖²/‖ΔW‖² of a layer, plain or weighted."""
    return 2 * gain * one[f"{kind}inner"] - gain**2 * one[f"{kind}norm"]


def _pooled(layers: Sequence[Mapping[str, Any]], gain: float) -> dict[str, float]:
    """Return shares of the whole update, every layer by its energy, plain and weighted.

    Laws are for a gain of 1: the error of q times an unbiased Â is q²(error + 1) − 2q + 1.
    """
    found: dict[str, float] = {}
    if all("error" in one for one in layers):
        energy = np.array([one["energy"] for one in layers]) / sum(one["energy"] for one in layers)
        variance = energy**2 @ [one["error_variance"] for one in layers]
        found["energy_told"] = 1 - float(energy @ [one["error"] for one in layers])
        found["energy_told_sd"] = math.sqrt(variance)
    for name, kind, weight in (("energy", "", "energy"), ("weighted", "weighted_", "mapped")):
        seen = [one for one in layers if weight in one]
        total = sum(one[weight] for one in seen)
        if not seen:
            continue
        found[name] = sum(one[weight] * _share(one, gain, kind) for one in seen) / total
        if kind:
            signal = gain * sum(one["mapped"] * one[f"{kind}inner"] for one in seen) / total
            norm = gain**2 * sum(one["mapped"] * one[f"{kind}norm"] for one in seen) / total
            found |= {"signal": signal, "noise": norm - signal**2}
        if all(f"{kind}law" in one for one in seen):
            error = sum(one[weight] * one[f"{kind}law"] for one in seen) / total
            scaled = error if gain == 1 else gain**2 * (error + 1) - 2 * gain + 1
            found[f"{name}_law"] = 1 - scaled
    return found


def _function(
    apart: Mapping[str, list[float]], change: Mapping[str, list[float]], resampling: Resampling
) -> tuple[dict[str, float], NDArray[np.float64]]:
    """Return function recovered with its interval, and its resamples."""
    left, whole = np.asarray(apart["squared"]), np.asarray(change["squared"])
    value, draws = resampling.recovered(left, whole)
    interval = resampling.interval(value, draws)
    found = {"recovered": interval.value, "low": interval.low, "high": interval.high}
    if "loss" in apart:
        loss, resampled = resampling.recovered(
            np.asarray(apart["loss"]), np.asarray(change["loss"])
        )
        bounds = resampling.interval(loss, resampled)
        found |= {"loss_recovered": loss, "loss_low": bounds.low, "loss_high": bounds.high}
        found["divergence"] = float(np.sum(apart["divergence"]) / np.sum(apart["tokens"]))
    return found, draws


def _prediction(
    table: pd.DataFrame,
    texts: str,
    resampled: NDArray[np.float64],
    read: Sequence[Mapping[str, Any]],
) -> Iterator[dict[str, Any]]:
    """Yield the rank correlation of each predictor with function recovered, over approximations.

    Where an approximation has no law, its measured weighted energy stands in for it. The last one
    splits Â into a part along ΔW and the rest, under the inputs' second moments: with c of the
    first and d of the second it predicts 1 − (1 − c)² − λd, where λ, how little noise counts, is
    what ΔW with added noise was measured to lose.
    """
    function = np.array([row["recovered"] for row in read if row["texts"] == texts])
    columns = {
        "energy": table["energy"],
        "weighted": table["weighted"],
        "weighted_law": table["weighted_law"].fillna(table["weighted"]),
        "signal_and_noise": _signal_and_noise(table, function),
    }
    for name, column in columns.items():
        values = column.to_numpy(dtype=float)
        if len(values) < 3 or np.isnan(values).any():
            continue
        interval = Resampling.interval(
            float(rank_correlation(values, function)[0]), rank_correlation(values, resampled)
        )
        yield {
            "predictor": name,
            "texts": texts,
            "approximations": len(values),
            "correlation": interval.value,
            "low": interval.low,
            "high": interval.high,
        }


def _signal_and_noise(table: pd.DataFrame, function: NDArray[np.float64]) -> pd.Series:
    """Return 1 − (1 − c)² − λd of every approximation; null without the control."""
    control = (table["approximation"] == "noisy").to_numpy()
    noise = table["noise"].to_numpy(dtype=float)
    if not control.any():
        return pd.Series(np.nan, index=table.index)
    loss = float(np.median((1 - function[control]) / noise[control]))
    return 1 - (1 - table["signal"]) ** 2 - loss * table["noise"]


def _layers(chosen: Sequence[Trial], results: Sequence[Result]) -> Iterator[dict[str, Any]]:
    """Yield the shares of every layer, as `named_tables` takes them."""
    for trial, result in zip(chosen, results, strict=True):
        for run in result["runs"]:
            for one in result["layers"]:
                shares = {"energy": _share(one, run["gain"]), "weighted": None}
                if "mapped" in one:
                    shares["weighted"] = _share(one, run["gain"], "weighted_")
                yield {"name": one["name"], "layers": [{**_key(trial, run["gain"]), **shares}]}
