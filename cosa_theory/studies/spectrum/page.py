"""The page of a survey: the comparison at equal parameters, figures, layers, paper checks."""

import os
from collections.abc import Mapping
from html import escape
from pathlib import Path

import pandas as pd
from matplotlib.figure import Figure

from cosa_theory.ground.files import atomic_path
from cosa_theory.page.document import Document, read_document
from cosa_theory.page.html import (
    figures_html,
    headline_html,
    notices_html,
    page_html,
    record_html,
    section_html,
    table_html,
    terms_html,
)
from cosa_theory.page.presentations import PRESENTATIONS
from cosa_theory.page.results import AUDIT, FINETUNE, PAGE, RECOVERY, Results
from cosa_theory.page.results import FIGURES as FIGURE_FOLDER
from cosa_theory.page.style import family_style, save_figure
from cosa_theory.page.views import number, percent
from cosa_theory.studies.spectrum.budgets import at_budget, middle_budget
from cosa_theory.studies.spectrum.family_curves import pool_families
from cosa_theory.studies.spectrum.figures import FIGURES, draw_figures
from cosa_theory.studies.spectrum.views import family_view, layer_view, measured_family, module_view

__all__ = ["render_page", "write_page"]

# Plain HTML: constants of this file, unlike everything that comes from tables.
TERMS = (
    (
        "Equal trainable parameters",
        "A budget is that of a LoRA of rank r, P = r(m + n) for an m × n matrix. The CoSA core "
        "gets the largest a × b with ab ≤ P near am = bn, which keeps its frozen projections "
        "small; LoRA-XS gets an r × r core with r² ≤ P. No family ever has more than P.",
    ),
    (
        "Captured share",
        "The largest part of ‖ΔW‖² (squared Frobenius norm) that a family of this size can "
        "express: the r largest squared singular values for low rank; "
        "‖P<sub>L</sub> ΔW P<sub>R</sub>‖² for CoSA, whose P<sub>L</sub> and P<sub>R</sub> project "
        "onto the ranges of the random L and R; ‖U<sub>r</sub>ᵀ ΔW V<sub>r</sub>‖² for LoRA-XS, "
        "with the top singular vectors of W. It says what could be represented, not what training "
        "would find.",
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
        "Stable rank, participation ratio, flatness",
        "‖ΔW‖²/σ₁²; (Σσ²)²/Σσ⁴; and the geometric over the arithmetic mean of σ². All grow with "
        "the evenness of the spectrum: from 1 to min(m, n) for the first two, from 0 to 1 for "
        "the last.",
    ),
    (
        "Noise edge and spikes",
        "The Marchenko-Pastur edge of independent noise whose level is fitted to the middle of "
        "the spectrum, and the number of singular values above it; shown only where the tail is "
        "distributed like such noise (Kolmogorov-Smirnov distance at most 0.1), which slowly "
        "decaying spectra are not. The rounding edge is that of "
        "the rounding error of the stored number type alone.",
    ),
    (
        "Resolution",
        "Singular values come from the float64 Gram matrix on the short side. Below 1e-7 σ₁ they "
        "are not resolved, and are marked so.",
    ),
)


def _bars(results: Results) -> str:
    """Return the pooled shares of low rank, LoRA-XS and one CoSA ensemble as bars."""
    rank = middle_budget(results.crossover)
    if rank is None:
        return ""
    pooled = pool_families(results.families, results.layers, [rank])
    colours = {"truncated_svd": "--low-rank", "lora_xs": "--basis"}
    wanted = ("truncated_svd", "lora_xs", measured_family(results.families))
    lines = []
    for family in wanted:
        row = pooled[pooled["family"] == family]
        if len(row):
            share = float(row["captured"].iloc[0])
            label = escape(family_style(str(family)).label)
            colour = colours.get(str(family), "--cosa")
            bar = f'<i style="width:{80 * share:.2f}%;background:var({colour})"></i>'
            lines.append(
                f'<span>{label}</span><span class="bar">{bar}<b>{percent(share)}</b></span>'
            )
    if not lines:
        return ""
    return (
        f'<div class="bars">{"".join(lines)}</div>\n'
        "<p>Share of the energy ‖ΔW‖² of the whole update, all compared matrices together, that "
        f"each can express with the trainable parameters of rank {rank}.</p>"
    )


def _facts(results: Results) -> str:
    """Return the handful of numbers that say what was compared."""
    layers = results.layers
    rank = middle_budget(results.crossover)
    facts = [
        (f"{len(layers):,}", "matrices compared"),
        (f"{int((layers['m'] * layers['n']).sum()):,}", "entries in them"),
        (number(layers["relative_norm"].astype(float).median()), "‖ΔW‖/‖W‖, median"),
        (number(layers["stable_rank"].astype(float).median()), "stable rank of ΔW, median"),
        (number(layers["flatness"].astype(float).median()), "flatness of ΔW, median"),
    ]
    if rank is not None:
        ratios = at_budget(results.crossover, rank)["crossover_ratio"].astype(float)
        ratio = number(ratios.median())
        facts.append((ratio, f"crossover ratio at rank {rank}, median"))
    items = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for value, label in facts)
    return f'<dl class="facts">{items}</dl>'


