"""The protocol of the solvers, and `METHODS`, in which each of them registers itself."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal, TypeAlias, TypeVar

from cosa_theory.ground.checks import choice, real, whole
from cosa_theory.linear.operators import to_host
from cosa_theory.recovery.result import Solution

__all__ = ["METHODS", "Method", "Monitor", "default_tolerance", "options_of", "solver"]

Monitor: TypeAlias = Callable[[int, float, Any], None]
Solve = TypeVar("Solve", bound=Callable[..., Solution])

_CHECKS: dict[str, Callable[[Any], Any]] = {
    "max_iterations": partial(whole, "max_iterations"),
    "tolerance": partial(real, "tolerance", above=0.0, below=1.0),
    "lam": partial(real, "lam", above=0.0),
    "lam_ratio": partial(real, "lam_ratio", above=0.0),
}
_DEFAULT_TOLERANCE = {8: 1e-8, 4: 1e-5}  # by the bytes of a number


@dataclass(frozen=True)
class Method:
    """A solver: what is called, what it looks for, and how lists and figures show it.

    A solver is one file in `cosa_theory.recovery.solvers`, in which the decorator `solver` enters
    it here. It is a function ``solve(system, Y, *, noise_level=0.0, ...)``, which trusts its
    arguments, because `recover` has looked at them:

    system : System
        Φ, from coefficients (B, m, n) to measurements (B, p, q).
    Y : array or tensor, shape (B, p, q)
        B right-hand sides. Batched solvers work on all of them at once, and let go those that
        are done; the others take one after the other (`cosa_theory.recovery.items`).
    noise_level : float
        σ ≥ 0, a bound on the norm of the noise of each right-hand side.

    Its options are keywords, each with a default. Those of these names mean the same everywhere,
    and it takes those that it has a use for:

    sparsity : int, optional
        s, the number of nonzero coefficients sought, from 1 to min(M, N). Without it the greedy
        solvers try 1, 2, 3, 4, 6, 9, …, each from the answer of the one before, until one explains
        the measurements.
    lam, lam_ratio : float, optional
        λ > 0, the weight of ‖x‖₁, or λ over ‖Φᵀy‖_∞; one of them at most.
    tolerance : float, optional
        Where the relative certificate (`Certificate.relative`) holds, between 0 and 1; by default
        that of `default_tolerance`.
    max_iterations : int
        At least 1, for each right-hand side.
    start : array or tensor, shape (B, m, n), optional
        Coefficients to start from.
    polish : bool
        Whether the linear equations of the optimum are solved on promising supports.
    monitor : callable, optional
        ``monitor(iteration, certificate, coefficients)``, called at each check of the certificate
        with the largest of those still worked on, and their coefficients.

    It returns a `Solution`, with one of `STATUSES` for each right-hand side; its certificate is
    computed from the operator at exit. What is refused is an `InputError`.

    Parameters
    ----------
    name : str
        As `recover` and the command take it.
    solve : callable
        The solver.
    place : int
        Where it stands in lists.
    seeks : str
        What its answer is the best of. Where that are sparse coefficients, least squares on their
        support makes sense.
    arrays : {"any", "numpy"}
        Whether it takes tensors; otherwise they are brought to the host and back.
    on_update : bool
        Whether it works on the unknown itself instead of its coefficients in the sparsifying
        basis.
    exact : bool
        Whether a tolerance of 0 makes sense: as near as rounding allows.
    checks : mapping of str to callable
        For options of its own: returns the value, or raises an `InputError`.
    look : (str, str, str)
        Colour, line and marker in figures, see `cosa_theory.page.style`.
    """

    name: str
    solve: Callable[..., Solution]
    place: int = 99
    seeks: Literal[
        "sparse coefficients",
        "least norm",
        "low rank",
        "sparse image",
        "posterior mean",
        "what is asked",
    ] = "sparse coefficients"
    arrays: Literal["any", "numpy"] = "numpy"
    on_update: bool = False
    exact: bool = False
    checks: Mapping[str, Callable[[Any], Any]] = field(default_factory=dict)
    look: tuple[str, str, str] = ("grey", "-", ".")

    @property
    def label(self) -> str:
        """The name in figures and tables."""
        return self.name.replace("_", " ")

    @property
    def sparse(self) -> bool:
        """Whether its answers are sparse in the sparsifying basis."""
        return self.seeks == "sparse coefficients"

    @property
    def options(self) -> Mapping[str, inspect.Parameter]:
        """What it takes besides the problem itself."""
        parameters = inspect.signature(self.solve).parameters.values()
        return {
            one.name: one
            for one in parameters
            if one.kind is inspect.Parameter.KEYWORD_ONLY and one.name != "noise_level"
        }

    def checked(self, option: str, value: Any) -> Any:
        """Return the value of one option as the solver takes it.

        Raises
        ------
        InputError
            If it is none that the option may have.
        """
        if option == "tolerance" and self.exact:
            return real(option, value, least=0.0, below=1.0)
        check = self.checks.get(option) or _CHECKS.get(option)
        return value if check is None else check(value)


METHODS: dict[str, Method] = {}
"""Every solver by name, in the order of lists."""


def solver(place: int, *, name: str | None = None, **settings: Any) -> Callable[[Solve], Solve]:
    """Enter the function below in `METHODS`, under its own name or another.

    Parameters
    ----------
    place : int
        As in `Method`.
    name : str, optional
        If it is not that of the function.
    **settings
        The further parameters of `Method`.
    """

    def register(solve: Solve) -> Solve:
        known = name or solve.__name__
        entered = {**METHODS, known: Method(known, solve, place, **settings)}
        METHODS.clear()
        METHODS.update(sorted(entered.items(), key=lambda entry: (entry[1].place, entry[0])))
        return solve

    return register


def options_of(method: str) -> Mapping[str, inspect.Parameter]:
    """Return the options that a method takes, besides the problem itself.

    Raises
    ------
    InputError
        If there is no such method.
    """
    return METHODS[choice("method", method, METHODS)].options


def default_tolerance(Y: Any) -> float:
    """Return the tolerance for measurements of a type: 1e-8 in float64 and 1e-5 in float32."""
    return _DEFAULT_TOLERANCE[to_host(Y[:0]).dtype.itemsize]
