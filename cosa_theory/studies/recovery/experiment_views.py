"""How the recovery experiments are shown: which sparse updates ℓ1 finds, what real ones give back.

The document's tables are those of `experiments.phase_transition` ("phase_transition"), its fitted
50 % lines ("phase_lines") and `experiments.recovery` ("recovery").
"""

from collections.abc import Mapping

import pandas as pd

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, number, percent
from cosa_theory.projections import printed_name
from cosa_theory.recovery import METHODS

__all__ = ["PRESENTATION"]

_LINES = (
    ("plain", "random", "plain, anywhere", "one ab × mn projection; support at random places"),
    ("kronecker", "random", "Kronecker, anywhere", "Lᵀ ΔW Rᵀ; support at random places"),
    ("kronecker", "block", "in a block", "Kronecker; support in a square block"),
    ("kronecker", "column", "in a column", "Kronecker; support in one column of ΔW"),
    ("kronecker", "row", "in a row", "Kronecker; support in one row of ΔW"),
)


def _crossing(rows: pd.DataFrame | None) -> str:
    """Return ρ of half successes with its interval, or the side on which it lies."""
    if rows is None:
        return MISSING
    row = rows.iloc[0]
    low, high = float(row["rho50_low"]), float(row["rho50_high"])
    if pd.isna(row["rho50"]):
        return f"> {number(low)}" if low > 0 else f"< {number(high)}"
    return f"{number(row['rho50'])} [{number(max(low, 0.0))}, {number(high)}]"


def _lines_view(document: Document) -> View:
    table = document.tables["phase_lines"]
    columns = (
        Column("kind", "ensemble", "", lambda kind: f"CoSA, {printed_name(kind)}", text=True),
        Column("core", "core", "a × b", text=True),
        Column("d", "d", "undersampling ab/(mn)", number),
        Column("weak", "weak threshold", "asymptotic ρ of Gaussian measurements", number),
        *(
            Column((structure, packing), header, explanation, _crossing)
            for structure, packing, header, explanation in _LINES
        ),
    )
    rows = []
    for (a, b, kind), part in table.groupby(["a", "b", "kind"], sort=False):
        of_line = dict(iter(part.groupby(["structure", "packing"], sort=False)))
        row = {"kind": str(kind), "core": f"{a} × {b}", "d": part["d"].iloc[0]}
        row["weak"] = part["weak_threshold"].iloc[0]
        rows.append(row | {line[:2]: of_line.get(line[:2]) for line in _LINES})
    first = table.iloc[0]
    title = (
        f"Sparsity ρ = s/(ab) at which ℓ1 finds half of the {count(first['m'])} × "
        f"{count(first['n'])} updates, with 95 % intervals"
    )
    return View.of(title, columns, rows)


def _real(document: Document) -> pd.DataFrame:
    table = document.tables["recovery"]
    return table[(table["sweep"] == "real") & (table["status"] == "done")]


_REAL_COLUMNS = (
    Column("basis", "basis", text=True),
    Column("method", "solver", "", lambda name: METHODS[name].label, text=True),
    Column("law", "ab/(mn)", "share of the numbers of ΔW that its core has", percent),
    Column(
        "share",
        "comes back",
        "1 − ‖ΔW − estimate‖²/‖ΔW‖², median; below zero: worse than nothing",
        percent,
    ),
    Column("least_norm_share", "least norm", "the same for the least-norm answer, median", percent),
    Column("wins", "better", "updates of which more comes back than by least norm"),
)


def _real_view(document: Document) -> View:
    table = _real(document)
    solved = table[table["method"] != "least_norm"]
    # Sides are whole numbers, so shares of one compression differ a little between shapes.
    level = solved["law"].astype(float).round(1).where(solved["law"] > 0.15, solved["law"].round(2))
    rows = [
        {
            "basis": basis,
            "method": method,
            **part[["law", "share", "least_norm_share"]].median(),
            "wins": f"{int((part['share'] > part['least_norm_share']).sum())} of {len(part)}",
        }
        for (basis, method, _), part in solved.groupby(["basis", "method", level], sort=False)
    ]
    title = f"What comes back of {count(solved['update'].nunique())} real updates from their cores"
    return View.of(title, _REAL_COLUMNS, rows)


def _views(document: Document) -> list[View]:
    views = [_lines_view(document)]
    return views if _real(document).empty else [*views, _real_view(document)]


_TERMS: tuple[tuple[str, str], ...] = (
    (
        "undersampling d and sparsity ρ",
        "d = ab/(mn) says how many numbers are measured, ρ = s/(ab) how many of the s nonzero "
        "entries of ΔW there are for each.",
    ),
    (
        "weak threshold",
        "the ρ below which ℓ1 recovers almost every sparse vector from independent Gaussian "
        "measurements in the limit of large sizes (Donoho, Maleki & Montanari 2009).",
    ),
    (
        "half of the updates",
        "the crossing of a logistic curve fitted to the successes, with a 95 % interval; < and > "
        "say on which side of what was measured it lies. A success is a relative error of at most "
        "the one the experiment names; trials without a certified answer count as failures.",
    ),
    (
        "least norm",
        "the update of least Frobenius norm with this core, L(LᵀL)⁻¹Y(RRᵀ)⁻¹R: it holds the share "
        "ab/(mn) of a fixed update on average, whatever the update is.",
    ),
    (
        "ℓ1 in a basis",
        "the update whose coefficients in the basis have the least sum of absolute values, among "
        "those with this core (basis pursuit) or near it (fista, the lasso).",
    ),
)


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.recovery.error_figures import RECOVERY_FIGURE
    from cosa_theory.studies.recovery.phase_figures import PHASE_FIGURE

    return {"phase_transition": PHASE_FIGURE, "recovery": RECOVERY_FIGURE}


PRESENTATION = Presentation(
    title="Recovery of updates from their cores",
    tables=("phase_transition", "phase_lines", "recovery"),
    views=_views,
    figures=_figures,
    terms=_TERMS,
)
