"""How a survey is shown: per layer, per module type and per family, at one budget or at all."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd
from markupsafe import Markup

from cosa_theory.page.document import Document, Tables
from cosa_theory.page.presentation import Bar, Drawing, Opening, Part, Presentation
from cosa_theory.page.style import family_style
from cosa_theory.page.views import MISSING, Column, View, count, median, number, percent, spread
from cosa_theory.studies.spectrum.beside_base import BASE_TERMS, base_view
from cosa_theory.studies.spectrum.budgets import (
    at_budget,
    common_budgets,
    leading,
    middle_budget,
    named_budget,
)
from cosa_theory.studies.spectrum.pooling import pool_families
from cosa_theory.studies.spectrum.verdict import LARGEST_MISFIT

if TYPE_CHECKING:
    from cosa_theory.page.explorer import Explorer

__all__ = ["PARTS", "PRESENTATION"]


PARTS = (
    Part(
        "function", "function", "Function, not only energy", "All tables, with figures", first=True
    ),
    Part("audit", "audit", "The assumptions of the theory", "Every layer, with figures"),
    Part("recovery", "experiments", "Recovery from the core", "All tables, with figures"),
    Part("finetune", "finetune", "Training at equal size", "Every training"),
)
"""What else can be known of this pair or of others, in folders under the survey's."""


def _size(row: Mapping[Any, Any]) -> str:
    return f"{row['m']} × {row['n']}"


def _winner(value: Any) -> str:
    return MISSING if pd.isna(value) else {"cosa": "CoSA"}.get(str(value), str(value))


def _spikes(row: Mapping[Any, Any]) -> str:
    return count(row["spikes"] if row["noise_misfit"] <= LARGEST_MISFIT else None)


def _flatness(row: Mapping[Any, Any]) -> str:
    low = pd.isna(row["flatness"]) and row["rank"] > 0
    return f"{MISSING} (rank {row['rank']})" if low else number(row["flatness"])


def _interval(row: Mapping[Any, Any]) -> str:
    share = percent(row["captured"])
    if share == MISSING or not row["ci_high"] > row["ci_low"]:
        return share
    width = row["ci_high"] - row["ci_low"]
    # Two digits of the half width decide how many of the share are worth showing.
    decimals = min(max(1 - math.floor(math.log10(50 * width)), 0), 4)
    return f"{100 * row['captured']:.{decimals}f} ± {50 * width:.{decimals}f} %"


def _at(tables: Tables, rank: int | None) -> str:
    if rank is None:
        return ""
    return f", at the budget of {named_budget(at_budget(tables['crossover'], rank), rank)}"


def _measured_family(families: pd.DataFrame) -> str | None:
    """Return the CoSA ensemble that stands for all in narrow tables: Gaussian where measured."""
    names = [name for name in families["family"].unique() if name.startswith("cosa_")]
    return "cosa_gaussian" if "cosa_gaussian" in names else names[0] if names else None


def _merged(tables: Tables, rank: int | None) -> pd.DataFrame:
    """Return one row per layer with its crossover and its measured CoSA share at one budget."""
    if rank is None:
        return tables["layers"]
    columns = ["top_share", "law", "crossover_ratio", "noise_ratio", "excess", "winner"]
    crossover = at_budget(tables["crossover"], rank)[["layer", "rank_budget", *columns]]
    table = tables["layers"].merge(crossover, on="layer", how="left")
    families = tables["families"]
    shares = families[families["family"] == _measured_family(families)]
    shares = shares[["layer", "rank_budget", "captured", "ci_low", "ci_high"]]
    return table.merge(shares, on=["layer", "rank_budget"], how="left")


