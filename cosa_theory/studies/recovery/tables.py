"""The tables of one recovered update: what was solved, how well, and what can be expected of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cosa_theory.linear.operators import to_host

if TYPE_CHECKING:
    import pandas as pd

    from cosa_theory.recovery import RecoveryProblem, RecoveryResult

__all__ = ["recovery_limits", "recovery_tables"]

_CHECKED = ("iteration", "objective", "certificate")
_POINTS = 2000  # of a sorted curve that are kept: more than a figure can show


def recovery_limits(shape: tuple[int, int], core: tuple[int, int]) -> dict[str, float]:
    """Return how many nonzero entries of ΔW (m, n) its core (a, b) can identify, by theory.

    ``every``: half of the spark, beyond which some updates share their core whatever the method (a
    CoSA core: min(a, b)/2). ``random``: where ℓ1 stops finding updates with entries at random
    places, M·ρ(M/N) (Donoho and Tanner), for unstructured Gaussian measurements. ``column`` and
    ``row``: the same for entries packed in one column or one row, for Gaussian factors. Infinite
    where the operator loses nothing.
    """
    from cosa_theory.laws import uniform_sparsity_limit
    from cosa_theory.laws.recovery import l1_weak_threshold

    (m, n), (a, b) = shape, core
    sides = [rows for rows, columns in ((a, m), (b, n)) if rows < columns]
    if not sides:
        return dict.fromkeys(("every", "random", "column", "row"), math.inf)
    used = min(a, m) * min(b, n)
    return {
        "every": float(uniform_sparsity_limit(min(sides), min(sides))),
        "random": used * float(l1_weak_threshold(used / (m * n))),
        "column": a * float(l1_weak_threshold(a / m)) if a < m else math.inf,
        "row": b * float(l1_weak_threshold(b / n)) if b < n else math.inf,
    }


def recovery_tables(
    problem: RecoveryProblem,
    result: RecoveryResult,
    described: Mapping[str, Any],
    least_norm: Any = None,
) -> dict[str, pd.DataFrame]:
    """Return everything the terminal, the page and the figures show, of one right-hand side.

    ``result``, one row with the further columns `described`; ``history``, one row per check;
    ``spectrum`` and ``magnitudes``, the sorted singular values and coefficients of the estimate
    (``of`` = "estimate"), and of the truth and the error where the problem has a truth, which is
    compared with here, after the fact; ``scores``, the errors of the answers, beside them that of
    the least-norm update (m, n) if it is given.
    """
    import pandas as pd

    matrices = {"estimate": _float64(result.estimate)}
    if problem.truth is not None:
        matrices["truth"] = _float64(problem.truth)
        matrices["error"] = matrices["estimate"] - matrices["truth"]
    tables = {
        "result": pd.DataFrame([_row(problem, result, described)]),
        "history": _history(result),
        "spectrum": _spectra(matrices),
        "magnitudes": _magnitudes(problem, matrices),
    }
    if problem.truth is not None:
        tables["scores"] = _scores(result, matrices["truth"], least_norm)
    return tables


def _float64(array: Any) -> NDArray[np.float64]:
    return np.asarray(to_host(array), dtype=np.float64)


def _row(
    problem: RecoveryProblem, result: RecoveryResult, described: Mapping[str, Any]
) -> dict[str, Any]:
    from cosa_theory.recovery import METHODS
    from cosa_theory.recovery.support import support_of

    (a, b), (m, n) = problem.operator.range_shape, problem.update_shape
    certificate = result.certificate
    limits = recovery_limits((m, n), (a, b))
    return {
        "method": result.method,
        "formula": result.formula,
        "objective": result.objective,
        "status": result.status,
        "message": result.message,
        "certificate": certificate.kind,
        "value": certificate.value,
        "relative": certificate.relative,
        "tolerance": certificate.tolerance,
        "holds": bool(certificate.holds),
        "residual": result.residual,
        "noise_level": problem.noise_level,
        "core_norm": float(np.linalg.norm(_float64(problem.measurements))),
        "estimate_norm": float(np.linalg.norm(_float64(result.estimate))),
        "m": m,
        "n": n,
        "a": a,
        "b": b,
        "basis": problem.transform.name,
        "sparse": METHODS[result.method].sparse,
        "nonzeros": int(support_of(result.coefficients).size),
        **{f"limit_{name}": value for name, value in limits.items()},
        "iterations": result.iterations,
        "seconds": result.seconds,
        **described,
    }


def _history(result: RecoveryResult) -> pd.DataFrame:
    """Return the checks of the one right-hand side, in plain columns."""
    import pandas as pd

    if not result.history:
        return pd.DataFrame(columns=list(_CHECKED), dtype=float)
    columns = {name: np.asarray(values) for name, values in result.history.items()}
    flat = {name: one if one.ndim == 1 else one[:, 0] for name, one in columns.items()}
    return pd.DataFrame(flat)


def _spectra(matrices: Mapping[str, NDArray[np.float64]]) -> pd.DataFrame:
    import pandas as pd

    from cosa_theory.spectrum import resolution, singular_values

    parts = []
    for of, matrix in matrices.items():
        sigma = singular_values(matrix) if matrix.any() else np.zeros(min(matrix.shape))
        columns = {
            "of": of,
            "index": np.arange(1, sigma.size + 1),
            "sigma": sigma,
            "resolved": sigma > resolution(sigma),
        }
        parts.append(pd.DataFrame(columns))
    return pd.concat(parts, ignore_index=True)


def _magnitudes(
    problem: RecoveryProblem, matrices: Mapping[str, NDArray[np.float64]]
) -> pd.DataFrame:
    """Return the sorted coefficients at ranks that are evenly spaced in their logarithm."""
    import pandas as pd

    parts = []
    for of, matrix in matrices.items():
        coefficients = np.abs(problem.transform.forward(matrix)).ravel()
        ordered = np.sort(coefficients)[::-1]
        ranks = np.unique(np.geomspace(1, ordered.size, _POINTS).round().astype(np.int64))
        parts.append(pd.DataFrame({"of": of, "rank": ranks, "magnitude": ordered[ranks - 1]}))
    return pd.concat(parts, ignore_index=True)


def _scores(result: RecoveryResult, truth: NDArray[np.float64], least_norm: Any) -> pd.DataFrame:
    """Return the error of every answer, and the share of ‖ΔW‖² that it explains."""
    import pandas as pd

    from cosa_theory.recovery import relative_error

    answers = {"estimate": result.estimate, "debiased": result.debiased, "least norm": least_norm}
    rows = []
    for answer, update in answers.items():
        if update is not None:
            error = relative_error(update, truth)
            rows.append({"answer": answer, "relative_error": error, "share": 1 - error**2})
    return pd.DataFrame(rows)
