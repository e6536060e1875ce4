"""How an audit is shown: outcomes per assumption, per module type, per core, per matrix."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import pandas as pd

from cosa_theory.page.document import Document, Tables
from cosa_theory.page.presentation import Drawing, Presentation
from cosa_theory.page.views import Column, View, count, number, percent, spread
from cosa_theory.studies.audit.assumptions import ASSUMPTIONS, SUBJECTS, Assumption

if TYPE_CHECKING:
    from cosa_theory.page.explorer import Explorer

__all__ = ["PRESENTATION"]


_BASES = {"coordinate": "entries", "dct": "cosine transform", "singular": "singular basis of W"}


Group = pd.DataFrame
"""Rows of a table that share a view's row."""


def _of(table: pd.DataFrame, subject: str) -> pd.DataFrame:
    return table[table["subject"] == subject]


def _groups(table: pd.DataFrame, *names: str) -> list[Group]:
    return [group for _, group in table.groupby(list(names), sort=False)]


def _assumption(group: Group) -> Assumption:
    return ASSUMPTIONS[str(group["assumption"].iloc[0])]


def _threshold(group: Group) -> str:
    return f"{_assumption(group).sign} {spread('threshold', number)(group)}"


def _outcomes(outcome: str) -> Callable[[Group], str]:
    return lambda group: str((group["outcome"] == outcome).sum())


_SUMMARY = (
    Column(None, "assumption", "", lambda group: _assumption(group).title, text=True),
    Column(None, "holds", "", _outcomes("holds")),
    Column(None, "fails", "", _outcomes("fails")),
    Column(
        None,
        "undecided",
        "the threshold lies inside the interval, or the update is zero",
        _outcomes("undecided"),
    ),
    Column(None, "measured", "median over the matrices (range)", spread("value", number)),
    Column(None, "threshold", "median (range)", _threshold),
    Column(None, "in plain words", "", lambda group: _assumption(group).meaning, text=True),
)


def _summary(tables: Tables, subject: str) -> View:
    """Return one row per assumption: in how many matrices it holds, and by how much."""
    rows = _of(tables["assumptions"], subject)
    groups = [rows[rows["assumption"] == name] for name in ASSUMPTIONS]
    title = f"Assumptions, for the {SUBJECTS[subject]}"
    return View.of(title, _SUMMARY, [group for group in groups if len(group)])


def _one(first: str, second: str) -> Callable[[Group], str]:
    """Return a cell for the size that all rows have, if it is one."""

    def cell(group: Group) -> str:
        sizes = group[[first, second]].drop_duplicates().to_numpy()
        return " × ".join(map(str, sizes[0])) if len(sizes) == 1 else "several"

    return cell


_MODULE = (
    Column(None, "module", "", lambda group: str(group["module"].iloc[0]), text=True),
    Column(None, "matrices", "of this type", lambda group: count(len(group))),
    Column(None, "shape", "m × n, out × in features", _one("m", "n")),
    Column(None, "core", "a × b, the core in use", _one("a", "b")),
    Column.median("PR", "participation ratio (Σσ²)²/Σσ⁴, median", "participation_ratio", number),
    Column.median(
        "variance",
        "of ‖ΦX‖², over that of an unstructured Gaussian map, median",
        "variance_factor",
        number,
    ),
    Column.median(
        "s",
        "coefficients that hold 90 % of the energy in the best basis, median",
        "sparsity",
        count,
    ),
    Column.median("s/(mn)", "the same as a share of the entries", "share", percent),
    Column.median("weak-ℓp", "exponent in the best basis, median", "weak_lp", number),
    Column.median("error", "measured, of encoding and decoding, median", "error", number),
    Column.median("law", "√(1 − ab/(mn)), the predicted error, median", "predicted_error", number),
    Column(
        None,
        "holds",
        "outcomes that hold, of all assumptions and matrices",
        lambda group: f"{group['held'].sum()} of {group['judged'].sum()}",
    ),
)


def _modules(tables: Tables, subject: str) -> View:
    """Return one row per module type, medians over its matrices."""
    layers = _of(tables["layers"], subject)
    holds = _of(tables["assumptions"], subject).assign(
        holds=lambda rows: rows["outcome"] == "holds"
    )
    outcomes = holds.groupby("layer")["holds"].agg(held="sum", judged="size")
    rows = layers.assign(share=layers["sparsity"] / (layers["m"] * layers["n"]))
    rows = rows.merge(outcomes, on="layer")
    return View.of(f"By module type, for the {SUBJECTS[subject]}", _MODULE, _groups(rows, "module"))