_LAYER = (
    Column("layer", "layer", text=True),
    Column(None, "shape", "m × n, out × in features", _size),
    Column("relative_norm", "‖ΔW‖/‖W‖", "relative Frobenius norm of the update", number),
    Column("rank_90", "rank 90 %", "singular values that hold 90 % of ‖ΔW‖²", count),
    Column("stable_rank", "stable rank", "‖ΔW‖²/σ₁²", number),
    Column(
        "participation_ratio", "particip.", "participation ratio (Σσ²)²/Σσ⁴", number, detail=True
    ),
    Column(
        None,
        "flatness",
        "geometric over arithmetic mean of σ²; not defined below full rank",
        _flatness,
    ),
    Column(
        None,
        "spikes",
        "singular values above the noise edge, where noise fits",
        _spikes,
        detail=True,
    ),
)


_NOISE = "the ratio of independent noise of this shape and rank"
_EXCESS = "ratio over that of noise: below 1 flatter than noise"


def _shares(most: str, family: str | None) -> list[Column]:
    top = f"share of ‖ΔW‖² in the {most} largest singular values"
    columns = [Column("top_share", f"top-{most} share", top, percent)]
    if family is not None:
        label = f"share captured by {family_style(family).label}: mean over draws"
        columns.append(Column(None, "CoSA, measured", label, _interval))
    return [
        *columns,
        Column("law", "CoSA, law", "ab/(mn) at equal trainable parameters", percent),
        Column("crossover_ratio", "ratio", "top share over law: above 1 low rank wins", number),
        Column("noise_ratio", "noise", _NOISE, number, detail=True),
        Column("excess", "excess", _EXCESS, number),
        Column("winner", "wins", cell=_winner, text=True),
    ]


def layer_view(tables: Tables) -> View:
    """Return one row per layer: its spectrum, and the comparison at the verdict's budget."""
    rank = middle_budget(tables["crossover"])
    rows = _merged(tables, rank)
    family = _measured_family(tables["families"])
    shares = [] if rank is None else _shares(leading(rows, rank), family)
    return View.of(f"Every layer{_at(tables, rank)}", (*_LAYER, *shares), rows)


def _one_size(group: pd.DataFrame) -> str:
    sizes = group[["m", "n"]].drop_duplicates().to_dict("records")
    return _size(sizes[0]) if len(sizes) == 1 else "several"


def _wins(group: pd.DataFrame) -> str:
    return f"{(group['winner'] == 'low rank').sum()} of {group['winner'].notna().sum()}"


_MODULE = (
    Column(None, "module", "", lambda group: str(group["module"].iloc[0]), text=True),
    Column(None, "layers", "number of matrices of this type", lambda group: str(len(group))),
    Column(None, "shape", "m × n, out × in features", _one_size),
    Column.median(
        "‖ΔW‖/‖W‖", "relative Frobenius norm of the update, median", "relative_norm", number
    ),
    Column.median("stable rank", "‖ΔW‖²/σ₁², median", "stable_rank", number),
    Column.median(
        "flatness",
        "geometric over arithmetic mean of σ², median of the matrices of full rank",
        "flatness",
        number,
    ),
)


def _module_shares(most: str) -> tuple[Column, ...]:
    top = f"of ‖ΔW‖² in the {most} largest singular values, median (range)"
    ratio = "top share over law, median (range): above 1 low rank wins"
    law = "ab/(mn) at equal trainable parameters, median"
    return (
        Column(None, f"top-{most} share", top, spread("top_share", percent)),
        Column(None, "CoSA, law", law, median("law", percent)),
        Column(None, "ratio", ratio, spread("crossover_ratio", number)),
        Column.median("noise", f"{_NOISE}, median", "noise_ratio", number),
        Column(None, "excess", f"{_EXCESS}, median (range)", spread("excess", number)),
        Column(None, "low rank wins", "matrices where the ratio is above 1", _wins),
    )


def module_view(tables: Tables) -> View:
    """Return one row per module type, medians over its layers, at the verdict's budget."""
    rank = middle_budget(tables["crossover"])
    rows = _merged(tables, rank)
    groups = [group for _, group in rows.groupby("module", sort=False)]
    shares = () if rank is None else _module_shares(leading(rows, rank))
    return View.of(f"By module type{_at(tables, rank)}", (*_MODULE, *shares), groups)


