"""Whether what was predicted of pairs that had not been measured came: predictions and outcomes."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

__all__ = ["STATED", "judge"]

STATED = Path(__file__).parent / "configs" / "function_predictions.toml"
"""The predictions, committed before the results."""

SEEN_BEFORE = ("sre_encoder",)
"""Pairs measured before the predictions were stated: they judge nothing."""


def judge(tables: Mapping[str, pd.DataFrame]) -> pd.DataFrame:
    """Judge what was predicted of pairs that had not been measured.

    Parameters
    ----------
    tables : mapping
        Those of `experiments.real_updates.run`.

    Returns
    -------
    pandas.DataFrame
        `pair`, `prediction` in words, `value`, `low`, `high` and `outcome`: "holds", "fails", or
        "undecided" where the interval holds the bound.
    """
    stated = tomllib.loads(STATED.read_text(encoding="utf-8"))
    new = stated["new_pairs"]
    rows = []
    for name, correlations in _each(tables["prediction"]):
        domain = correlations[correlations["texts"] == "domain"].set_index("predictor")
        for predictor, bound, above in (
            (new["predictor"], stated["prediction"]["least_correlation"], True),
            ("energy", new["energy_correlation_at_most"], False),
        ):
            one: Any = domain.loc[predictor]
            ends = [float(one[column]) for column in ("correlation", "low", "high")]
            words = f"rank correlation of {predictor} {'at least' if above else 'at most'} {bound}"
            rows.append(_row(name, words, ends, bound, above))
    functions = dict(_each(tables["function"]))
    for name, table in functions.items():
        at = table[(table["gain"] == 1) & table["rank"].isin([8])].set_index("approximation")
        for first, second in zip(new["order"], new["order"][1:], strict=False):
            gap = _gap(at.loc[first], at.loc[second])
            rows.append(_row(name, f"{first} above {second}", gap, 0.0, above=True))
        for control in ("noise", "shuffled"):
            one = table[table["approximation"] == control].iloc[0]
            most = new["null_at_most"]
            rows.append(_row(name, f"{control} returns nothing", _ends(one), most, above=False))
    rows += _falls(functions)
    columns = ["pair", "prediction", "value", "low", "high", "outcome"]
    return pd.DataFrame(rows, columns=columns)


def _each(table: pd.DataFrame) -> Iterator[tuple[str, pd.DataFrame]]:
    for name, rows in table.groupby("pair", sort=False) if len(table) else ():
        if name not in SEEN_BEFORE:
            yield str(name), rows


def _falls(functions: Mapping[str, pd.DataFrame]) -> Iterator[dict[str, Any]]:
    """Yield whether the adjoint returns less after the longest training than after the shortest."""
    for corpus in ("r8", "r52", "20newsgroups"):
        ends = []
        for steps in (100, 5000):
            table = functions.get(f"encoder_{corpus}_{steps}")
            if table is None:
                break
            at = table[(table["approximation"] == "adjoint_haar") & table["rank"].isin([8])]
            ends.append(at[at["gain"] == 1].iloc[0])
        if len(ends) == 2:
            words = "Haar adjoint returns less after 5,000 steps"
            yield _row(f"encoder_{corpus}", words, _gap(*ends), 0.0, above=True)


def _ends(one: Any) -> list[float]:
    return [float(one[name]) for name in ("domain", "domain_low", "domain_high")]


def _gap(first: Any, second: Any) -> list[float]:
    """Return a difference with the ends of both intervals: wider than it has to be."""
    (value, low, high), (less, least, most) = _ends(first), _ends(second)
    return [value - less, low - most, high - least]


def _row(pair: str, words: str, ends: Sequence[float], bound: float, above: bool) -> dict[str, Any]:
    value, low, high = ends
    inside = low > bound if above else high <= bound
    outside = high <= bound if above else low > bound
    outcome = "holds" if inside else "fails" if outside else "undecided"
    row = {"pair": pair, "prediction": words, "value": value, "low": low, "high": high}
    return row | {"outcome": outcome}
