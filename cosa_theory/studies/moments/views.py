"""The result of `cosa-theory moments`: its verdict, and its table of layers."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cosa_theory.page.views import Column, View, count, percent

if TYPE_CHECKING:  # what it describes needs torch
    from cosa_theory.nn import Moments

__all__ = ["LEADING", "moments_table", "moments_verdict", "moments_view"]

LEADING = (8, 32)
"""Numbers of directions whose share is told."""


def moments_table(moments: "Moments") -> pd.DataFrame:
    """Return one row for every distinct input, and for every output's gradients.

    `of` ("inputs" or "gradients"), `layer` (the first one that reads it), `layers` (how many do),
    `n` (length of its vectors), `tokens` (that were taken), and `top_8`, `top_32`: the share of
    E‖x‖² in the leading directions.
    """
    rows = []
    for side in ("inputs", "gradients"):
        by_layer = getattr(moments, side)
        readers: dict[int, list[str]] = {}
        for name, one in by_layer.items():
            readers.setdefault(id(one), []).append(name)
        for names in readers.values():
            one = by_layer[names[0]]
            row = {"of": side, "layer": names[0], "layers": len(names), "n": one.n}
            shares = {f"top_{k}": one.share(min(k, one.n)) for k in reversed(LEADING)}
            rows.append(row | {"tokens": one.count} | shares)
    return pd.DataFrame(rows)


def moments_verdict(table: pd.DataFrame, texts: str) -> str:
    """Say on one line how few directions hold what the layers are fed."""
    inputs = table[table["of"] == "inputs"]
    few = LEADING[-1]
    least = inputs.sort_values(f"top_{few}").iloc[0]
    held, blind = (
        np.average(shares, weights=inputs["layers"])  # a row is of all layers that read the same
        for shares in (inputs[f"top_{few}"], (few / inputs["n"]).clip(upper=1))
    )
    return (
        f"{few} directions hold {percent(held)} of the energy of what a "
        f"layer is fed, on average over {inputs['layers'].sum()} layers and {texts} (least "
        f"{percent(least[f'top_{few}'])}, in {least['layer']}); directions that know nothing hold "
        f"{percent(blind)}."
    )


_COLUMNS = (
    Column("layer", "layer", "the first that reads these vectors", text=True),
    Column("of", "of", "inputs, or gradients of outputs", text=True),
    Column("layers", "layers", "how many read the same", count),
    Column("n", "n", "length of a vector", count),
    Column("tokens", "tokens", "vectors that were taken", count),
    *(
        Column(f"top_{k}", f"in {k}", f"share of E‖x‖² in the {k} leading directions", percent)
        for k in LEADING
    ),
)


def moments_view(table: pd.DataFrame) -> View:
    """Return the table of layers, as `moments_table` makes it, in text cells."""
    return View.of("Layers", _COLUMNS, table)