def family_view(tables: Tables) -> View:
    """Return the share of the compared layers' energy per family, one column for each budget.

    Intervals are those of the mean over random draws; without families there are no rows.
    """
    ranks = common_budgets(tables["crossover"])
    pooled = pool_families(tables["families"], tables["layers"], ranks)
    columns = [Column("label", "family", text=True)]
    laws: dict[Any, str] = {"label": "law ab/(mn) of a CoSA core"}
    for rank in ranks:
        rows = pooled[pooled["rank_budget"] == rank]
        size = f"{rows['parameters'].max():,} trainable parameters"
        columns.append(Column(rank, f"rank {rank}", size))
        law = rows.loc[rows["family"].str.startswith("cosa_"), "law"].dropna()
        # Three digits, as many as the measured shares beside it are worth; of 100 no point is left.
        laws[rank] = MISSING if law.empty else f"{f'{100 * law.iloc[0]:#.3g}'.rstrip('.')} %"
    lines = []
    for family, rows in pooled.groupby("family", sort=False):
        cells = {row["rank_budget"]: _interval(row) for row in rows.to_dict("records")}
        label = family_style(str(family)).label
        lines.append({"label": label, **dict.fromkeys(ranks, MISSING), **cells})
    title = "Share of the update's energy, all compared layers together, at the budget of each rank"
    return View.of(title, columns, [*lines, laws] if lines else [])


def _views(document: Document) -> Sequence[View]:
    return module_view(document.tables), family_view(document.tables)


def _opening(document: Document) -> Opening:
    """Return what was compared, the pooled shares as bars, and a handful of medians."""
    tables = document.tables
    layers, rank = tables["layers"], middle_budget(tables["crossover"])
    arguments = document.provenance.get("arguments", {})
    facts = [
        (f"{len(layers):,}", "matrices compared"),
        (f"{int((layers['m'] * layers['n']).sum()):,}", "entries in them"),
        (median("relative_norm", number)(layers), "‖ΔW‖/‖W‖, median"),
        (median("stable_rank", number)(layers), "stable rank of ΔW, median"),
        _flatness_fact(layers),
    ]
    budget = ""
    if rank is not None:
        chosen = at_budget(tables["crossover"], rank)
        budget = named_budget(chosen, rank)
        facts += [
            (median("crossover_ratio", number)(chosen), f"crossover ratio at {budget}, median"),
            (median("excess", number)(chosen), "its excess over noise of the same shape, median"),
        ]
    return Opening(
        base=str(arguments.get("base", MISSING)),
        tuned=str(arguments.get("tuned", MISSING)),
        bars=() if rank is None else _bars(tables, rank),
        about_bars="Share of the energy ‖ΔW‖² of the update, all compared matrices together, "
        f"that each can express with the trainable parameters of {budget}.",
        facts=tuple(facts),
    )


def _flatness_fact(layers: pd.DataFrame) -> tuple[str, str]:
    """Return the median flatness, or why there is none."""
    ranks = layers.loc[layers["rank"] > 0, "rank"]
    if layers["flatness"].notna().any() or ranks.empty:
        return median("flatness", number)(layers), "flatness of ΔW, median"
    return MISSING, f"flatness not defined: rank {count(ranks.max())} at most"


def _bars(tables: Tables, rank: int) -> tuple[Bar, ...]:
    """Return the pooled shares of low rank, LoRA-XS and one CoSA ensemble."""
    pooled = pool_families(tables["families"], tables["layers"], [rank])
    shares = dict(zip(pooled["family"], pooled["captured"].astype(float), strict=True))
    wanted = {
        "truncated_svd": "--low-rank",
        "lora_xs": "--basis",
        _measured_family(tables["families"]): "--cosa",
    }
    return tuple(
        Bar(family_style(family).label, shares[family], percent(shares[family]), colour)
        for family, colour in wanted.items()
        if family is not None and family in shares
    )


