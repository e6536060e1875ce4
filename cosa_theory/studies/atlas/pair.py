"""Every family of updates on every layer of a model, at budgets of the whole model."""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING, Any

import pandas as pd

from cosa_theory.deltas.gradients import Gradients, match_gradients
from cosa_theory.deltas.layers import module_and_block
from cosa_theory.ground.checks import choice, whole
from cosa_theory.ground.errors import InputError
from cosa_theory.page.document import Document
from cosa_theory.spectrum.families.base import FAMILIES, Draws
from cosa_theory.spectrum.families.compare import typed_frame
from cosa_theory.spectrum.families.joint import JOINT
from cosa_theory.studies.atlas.functions import Parts, family_approximations, function_of_families
from cosa_theory.studies.atlas.layer import (
    AtlasSettings,
    Charted,
    allotted,
    chart_layer,
    identity,
)
from cosa_theory.studies.atlas.pooling import FUNCTION_COLUMNS, POOLED_COLUMNS, pool_atlas
from cosa_theory.studies.atlas.shared import Charting, Group
from cosa_theory.studies.atlas.verdict import verdict
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
    from cosa_theory.spectrum.approximations import Approximation

__all__ = ["BUDGETS", "Atlas", "atlas_pair"]

BUDGETS = (10_000, 100_000, 1_000_000)
"""Trainable parameters of the whole model at which families are compared by default."""

LAYER_COLUMNS = {**NAME_COLUMNS, "m": "int64", "n": "int64", "delta_norm": "float64"}
FAMILY_COLUMNS = {
    **NAME_COLUMNS,
    "family": "object",
    "budget": "int64",
    "parameters": "int64",
    "size": "object",
    "captured": "float64",
    "ci_low": "float64",
    "ci_high": "float64",
    "law": "float64",
    "noise": "float64",
    "bits": "float64",
    "frozen": "Int64",
    "multiply_adds": "Int64",
}
TABLES = {"layers": LAYER_COLUMNS, "families": FAMILY_COLUMNS}


@dataclass(frozen=True)
class Atlas:
    """The tables of an atlas.

    Parameters
    ----------
    layers : pandas.DataFrame
        One row per matrix: `layer`, `module`, `block`, `m`, `n`, `delta_norm` ‖ΔW‖_F.
    families : pandas.DataFrame
        One row per matrix, family and budget: `budget` (of the whole model), `parameters` (trained
        here, 0 where the family has no update of so few), `size` in words, or why there is none;
        `captured` with `ci_low` and `ci_high`, `law` P/(mn) of oblivious families, `noise` (what
        independent noise of this shape gives); `bits` stored, `frozen` numbers and `multiply_adds`
        of an unmerged forward pass for each token.
    pooled : pandas.DataFrame
        The same of all matrices together, see `pool_atlas`.
    notices : tuple of str
        Plain sentences a reader of the tables should know.
    coverage : str
        How the verdict begins where the tables are of a part of the layers.
    """

    layers: pd.DataFrame
    families: pd.DataFrame
    pooled: pd.DataFrame
    notices: tuple[str, ...] = ()
    coverage: str = ""

    @cached_property
    def verdict(self) -> str:
        """What a reader would choose by, computed from the tables."""
        return self.coverage + verdict(self.pooled)

    def document(self, provenance: Mapping[str, Any]) -> Document:
        """Return the tables with their verdict."""
        tables = {name: getattr(self, name) for name in ("pooled", "families", "layers")}
        return Document("atlas", self.verdict, self.notices, tables, provenance)


