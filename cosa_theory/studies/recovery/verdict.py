"""What one recovery found out, in one line: the answer, its certificate, and what to expect."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from cosa_theory.page.views import count, number, percent
from cosa_theory.recovery import METHODS

__all__ = ["places", "recover_verdict", "unit_of"]

_UNITS = {
    "coordinate": "entries",
    "dct": "cosine coefficients",
    "wavelet": "wavelet coefficients",
    "singular": "coefficients in the singular basis of W",
}
_DONE = ("optimal", "fitted")
# A relative residual up to which the core is explained, but for shrinkage and rounding.
_EXACT = 1e-4
_REACHED = {
    "duality gap": "to a duality gap of {}",
    "residual": "to a residual of {}",
    "normal equations": "up to an error of {} in the normal equations",
}


def recover_verdict(tables: Mapping[str, pd.DataFrame]) -> str:
    """Return what was found, to which certificate, and what to expect of it, on one line."""
    row = tables["result"].iloc[0].to_dict()
    sentences = [_found(row), _solved(row), _expected(row)]
    if "scores" in tables:
        sentences.append(_scored(tables["scores"]))
    return " ".join(sentence for sentence in sentences if sentence)


def unit_of(row: Mapping[Any, Any]) -> str:
    """Return what the coefficients of a result are called."""
    return _UNITS.get(row["basis"], f"coefficients in the basis {row['basis']}")


def _nonzeros(row: Mapping[Any, Any]) -> str:
    if not row["sparse"]:
        return ""
    return f", with {count(row['nonzeros'])} of {count(row['m'] * row['n'])} {unit_of(row)} nonzero"


def _fit(row: Mapping[Any, Any]) -> str:
    return f"fits the core to a relative residual of {number(row['residual'])}{_nonzeros(row)}"


def _found(row: Mapping[Any, Any]) -> str:
    """Say first whether there is an answer."""
    method, status = row["method"], row["status"]
    if status in _DONE and row["estimate_norm"] == 0:
        return f"{method} found nothing but the zero update."
    if status in _DONE:
        return f"{method} found an update that {_fit(row)}."
    plural = "s" * (row["iterations"] != 1)
    reached = (
        f"after {count(row['iterations'])} iteration{plural} its {row['certificate']} is "
        f"{number(row['relative'])} {_relative_to(row)}, above the tolerance of "
        f"{number(row['tolerance'])}"
    )
    remedies = {
        "iteration limit": (f"{method} did not converge", "; raise --max-iterations"),
        "stalled": (f"{method} stalled", ", and it makes no more progress as it was set"),
        "diverged": (f"{method} diverged", "; try another method"),
    }
    what, remedy = remedies[status]
    return f"{what}: {reached}{remedy}. Its best iterate {_fit(row)}."


def _solved(row: Mapping[Any, Any]) -> str:
    """Name the objective, and the certificate where it holds."""
    if row["status"] not in _DONE:
        return f"It was to minimise {row['formula']}."
    reached = (
        f"{_REACHED[row['certificate']].format(number(row['value']))} "
        f"({number(row['relative'])} {_relative_to(row).strip('()')}, tolerance "
        f"{number(row['tolerance'])})"
    )
    if row["status"] == "optimal":
        return f"It minimised {row['formula']}, {reached}."
    return (
        f"It sought to minimise {row['formula']}, and came {reached}; that no better update "
        "exists is not proved."
    )


def _relative_to(row: Mapping[Any, Any]) -> str:
    """Say what the relative certificate is measured in: σ, where a residual may reach it."""
    if row["certificate"] == "residual" and row["noise_level"] > 0:
        return "times the noise level"
    return "(relative)"


def _expected(row: Mapping[Any, Any]) -> str:
    """Say whether theory lets this answer be the update that was measured."""
    a, b, m, n = (row[name] for name in "abmn")
    every, random, s = row["limit_every"], row["limit_random"], row["nonzeros"]
    if math.isinf(every):
        return ""
    seeks = METHODS[row["method"]].seeks
    if seeks == "least norm":
        share = percent(min(a, m) * min(b, n) / (m * n))
        return f"A core of {a} × {b} keeps on average {share} of ‖ΔW‖², the share ab/(mn)."
    if seeks == "posterior mean":
        return "It is the likeliest update under the prior; for a given update no law is known."
    if seeks == "low rank":
        return "A low rank alone does not identify ΔW: some rank-one updates have a zero core."
    if not row["sparse"]:
        return ""
    if s == 0:
        best = "With so large a λ no other update is as good: take a smaller one."
        return best if row["status"] in _DONE else ""
    if s > random:
        return (
            f"So many nonzero {unit_of(row)} are more than the about {places(random)} up to which "
            "ℓ1 can be expected to succeed: do not take it for the update that was measured, and "
            "make sure that basis, projections and noise level are the right ones."
        )
    if s > every:
        return (
            f"Beyond {count(every)} nonzero {unit_of(row)} some updates share their core; ℓ1 finds "
            f"most that are spread at random, up to at most about {places(random)} (packed in one "
            f"column {places(row['limit_column'])}, in one row {places(row['limit_row'])})."
        )
    if row["noise_level"] == 0 and row["residual"] <= _EXACT:
        return (
            f"No two updates with at most {count(every)} nonzero {unit_of(row)} share a core, if "
            "the factors are in general position, as Gaussian ones are."
        )
    return ""


def places(limit: float) -> str:
    """Return the whole number of nonzeros up to a limit, which need not be whole."""
    return "any number" if math.isinf(limit) else count(math.floor(limit))


def _scored(scores: pd.DataFrame) -> str:
    errors = scores.set_index("answer")["relative_error"]
    shares = scores.set_index("answer")["share"]
    debiased = f" ({number(errors['debiased'])} debiased)" if "debiased" in errors else ""
    share = shares["estimate"]
    back = f"{percent(share)} of ‖ΔW‖² comes back" if share > 0 else "nothing of ‖ΔW‖² comes back"
    plain = f"; least norm has {number(errors['least norm'])}" if "least norm" in errors else ""
    return (
        f"Against the truth the relative error is {number(errors['estimate'])}{debiased}, "
        f"{back}{plain}."
    )
