"""The audit of a pair: every assumption on every matrix, one matrix at a time."""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import pandas as pd

from cosa_theory.deltas.gradients import Gradients, match_gradients
from cosa_theory.ground.checks import choice, refuse, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.page.document import Document
from cosa_theory.projections import INFORMED, KINDS
from cosa_theory.spectrum.families.base import Draws
from cosa_theory.studies.audit.layer import AuditSettings, Subjects, audit_layer, identity
from cosa_theory.studies.audit.notices import audit_notices
from cosa_theory.studies.audit.verdict import verdict
from cosa_theory.studies.known_layers import KnownLayers
from cosa_theory.studies.layers import (
    NAME_COLUMNS,
    Pair,
    coverage_of,
    named_tables,
    names_of,
    notices_of,
    on_layers,
)

if TYPE_CHECKING:
    from cosa_theory.nn.moments import Moments

__all__ = ["TABLES", "Audit", "audit_pair"]

_NAMES = {**NAME_COLUMNS, "subject": "object"}
_INTERVAL = ("", "_low", "_high")


def _floats(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "float64")


def _intervals(*names: str) -> dict[str, str]:
    return _floats(*(name + end for name in names for end in _INTERVAL))


TABLES: Mapping[str, Mapping[str, str]] = {
    "assumptions": {
        **_NAMES,
        "assumption": "object",
        **_floats("value", "low", "high", "threshold"),
        **dict.fromkeys(("relation", "outcome", "meaning"), "object"),
    },
    "layers": {
        **_NAMES,
        **dict.fromkeys(("m", "n", "a", "b", "asked_a", "asked_b"), "int64"),
        "rank_budget": "Int64",
        **dict.fromkeys(("base_dtype", "tuned_dtype"), "object"),
        **_floats("norm", "relative_norm", "rounding_rms", "exact_zeros"),
        "rank": "Int64",
        **_floats("stable_rank", "flatness"),
        **_intervals("participation_ratio"),
        **_floats("participation_needed", "variance_factor"),
        "best_basis": "object",
        **_intervals("sparsity"),
        **_floats("numerical_sparsity", "gini"),
        "compressible_basis": "object",
        **_intervals("weak_lp"),
        **_floats("sigma_min", "sigma_max", "kappa", "delta", "bai_yin_scale_free"),
        **_intervals("scale_free"),
        "conditioning_draws": "int64",
        **_floats("predicted_error"),
        **_intervals("error"),
        "captured": "float64",
        "draws": "int64",
    },
    "sparsity": {
        **_NAMES,
        "basis": "object",
        "best": "bool",
        "entries": "int64",
        **_intervals("effective"),
        **_floats("numerical_sparsity", "numerical_sparsity_share", "gini", "weak_lp"),
        **_floats(*(f"best_term_error_{share:g}" for share in (0.001, 0.01, 0.1, 0.5))),
    },
    "decay": {**_NAMES, "basis": "object", **_floats("fraction", "error")},
}
"""The tables of an audit: column to pandas type, the same for an empty table."""