def atlas_pair(
    pair: Pair,
    *,
    budgets: Iterable[int] = BUDGETS,
    families: Iterable[str] | None = None,
    draws: int = 4,
    seed: int = 0,
    moments: "Moments | str | os.PathLike[str] | None" = None,
    gradients: Any = None,
    function: "Callable[[list[Approximation]], pd.DataFrame] | None" = None,
    cells: str | os.PathLike[str] | None = None,
    workers: int = 1,
    dask: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Atlas:
    """Measure what every family can express of a model's update.

    Parameters
    ----------
    pair : DeltaPair
        The stream of updates, from `cosa_theory.deltas.open_pair`.
    budgets : iterable of int
        Trainable parameters of the whole model, spread over its matrices in proportion to m + n.
    families : iterable of str, optional
        Names from `FAMILIES`; all by default.
    draws : int
        The most draws of a random family for one layer and budget.
    seed : int
        Of projections, masks and noise; layers are told apart by their names.
    moments : Moments or path, optional
        Second moments of the base model's layers: adds the informed cores.
    gradients : path, mapping or iterable of LayerDelta, optional
        Of the first training step, as `cosa_theory.deltas.gradients.match_gradients` takes them:
        adds the mask of the largest.
    function : callable, optional
        Maps approximations to what they return of the model's function, the table `function` of
        the study of that name. Without it the atlas is one of energies.
    cells : path, optional
        A folder where each finished layer is stored: an interrupted atlas resumes.
    workers, dask, progress
        As for `cosa_theory.survey.survey_pair`; families that layers share are measured last, in
        this process.

    Returns
    -------
    Atlas

    Raises
    ------
    InputError
        If a budget or family is not one that exists, all updates are zero, the stream finds a
        bad tensor, or gradients or moments are not of these layers.
    """
    chosen = tuple(dict.fromkeys(choice("families", one, FAMILIES) for one in families or FAMILIES))
    totals = tuple(sorted({whole("budgets", one) for one in budgets}))
    if not totals:
        raise InputError("budgets is empty: give numbers, as in 1e4,1e5,1e6", argument="budgets")
    known = None if moments is None else KnownLayers(moments, names_of(pair))
    sizes = _shapes(pair)
    slopes = None if gradients is None else match_gradients(gradients, sizes)
    parts = {
        total: dict(zip(sizes, allotted(sizes.values(), total), strict=True)) for total in totals
    }
    settings = AtlasSettings(chosen, Draws(most=draws, seed=seed).most, seed)
    joint = [name for name in chosen if name in JOINT]
    steps = len(sizes) + len(_groups(joint, sizes, parts))
    results = on_layers(
        partial(chart_layer, settings=settings),
        _charted(pair, parts, known, slopes),
        steps,
        identity=partial(identity, settings=settings),
        cells=cells,
        workers=workers,
        dask=dask,
        progress=progress,
    )
    tables = named_tables(results, TABLES)
    live = set(tables["layers"].query("delta_norm > 0")["layer"])
    if not live:
        raise InputError("every update is zero: the two models have the same weights")
    shared = Charting(pair, {result["name"]: result for result in results}, seed)
    groups = on_layers(
        shared.rows,
        _groups(joint, {name: shape for name, shape in sizes.items() if name in live}, parts),
        steps,
        identity=shared.identity,
        cells=cells if function is None else None,  # a cell keeps no fit
        workers=workers,
        dask=None,
        progress=None if progress is None else partial(_after, progress, len(sizes)),
    )
    rows = [{**_named(layer), **row} for group in groups for layer, row in group["rows"].items()]
    whole_table = pd.concat([tables["families"], typed_frame(rows, FAMILY_COLUMNS)])
    order = {name: place for place, name in enumerate(FAMILIES)}
    whole_table = whole_table.sort_values(
        ["layer", "family", "budget"],
        key=lambda column: column.map(order) if column.name == "family" else column,
        kind="stable",
        ignore_index=True,
    )
    pooled = typed_frame(pool_atlas(whole_table, tables["layers"]), POOLED_COLUMNS)
    if function is not None:
        trials = list(family_approximations(chosen, parts, shared, slopes))
        returned = function_of_families(function([one for *_, one in trials]), trials)
        told = pooled.drop(columns=list(FUNCTION_COLUMNS)).merge(returned, on=["family", "budget"])
        pooled = told.astype(POOLED_COLUMNS)[list(POOLED_COLUMNS)]
    notices = notices_of(pair) + tuple(known.notices if known else ())
    notices += slopes.notices if slopes else ()
    return Atlas(tables["layers"], whole_table, pooled, notices, coverage_of(pair))


def _shapes(pair: Pair) -> dict[str, tuple[int, int]]:
    """Return names and shapes of the matrices, from the plan of a pair where it has one."""
    return {layer.name: layer.shape for layer in getattr(pair, "layers", pair)}


def _charted(
    pair: Pair,
    parts: Parts,
    known: KnownLayers | None,
    slopes: Gradients | None,
) -> Iterator[Charted]:
    """Yield each layer with its part of every budget; nothing is held when the next is read."""
    for layer in pair:
        own = tuple(part[layer.name] for part in parts.values())
        slope = None if slopes is None else slopes.of(layer)
        yield Charted(
            layer,
            tuple(parts),
            own,
            None if known is None else known.of(layer),
            None if slope is None else slope.delta,
        )
        del layer, slope


def _groups(
    names: Iterable[str], sizes: Mapping[str, tuple[int, int]], parts: Parts
) -> list[Group]:
    """Return the groups that joint families take together: all layers, or those of one kind.

    A kind is a module and a shape.
    """
    groups: dict[Any, dict[str, int]] = {}
    for name, (budget, part) in product(names, parts.items()):
        for layer, shape in sizes.items():
            kind = (module_and_block(layer)[0], shape) if JOINT[name].one_shape else None
            groups.setdefault((name, budget, kind), {})[layer] = part[layer]
    return [Group(name, budget, part) for (name, budget, _), part in groups.items()]


def _after(
    progress: Callable[[int, int, str], None], before: int, done: int, total: int, name: str
) -> None:
    """Tell of work after `before` layers."""
    progress(before + done, total, name)


def _named(layer: str) -> dict[str, Any]:
    module, block = module_and_block(layer)
    return {"layer": layer, "module": module, "block": block}