def _explorer(tables: Tables) -> "Explorer | None":
    from cosa_theory.studies.spectrum.explorer import explorer

    return explorer(tables)


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.spectrum.figures import FIGURES

    return FIGURES


_TERMS = (
    (
        "Equal trainable parameters",
        "A budget is that of a LoRA of rank r, P = r(m + n) for an m × n matrix. The CoSA core "
        "gets the largest a × b with ab ≤ P near am = bn, which keeps its frozen projections "
        "small; LoRA-XS gets an r × r core with r² ≤ P. No family ever has more than P.",
    ),
    (
        "Captured share",
        Markup(
            "The largest part of ‖ΔW‖² (squared Frobenius norm) that a family of this size can "
            "express: the r largest squared singular values for low rank; "
            "‖P<sub>L</sub> ΔW P<sub>R</sub>‖² for CoSA, whose P<sub>L</sub> and P<sub>R</sub> "
            "project onto the ranges of the random L and R; ‖U<sub>r</sub>ᵀ ΔW V<sub>r</sub>‖² for "
            "LoRA-XS, with the top singular vectors of W. It says what could be represented, not "
            "what training would find."
        ),
    ),
    (
        "The law ab/(mn)",
        "For Gaussian or orthonormal random factors drawn without looking at ΔW, the captured "
        "share is ab/(mn) on average, whatever ΔW is; sign and sparse factors share that mean as "
        "long as they have full rank. Hadamard factors of a padded size can lose rank, and then "
        "capture a little less. Measured shares are means over independent draws, with confidence "
        "intervals.",
    ),
    (
        "Crossover ratio and the factor of two",
        "The share of ‖ΔW‖² in the top r singular values over ab/(mn). Since that share is at "
        "least r/min(m, n), the ratio is never below max(m, n)/(m + n): at equal size a CoSA core "
        "can be at most (m + n)/max(m, n) ≤ 2 times better, and only for a flat spectrum.",
    ),
    (
        "Noise, and the excess over it",
        "The null is a matrix of independent entries of one variance, with the shape of the layer: "
        "even there the top singular values are above average, so that its crossover ratio at a "
        "small rank is between 1 and 2 (1.84 for 384 × 384 at rank 8). It follows from the "
        "Marchenko-Pastur law, and from seeded draws where a side is at most 32. The excess is "
        "the measured ratio over it. At an excess of 1 nothing tells the spectrum from noise, and "
        "low rank wins all the same where noise has a ratio above 1, up to a rank of about "
        "0.4 min(m, n) on square matrices: there CoSA wins on captured energy only where the "
        "spectrum is flatter than noise.",
    ),
    (
        "Stable rank, participation ratio, flatness",
        "‖ΔW‖²/σ₁²; (Σσ²)²/Σσ⁴; and the geometric over the arithmetic mean of σ². All grow with "
        "the evenness of the spectrum: from 1 to min(m, n) for the first two, from 0 to 1 for "
        "the last, which is not defined below full rank.",
    ),
    (
        "Noise edge and spikes",
        "The Marchenko-Pastur edge of independent noise whose level is fitted to the middle of "
        "the spectrum, and the number of singular values above it; shown only where the tail is "
        "distributed like such noise (Kolmogorov-Smirnov distance at most 0.1), which slowly "
        "decaying spectra are not. The rounding edge is that of "
        "the rounding error of the stored number type alone.",
    ),
    *BASE_TERMS,
    (
        "Resolution",
        "Singular values come from the float64 Gram matrix on the short side. Below 1e-7 σ₁ they "
        "are not resolved, and are marked so.",
    ),
)

PRESENTATION = Presentation(
    title="CoSA against low rank",
    tables=("layers", "spectra", "families", "crossover"),
    views=_views,
    detail_views=lambda document: (
        layer_view(document.tables),
        base_view(document.tables["layers"]),
    ),
    figures=_figures,
    terms=_TERMS,
    headings=("At equal trainable parameters", "Layers"),
    opening=_opening,
    parts=PARTS,
    explorer=_explorer,
)
"""How documents of the command spectrum are shown."""
