"""Shares of all layers together, with intervals over layers."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cosa_theory.projections import stream

__all__ = ["pooled_shares"]

_RESAMPLES = 4000


def pooled_shares(rows: pd.DataFrame, by: Sequence[str], seed: int = 0) -> pd.DataFrame:
    """Pool the shares of layers, weighed by their energy.

    Parameters
    ----------
    rows : pandas.DataFrame
        Of `cosa_theory.studies.informed.layer_shares`, with `layer`, its `energy` ‖ΔW‖², and what
        the truncated SVD holds of it at the same budget, `svd`.
    by : sequence of str
        Columns that tell the measurements apart.
    seed : int
        Of the bootstrap.

    Returns
    -------
    pandas.DataFrame
        A row per measurement, in order of appearance: `matrices` (those that have enough
        directions), `share`, `law` and `svd` of all of them; `ratio`, share over law, and `closed`,
        the part of the SVD's lead over the law that it has, (share − law)/(svd − law); with 95 %
        percentile intervals over layers, drawn with replacement (`_low`, `_high`). Draws belong to
        layers, so that resampling layers resamples them too.
    """
    pooled = []
    for key, group in rows.groupby(list(by), sort=False, dropna=False):
        known = group.dropna(subset="share")
        found = dict(zip(by, key, strict=True)) | {"matrices": len(known)}
        if len(known):
            found |= _pooled(known, seed)
        pooled.append(found)
    return pd.DataFrame(pooled)


def _pooled(known: pd.DataFrame, seed: int) -> dict[str, float]:
    columns = ["share", "law", "svd"]
    held = known[columns].to_numpy(dtype=float) * known[["energy"]].to_numpy(dtype=float)
    energy = known["energy"].to_numpy(dtype=float)
    count = len(known)
    picked = stream(seed, "informed", "layers").integers(count, size=(_RESAMPLES, count))
    whole, resampled = (
        held.sum(0) / energy.sum(),
        held[picked].sum(1) / energy[picked].sum(1)[:, None],
    )
    found: dict[str, float] = {}
    for name, of in (
        ("share", lambda parts: parts[..., 0]),
        ("ratio", lambda parts: parts[..., 0] / parts[..., 1]),
        ("closed", lambda parts: (parts[..., 0] - parts[..., 1]) / (parts[..., 2] - parts[..., 1])),
    ):
        low, high = np.quantile(of(resampled), (0.025, 0.975))
        found |= {name: float(of(whole)), f"{name}_low": float(low), f"{name}_high": float(high)}
    return found | {"law": float(whole[1]), "svd": float(whole[2])}