def _checks(checks: pd.DataFrame | None) -> str:
    """Return the verdicts of the paper checks as a table of sentences."""
    if checks is None or checks.empty:
        return ""
    rows = []
    for check in checks.to_dict("records"):
        text = {str(key): escape(str(value)) for key, value in check.items()}
        colour = text["verdict"] if text["verdict"] in ("holds", "fails") else "between"
        rows.append(
            f"<tr><td>{text['id']}</td>"
            f"<td>{text['claim']}<small>Source: {text['source']}</small></td>"
            f'<td class="verdict {colour}">{text["verdict"]}</td>'
            f"<td>{text['summary']}</td>"
            f"<td>{text['criterion']}<small>Measured: {text['quantity']}. {text['method']}</small>"
            "</td></tr>"
        )
    heads = ("", "Claim, in our words", "Verdict", "What was found", "Criterion and method")
    head = "".join(f'<th scope="col">{name}</th>' for name in heads)
    body = "\n".join(rows)
    return (
        "<h2>The paper's claims, checked</h2>\n"
        "<p>Every criterion was stated before measuring, and every verdict is computed from the "
        "numbers. An interval that straddles its threshold is undecided.</p>\n"
        '<div class="scroll" tabindex="0" role="region" aria-label="Paper checks">'
        f'<table class="prose"><thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody></table>'
        "</div>"
    )


def render_page(results: Results) -> str:
    """Return the page as HTML.

    Parameters
    ----------
    results : Results
        The stored tables; nothing is computed but medians and pooled shares.

    Returns
    -------
    str
        One document that needs no other file: the verdict first, then the comparison, the tables,
        the figures, notes on the input and on the method, paper checks and provenance.
    """
    return _render(results, draw_figures(results), {})


# Whose first table and verdict the page sums up, by the folder they are in.
_UNDER = {
    AUDIT: ("audit", "The assumptions of the theory", "Every layer, with figures"),
    RECOVERY: ("experiments", "Recovery from the core", "All tables, with figures"),
    FINETUNE: ("finetune", "Training at equal size", "Every training"),
}


def _summed_up(folder: str, document: Document) -> str:
    """Return the verdict and the first table of a document, and the way to its page."""
    command, title, words = _UNDER[folder]
    table = table_html(PRESENTATIONS[command].views(document)[0])
    page = f"{folder}/{PAGE}"
    link = f'{words}: <a href="{page}">{page}</a>'
    return section_html(title, f"<p>{escape(document.verdict)}</p>\n{table}\n<p>{link}</p>")


def _render(results: Results, figures: Mapping[str, Figure], under: Mapping[str, Document]) -> str:
    arguments = results.provenance.get("arguments", {})
    base, tuned = (escape(str(arguments.get(name, "–"))) for name in ("base", "tuned"))
    sections = "\n".join(_summed_up(folder, document) for folder, document in under.items())
    views = [module_view(results), family_view(results)]
    tables = "\n".join(table_html(view) for view in views if view is not None)
    body = f"""<h1>{headline_html(results.verdict)}</h1>
<p class="inputs">Update ΔW from <b>{base}</b> to <b>{tuned}</b></p>
{_bars(results)}
{_facts(results)}
{section_html("At equal trainable parameters", tables)}
{section_html("Figures", figures_html(figures, FIGURES))}
{section_html("Layers", table_html(layer_view(results)))}
{sections}
{notices_html(results.notices)}
{section_html("How to read this", terms_html(TERMS))}
{section_html("Where these numbers come from", record_html(results.provenance))}
{_checks(results.checks)}"""
    return page_html(f"CoSA against low rank: {base} to {tuned}", body)


def write_page(results: Results, folder: str | os.PathLike[str]) -> Path:
    """Write report.html, and every figure as PDF and PNG in the folder figures.

    Parameters
    ----------
    results : Results
        What to show.
    folder : path
        Created if it is not there. An audit in its folder audit, the recovery experiments in
        its folder recovery and a comparison of trainings in its folder finetune are summed up on
        the page.

    Returns
    -------
    pathlib.Path
        The page.
    """
    page = Path(folder) / PAGE
    under = {
        name: read_document(Path(folder) / name, command)
        for name, (command, _, _) in _UNDER.items()
        if (Path(folder) / name / f"{command}.json").is_file()
    }
    figures = draw_figures(results)
    for name, figure in figures.items():
        save_figure(figure, Path(folder) / FIGURE_FOLDER, name)
    with atomic_path(page) as path:
        path.write_text(_render(results, figures, under), encoding="utf-8")
    return page