@dataclass(frozen=True)
class Audit:
    """The tables of an audit, which share the columns `layer`, `module`, `block` and `subject`.

    `subject` is "update" for ΔW, "gradient" for the gradient of the first training step.

    Parameters
    ----------
    assumptions : pandas.DataFrame
        One row per matrix, subject and assumption: `assumption` (a name in
        `cosa_theory.audit.ASSUMPTIONS`), `value` with its interval `low` to `high` (null for a
        zero update), `threshold`, `relation` ("at most", "at least"), `outcome` ("holds", "fails",
        "undecided": the threshold lies inside the interval, or there is no number), `meaning`.
        What is about the layer and the core alone stands under the subject "update".
    layers : pandas.DataFrame
        One row per matrix and subject, with every number: sizes `m`, `n`, the core in use `a`,
        `b` and the one asked for; `norm` ‖X‖_F, `relative_norm` to ‖W‖_F, `exact_zeros` (share of
        the entries), `rank` and `flatness` (null below full rank) as in `SpectrumSummary`; the
        measures behind the assumptions with their intervals; `variance_factor`
        (`studies.audit.assumptions.variance_factor`), which is 2 at `participation_needed`;
        `sigma_min` to `scale_free_high`, about the tall dictionary Ψ = L ⊗ Rᵀ (mn × ab), with
        `delta` at the named scale and `bai_yin_scale_free` the asymptotic value of `scale_free`;
        `predicted_error` √(1 − ab/(mn)) beside the measured `error`.
    sparsity : pandas.DataFrame
        One row per matrix, subject and basis: the profile of
        `cosa_theory.spectrum.sparsity_profile` and `effective`, the coefficients that hold 90 %
        of the energy, with its interval; `best` marks the basis with the fewest.
    decay : pandas.DataFrame
        The best s-term error σ_s(x)₁/‖x‖₁ against the `fraction` s/(mn), per basis.
    notices : tuple of str
        Plain sentences a reader of the tables should know.
    """

    assumptions: pd.DataFrame
    layers: pd.DataFrame
    sparsity: pd.DataFrame
    decay: pd.DataFrame
    notices: tuple[str, ...] = ()
    coverage: str = ""

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The four tables by name."""
        return {name: getattr(self, name) for name in TABLES}

    @cached_property
    def verdict(self) -> str:
        """One plain sentence, computed from the tables."""
        return self.coverage + verdict(self.assumptions)

    def document(self, provenance: Mapping[str, Any]) -> Document:
        """Return the tables with their verdict."""
        return Document("audit", self.verdict, self.notices, self.tables, provenance)


def audit_pair(
    pair: Pair,
    *,
    core: tuple[int, int] | None = None,
    rank: int = 8,
    gradients: Any = None,
    kind: str = "gaussian",
    scale: str = "synthesis",
    moments: "Moments | str | os.PathLike[str] | None" = None,
    draws: int = 20,
    seed: int = 0,
    cells: str | os.PathLike[str] | None = None,
    workers: int = 1,
    dask: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Audit:
    """Judge every assumption of the theory on every matrix of a pair.

    Parameters
    ----------
    pair : DeltaPair
        The stream of updates, from `cosa_theory.deltas.open_pair`.
    core : (int, int), optional
        The shape (a, b) of the core of every layer. By default the shape whose parameters are
        those of a LoRA of rank `rank` (see `cosa_theory.studies.audit.core.choose_core`).
    rank : int
        The budget, where `core` is not given.
    gradients : path, mapping or iterable of LayerDelta, optional
        Gradients of the first training step (see `cosa_theory.deltas.gradients.match_gradients`),
        audited beside the updates.
    kind, scale : str
        Ensemble and normalisation of L and R (see `cosa_theory.projections.make_projection`). With
        "activation" the default core is one-sided, a = m. There is no predicted error of the
        informed ones.
    moments : Moments or path, optional
        Second moments of the base model's layers, by the names of their weights, which the informed
        kinds are made from. A matrix stored as inputs × outputs is audited as outputs × inputs.
    draws : int
        The most draws of L and R for the measured error; fewer where the variance law of
        `cosa_theory.laws.energy_variance` says that they tell the captured share to 1 %.
    seed : int
        Seed of the projections; layers are told apart by their names.
    cells : path, optional
        A folder where each finished layer is stored as one small file, to resume from.
    workers : int
        How many matrices to work on at once, each with one thread of linear algebra.
    dask : str, optional
        Address of the scheduler of a running Dask cluster to work on instead, such as
        "tcp://10.0.0.1:8786"; matrices and cells are read and written here alone.
    progress : callable, optional
        Called as ``progress(done, total, name)`` after each layer.

    Returns
    -------
    Audit

    Raises
    ------
    InputError
        If a setting is not one that exists, gradients do not fit, or the stream finds a bad
        tensor.
    ValueError
        If `draws` is below 2, the seed negative or `workers` below 1.
    """
    random = Draws(most=draws, seed=seed)
    choice("kind", kind, (*KINDS, *INFORMED))
    choice("scale", scale, ("analysis", "synthesis"))
    if core is not None and (len(core) != 2 or min(core) < 1):
        raise refuse("core", core, "two positive whole numbers, a and b")
    settings = AuditSettings(core, whole("rank", rank), kind, scale, random.most, random.seed)
    matched = None if gradients is None else match_gradients(gradients, _shapes(pair))
    known = _known(pair, kind, moments)
    results = on_layers(
        partial(audit_layer, settings=settings),
        _subjects(pair, matched, known),
        len(pair),
        identity=partial(identity, settings=settings),
        cells=cells,
        workers=workers,
        dask=dask,
        progress=progress,
    )
    tables = named_tables(results, TABLES)
    notices = notices_of(pair) + (matched.notices if matched else ())
    notices += tuple(audit_notices(tables["layers"], settings.rank))
    return Audit(**tables, notices=notices, coverage=coverage_of(pair))


def _shapes(pair: Any) -> dict[str, tuple[int, int]]:
    """Return the names and shapes of the matrices; from the plan of a pair where it has one."""
    return {layer.name: layer.shape for layer in getattr(pair, "layers", pair)}


def _known(
    pair: Pair, kind: str, moments: "Moments | str | os.PathLike[str] | None"
) -> KnownLayers | None:
    """Return what an informed kind is made from; refuse where it is missing, or of no use."""
    if (moments is None) == (kind in INFORMED):
        raise InputError(
            f"moments is missing: kind {kind} is made from moments of the base model's layers"
            if moments is None
            else f"moments are given, but kind {kind} is drawn from its seed alone: leave them "
            f"out, or take one of the kinds {', '.join(INFORMED)}",
            argument="moments",
        )
    if moments is None:
        return None
    return KnownLayers(moments, names_of(pair), gradients=kind == "gradient").complete()


def _subjects(
    pair: Pair, gradients: Gradients | None, known: KnownLayers | None
) -> Iterator[Subjects]:
    """Yield each update with its gradient; nothing is held when the next is read."""
    for layer in pair:
        gradient = None if gradients is None else gradients.of(layer)
        about = None if known is None else known.of(layer)
        if about is not None and about.transposed:
            gradient = None if gradient is None else gradient.T
            layer = layer.T
        yield Subjects(layer, gradient, about)
        del layer, gradient
