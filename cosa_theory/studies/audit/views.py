"""How an audit is shown: outcomes per assumption, per module type, per core, per matrix."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pandas as pd

from cosa_theory.page.document import Document
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import MISSING, Column, View, count, number, percent
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS
from cosa_theory.studies.audit.verdict import OUTCOMES, counts

__all__ = ["PRESENTATION"]

_SUBJECTS = {"update": "the update ΔW", "gradient": "the gradient of the first step"}
_BASES = {
    "coordinate": "entries",
    "dct": "cosine transform",
    "singular": "singular basis of W",
}


def _spread(values: pd.Series, show: Callable[[Any], str]) -> str:
    """Return the median, with the range where there is one."""
    live = values.dropna().astype(float)
    if live.empty:
        return MISSING
    middle, low, high = (show(x) for x in (live.median(), live.min(), live.max()))
    return middle if low == high else f"{middle} ({low}–{high})"


def _views(document: Document) -> list[View]:
    tables = document.tables
    subjects = [name for name in _SUBJECTS if (tables["layers"]["subject"] == name).any()]
    views = [_summary(tables["assumptions"], subject) for subject in subjects]
    views += [_modules(tables, subject) for subject in subjects]
    return [*views, _cores(tables["layers"]), _bases(tables["sparsity"])]


def _summary(assumptions: pd.DataFrame, subject: str) -> View:
    """Return one row per assumption: in how many matrices it holds, and by how much."""
    rows = assumptions[assumptions["subject"] == subject]
    found = counts(rows).droplevel("subject")
    columns = (
        Column(None, "assumption", text=True),
        *(Column(None, one, _UNDECIDED if one == "undecided" else "") for one in OUTCOMES),
        Column(None, "measured", "median over the matrices (range)"),
        Column(None, "threshold", "median (range)"),
        Column(None, "in plain words", text=True),
    )
    lines = []
    for name, outcome in found.iterrows():
        assumption, of = ASSUMPTIONS[str(name)], rows[rows["assumption"] == name]
        sign = "≤" if assumption.relation == "at most" else "≥"
        cells = [assumption.title, *(str(outcome[one]) for one in OUTCOMES)]
        cells += [_spread(of["value"], number), f"{sign} {_spread(of['threshold'], number)}"]
        lines.append((*cells, assumption.meaning))
    return View(f"Assumptions, for {_SUBJECTS[subject]}", columns, tuple(lines))


_UNDECIDED = "the threshold lies inside the interval, or the update is zero"


def _modules(tables: Any, subject: str) -> View:
    """Return one row per module type, medians over its matrices."""
    layers, rows = tables["layers"], tables["assumptions"]
    layers = layers[layers["subject"] == subject]
    rows = rows[rows["subject"] == subject]
    columns = (
        Column(None, "module", text=True),
        Column(None, "matrices", "of this type"),
        Column(None, "shape", "m × n, out × in features"),
        Column(None, "core", "a × b, the core in use"),
        Column(None, "PR", "participation ratio (Σσ²)²/Σσ⁴, median"),
        Column(None, "variance", "of ‖ΦX‖², over that of an unstructured Gaussian map, median"),
        Column(None, "s", "coefficients that hold 90 % of the energy in the best basis, median"),
        Column(None, "s/(mn)", "the same as a share of the entries"),
        Column(None, "weak-ℓp", "exponent in the best basis, median"),
        Column(None, "error", "measured, of encoding and decoding, median"),
        Column(None, "law", "√(1 − ab/(mn)), the predicted error, median"),
        Column(None, "holds", "outcomes that hold, of all assumptions and matrices"),
    )
    lines = []
    for module, group in layers.groupby("module", sort=False):
        held = rows.loc[rows["module"] == module, "outcome"]
        share = group["sparsity"] / (group["m"] * group["n"])
        lines.append(
            (
                str(module),
                count(len(group)),
                _only(f"{m} × {n}" for m, n in zip(group["m"], group["n"], strict=True)),
                _only(f"{a} × {b}" for a, b in zip(group["a"], group["b"], strict=True)),
                number(group["participation_ratio"].median()),
                number(group["variance_factor"].median()),
                count(group["sparsity"].median()),
                percent(share.median()),
                number(group["weak_lp"].median()),
                number(group["error"].median()),
                number(group["predicted_error"].median()),
                f"{(held == 'holds').sum()} of {len(held)}",
            )
        )
    return View(f"By module type, for {_SUBJECTS[subject]}", columns, tuple(lines))


def _only(values: Iterable[str]) -> str:
    different = list(dict.fromkeys(values))
    return different[0] if len(different) == 1 else "several"


def _cores(layers: pd.DataFrame) -> View:
    """Return one row per shape of layer and core: how its dictionary stretches cores."""
    layers = layers[layers["subject"] == "update"]
    columns = (
        Column(None, "layer", "m × n"),
        Column(None, "core", "a × b, in use"),
        Column(None, "matrices"),
        Column(None, "σ min", "least singular value of the tall dictionary Ψ = L ⊗ Rᵀ (mn × ab)"),
        Column(None, "σ max", "greatest"),
        Column(None, "κ", "σ max/σ min"),
        Column(None, "δ", "max(σ max² − 1, 1 − σ min²), over all cores, at the named scale"),
        Column(None, "δ, best scale", "(κ² − 1)/(κ² + 1), which no choice of scale improves"),
        Column(
            None,
            "Bai-Yin",
            "δ at the best scale from the asymptotic edges (1 ± √(a/m))(1 ± √(b/n))",
        ),
    )
    lines = []
    for (m, n, a, b), group in layers.groupby(["m", "n", "a", "b"], sort=False):
        measures = ("sigma_min", "sigma_max", "kappa", "delta", "scale_free", "bai_yin_scale_free")
        numbers = (number(group[name].median()) for name in measures)
        lines.append((f"{m} × {n}", f"{a} × {b}", count(len(group)), *numbers))
    return View("How the dictionary stretches cores", columns, tuple(lines))


def _bases(sparsity: pd.DataFrame) -> View:
    """Return one row per subject and basis, medians over the matrices."""
    columns = (
        Column(None, "", text=True),
        Column(None, "basis", text=True),
        Column(None, "best in", "matrices where this basis needs the fewest coefficients"),
        Column(None, "s/(mn)", "coefficients that hold 90 % of the energy, median"),
        Column(None, "numerical", "‖x‖₁²/(mn ‖x‖₂²); 64 % for independent Gaussian entries"),
        Column(None, "Gini", "0 all equal, 1 a single one; 0.414 for Gaussian entries"),
        Column(None, "weak-ℓp", "exponent of the decay of the largest tenth"),
        Column(
            None, "σₛ at 1 %", "share of the ℓ1 norm outside the largest 1 %; 96 % for Gaussian"
        ),
        Column(None, "σₛ at 10 %", "outside the largest 10 %; 74 % for Gaussian entries"),
    )
    lines = []
    for (subject, basis), group in sparsity.groupby(["subject", "basis"], sort=False):
        lines.append(
            (
                {"update": "update", "gradient": "gradient"}[str(subject)],
                _BASES[str(basis)],
                count(group["best"].sum()),
                percent((group["effective"] / group["entries"]).median()),
                percent(group["numerical_sparsity_share"].median()),
                number(group["gini"].median()),
                number(group["weak_lp"].median()),
                percent(group["best_term_error_0.01"].median()),
                percent(group["best_term_error_0.1"].median()),
            )
        )
    return View("Sparsity in three bases", columns, tuple(lines))


def _details(document: Document) -> list[View]:
    """Return one row per matrix: every value with its outcome."""
    tables = document.tables
    views = []
    for subject, named in _SUBJECTS.items():
        rows = tables["assumptions"]
        rows = rows[rows["subject"] == subject]
        names = [name for name in ASSUMPTIONS if (rows["assumption"] == name).any()]
        if not names:
            continue
        cores = tables["layers"][tables["layers"]["subject"] == subject].set_index("layer")
        columns = (
            Column(None, "layer", text=True),
            Column(None, "core", "a × b, in use"),
            *(Column(None, ASSUMPTIONS[name].title, ASSUMPTIONS[name].quantity) for name in names),
        )
        lines = []
        for layer, group in rows.groupby("layer", sort=False):
            by_name = group.set_index("assumption")
            cells = (
                f"{number(by_name['value'][name])} {by_name['outcome'][name]}" for name in names
            )
            lines.append((str(layer), f"{cores['a'][layer]} × {cores['b'][layer]}", *cells))
        views.append(View(f"Every matrix, for {named}", columns, tuple(lines)))
    return views


def _terms() -> tuple[tuple[str, str], ...]:
    terms = [
        (
            "Holds, fails, undecided",
            "Every threshold was stated before measuring. An outcome is decided by the whole "
            "interval of a number: it holds or fails only where no value in it says otherwise.",
        ),
        (
            "Intervals",
            "What is measured over random draws of L and R has a 95 % t interval (the error) or "
            "the range of the draws (near-isometry). What is a fact of the update has the range "
            "that the rounding of the stored weights leaves open; that of s also spans the "
            "numerical sparsity ‖x‖₁²/‖x‖₂², that of p a fit to the largest hundredth.",
        ),
    ]
    for one in ASSUMPTIONS.values():
        sign = "≤" if one.relation == "at most" else "≥"
        terms.append(
            (
                one.title[0].upper() + one.title[1:],
                f"{one.meaning[0].upper()}{one.meaning[1:]}. Measured: {one.quantity}; it has "
                f"to be {sign} {one.bound}. {one.reason}",
            )
        )
    terms.append(
        (
            "The best basis",
            "The entries of the matrix, its two-dimensional cosine transform, or its coefficients "
            "in the singular vectors of W: whichever needs the fewest coefficients for 90 % of "
            "the energy. A theory that needs sparsity is given the most favourable of the three.",
        )
    )
    return tuple(terms)


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.audit.figures import AUDIT_FIGURES

    return AUDIT_FIGURES


PRESENTATION = Presentation(
    title="The theory's assumptions on a real update",
    views=_views,
    detail_views=_details,
    figures=_figures,
    terms=_terms(),
)
"""How documents of the command audit are shown."""
