"""How sparse a stored update is, beside what ℓ1 needs to find it from a core of each size."""

import tomllib
from pathlib import Path
from typing import Any

import pandas as pd
from scipy.optimize import brentq

from cosa_theory.deltas.layers import module_and_block
from cosa_theory.laws import l1_weak_threshold
from cosa_theory.page.views import percent
from cosa_theory.spectrum.families.base import VALUE_BITS, log2_choices
from cosa_theory.studies.layers import Pair

__all__ = ["CORES", "judge", "least_core", "measure", "verdict"]

STATED = Path(__file__).parent / "configs" / "policy_gradient.toml"

CORES = (0.02, 0.05, 0.1, 0.25, 0.5)
"""Sizes d = ab/(mn) of cores, as shares of the entries."""


def least_core(density: float) -> float:
    """Return the smallest d = ab/(mn) whose core ℓ1 finds an update of this density from.

    The root of d ρ(d) = density with ρ the weak threshold of plain Gaussian measurements
    (docs/theory.md, 4.1), which Kronecker measurements need more than: a bound from below. One
    where every entry changed, or all but a few in a million, takes as many measurements.
    """
    most = 1 - 1e-12  # the threshold nears one so steeply that closer densities have no root below
    if density >= most * l1_weak_threshold(most):
        return 1.0
    if density <= 0:
        return 0.0
    return float(brentq(lambda d: d * l1_weak_threshold(d) - density, 1e-12, most))


def measure(pair: Pair) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Count the entries that changed.

    Parameters
    ----------
    pair : DeltaPair
        Two checkpoints as they are stored.

    Returns
    -------
    layers : pandas.DataFrame
        One row per matrix: `layer`, `module`, `block`, `entries`, `changed`, `density`,
        `fullest_row` and `fullest_column` (the largest share of one row and column that changed),
        `core`, see `least_core`, and bits per entry: `core_bits` of such a core, `coded_bits` of
        places and values, both with values of 16 bits.
    pooled : dict
        `matrices`, `entries`, `density` of all together, `least` and `most` of one; for each of
        `CORES` in how many matrices it is below the threshold of a core of that size
        (`decodable_…`); `core_bits` and `coded_bits` per entry of all together.
    """
    layers = pd.DataFrame([_layer(one) for one in pair])
    entries = layers["entries"].sum()
    needed = {f"decodable_{d:g}": int((layers["core"] <= d).sum()) for d in CORES}
    together = {
        name: float((layers[name] * layers["entries"]).sum() / entries)
        for name in ("density", "core_bits", "coded_bits")
    }
    return layers, {
        "matrices": len(layers),
        "entries": int(entries),
        "least": float(layers["density"].min()),
        "most": float(layers["density"].max()),
        **together,
        **needed,
    }


def _layer(layer: Any) -> dict[str, Any]:
    changed = layer.delta != 0
    count = int(changed.sum())
    density = count / changed.size
    core = least_core(density)
    module, block = module_and_block(layer.name)
    return {
        "layer": layer.name,
        "module": module,
        "block": block,
        "entries": changed.size,
        "changed": count,
        "density": density,
        "fullest_row": float(changed.mean(1).max()),
        "fullest_column": float(changed.mean(0).max()),
        "core": core,
        "core_bits": VALUE_BITS * core,
        "coded_bits": VALUE_BITS * density + log2_choices(changed.size, count) / changed.size,
    }


def judge(table: pd.DataFrame, layers: pd.DataFrame) -> pd.DataFrame:
    """Return what was expected (`STATED`), what was measured, and whether it "holds" or "fails".

    Both tables have the column `arm`; the expectations are of "rewarded", beside its nulls, and
    without that arm there are none.
    """
    columns = ["prediction", "value", "outcome"]
    if "rewarded" not in set(table["arm"]):
        return pd.DataFrame(columns=columns)
    stated = tomllib.loads(STATED.read_text(encoding="utf-8"))
    density = table.set_index("arm")["density"]
    own, bounds = density["rewarded"], stated["density"]
    told = f"{percent(bounds['least'])} to {percent(bounds['most'])} of the entries change"
    rows = [(told, own, bounds["least"] <= own <= bounds["most"])]
    factor = stated["null_factor"]
    for arm in density.index.drop("rewarded"):
        told = f"{arm}: as many within a factor {factor:g}"
        rows.append((told, density[arm] / own, 1 / factor <= density[arm] / own <= factor))
    of_arm = layers[layers["arm"] == "rewarded"]
    core = stated["core"]
    share = float((of_arm["core"] <= core["size"]).mean())
    told = (
        f"a core of {percent(core['size'])} is enough in {percent(core['share'])} of the matrices"
    )
    rows.append((told, share, share >= core["share"]))
    smaller = float((of_arm["coded_bits"] < of_arm["core_bits"]).mean())
    rows.append(("places and values take fewer bits, in every matrix", smaller, smaller == 1))
    judged = pd.DataFrame(rows, columns=columns)
    return judged.assign(outcome=judged["outcome"].map({True: "holds", False: "fails"}))


_LEARNT = {
    "rewarded": "programs that pass were rewarded",
    "shuffled": "rewards were shuffled",
    "supervised": "every answer was learnt alike",
}


def verdict(table: pd.DataFrame) -> str:
    """Say in words how sparse the update of the first arm is, and what that is worth."""
    first = table.iloc[0]
    others = ", ".join(f"{percent(row['density'])} {row['arm']}" for _, row in table[1:].iterrows())
    text = (
        f"{percent(first['density'])} of the entries changed where {_LEARNT[first['arm']]}"
        f"{f' ({others})' if others else ''}"
    )
    enough = [d for d in CORES if first[f"decodable_{d:g}"] == first["matrices"]]
    text += (
        f": a core of {percent(enough[0])} of the entries is enough for ℓ1 in all "
        f"{first['matrices']} matrices"
        if enough
        else f": no core of up to {percent(max(CORES))} of the entries is enough for ℓ1 in all"
    )
    return (
        f"{text}; the smallest that is enough takes {first['core_bits']:.2g} bits per entry, "
        f"places and values {first['coded_bits']:.2g}."
    )
