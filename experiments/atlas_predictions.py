"""Whether what was expected of the atlas of real updates came: `configs/atlas_predictions.toml`."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pandas as pd

from cosa_theory.spectrum.families.base import FAMILIES

__all__ = ["STATED", "judge"]

STATED = Path(__file__).parent / "configs" / "atlas_predictions.toml"
"""What was expected, committed before the results."""


def judge(
    lead: pd.DataFrame, pooled: pd.DataFrame, returned: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return what was expected, with `value`s and whether it "holds", "fails" or is "undecided".

    What concerns function is judged where `returned` is given, rows of `pooled` with it.
    """
    stated = tomllib.loads(STATED.read_text(encoding="utf-8"))
    rows = [
        row
        for part in (_flattening, _crossing, _first_steps, _masks, _best)
        for row in part(stated, lead, pooled)
    ]
    if returned is not None:
        at = returned[returned["share"] == stated["budget"]]
        for update, own in at.groupby("update", sort=False):
            rows += _functions(stated["function"], str(update), own.set_index("family"))
    return pd.DataFrame(rows, columns=["prediction", "value", "outcome"])


Judged = Iterator[tuple[str, str, str]]


def _row(prediction: str, values: Sequence[float], holds: bool) -> tuple[str, str, str]:
    told = ", ".join(f"{value:.3g}" for value in values)
    return prediction, told, "holds" if holds else "fails"


def _at(lead: pd.DataFrame, stated: Mapping[str, Any]) -> pd.DataFrame:
    return lead[lead["share"] == stated["budget"]].set_index("update")


def _flattening(stated: Any, lead: pd.DataFrame, pooled: pd.DataFrame) -> Judged:
    at = _at(lead, stated)["lead"]
    for corpus in stated["flattening"]["corpora"]:
        names = [f"encoder_{corpus}_{steps}" for steps in (100, 1000, 5000)]
        known = [float(at[name]) for name in names if name in at.index]
        if len(known) > 1:
            falls = all(later < earlier for earlier, later in pairwise(known))
            yield _row(f"{corpus}: the lead falls with training", known, falls)


def _crossing(stated: Any, lead: pd.DataFrame, pooled: pd.DataFrame) -> Judged:
    for update, rows in lead[lead["matrices"] > 0].groupby("update", sort=False):
        crossed = rows["crossed"].tolist()
        if str(update).startswith(tuple(stated["crossing"]["none"])):
            told = f"{update}: in no matrix a core holds as much as low rank"
            yield _row(told, crossed, not any(crossed))
        elif update in stated["crossing"]["some"]:
            yield _row(f"{update}: in some matrix a core does", crossed, any(crossed))


def _first_steps(stated: Any, lead: pd.DataFrame, pooled: pd.DataFrame) -> Judged:
    names = stated["first_step"]
    at = _at(lead, stated)
    if not {names["update"], names["gradient"], names["adam"]} <= set(at.index):
        return
    lead_of = at["lead"].to_dict()
    update, gradient, adam = (lead_of[names[one]] for one in ("update", "gradient", "adam"))
    yield _row(
        "the first gradient leads by more than the update", [gradient, update], gradient > update
    )
    yield _row("Adam's first step leads by less than the update", [adam, update], adam < update)
    over = adam / at["noise"].to_dict()[names["adam"]]
    told = f"and by {names['over_noise']:g} times what noise does"
    yield _row(told, [over], over >= names["over_noise"])


def _masks(stated: Any, lead: pd.DataFrame, pooled: pd.DataFrame) -> Judged:
    names = stated["mask"]
    rows = pooled[(pooled["update"] == names["update"]) & (pooled["share"] == stated["budget"])]
    held = rows.set_index("family")["captured"]
    if "shira_gradient" not in held:
        return
    chosen, drawn, best = (held[one] for one in ("shira_gradient", "mask", "top_entries"))
    told = f"the gradient's mask holds {names['over_random']:g} times what a random one does"
    yield _row(told, [chosen / drawn], chosen >= names["over_random"] * drawn)
    told = f"and under {names['under_best']:g} of what the best one does"
    yield _row(told, [chosen / best], chosen < names["under_best"] * best)


def _best(stated: Any, lead: pd.DataFrame, pooled: pd.DataFrame) -> Judged:
    for update, best in _at(lead, stated)["best"].items():
        if update not in stated["best"]["except"]:
            low = FAMILIES[best].group in stated["best"]["groups"]
            yield f"{update}: low rank holds most", str(best), "holds" if low else "fails"


def _functions(stated: Any, update: str, own: pd.DataFrame) -> Judged:
    trained = own[own["group"] != "stored"]
    least, most = stated["least_correlation"], stated["core_at_most"]
    value = trained["captured"].corr(trained["recovered"], method="spearman")
    yield _row(
        f"{update}: energy orders the function of what trains, {least:g}", [value], value >= least
    )
    for name in stated["below_low_rank"]:
        one, low_rank = own.loc[name], own.loc["truncated_svd"]
        known = _outcome(
            one["recovered_high"] < low_rank["recovered_low"],
            one["recovered_low"] >= low_rank["recovered_high"],
        )
        told = f"{one['recovered']:.3g}, {low_rank['recovered']:.3g}"
        yield f"{update}: {FAMILIES[name].label} returns less than low rank", told, known
    cores = trained[trained["group"] == "CoSA core"].nlargest(1, "recovered").iloc[0]
    known = _outcome(cores["recovered_high"] <= most, cores["recovered_low"] > most)
    yield f"{update}: no core returns over {most:g}", f"{cores['recovered']:.3g}", known


def _outcome(holds: bool, fails: bool) -> str:
    return "holds" if holds else "fails" if fails else "undecided"