_CORE = (
    Column(None, "layer", "m × n", _one("m", "n")),
    Column(None, "core", "a × b, in use", _one("a", "b")),
    Column(None, "matrices", "", lambda group: count(len(group))),
    Column.median(
        "σ min",
        "least singular value of the tall dictionary Ψ = L ⊗ Rᵀ (mn × ab)",
        "sigma_min",
        number,
    ),
    Column.median("σ max", "greatest", "sigma_max", number),
    Column.median("κ", "σ max/σ min", "kappa", number),
    Column.median(
        "δ", "max(σ max² − 1, 1 − σ min²), over all cores, at the named scale", "delta", number
    ),
    Column.median(
        "δ, best scale",
        "(κ² − 1)/(κ² + 1), which no choice of scale improves",
        "scale_free",
        number,
    ),
    Column.median(
        "Bai-Yin",
        "δ at the best scale from the asymptotic edges (1 ± √(a/m))(1 ± √(b/n))",
        "bai_yin_scale_free",
        number,
    ),
)


def _cores(tables: Tables) -> View:
    """Return one row per shape of layer and core: how its dictionary stretches cores."""
    groups = _groups(_of(tables["layers"], "update"), "m", "n", "a", "b")
    return View.of("How the dictionary stretches cores", _CORE, groups)


_BASIS = (
    Column(None, "", "", lambda group: str(group["subject"].iloc[0]), text=True),
    Column(None, "basis", "", lambda group: _BASES[str(group["basis"].iloc[0])], text=True),
    Column(
        None,
        "best in",
        "matrices where this basis needs the fewest coefficients",
        lambda group: count(group["best"].sum()),
    ),
    Column.median("s/(mn)", "coefficients that hold 90 % of the energy, median", "share", percent),
    Column.median(
        "numerical",
        "‖x‖₁²/(mn ‖x‖₂²); 64 % for independent Gaussian entries",
        "numerical_sparsity_share",
        percent,
    ),
    Column.median(
        "Gini", "0 all equal, 1 a single one; 0.414 for Gaussian entries", "gini", number
    ),
    Column.median("weak-ℓp", "exponent of the decay of the largest tenth", "weak_lp", number),
    Column.median(
        "σₛ at 1 %",
        "share of the ℓ1 norm outside the largest 1 %; 96 % for Gaussian",
        "best_term_error_0.01",
        percent,
    ),
    Column.median(
        "σₛ at 10 %",
        "outside the largest 10 %; 74 % for Gaussian entries",
        "best_term_error_0.1",
        percent,
    ),
)


def _bases(tables: Tables) -> View:
    """Return one row per subject and basis, medians over the matrices."""
    sparsity = tables["sparsity"]
    rows = sparsity.assign(share=sparsity["effective"] / sparsity["entries"])
    return View.of("Sparsity in three bases", _BASIS, _groups(rows, "subject", "basis"))


def _views(document: Document) -> list[View]:
    tables = document.tables
    subjects = [name for name in SUBJECTS if len(_of(tables["layers"], name))]
    views = [_summary(tables, subject) for subject in subjects]
    views += [_modules(tables, subject) for subject in subjects]
    return [*views, _cores(tables), _bases(tables)]


def _judged(name: str) -> Callable[[Group], str]:
    def cell(group: Group) -> str:
        row = group[group["assumption"] == name].iloc[0]
        return f"{number(row['value'])} {row['outcome']}"

    return cell


def _details(document: Document) -> list[View]:
    """Return one row per matrix: every value with its outcome."""
    views = []
    sizes = document.tables["layers"][["layer", "subject", "a", "b"]]
    rows = document.tables["assumptions"].merge(sizes, on=["layer", "subject"])
    for subject, title in SUBJECTS.items():
        of_subject = _of(rows, subject)
        columns = (
            Column(None, "layer", "", lambda group: str(group["layer"].iloc[0]), text=True),
            Column(None, "core", "a × b, in use", _one("a", "b")),
            *(
                Column(None, one.title, one.quantity, _judged(name))
                for name, one in ASSUMPTIONS.items()
                if (of_subject["assumption"] == name).any()
            ),
        )
        views.append(
            View.of(f"Every matrix, for the {title}", columns, _groups(of_subject, "layer"))
        )
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
        terms.append(
            (
                one.title[0].upper() + one.title[1:],
                f"{one.meaning[0].upper()}{one.meaning[1:]}. Measured: {one.quantity}; it has "
                f"to be {one.sign} {one.bound}. {one.reason}",
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


def _explorer(tables: Tables) -> "Explorer | None":
    from cosa_theory.studies.audit.explorer import explorer

    return explorer(tables)


def _figures() -> Mapping[str, Drawing]:
    from cosa_theory.studies.audit.figures import AUDIT_FIGURES

    return AUDIT_FIGURES


PRESENTATION = Presentation(
    title="The theory's assumptions on a real update",
    tables=("assumptions", "layers", "sparsity", "decay"),
    views=_views,
    detail_views=_details,
    figures=_figures,
    terms=_terms(),
    explorer=_explorer,
)
"""How documents of the command audit are shown."""
