"""What `experiments.recovery` sweeps: its settings, their checks and the presets."""

from dataclasses import dataclass
from typing import Any

from cosa_theory.ground.checks import choice, real, refuse, whole
from cosa_theory.projections import KINDS
from cosa_theory.recovery import BASES, METHODS
from experiments import finetune_delta
from experiments.synthetic_updates import UPDATES, check_parameter

__all__ = ["LEFT_OUT", "PRESETS", "Config", "Options", "Solver", "Update"]

LEFT_OUT = {
    "best_core": "its unknown is a core, not an update",
    "reference": "cvxpy is for about a thousand unknowns",
    "nuclear": "it is for updates of low rank, which the sweep over compressions gives it",
}
"""Methods that the sweeps of sparse updates do without, and why."""

_BOUNDS = {"fista": 1500, "basis_pursuit": 1500, "bpdn": 2000, "analysis": 2000}
"""Iterations of methods that take many where a sparse update does not come back."""

Update = tuple[str, float]
Options = tuple[tuple[str, Any], ...]
Solver = tuple[str, Options]


@dataclass(frozen=True)
class Config:
    """What is swept.

    Attributes
    ----------
    shape : tuple of int
        (m, n) of synthetic updates.
    share : float
        ab/(mn) at the centre; a = m√share and b = n√share, rounded.
    shares : tuple of float
        The compressions of synthetic updates.
    updates : tuple of (str, float)
        Kinds of `experiments.synthetic_updates.UPDATES` with their parameters, for the sweep over
        compressions. The first is the centre of the others, and must be sparse.
    sparsities : tuple of int
        Numbers of nonzero coefficients.
    noises : tuple of float
        ‖noise‖/‖Φ vec(ΔW)‖; the solvers are told this norm.
    kinds : tuple of str
        Ensembles; the first is that of all other sweeps.
    bases : tuple of str
        Sparsifying bases, of the truth and of the solver.
    solvers : tuple of (str, tuple of (str, value))
        Methods of `cosa_theory.recovery.METHODS`, with options, for sparsities and noises.
    few : tuple of the same
        For the other sweeps of synthetic updates.
    draws : int
        Independent draws of update, factors and noise.
    base, tuned : str
        The pair of checkpoints with the real updates. Where `experiments.finetune_delta` has not
        made the default ones, real updates are left out, which the verdict says.
    layers : tuple of str
        Regular expressions that choose real updates; none leaves them out.
    real_shares : tuple of float
        Compressions of real updates.
    largest_product : int
        Real updates are left out at compressions where amn, the multiplications of a product with
        one factor, is more than this.
    real_solvers : tuple of (str, tuple of (str, value))
        For real updates, in every basis; least norm, which is the same in each, is added.
    seed : int
        Of all draws.
    """

    shape: tuple[int, int] = (64, 48)
    share: float = 0.25
    shares: tuple[float, ...] = (0.04, 0.1, 0.25, 0.5, 0.75)
    updates: tuple[Update, ...] = (
        ("sparse", 60),
        ("low rank", 4),
        ("power law", 1.0),
        ("flat", 0),
    )
    sparsities: tuple[int, ...] = (30, 60, 90, 120, 150, 200)
    noises: tuple[float, ...] = (0.001, 0.01, 0.03, 0.1, 0.3)
    kinds: tuple[str, ...] = KINDS
    bases: tuple[str, ...] = BASES
    solvers: tuple[Solver, ...] = tuple(
        (name, (("max_iterations", _BOUNDS[name]),) if name in _BOUNDS else ())
        for name in METHODS
        if name not in LEFT_OUT
    )
    few: tuple[Solver, ...] = (
        ("least_norm", ()),
        ("basis_pursuit", (("max_iterations", 1500),)),
    )
    draws: int = 3
    base: str = str(finetune_delta.DEFAULT_OUT / "base.safetensors")
    tuned: str = str(finetune_delta.DEFAULT_OUT / "tuned.safetensors")
    layers: tuple[str, ...] = (
        "encoder.layer.0.attention.self.query.weight",
        "encoder.layer.[45].attention.self.value.weight",
        "encoder.layer.2.attention.output.dense.weight",
        "encoder.layer.3.intermediate.dense.weight",
        "embeddings.position_embeddings.weight",
    )
    real_shares: tuple[float, ...] = (0.04, 0.1, 0.25, 0.5)
    largest_product: int = 200_000_000
    real_solvers: tuple[Solver, ...] = (
        ("basis_pursuit", (("tolerance", 0.05), ("max_iterations", 400), ("polish", False))),
        ("fista", (("lam_ratio", 0.1), ("tolerance", 0.01), ("max_iterations", 200))),
    )
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.shape) != 2 or min(self.shape) < 2:
            raise refuse("shape", self.shape, "(m, n) with m and n of at least 2")
        for share in (self.share, *self.shares, *self.real_shares):
            real("share", share, above=0, most=1)
        for noise in self.noises:
            real("noise", noise, least=0, below=1)
        whole("draws", self.draws)
        for kind in self.kinds:
            choice("kinds", kind, KINDS)
        for basis in self.bases:
            choice("bases", basis, BASES)
        for kind, _ in self.updates:
            choice("updates", kind, UPDATES)
        for kind, parameter in (*self.updates, *(("sparse", s) for s in self.sparsities)):
            check_parameter(kind, *self.shape, parameter)
        for method, _ in (*self.solvers, *self.few, *self.real_solvers):
            choice("method", method, METHODS)
        if not self.kinds or not self.updates or self.updates[0][0] != "sparse":
            raise ValueError("there must be an ensemble, and a sparse update to begin with")


PRESETS = {
    "quick": Config(),
    "full": Config(
        shape=(128, 96),
        shares=(0.04, 0.07, 0.1, 0.17, 0.25, 0.35, 0.5, 0.75),
        updates=(
            *(("sparse", 240), ("low rank", 4), ("low rank", 16), ("power law", 0.5)),
            *(("power law", 1.0), ("power law", 2.0), ("flat", 0), ("noise", 0)),
            ("low rank + sparse", 8),
        ),
        sparsities=(60, 120, 240, 360, 480, 600, 720, 960),
        draws=10,
        layers=("encoder.layer.*weight", "embeddings.position_embeddings.weight"),
        largest_product=10**10,
        real_solvers=(
            ("basis_pursuit", (("tolerance", 0.01), ("max_iterations", 1500), ("polish", False))),
            *(
                ("fista", (("lam_ratio", ratio), ("tolerance", 0.01), ("max_iterations", 1500)))
                for ratio in (0.3, 0.1, 0.03, 0.01)
            ),
        ),
    ),
}
